"""How a batch reaches its device."""

from __future__ import annotations

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same values on `device`; the host does not wait for a CUDA device to take them.

    CUDA copies what is in ordinary memory aside before the call returns, so the caller may free it at once.
    MPS does not: with `non_blocking` it may read memory that is already free.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
