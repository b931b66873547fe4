"""`--data-parallel`: all ranks of a launch work on one run, each on its part of every batch.

Rank 0 leads: it claims runs, tells the others which comes next, and alone writes. A rank that fails
ends the launch, for the others would wait for it; the next start goes on behind the last finished run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.zero_shot import zero_shot

SECONDS_TO_SETTLE = 0.1
"""More than gloo's threads take to let go of the tensors of the last collective."""


def tell(accelerator: Accelerator, spec: RunSpec | None) -> None:
    """Rank 0 says which run comes next; None: there is none. Nobody listens where it is alone."""
    if accelerator.num_processes > 1:
        text = torch.tensor(list(b"" if spec is None else spec.model_dump_json().encode()), dtype=torch.long)
        broadcast(torch.tensor([len(text)], device=accelerator.device))
        if spec is not None:
            broadcast(text.to(accelerator.device))


def told(accelerator: Accelerator) -> RunSpec | None:
    """What rank 0 says by `tell`."""
    length = torch.zeros(1, dtype=torch.long, device=accelerator.device)
    n = int(broadcast(length))
    if not n:
        return None
    text = broadcast(torch.zeros(n, dtype=torch.long, device=accelerator.device))
    return RunSpec.model_validate_json(bytes(text.tolist()))


def follow(session: Session) -> None:
    """Work on the runs that rank 0 names until it names no more; write nothing."""
    while (spec := told(session.accelerator)) is not None:
        with tempfile.TemporaryDirectory() as folder:
            do = finetune if spec.max_steps else zero_shot
            do(spec, session, Journal(Path(folder) / "evaluations.jsonl"))
    leave(session.accelerator)


def leave(accelerator: Accelerator) -> None:
    """The last thing that a rank does together with the others; a rank that fails does not come here.

    Gloo's threads live on, and need the interpreter to let go of tensors: one that does so while the
    interpreter ends aborts the process (torch 2.13), and the launcher then calls the launch failed.
    """
    if accelerator.num_processes > 1:
        accelerator.state.destroy_process_group()
        time.sleep(SECONDS_TO_SETTLE)
