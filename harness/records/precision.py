"""What the names of `--precision` mean, and which devices have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Precision:
    """How matrices are multiplied; parameters, gradients, updates and optimizer state stay fp32.

    Attributes:
        autocast: the type to which Accelerate casts the inputs of matrix products; "no": it does not cast.
        matmul: torch's `float32_matmul_precision`: how much a matrix product may round its inputs.
        device: the only type of device that has this precision; None: all have it.
    """

    autocast: Literal["no", "bf16"] = "no"
    matmul: Literal["highest", "high", "medium"] = "highest"
    device: Literal["cpu", "cuda"] | None = None


PRECISIONS = {
    "fp32": Precision(),
    "bf16": Precision(autocast="bf16"),
    "medium": Precision(matmul="medium", device="cpu"),
    "tf32": Precision(matmul="high", device="cuda"),
}
