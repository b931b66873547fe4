"""The device and the autocast of a process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    parse_flag_from_env,
    patch_environment,
)

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.execution.device import check_device_type, check_usable
from momentum_bench.harness.launcher import apart, check_flags, launched
from momentum_bench.harness.models.distributed import in_host_memory, is_joined, left_to_us
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.training.arithmetic import fix_workspace, use

LONGEST_WAIT = timedelta(days=7)
"""How long a rank waits for the others."""


def make_accelerator(
    precision: str, together: bool = False, cpu: bool = False, device: str | None = None
) -> Accelerator:
    """The process's device and autocast. bf16 is autocast only: parameters and updates stay fp32.

    The ranks of a launch share out whole runs, so each rank stands alone: it has the device of its local
    rank and no process group. So no model can be wrapped, and no collective can wait for a dead rank.

    Args:
        together: the ranks share the batches of each run instead. This call then waits for all of them.
        cpu: use the CPU, whatever else there is.
        device: the type that the device must have: `cpu`, `cuda` or `mps`; None: the best that is there.

    Raises:
        UserError: there is no such device, torch was not built for it, it does not have that precision, the
            ranks were not joined, or accelerate cannot use what the environment says.
    """
    check_flags()
    cpu = cpu or device == "cpu"
    mixed_precision = PRECISIONS[precision].autocast
    if torch.cuda.is_available():
        fix_workspace()
    try:
        accelerator = _joined(mixed_precision, cpu) if together else _apart(mixed_precision, cpu)
    except (ValueError, RuntimeError) as error:
        said = [name for name in sorted(os.environ) if name.startswith("ACCELERATE_")]
        raise UserError(
            f"accelerate cannot start: {first_line(error)}. The environment says "
            f"{', '.join(f'{name}={os.environ[name]}' for name in said) or 'nothing to accelerate'}"
        ) from error
    check_device_type(accelerator.device.type, device)
    check_usable(accelerator.device)
    use(precision, accelerator.device.type)
    return accelerator


def _joined(mixed_precision: str, cpu: bool) -> Accelerator:
    """The accelerator of a rank that shares the batches of each run with the others."""
    # without this, DDP stops where the loss does not reach some parameters
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    # the other ranks wait in a collective while rank 0 alone prepares all splits, and NCCL's own limit is
    # ten minutes; a launcher ends them where rank 0 dies
    patience = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    if in_host_memory() and torch.cuda.is_available() and not cpu:
        patience.backend = "cuda:nccl,cpu:gloo"  # the norm of gradients in host memory is summed there
    with left_to_us(), undivided():
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=[ddp, patience])
    joined = accelerator.num_processes if is_joined(accelerator) else 0
    if joined != (ranks := launched().ranks):
        raise UserError(
            f"--data-parallel: {ranks} rank(s) were started, but accelerate joined {joined} on "
            f"{accelerator.device.type}. Without a GPU it joins them only if you type "
            f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {ranks} harness/run.py ..."
        )
    return accelerator


def _apart(mixed_precision: str, cpu: bool) -> Accelerator:
    """The accelerator of a process that does whole runs."""
    local_rank = launched().local_rank
    if (
        local_rank
        and not cpu
        and not parse_flag_from_env("ACCELERATE_USE_CPU")
        and torch.accelerator.is_available()
    ):
        torch.accelerator.set_device_index(local_rank % torch.accelerator.device_count())
    with apart(), undivided():
        return Accelerator(mixed_precision=mixed_precision, cpu=cpu)


@contextmanager
def undivided() -> Iterator[None]:
    """Hide accelerate's own setting for gradient accumulation, because our step divides the loss already."""
    with patch_environment(ACCELERATE_GRADIENT_ACCUMULATION_STEPS="1"):
        yield


def quiet_libraries() -> None:
    """Turn off loading bars and notes about new heads: the record says which parameters are new."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
