"""FSDP: each rank keeps a part of every parameter, and the whole of a layer only while it is computed.

For models that do not fit one device: torch's FSDP2 (`fully_shard`, Zhao et al. 2023, arXiv 2304.11277),
turned on and told which modules to gather as units by `accelerate config`. Accelerate itself is kept
out of it, for it shards on GPUs alone and gathers in the precision of autocast. Here parameters are gathered
in fp32, so that a sharded run computes what the others do, and on CPUs the same code can be tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from harness.errors import UserError, first_line


@contextmanager
def left_to_us() -> Iterator[None]:
    """Hide FSDP from accelerate, and from transformers, which would load weights on rank 0 alone."""
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    hidden = os.environ.pop(name := "ACCELERATE_USE_FSDP", None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ[name] = hidden


@lru_cache
def _mesh(device_type: str, ranks: int) -> DeviceMesh:
    return init_device_mesh(device_type, (ranks,))


def shard(reader: torch.nn.Module, model: torch.nn.Module, device: torch.device, ranks: int) -> None:
    """Leave each rank its part of every parameter, on its device; all ranks call this together.

    Args:
        reader: what is called; it holds the model, and gathers what is no part of a unit.
        model: a transformers model on the CPU, which knows the classes of its layers: the units, where
            the configuration names none.

    Raises:
        UserError: the configuration's units are not those of this model.
    """
    mesh = _mesh(device.type, ranks)
    try:
        is_unit = fsdp2_prepare_auto_wrap_policy(FullyShardedDataParallelPlugin(fsdp_version=2), model)
    except ValueError as error:
        raise UserError(
            f"FSDP cannot cut up {type(model).__name__} as accelerate's configuration says: "
            f"{first_line(error)}: leave fsdp_transformer_layer_cls_to_wrap out, for the model's own layers"
        ) from error
    for module in reversed([m for m in model.modules() if m is not model]):  # inner units first
        if is_unit is not None and is_unit(module):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # True also at the root: what stayed whole after scoring would not see the next change of its parts
    fully_shard(reader, mesh=mesh, reshard_after_forward=True)


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
