"""What `--precision` names mean, and whether this device has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.errors import UserError


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


def use(name: str, device: str) -> None:
    """Set torch's products of fp32 matrices as `name` has them, whatever they were before.

    Raises:
        UserError: this device does not have it.
    """
    import torch

    wanted = PRECISIONS[name]
    if wanted.device not in (None, device):
        other = "tf32" if device == "cuda" else "medium"
        raise UserError(f"--precision {name} is for {wanted.device}, and this runs on {device}: use {other}")
    torch.set_float32_matmul_precision(wanted.matmul)
    if wanted.matmul != "highest" and not _rounds(device):
        torch.set_float32_matmul_precision("highest")
        raise UserError(
            f"--precision {name}: this {device} device multiplies fp32 matrices in full precision all the "
            f"same (medium needs a CPU with AMX, tf32 a GPU from Ampere on), so the name would say what "
            f"did not happen: use --precision fp32 or bf16"
        )


def _rounds(device: str) -> bool:
    """Whether products of fp32 matrices now round their inputs: at 1 + 2^-13, 8 or 11 bits read 1."""
    import torch

    finer = torch.full((256, 256), 1 + 2.0**-13, device=device)
    return bool(((finer @ torch.ones_like(finer)) / 256 - 1).max() < 2.0**-14)
