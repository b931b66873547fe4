"""`--data-parallel`: all ranks of a launch work on one run, each on its part of every batch.

Rank 0 leads: it claims runs, tells the other ranks which run is next, and is the only one that writes. A
rank that fails ends the launch, because the others would wait for it. The next start continues after the
last finished run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from momentum_bench.harness.execution.one_run import record_of
from momentum_bench.harness.models.distributed import is_joined
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training.session import Session

SECONDS_TO_SETTLE = 0.1
"""Longer than gloo's threads need to release the tensors of the last collective."""


def tell(accelerator: Accelerator, spec: RunSpec | None) -> None:
    """Rank 0 tells the other ranks which run is next; None: there are no more. Does nothing without ranks."""
    if accelerator.num_processes > 1:
        text = torch.tensor(list(b"" if spec is None else spec.model_dump_json().encode()), dtype=torch.long)
        broadcast(torch.tensor([len(text)], device=accelerator.device))
        if spec is not None:
            broadcast(text.to(accelerator.device))


def told(accelerator: Accelerator) -> RunSpec | None:
    """What rank 0 tells by `tell`."""
    length = torch.zeros(1, dtype=torch.long, device=accelerator.device)
    n = int(broadcast(length))
    if not n:
        return None
    text = broadcast(torch.zeros(n, dtype=torch.long, device=accelerator.device))
    return RunSpec.model_validate_json(bytes(text.tolist()))


def follow(session: Session) -> None:
    """Work on the runs that rank 0 names, until it names no more. Writes nothing that stays."""
    while (spec := told(session.accelerator)) is not None:
        with tempfile.TemporaryDirectory() as folder:
            record_of(spec, session, Journal(Path(folder) / "evaluations.jsonl"))
    leave(session.accelerator)


def dismiss(accelerator: Accelerator) -> None:
    """Rank 0 tells the other ranks that there are no more runs, and all leave the process group."""
    tell(accelerator, None)
    leave(accelerator)


def leave(accelerator: Accelerator) -> None:
    """Leave the process group: the last thing that a rank does together with the others.

    A rank that fails does not come here. Gloo's threads live on, and they need the interpreter to release
    tensors. A thread that does this while the interpreter ends aborts the process (torch 2.13), and the
    launcher then reports that the launch failed.
    """
    if is_joined(accelerator):
        accelerator.state.destroy_process_group()
        time.sleep(SECONDS_TO_SETTLE)
