"""Locks of a results directory: real ones, or an error; whoever waits says for whom."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records import locks
from momentum_bench.harness.records.store import Store

HOLDS = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on network disks whose `flock` is not implemented."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refused)


def test_a_disk_with_locks(tmp_path: Path):
    locks.check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_is_named_and_nothing_waits(tmp_path: Path, without_flock: None):
    (tmp_path / "results" / "runs").mkdir(parents=True)
    (tmp_path / "results" / "momentum-bench.lock").touch()  # stale for a lock made of markers
    with pytest.raises(UserError, match=r"file locks do not work \(Function not implemented\)"):
        Store(tmp_path / "results").open()
    assert not (tmp_path / "results" / "momentum-bench.json").exists()


def test_locks_that_others_do_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on a disk that is mounted with locks of this machine's own."""
    monkeypatch.setattr(locks, "_ASK", locks._ASK.replace("sys.argv[1]", "sys.argv[1] + '.other'", 1))
    (tmp_path / f".momentum-bench.{locks.os.getpid()}.lock.other").touch()
    with pytest.raises(UserError, match="a lock that one process holds is not seen by another"):
        locks.check_locks(tmp_path)


def test_whoever_waits_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The holder lets go when it is told to, which is after the waiting one has spoken."""
    path = tmp_path / "lock"
    path.write_text("4321 1700000000\n")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    said = []

    def note(text: str) -> None:
        said.append(text)
        holder.communicate()

    monkeypatch.setattr(locks, "note", note)
    monkeypatch.setattr(locks, "SECONDS_BEFORE_A_WORD", 0.05)
    with locks.waited_for(path, "the tables"):
        assert path.read_text().split()[0] == str(locks.os.getpid())
    assert said[0].startswith("waiting for the tables: process 4321, on this or another machine, holds its")


def test_a_lock_file_that_holds_anything(tmp_path: Path):
    for content in ("", "a b", "1", "99999999999999999999 -1 3"):
        (tmp_path / "lock").write_text(content)
        assert locks._holder(tmp_path / "lock") == "another process holds its lock"


def test_no_lock_becomes_a_marker(tmp_path: Path):
    assert locks.system_lock(tmp_path / "lock").fallback_to_soft is False
    assert FileLock(tmp_path / "other").fallback_to_soft is True  # what would be used otherwise
