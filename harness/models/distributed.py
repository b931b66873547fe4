"""FSDP: each rank keeps a part of every parameter, and the whole of a layer only while it is computed.

For models that do not fit one device: torch's FSDP2 (`fully_shard`, Zhao et al. 2023, arXiv 2304.11277),
turned on and told which modules to gather as units by `accelerate config`. Accelerate itself is kept
out of it, for it shards on GPUs alone and gathers in the precision of autocast. Here parameters are gathered
in fp32, so that a sharded run computes what the others do, and on CPUs the same code can be tried.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.launcher import turned_on
from momentum_bench.harness.models.forward import read
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.sharded_tensors import local


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


class Reader(torch.nn.Module):
    """`read` as a module, for DDP sums the gradients of what is called through its wrapper alone.

    And FSDP gathers the parameters of what is called so.
    """

    def __init__(self, loaded: LoadedModel):
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded

    def forward(self, batch: Batch) -> torch.Tensor:
        return read(self._loaded, batch).clone()  # FSDP warns of views


def share_batches(loaded: LoadedModel, accelerator: Accelerator) -> LoadedModel:
    """The same model, whose gradients are averaged over the ranks; all ranks call this together.

    Where FSDP is asked for, the model is cut up among them too.

    Raises:
        UserError: it cannot be.
    """
    accelerator.free_memory()  # of the model before this one, which accelerate would keep
    reader = Reader(loaded)
    if not turned_on("FSDP"):
        return dataclasses.replace(loaded, shared=accelerator.prepare_model(reader))
    shard(reader, loaded.model, accelerator.device, accelerator.num_processes)
    parts = {name: local(value).to("cpu", copy=True) for name, value in loaded.model.state_dict().items()}
    return dataclasses.replace(loaded, pristine=parts, shared=reader, sharded=True)
