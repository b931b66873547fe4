"""Runs on this machine: in this process, in worker processes, or in the ranks of a launcher."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.failures_alike import FailuresAlike
from momentum_bench.harness.execution.job import KILLED, Job, failed, run_and_store
from momentum_bench.harness.execution.workers import ending_with_its_device, kept_session, new_pool, submit
from momentum_bench.harness.records.files import GO_ON, disk_errors
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import MOST_DEATHS
from momentum_bench.harness.training.session import Session

SECONDS_BETWEEN_LOOKS = 1.0
"""How long to wait before asking again for a run that another process holds."""


Pools = list[ProcessPoolExecutor]
"""Worker processes, each a pool of its own. When a process dies, its pool breaks: this shows which run it was
doing, and no other run is lost."""


def execute(
    specs: Sequence[RunSpec], job: Job, session: Session, workers: int, progress: bool, pools: Pools
) -> Iterator[RunRecord]:
    """Run all specs, starting in their order, and store their records. Yields each when it is finished.

    Several processes may do this on one directory: the process that first claims a run does it. The others
    wait for that run, and one of them takes it over if the process dies.

    Args:
        workers: how many runs at a time; with 1 this process does them.
        pools: workers of earlier calls with the same job, which have their libraries, models and data
            already. Those that are missing are added. They stay until `closing_pools` ends them.

    Raises:
        UserError: the disk, the device or an input is gone, workers die before they begin, or the first runs
            fail alike. Finished runs are kept.
    """
    waiting, watch = list(specs), FailuresAlike(len(specs))
    while waiting:
        held_elsewhere = []
        for spec, record in _run_all(waiting, job, session, min(workers, len(specs)), progress, pools):
            if record is None:
                held_elsewhere.append(spec)
            else:
                watch.check(record)
                yield record
        waiting = held_elsewhere
        if waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _run_all(
    specs: Sequence[RunSpec], job: Job, session: Session, workers: int, progress: bool, pools: Pools
) -> Iterator[tuple[RunSpec, RunRecord | None]]:
    """Run the specs, in this process or in workers, and yield each result."""
    if workers <= 1:
        return ((spec, run_and_store(spec, job, session, progress)) for spec in specs)
    while len(pools) < workers:
        pools.append(new_pool(1, job.inputs, job.precision))
    return _run_in_pools(specs, job, pools, workers)


def _run_in_pools(
    specs: Sequence[RunSpec], job: Job, pools: Pools, workers: int
) -> Iterator[tuple[RunSpec, RunRecord | None]]:
    """Give each free worker the next spec. A worker that dies is replaced, and its run is done again."""
    todo, free = deque(specs), list(range(workers))
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
            # the run did not cause the death of a process that had not begun it
            cause = spec.run_id if job.store.steps_done(spec.run_id) is not None else "before a run"
            deaths[cause] += 1
            print(
                f"{spec.label}: its worker process died (killed, out of memory, or without its device)",
                file=sys.stderr,
            )
            if deaths["before a run"] == MOST_DEATHS:
                raise UserError(
                    f"{MOST_DEATHS} worker processes died before they began a run. {GO_ON}, with a "
                    f"smaller --runs-at-a-time if memory was short"
                ) from error
            if deaths[spec.run_id] < MOST_DEATHS:
                todo.appendleft(spec)
            else:
                yield spec, _record_deaths(spec, job)


def _submit(spec: RunSpec, job: Job, pools: Pools, place: int) -> Future[RunRecord | None]:
    """Hand a run to a worker, or to a new one if that worker has died."""
    try:
        return submit(pools[place], _run_in_worker, spec, job)
    except BrokenProcessPool:
        pools[place] = new_pool(1, job.inputs, job.precision)
        return submit(pools[place], _run_in_worker, spec, job)


def _record_deaths(spec: RunSpec, job: Job) -> RunRecord | None:
    """Record a run as failed, unless another process has claimed it."""
    with disk_errors(job.store.output_dir), job.store.claim(spec) as claimed:
        if not claimed:
            return None
        record = failed(spec, KILLED, job)
        job.store.write(record)
        return record


def _run_in_worker(spec: RunSpec, job: Job) -> RunRecord | None:
    with ending_with_its_device():
        session = kept_session(job.inputs, job.precision)
        return run_and_store(spec, job, session, progress=False, watched=True)
