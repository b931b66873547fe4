"""How many runs at a time the machine carries, and how much disk they will take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import psutil
import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.job import Job
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.memory import saved_bytes
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.session import Session

RESERVED_BYTES = 2**30
"""Memory of a worker beside its model's copies: interpreter, libraries, activations."""

SPARE = 1.2
"""What a run may take of a device's memory beyond what it cannot do without (see benchmarks/memory.py)."""

BYTES_OF_A_CONTEXT = 2**30
"""Memory of a GPU that a process takes beside its tensors: CUDA's context, code and work space."""

BYTES_OF_A_RECORD, BYTES_OF_AN_EVALUATION, BYTES_OF_A_PREDICTION = 20_000, 200, 40
"""With its share of the tables and the page, rounded up."""


def default_workers(session: Session, specs: Sequence[RunSpec]) -> int:
    """Worker processes that the machine carries: one on a GPU, else by cores and free memory."""
    if session.accelerator.device.type != "cpu" or not specs:
        return 1
    parameters = sum(p.numel() * p.element_size() for p in session.loaded(specs[0]).model.parameters())
    # a run holds the weights five times: pristine, live, gradient, momentum, best checkpoint
    by_memory = psutil.virtual_memory().available // (5 * parameters + RESERVED_BYTES)
    return max(1, min(usable_cores() // specs[0].threads_per_run, int(by_memory), len(specs)))


def workers_on_gpu(session: Session, specs: Sequence[RunSpec], asked: int | Literal["auto"]) -> int:
    """Worker processes on this process's GPU; `auto`: as many as its free memory holds runs.

    Raises:
        UserError: this process has no GPU.
    """
    device = session.accelerator.device
    if device.type != "cuda":
        raise UserError(
            f"--runs-per-gpu {asked}: this runs on {device.type}, without a GPU: use --workers, which takes "
            f"its default from cores and memory"
        )
    if asked != "auto":
        return asked
    largest = max(
        bytes_of_a_run(session, spec) for spec in {(s.task, s.optimizer): s for s in specs}.values()
    )
    return runs_that_fit(torch.cuda.mem_get_info(device)[0], largest)


def runs_that_fit(free: int, bytes_of_run: int) -> int:
    """Processes of one run each that so many free bytes of a device hold; one at least."""
    return max(1, int(free // (SPARE * bytes_of_run + BYTES_OF_A_CONTEXT)))


def bytes_of_a_run(session: Session, spec: RunSpec) -> int:
    """Parameters, gradients, optimizer state and the activations of the longest batch on the device."""
    loaded, train = session.loaded(spec), session.split(spec).train
    size = spec.batch_size // spec.gradient_accumulation_steps
    longest = sorted(range(len(train.labels)), key=lambda row: train.lengths[row])[-size:]
    batch = train.batch(longest, session.pad_id(spec), session.accelerator.device, loaded.packing)

    def forward() -> torch.Tensor:
        with session.accelerator.autocast():
            return logits(loaded, batch, session.objective(spec))

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
    """About how much disk the records of the runs, their tables and their checkpoints will take."""
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
    # live and best parameters in fp32 and the optimizer's state; the old file lies beside the new one
    return records + int(2 * workers * parameters * (8 + state))


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
