"""Tensors of which each rank may hold a part."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def in_parts(tensor: torch.Tensor) -> bool:
    """Whether each rank has a part of it only."""
    return isinstance(tensor, DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, in the same memory, without a gradient; all of what is not sharded."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; where it is sharded all ranks call this together."""
    with torch.no_grad():
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def put(target: torch.Tensor, values: torch.Tensor) -> None:
    """Overwrite a tensor, sharded or not, by values that every rank has all of."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            values = values.to(target.device)
            values = distribute_tensor(values, target.device_mesh, target.placements, src_data_rank=None)
        target.copy_(values)
