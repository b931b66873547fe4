"""One run of a sweep, from its claim in the store to its record."""

from __future__ import annotations

import errno
import sys
import traceback
from dataclasses import dataclass

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.errors import UserError, first_line, without_secrets
from momentum_bench.harness.execution.data_parallel import tell
from momentum_bench.harness.execution.trackers import track
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.files import disk_errors
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.zero_shot import zero_shot


@dataclass(frozen=True)
class Job:
    """What every process that works on a sweep needs to know of it.

    Attributes:
        retry_failed: runs recorded as failed are run again; all other records are final.
        checkpoint_every: steps between checkpoints of a run, which is then resumed; None: none.
        log_with: the tracker that is told of finished runs; None: none is.
    """

    inputs: Inputs
    precision: str
    store: Store
    retry_failed: bool
    checkpoint_every: int | None = None
    log_with: str | None = None


def run_and_store(spec: RunSpec, job: Job, session: Session, progress: bool) -> RunRecord | None:
    """One run, or its record where another process was faster; None while another is at it.

    What goes wrong inside a run becomes a record with status `failed`, and is printed.
    """
    with disk_errors(job.store.output_dir), job.store.claim(spec) as claimed:
        if not claimed:
            return None
        there = job.store.read(spec.run_id)
        if there and not (job.retry_failed and there.status == "failed"):
            return there
        if damaged := job.store.set_aside_damaged(spec.run_id):
            print(
                f"{spec.label}: its record cannot be read (torn, changed, or of a newer version), set "
                f"aside as {damaged}; running it again",
                file=sys.stderr,
            )
        try:
            tell(session.accelerator, spec)
            journal = job.store.journal(spec, job.checkpoint_every)
            trains = spec.max_steps > 0
            record = (
                finetune(spec, session, journal, progress) if trains else zero_shot(spec, session, journal)
            )
        except UserError:  # the sweep cannot go on: its inputs changed
            raise
        except Exception as error:
            if session.accelerator.num_processes > 1:  # the other ranks may be waiting for this one
                raise
            if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                raise  # the disk is gone
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
            record = failed(spec, first_line(error), job)
        job.store.write(record)
        if job.log_with is not None:
            track(record, job.log_with, job.store.output_dir / "trackers")
        return record


def failed(spec: RunSpec, reason: str, job: Job) -> RunRecord:
    metric = find_task(spec.task, job.inputs.task_file).metric
    return RunRecord(spec=spec, metric=metric, status="failed", failure=reason)
