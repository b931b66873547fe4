"""How runs reach the hardware: this process, a pool of warm worker processes, or several ranks."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from accelerate import Accelerator

from harness.errors import UserError, first_line
from harness.finetune import finetune
from harness.records import RunRecord, RunSpec
from harness.store import Store
from harness.sweep import Inputs
from harness.workbench import Workbench
from harness.zero_shot import zero_shot
from tasks import get_task

SECONDS_BETWEEN_LOOKS = 1.0
"""How often a run that another process holds is asked for again."""

RESERVED_BYTES = 2**30
"""Memory of a worker beside its model's copies: interpreter, libraries, activations."""


def make_accelerator(precision: str) -> Accelerator:
    """The process's device and autocast. bf16 is autocast only: parameters and updates stay fp32."""
    return Accelerator(mixed_precision={"fp32": "no", "bf16": "bf16"}[precision])


def prepare(specs: Sequence[RunSpec], inputs: Inputs, precision: str) -> Workbench:
    """Build every split, prompt and model of the runs, so that what cannot work fails before training.

    Raises:
        UserError: one of them cannot be built.
    """
    _quiet_libraries()
    bench = Workbench(inputs, make_accelerator(precision))
    for spec in specs:
        bench.objective(spec)
        bench.split(spec)
    return bench


def default_workers(bench: Workbench, specs: Sequence[RunSpec]) -> int:
    """Worker processes that the machine carries: one on a GPU, else by cores and free memory."""
    if bench.accelerator.device.type != "cpu" or not specs:
        return 1
    parameters = sum(p.numel() * p.element_size() for p in bench.loaded(specs[0]).model.parameters())
    # a run holds the weights five times: pristine, live, gradient, momentum, best checkpoint
    by_memory = psutil.virtual_memory().available // (5 * parameters + RESERVED_BYTES)
    return max(1, min(usable_cores() // specs[0].threads_per_run, int(by_memory), len(specs)))


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """What every process that works on a sweep needs to know of it.

    Attributes:
        retry_failed: runs recorded as failed are run again; all other records are final.
    """

    inputs: Inputs
    precision: str
    store: Store
    retry_failed: bool


_worker: tuple[Job, Workbench]  # of this worker process


def execute(
    specs: Sequence[RunSpec], job: Job, bench: Workbench, workers: int, progress: bool
) -> Iterator[RunRecord]:
    """Run all specs and store their records, yielding each as it is finished.

    Several processes may do so on one directory: each run is done by whoever claims it first. A run
    that another process holds is waited for, and taken over if that process dies.

    Raises:
        UserError: a worker process died; what is finished stays.
    """
    with _runner(job, bench, min(workers, len(specs)), progress) as run_all:
        waiting = list(specs)
        while waiting:
            held_elsewhere = []
            for spec, record in run_all(waiting):
                if record is None:
                    held_elsewhere.append(spec)
                else:
                    yield record
            waiting = held_elsewhere
            if waiting:
                time.sleep(SECONDS_BETWEEN_LOOKS)


RunAll = Callable[[Sequence[RunSpec]], Iterator[tuple[RunSpec, RunRecord | None]]]


@contextmanager
def _runner(job: Job, bench: Workbench, workers: int, progress: bool) -> Iterator[RunAll]:
    """A function that runs specs, in this process or in a pool of warm ones, and yields each result."""
    if workers <= 1:
        yield lambda specs: ((spec, run_and_store(spec, job, bench, progress)) for spec in specs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,)) as pool:

        def run_all(specs: Sequence[RunSpec]) -> Iterator[tuple[RunSpec, RunRecord | None]]:
            futures = {pool.submit(_run_in_worker, spec): spec for spec in specs}
            for future in as_completed(futures):
                yield futures[future], future.result()

        try:
            yield run_all
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (killed, or out of memory). Finished runs are kept: type the "
                "same command to go on, with fewer --workers if memory was short"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def run_and_store(spec: RunSpec, job: Job, bench: Workbench, progress: bool) -> RunRecord | None:
    """One run, or its record where another process was faster; None while another is at it.

    What goes wrong inside a run becomes a record with status `failed`, and is printed.
    """
    with job.store.claim(spec) as claimed:
        if not claimed:
            return None
        there = job.store.read(spec.run_id)
        if there and not (job.retry_failed and there.status == "failed"):
            return there
        if damaged := job.store.set_aside_damaged(spec.run_id):
            print(
                f"{spec.label}: its record is damaged, set aside as {damaged}; running it again",
                file=sys.stderr,
            )
        try:
            journal = job.store.journal(spec)
            trains = spec.max_steps > 0
            record = finetune(spec, bench, journal, progress) if trains else zero_shot(spec, bench, journal)
        except (UserError, OSError):  # the sweep cannot go on: inputs changed, or the disk is gone
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            record = RunRecord(
                spec=spec, metric=get_task(spec.task).metric, status="failed", failure=first_line(error)
            )
        job.store.write(record)
        return record


def _start_worker(job: Job) -> None:
    """Make this process a worker: warm libraries, no Ctrl-C of its own, gone when the parent is."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _quiet_libraries()
    _worker = job, Workbench(job.inputs, make_accelerator(job.precision))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(spec: RunSpec) -> RunRecord | None:
    job, bench = _worker
    return run_and_store(spec, job, bench, progress=False)


def _quiet_libraries() -> None:
    """Loading bars and notes about new heads are noise here: the record says what is new."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
