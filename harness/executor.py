"""How runs reach the hardware: this process, a pool of warm worker processes, or several ranks."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import psutil
from accelerate import Accelerator

from harness.errors import UserError, first_line
from harness.finetune import finetune
from harness.records import RunRecord, RunSpec
from harness.store import Store
from harness.sweep import Inputs
from harness.workbench import Workbench
from tasks import get_task

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
        bench.label_words(spec)
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
class _Job:
    """What a worker process needs to know of the sweep."""

    inputs: Inputs
    precision: str
    store: Store


_worker: tuple[Workbench, Store]  # of this worker process


def execute(
    specs: Sequence[RunSpec], bench: Workbench, precision: str, store: Store, workers: int, progress: bool
) -> Iterator[RunRecord]:
    """Run all specs and store their records, yielding each as it is finished.

    Raises:
        UserError: a worker process died; what is finished stays.
    """
    if workers == 1:
        for spec in specs:
            yield run_and_store(spec, bench, store, progress)
        return
    job = _Job(bench.inputs, precision, store)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,)) as pool:
        try:
            for future in as_completed([pool.submit(_run_in_worker, spec) for spec in specs]):
                yield future.result()
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


def run_and_store(spec: RunSpec, bench: Workbench, store: Store, progress: bool) -> RunRecord:
    """One run. What goes wrong inside it becomes a record with status `failed`, and is printed."""
    try:
        record = finetune(spec, bench, store.journal(spec), progress)
    except (UserError, OSError):  # the sweep cannot go on: inputs changed, or the disk is gone
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        record = RunRecord(
            spec=spec, metric=get_task(spec.task).metric, status="failed", failure=first_line(error)
        )
    store.write(record)
    return record


def _start_worker(job: _Job) -> None:
    """Make this process a worker: warm libraries, no Ctrl-C of its own, gone when the parent is."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _quiet_libraries()
    _worker = Workbench(job.inputs, make_accelerator(job.precision)), job.store


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(spec: RunSpec) -> RunRecord:
    bench, store = _worker
    return run_and_store(spec, bench, store, progress=False)


def _quiet_libraries() -> None:
    """Loading bars and notes about new heads are noise here: the record says what is new."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
