"""Worker processes on this machine: each keeps one session between its runs, and none outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from accelerate.utils import patch_environment
from tqdm import tqdm

from momentum_bench.harness.device_errors import DeviceLostError
from momentum_bench.harness.execution.prepare import new_session
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.messages import note
from momentum_bench.harness.training.session import Session

EXIT_DEVICE_LOST = 3

Given = ParamSpec("Given")
Result = TypeVar("Result")

_kept: tuple[Inputs, str, Session] | None = None


def kept_session(inputs: Inputs, precision: str) -> Session:
    """The session of this process; the first call makes it, and so does a call for other inputs."""
    global _kept
    if _kept is None or _kept[:2] != (inputs, precision):
        _kept = inputs, precision, new_session(inputs, precision)
    return _kept[2]


def new_pool(n_processes: int, inputs: Inputs, precision: str) -> ProcessPoolExecutor:
    """A pool of worker processes, which start when work is handed to them by `submit`."""
    context = multiprocessing.get_context("spawn")
    with _working_directory_is_not_searched():
        return ProcessPoolExecutor(
            n_processes, context, initializer=_start_worker, initargs=(inputs, precision)
        )


def submit(
    pool: ProcessPoolExecutor,
    function: Callable[Given, Result],
    *args: Given.args,
    **kwargs: Given.kwargs,
) -> Future[Result]:
    """Hand work to a pool. Ctrl-C does not reach the process that this may start: its parent ends it.

    Raises:
        BrokenProcessPool: a process of the pool has died.
    """
    # a new process inherits the blocked signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _main_is_not_imported(), _working_directory_is_not_searched():
            return pool.submit(function, *args, **kwargs)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _main_is_not_imported() -> Iterator[None]:
    """Start workers that do not import the program's main module, of which they need nothing.

    A script that calls us without `if __name__ == "__main__":` would run from its top in each worker.
    """
    main = sys.modules["__main__"]
    before = {name: value for name in ("__spec__", "__file__") if (value := getattr(main, name, None))}
    try:
        for name in before:
            setattr(main, name, None)
        yield
    finally:
        for name, value in before.items():
            setattr(main, name, value)


@contextmanager
def _working_directory_is_not_searched() -> Iterator[None]:
    """Start processes that do not look for modules where the user happens to be.

    Python starts them by `-c`, and then a file there that is called `random.py` would be taken for Python's
    own module, and be executed. Their search path is that of this process in the end.
    """
    with patch_environment(PYTHONSAFEPATH="1"):
        yield


@contextmanager
def closing_pools(pools: Sequence[ProcessPoolExecutor]) -> Iterator[None]:
    """Wait for the work of the pools at the end, or end their processes at once when an exception leaves.

    Pools that are put into the sequence meanwhile are closed too.
    """
    others = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        raise
    for pool in pools:
        pool.shutdown()


@contextmanager
def ending_with_its_device() -> Iterator[None]:
    """End this worker process when its device is lost, because no later run could work in it."""
    try:
        yield
    except DeviceLostError as error:
        note(f"a worker process ends: {error}")
        os._exit(EXIT_DEVICE_LOST)


def _start_worker(inputs: Inputs, precision: str) -> None:
    """What a worker process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm would make a lock between processes, which stays behind, with a warning, where a worker is ended
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    kept_session(inputs, precision)


def _exit_with_parent() -> None:
    """Wait until the parent has ended, killed or not, and end this process, whatever it is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
