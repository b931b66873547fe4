"""Runs that several ranks share: DDP, and FSDP for models that do not fit one device.

Under FSDP each rank keeps a part of every parameter, and has the whole of a layer only while it computes it.
It is torch's FSDP2 (`fully_shard`, Zhao et al. 2023, arXiv 2304.11277). `accelerate config` turns it on and
says which modules are gathered as units. Accelerate itself does not shard, because it does so on GPUs alone
and gathers in the precision of autocast. Here parameters are gathered in fp32, so a sharded run computes
what the others do, and the same code can be tried on CPUs.

With `fsdp_offload_params` the parts, their gradients and the optimizer's state are in host memory, and the
update is computed there (Rajbhandari et al. 2021, arXiv 2104.07857). One rank alone may do so too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType, parse_flag_from_env, patch_environment
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.launcher import turned_on
from momentum_bench.harness.models.forward import read
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.sharded_tensors import local


@contextmanager
def left_to_us() -> Iterator[None]:
    """Hide FSDP from the libraries inside; the environment is as before afterwards.

    Accelerate would shard in its own way, and transformers would load weights on rank 0 alone.
    """
    with patch_environment(ACCELERATE_USE_FSDP="false"):
        yield


def is_joined(accelerator: Accelerator) -> bool:
    """Whether this accelerator belongs to ranks that share each run; with FSDP it may be one rank alone."""
    return bool(accelerator.distributed_type != DistributedType.NO)


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether the ranks of this accelerator hold one model together, each a part of every parameter."""
    return is_joined(accelerator) and turned_on("FSDP")


def in_host_memory() -> bool:
    """Whether accelerate's configuration says that parameters, gradients and state stay in host memory."""
    return turned_on("FSDP") and parse_flag_from_env("FSDP_OFFLOAD_PARAMS")


@lru_cache
def _mesh(device_type: str, ranks: int) -> DeviceMesh:
    return init_device_mesh(device_type, (ranks,))


def shard(reader: torch.nn.Module, model: torch.nn.Module, device: torch.device, ranks: int) -> None:
    """Leave each rank its part of every parameter, on its device or in host memory; all ranks call this.

    Args:
        reader: the module that is called; it holds the model, and gathers what belongs to no unit.
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
            f"{first_line(error)}: leave fsdp_transformer_layer_cls_to_wrap out, so that the units are the "
            f"model's own layers"
        ) from error
    # memory that is pinned, so that a GPU copies while it computes
    policy = CPUOffloadPolicy(pin_memory=device.type != "cpu") if in_host_memory() else OffloadPolicy()
    for module in reversed([m for m in model.modules() if m is not model]):  # inner units first
        if is_unit is not None and is_unit(module):
            fully_shard(module, mesh=mesh, reshard_after_forward=True, offload_policy=policy)
    # also at the root, because what stayed whole after scoring would not see the next change of its parts
    fully_shard(reader, mesh=mesh, reshard_after_forward=True, offload_policy=policy)


class Reader(torch.nn.Module):
    """`read` as a module, because DDP and FSDP wrap modules and see only calls through their wrapper.

    DDP sums the gradients of such a call over the ranks, FSDP gathers the parameters for it.
    """

    def __init__(self, loaded: LoadedModel):
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded

    def forward(self, batch: Batch) -> torch.Tensor:
        return read(self._loaded, batch).clone()  # FSDP warns of views


def share_batches(loaded: LoadedModel, accelerator: Accelerator) -> LoadedModel:
    """The same model with its gradients averaged over the ranks; all ranks call this together.

    Under FSDP each rank keeps its part of the model.

    Raises:
        UserError: FSDP cannot cut the model up as it is configured.
    """
    accelerator.free_memory()  # else accelerate would keep the model before this one
    reader = Reader(loaded)
    if not is_sharded(accelerator):
        return dataclasses.replace(loaded, shared=accelerator.prepare_model(reader))
    shard(reader, loaded.model, accelerator.device, accelerator.num_processes)
    parts = {name: local(value).to("cpu", copy=True) for name, value in loaded.model.state_dict().items()}
    return dataclasses.replace(loaded, pristine=parts, shared=reader, sharded=True)
