"""Locks of the operating system on files: a process that dies holds none of them any more.

`filelock` would use marker files instead where a disk has no such locks. A marker stays when its process
dies, and everybody waits for it without a word. So that is switched off, and a disk whose locks do not work
is found before the first run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note

SECONDS_BEFORE_A_WORD = 5.0
"""Whoever waits longer for a lock says for whom."""

_ASK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
    else:
        print("free")
"""
"""What a second process does with a lock that the first one holds."""


def system_lock(path: Path) -> FileLock:
    """The lock on a file, not yet taken. `acquire` raises OSError where the disk has no locks."""
    return FileLock(path, fallback_to_soft=False)


@contextmanager
def waited_for(path: Path, what: str) -> Iterator[None]:
    """Hold a lock, as soon as no other process holds it.

    Args:
        what: is written to by its holder, for the line that says what is waited for.
    """
    lock = system_lock(path)
    try:
        lock.acquire(timeout=SECONDS_BEFORE_A_WORD)
    except Timeout:
        note(f"waiting for {what}: {_holder(path)}")
        lock.acquire()
    try:
        _note_holder(path)
        yield
    finally:
        lock.release()


def _note_holder(path: Path) -> None:
    with suppress(OSError):  # a courtesy to those who wait
        path.write_text(f"{os.getpid()} {time.time():.0f}\n")


def _holder(path: Path) -> str:
    try:
        process, since = path.read_text().split()
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(since)))
        return f"process {int(process)}, on this or another machine, holds its lock since {began}"
    except (OSError, ValueError):
        return "another process holds its lock"


def check_locks(folder: Path) -> None:
    """See whether a second process notices a lock that this one holds in a folder.

    Raises:
        UserError: it does not, or there are no locks at all, as on some network disks.
    """
    path = folder / f".momentum-bench.{os.getpid()}.lock"
    try:
        with system_lock(path):
            found = _asked(path)
    except OSError as error:
        found = error.strerror or str(error)
    finally:
        path.unlink(missing_ok=True)
    if found != "held":
        reason = "a lock that one process holds is not seen by another" if found == "free" else found
        raise UserError(
            f"{folder} lies on a disk whose file locks do not work ({reason}), and two processes would do "
            f"the same run: choose an --output-dir on another disk, or mount this one with locks (on NFS: "
            f"not with nolock or local_lock)"
        )


def _asked(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ASK, str(path)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or (done.stderr.strip().splitlines() or ["no answer"])[-1]
