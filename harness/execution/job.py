"""One run of a sweep, from its claim in the store to its record."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import nullcontext
from dataclasses import dataclass

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.device_errors import check_device, is_out_of_memory
from momentum_bench.harness.errors import UserError, first_line, without_secrets
from momentum_bench.harness.execution.data_parallel import tell
from momentum_bench.harness.execution.one_run import record_of
from momentum_bench.harness.execution.trackers import track
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.files import disk_errors
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import MOST_DEATHS, Store
from momentum_bench.harness.training.session import Session


@dataclass(frozen=True)
class Job:
    """What every process that works on a sweep needs to know about it.

    Attributes:
        retry_failed: run again what is recorded as failed; all other records are final.
        checkpoint_every: steps between the checkpoints of a run; None: there are no checkpoints.
        log_with: the tracker that shows finished runs; None: there is none.
    """

    inputs: Inputs
    precision: str
    store: Store
    retry_failed: bool
    checkpoint_every: int | None = None
    log_with: str | None = None


KILLED = (
    f"{MOST_DEATHS} processes were killed while they did it; the system kills a process when memory runs "
    f"out, and a process ends when its device no longer works"
)


def run_and_store(
    spec: RunSpec, job: Job, session: Session, progress: bool, watched: bool = False
) -> RunRecord | None:
    """Do one run and return its record. None where another process is doing it now.

    Where the run has a final record already, this returns that record. What goes wrong inside a run is
    printed, and becomes a record with status `failed`. So does a run in which processes were killed again
    and again, because the sweep would never get past it.

    Args:
        watched: another process sees it if this one dies. Otherwise the run's folder keeps count.

    Raises:
        UserError: the sweep cannot go on: its inputs have changed, or its directory cannot be used.
        DeviceLostError: nothing works on this process's device any more; the run is not recorded.
    """
    with disk_errors(job.store.output_dir), job.store.claim(spec) as claimed:
        if not claimed:
            return None
        there = job.store.read(spec.run_id)
        if there and not (job.retry_failed and there.status == "failed"):
            return there
        if damaged := job.store.set_aside_damaged(spec.run_id):
            print(
                f"{spec.label}: its record cannot be read (torn, changed, or of a newer version) and is now "
                f"{damaged}; running it again",
                file=sys.stderr,
            )
        with nullcontext(0) if watched else job.store.attempt(spec) as deaths:
            record = _record(spec, job, session, progress, deaths)
        job.store.write(record)
        if job.log_with is not None:
            track(record, job.log_with, job.store.output_dir / "trackers")
        return record


def _record(spec: RunSpec, job: Job, session: Session, progress: bool, deaths: int) -> RunRecord:
    """Do a run, in which `deaths` processes were killed before."""
    if deaths:
        print(f"{spec.label}: {deaths} process(es) were killed while they did it", file=sys.stderr)
    if deaths >= MOST_DEATHS:
        return failed(spec, KILLED, job)
    try:
        tell(session.accelerator, spec)
        journal = job.store.journal(spec, job.checkpoint_every)
        return record_of(spec, session, journal, progress)
    except UserError:  # the sweep cannot go on, because its inputs have changed
        raise
    except Exception as error:
        if session.accelerator.num_processes > 1:  # the other ranks may wait for this one
            raise
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise  # the disk is gone
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        check_device(session.accelerator.device, error)
        return failed(spec, reason_of(error), job)


def reason_of(error: Exception) -> str:
    """Why a run failed, for its record; after a lack of memory, with what would help."""
    reason = first_line(error)
    if is_out_of_memory(error):
        reason += (
            ". What would help: fewer runs at a time (--runs-at-a-time), --gradient-accumulation-steps, an "
            "adapter (--peft), or a smaller model"
        )
    return reason


def failed(spec: RunSpec, reason: str, job: Job) -> RunRecord:
    """The record of a run that could not be done."""
    metric = find_task(spec.task, job.inputs.task_file).metric
    return RunRecord(spec=spec, metric=metric, status="failed", failure=reason)
