"""Tensors that may be sharded: each rank then holds a part."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def in_parts(tensor: torch.Tensor) -> bool:
    """Whether each rank holds only a part of the tensor."""
    return isinstance(tensor, DTensor)


def computed_on(tensor: torch.Tensor) -> torch.device:
    """Where a parameter is computed with: its own device, but of a part in host memory the ranks' one."""
    return torch.device(tensor.device_mesh.device_type) if isinstance(tensor, DTensor) else tensor.device


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, in the same memory and without a gradient; all of it if not sharded."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, without a gradient; if it is sharded, all ranks call this together."""
    with torch.no_grad():
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def put(target: torch.Tensor, values: torch.Tensor) -> None:
    """Overwrite a tensor, sharded or not, with values that every rank holds whole."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            values = values.to(target.device)
            values = distribute_tensor(values, target.device_mesh, target.placements, src_data_rank=None)
        target.copy_(values)
