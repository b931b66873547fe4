"""How runs reach the hardware: this process, a pool of warm worker processes, or several ranks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator, quiet_libraries
from momentum_bench.harness.execution.data_parallel import leave, tell
from momentum_bench.harness.execution.job import Job, failed, run_and_store
from momentum_bench.harness.records.files import GO_ON, disk_errors
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.training.memory import keep_freed_memory
from momentum_bench.harness.training.session import Session

SECONDS_BETWEEN_LOOKS = 1.0
"""How often a run that another process holds is asked for again."""

MOST_DEATHS = 3
"""A run under which so many worker processes have died is recorded as failed."""


_worker: tuple[Job, Session]  # of this worker process


def execute(
    specs: Sequence[RunSpec], job: Job, session: Session, workers: int, progress: bool
) -> Iterator[RunRecord]:
    """Run all specs, begun in their order, and store their records, yielding each as it is finished.

    Several processes may do so on one directory: each run is done by whoever claims it first. A run
    that another process holds is waited for, and taken over if that process dies.

    Raises:
        UserError: the disk or an input is gone, or workers die before they begin; what is finished stays.
    """
    with _runner(job, session, min(workers, len(specs)), progress) as run_all:
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
    tell(session.accelerator, None)
    leave(session.accelerator)


RunAll = Callable[[Sequence[RunSpec]], Iterator[tuple[RunSpec, RunRecord | None]]]


@contextmanager
def _runner(job: Job, session: Session, workers: int, progress: bool) -> Iterator[RunAll]:
    """A function that runs specs, in this process or in warm workers, and yields each result."""
    if workers <= 1:
        yield lambda specs: ((spec, run_and_store(spec, job, session, progress)) for spec in specs)
        return
    # A pool of one process each: when a process dies its pool breaks, so it is known which run it was
    # at, and no other run is lost.
    pools = [_new_pool(job) for _ in range(workers)]
    try:
        yield lambda specs: _run_in_pools(specs, job, pools)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        raise
    for pool in pools:
        pool.shutdown()


def _new_pool(job: Job) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_start_worker, initargs=(job,))


def _run_in_pools(
    specs: Sequence[RunSpec], job: Job, pools: list[ProcessPoolExecutor]
) -> Iterator[tuple[RunSpec, RunRecord | None]]:
    """Give each free worker the next spec. A worker that dies is replaced and its run done again."""
    todo, free = deque(specs), list(range(len(pools)))
    running: dict[Future[RunRecord | None], tuple[RunSpec, int]] = {}
    deaths: Counter[str] = Counter()
    while todo or running:
        while todo and free:
            spec, place = todo.popleft(), free.pop()
            running[_submit(spec, job, pools, place)] = spec, place
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            spec, place = running.pop(future)
            free.append(place)
            error = future.exception()
            if not isinstance(error, BrokenProcessPool):
                yield spec, future.result()
                continue
            # a process that never began its run did not die of it
            cause = spec.run_id if job.store.steps_done(spec.run_id) is not None else "before a run"
            deaths[cause] += 1
            print(f"{spec.label}: its worker process died (killed, or out of memory)", file=sys.stderr)
            if deaths["before a run"] == MOST_DEATHS:
                raise UserError(
                    f"{MOST_DEATHS} worker processes died before they began a run. {GO_ON}, with a "
                    f"smaller --runs-at-a-time if memory was short"
                ) from error
            if deaths[spec.run_id] < MOST_DEATHS:
                todo.appendleft(spec)
            else:
                yield spec, _record_deaths(spec, job)


def _submit(
    spec: RunSpec, job: Job, pools: list[ProcessPoolExecutor], place: int
) -> Future[RunRecord | None]:
    """Hand a run to a worker, or to its successor if it died meanwhile."""
    # A new process inherits the blocked signal: Ctrl-C is for this process, which ends the others.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        try:
            return pools[place].submit(_run_in_worker, spec)
        except BrokenProcessPool:
            pools[place] = _new_pool(job)
            return pools[place].submit(_run_in_worker, spec)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _record_deaths(spec: RunSpec, job: Job) -> RunRecord | None:
    """Record a run as failed, unless another process has taken it up."""
    with disk_errors(job.store.output_dir), job.store.claim(spec) as claimed:
        if not claimed:
            return None
        reason = f"{MOST_DEATHS} worker processes died under it: killed, by the system where memory ran out"
        record = failed(spec, reason, job)
        job.store.write(record)
        return record


def _start_worker(job: Job) -> None:
    """Make this process a worker: warm libraries, no Ctrl-C of its own, gone when the parent is."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    quiet_libraries()
    keep_freed_memory()
    _worker = job, Session(job.inputs, make_accelerator(job.precision))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(spec: RunSpec) -> RunRecord | None:
    job, session = _worker
    return run_and_store(spec, job, session, progress=False)
