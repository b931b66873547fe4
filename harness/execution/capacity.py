"""How many runs at a time fit on the machine, and how much disk they will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.job import Job
from momentum_bench.harness.launcher import launched, ranks_here
from momentum_bench.harness.machine import available_memory, usable_cores
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.memory import saved_bytes
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.session import Session

RESERVED_BYTES = 2**30
"""Memory of a worker in addition to the copies of its model: interpreter, libraries, activations."""

SPARE = 1.2
"""How much more memory of a device a run may take than it needs at least (see benchmarks/memory.py)."""

BYTES_OF_A_CONTEXT = 2**30
"""Memory of a GPU that a process takes in addition to its tensors: CUDA's context, code and work space."""

BYTES_OF_A_WORKER = 2 * 2**30
"""Memory of the host that a worker process of a GPU takes: libraries, CUDA's own, the pristine model."""

COPIES_RECORDED = 2
"""Recorded steps keep gradients and activations in a pool of their own, next to those of launched steps."""

BYTES_OF_A_RECORD, BYTES_OF_AN_EVALUATION, BYTES_OF_A_PREDICTION = 20_000, 200, 40
"""On the disk, with their share of the tables and the page, rounded up."""


def runs_at_a_time(session: Session, specs: Sequence[RunSpec], asked: int | Literal["auto"] | None) -> int:
    """How many runs this process does at a time: 1 for each worker process, at most one for each run.

    Args:
        asked: a number; `auto`: as many as the free memory of its GPU holds and its share of the host's cores
            and memory carries, or on a CPU as the latter alone carries; None: the same on a CPU, but 1 on a
            GPU and under a launcher.

    Raises:
        UserError: `auto` on a device whose free memory is not known.
    """
    ranks, device = launched().ranks, session.accelerator.device
    if asked == "auto" and device.type == "cuda":
        kinds = {(spec.task, spec.optimizer): spec for spec in specs}.values()
        largest = max((bytes_of_a_run(session, spec) for spec in kinds), default=0)
        copies = COPIES_RECORDED if any(spec.cuda_graphs for spec in specs) else 1
        number = runs_that_fit(torch.cuda.mem_get_info(device)[0], largest * copies)
        # each of them is a process of the host too, and ranks share the host
        number = min(number, _carried_by_host(specs) // ranks_here())
    elif asked == "auto" and device.type != "cpu":
        raise UserError(
            f"--runs-at-a-time auto: this runs on {device.type}, whose free memory is unknown: give a number"
        )
    elif asked == "auto" and ranks > 1:
        # ranks share a machine, all of which each would take for its own
        number = _carried_by_cpu(session, specs) // ranks_here()
    elif isinstance(asked, int):
        number = asked
    else:
        number = _carried_by_cpu(session, specs) if device.type == "cpu" and ranks == 1 else 1
    return max(1, min(number, len(specs)))


def _carried_by_host(specs: Sequence[RunSpec]) -> int:
    """Worker processes of a GPU that the host carries, by its cores and its free memory."""
    threads = max((spec.threads_per_run for spec in specs), default=1)
    by_memory = available_memory() // BYTES_OF_A_WORKER
    return min(usable_cores() // threads, int(by_memory))


def _carried_by_cpu(session: Session, specs: Sequence[RunSpec]) -> int:
    """Worker processes that the machine carries, by its cores and its free memory."""
    if not specs:
        return 1
    parameters = sum(p.numel() * p.element_size() for p in session.loaded(specs[0]).model.parameters())
    # a run holds the weights five times: pristine, live, gradient, momentum, best checkpoint
    by_memory = available_memory() // (5 * parameters + RESERVED_BYTES)
    return min(usable_cores() // specs[0].threads_per_run, int(by_memory))


def runs_that_fit(free: int, bytes_of_run: int) -> int:
    """How many processes of one run each fit into so many free bytes of a device; at least one."""
    return max(1, int(free // bytes_of_a_process(bytes_of_run)))


def bytes_of_a_process(bytes_of_run: int) -> float:
    """What a process with one run takes of a GPU, by what the run needs at least."""
    return SPARE * bytes_of_run + BYTES_OF_A_CONTEXT


def bytes_of_a_run(session: Session, spec: RunSpec) -> int:
    """Bytes of parameters, gradients, optimizer state and the activations of the longest batch."""
    loaded, train = session.loaded(spec), session.split(spec).train
    size = spec.batch_size // spec.gradient_accumulation_steps
    longest = sorted(range(len(train.labels)), key=lambda row: train.lengths[row])[-size:]
    batch = train.batch(longest, session.pad_id(spec), session.accelerator.device, loaded.packing)

    def forward() -> torch.Tensor:
        with session.accelerator.autocast():
            return logits(loaded, batch)

    parameters = list(loaded.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    state = session.optimizer(spec).state_bytes_per_parameter(spec.hyperparameters)
    held: int = sum(p.nbytes for p in parameters) + int(trained * (4 + state))  # gradients are fp32
    was_training = loaded.model.training
    loaded.model.train()
    activations = saved_bytes(forward, parameters)
    loaded.model.train(was_training)
    return held + activations


def bytes_to_come(specs: Sequence[RunSpec], job: Job, session: Session, workers: int) -> int:
    """About how many bytes of disk the records of the runs, their tables and their checkpoints will take."""
    records = sum(
        BYTES_OF_A_RECORD
        + BYTES_OF_AN_EVALUATION * (spec.max_steps // spec.eval_every + 1)
        + BYTES_OF_A_PREDICTION * len(session.split(spec).test_rows)
        for spec in specs
    )
    if job.checkpoint_every is None:
        return records
    parameters = sum(p.numel() for p in session.loaded(specs[0]).model.parameters())
    state = max(session.optimizer(s).state_bytes_per_parameter(s.hyperparameters) for s in specs)
    # live and best parameters in fp32 and the optimizer's state; the old file stays until the new is whole
    return records + int(2 * workers * parameters * (8 + state))
