"""How runs reach the hardware: this process, a pool of warm worker processes, or several ranks."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env

from harness.allocator import keep_freed_memory
from harness.cuda_graphs import check_recordable
from harness.data_parallel import leave, tell
from harness.errors import UserError, first_line, without_secrets
from harness.finetune import finetune
from harness.memory import saved_bytes
from harness.metrics import check_available
from harness.precision import PRECISIONS, use
from harness.ranks import apart, launched
from harness.records import RunRecord, RunSpec
from harness.scoring import logits
from harness.sharding import left_to_us
from harness.store import GO_ON, Store, disk_errors
from harness.sweep import Inputs
from harness.trackers import track
from harness.user_tasks import find_task
from harness.workbench import Workbench
from harness.zero_shot import zero_shot

SECONDS_BETWEEN_LOOKS = 1.0
"""How often a run that another process holds is asked for again."""

RESERVED_BYTES = 2**30
"""Memory of a worker beside its model's copies: interpreter, libraries, activations."""

SPARE = 1.2
"""What a run may take of a device's memory beyond what it cannot do without (see benchmarks/memory.py)."""

BYTES_OF_A_CONTEXT = 2**30
"""Memory of a GPU that a process takes beside its tensors: CUDA's context, code and work space."""

BYTES_OF_A_RECORD, BYTES_OF_AN_EVALUATION, BYTES_OF_A_PREDICTION = 20_000, 200, 40
"""With its share of the tables and the page, rounded up."""

MOST_DEATHS = 3
"""A run under which so many worker processes have died is recorded as failed."""


def make_accelerator(precision: str, together: bool = False) -> Accelerator:
    """The process's device and autocast. bf16 is autocast only: parameters and updates stay fp32.

    The ranks of a launch share out whole runs, so each is made apart: it has the device of its local
    rank and no process group, and no model can be wrapped nor a collective wait for a rank that died.

    Args:
        together: the ranks share each run's batches instead, and are waited for here.

    Raises:
        UserError: the device does not have that precision, or the ranks were not joined.
    """
    mixed_precision = PRECISIONS[precision].autocast
    if together:
        # parameters that no loss reaches keep no gradient, as in a single process
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
        with left_to_us():
            accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[ddp])
        if accelerator.num_processes != (ranks := launched().ranks):
            raise UserError(
                f"--data-parallel: {ranks} ranks were started, and accelerate joined "
                f"{accelerator.num_processes} on {accelerator.device.type}: without a GPU it joins none "
                f"unless ACCELERATE_USE_CPU=true stands before the command"
            )
    else:
        local_rank = launched().local_rank
        if local_rank and not parse_flag_from_env("ACCELERATE_USE_CPU") and torch.accelerator.is_available():
            torch.accelerator.set_device_index(local_rank % torch.accelerator.device_count())
        with apart():
            accelerator = Accelerator(mixed_precision=mixed_precision)
    use(precision, accelerator.device.type)
    return accelerator


def prepare(specs: Sequence[RunSpec], inputs: Inputs, precision: str, together: bool = False) -> Workbench:
    """Build every split, prompt and model of the runs, so that what cannot work fails before training.

    Args:
        together: whether the ranks of the launch share each run's batches.

    Raises:
        UserError: one of them cannot be built.
    """
    quiet_libraries()
    keep_freed_memory()
    bench = Workbench(inputs, make_accelerator(precision, together))
    for spec in specs:
        bench.objective(spec)
        for metric in bench.metrics(spec):
            check_available(metric)
        bench.split(spec)
        check_recordable(spec, bench)
    return bench


def default_workers(bench: Workbench, specs: Sequence[RunSpec]) -> int:
    """Worker processes that the machine carries: one on a GPU, else by cores and free memory."""
    if bench.accelerator.device.type != "cpu" or not specs:
        return 1
    parameters = sum(p.numel() * p.element_size() for p in bench.loaded(specs[0]).model.parameters())
    # a run holds the weights five times: pristine, live, gradient, momentum, best checkpoint
    by_memory = psutil.virtual_memory().available // (5 * parameters + RESERVED_BYTES)
    return max(1, min(usable_cores() // specs[0].threads_per_run, int(by_memory), len(specs)))


def workers_on_gpu(bench: Workbench, specs: Sequence[RunSpec], asked: int | Literal["auto"]) -> int:
    """Worker processes on this process's GPU; `auto`: as many as its free memory holds runs.

    Raises:
        UserError: this process has no GPU.
    """
    device = bench.accelerator.device
    if device.type != "cuda":
        raise UserError(
            f"--runs-per-gpu {asked}: this runs on {device.type}, without a GPU: use --workers, which takes "
            f"its default from cores and memory"
        )
    if asked != "auto":
        return asked
    largest = max(bytes_of_a_run(bench, spec) for spec in {(s.task, s.optimizer): s for s in specs}.values())
    return runs_that_fit(torch.cuda.mem_get_info(device)[0], largest)


def runs_that_fit(free: int, bytes_of_run: int) -> int:
    """Processes of one run each that so many free bytes of a device hold; one at least."""
    return max(1, int(free // (SPARE * bytes_of_run + BYTES_OF_A_CONTEXT)))


def bytes_of_a_run(bench: Workbench, spec: RunSpec) -> int:
    """Parameters, gradients, optimizer state and the activations of the longest batch on the device."""
    loaded, train = bench.loaded(spec), bench.split(spec).train
    size = spec.batch_size // spec.gradient_accumulation_steps
    longest = sorted(range(len(train.labels)), key=lambda row: train.lengths[row])[-size:]
    batch = train.batch(longest, bench.pad_id(spec), bench.accelerator.device, loaded.packing)

    def forward() -> torch.Tensor:
        with bench.accelerator.autocast():
            return logits(loaded, batch, bench.objective(spec))

    parameters = list(loaded.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    state = bench.optimizer(spec).state_bytes_per_parameter(spec.hyperparameters)
    held = sum(p.nbytes for p in parameters) + int(trained * (4 + state))  # gradients are fp32
    was_training = loaded.model.training
    loaded.model.train()
    activations = saved_bytes(forward, parameters)
    loaded.model.train(was_training)
    return held + activations


def bytes_to_come(specs: Sequence[RunSpec], job: Job, bench: Workbench, workers: int) -> int:
    """About how much disk the records of the runs, their tables and their checkpoints will take."""
    records = sum(
        BYTES_OF_A_RECORD
        + BYTES_OF_AN_EVALUATION * (spec.max_steps // spec.eval_every + 1)
        + BYTES_OF_A_PREDICTION * len(bench.split(spec).test_rows)
        for spec in specs
    )
    if job.checkpoint_every is None:
        return records
    parameters = sum(p.numel() for p in bench.loaded(specs[0]).model.parameters())
    state = max(bench.optimizer(s).state_bytes_per_parameter(s.hyperparameters) for s in specs)
    # live and best parameters in fp32 and the optimizer's state; the old file lies beside the new one
    return records + int(2 * workers * parameters * (8 + state))


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


_worker: tuple[Job, Workbench]  # of this worker process


def execute(
    specs: Sequence[RunSpec], job: Job, bench: Workbench, workers: int, progress: bool
) -> Iterator[RunRecord]:
    """Run all specs, begun in their order, and store their records, yielding each as it is finished.

    Several processes may do so on one directory: each run is done by whoever claims it first. A run
    that another process holds is waited for, and taken over if that process dies.

    Raises:
        UserError: the disk or an input is gone, or workers die before they begin; what is finished stays.
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
    tell(bench.accelerator, None)
    leave(bench.accelerator)


RunAll = Callable[[Sequence[RunSpec]], Iterator[tuple[RunSpec, RunRecord | None]]]


@contextmanager
def _runner(job: Job, bench: Workbench, workers: int, progress: bool) -> Iterator[RunAll]:
    """A function that runs specs, in this process or in warm workers, and yields each result."""
    if workers <= 1:
        yield lambda specs: ((spec, run_and_store(spec, job, bench, progress)) for spec in specs)
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
                    f"{MOST_DEATHS} worker processes died before they began a run. {GO_ON}, with fewer "
                    f"--workers if memory was short"
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
        record = _failed(spec, reason, job)
        job.store.write(record)
        return record


def run_and_store(spec: RunSpec, job: Job, bench: Workbench, progress: bool) -> RunRecord | None:
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
            tell(bench.accelerator, spec)
            journal = job.store.journal(spec, job.checkpoint_every)
            trains = spec.max_steps > 0
            record = finetune(spec, bench, journal, progress) if trains else zero_shot(spec, bench, journal)
        except UserError:  # the sweep cannot go on: its inputs changed
            raise
        except Exception as error:
            if bench.accelerator.num_processes > 1:  # the other ranks may be waiting for this one
                raise
            if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                raise  # the disk is gone
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
            record = _failed(spec, first_line(error), job)
        job.store.write(record)
        if job.log_with is not None:
            track(record, job.log_with, job.store.output_dir / "trackers")
        return record


def _failed(spec: RunSpec, reason: str, job: Job) -> RunRecord:
    metric = find_task(spec.task, job.inputs.task_file).metric
    return RunRecord(spec=spec, metric=metric, status="failed", failure=reason)


def _start_worker(job: Job) -> None:
    """Make this process a worker: warm libraries, no Ctrl-C of its own, gone when the parent is."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    quiet_libraries()
    keep_freed_memory()
    _worker = job, Workbench(job.inputs, make_accelerator(job.precision))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(spec: RunSpec) -> RunRecord | None:
    job, bench = _worker
    return run_and_store(spec, job, bench, progress=False)


def quiet_libraries() -> None:
    """Loading bars and notes about new heads are noise here: the record says what is new."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
