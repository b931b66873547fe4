"""What `--precision` names mean, and whether this device has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Precision:
    """How matrices are multiplied; parameters, gradients, updates and optimizer state stay fp32.

    Attributes:
        autocast: what Accelerate casts the inputs of matrix products to, "no" for nothing.
        matmul: torch's `float32_matmul_precision`, which says what may be left out inside a product.
        device: the only device type that has it; None: all.
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
