"""Files of a results directory that have no end: no command waits for them or fills the memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from momentum_bench.harness.records.files import plain_content
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.rendering.files import write
from tests.conftest import ROOT, cli_environment
from tests.helpers.submissions import specs, submission, whole_record

MEMORY = 4 * 2**30
"""Bytes of addresses that a command may use: far more than a small board needs, and an end to /dev/zero."""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


ODD: dict[str, Callable[[Path], None]] = {"fifo": fifo, "endless": endless, "folder": folder}

COMMANDS = {
    "build": ["leaderboard", "build"],
    "check": ["leaderboard", "check"],
    "status": ["status"],
    "reproduce": ["reproduce", "no such row"],
}

SEVERAL = """
import json, sys
from typer.testing import CliRunner
from momentum_bench.harness.cli.main import app
ended = []
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    ended.append((done.exit_code, done.stdout, done.stderr))
print(json.dumps(ended))
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed with each run of spaces as one."""

    code: int
    out: str
    err: str


def run_bounded(*commands: list[str]) -> list[Ended]:
    """Commands in one process that may neither wait forever nor use much memory."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        cwd=ROOT,
        env=cli_environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [
        Ended(code, " ".join(out.split()), " ".join(err.split()))
        for code, out, err in json.loads(done.stdout)
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return submission(tmp_path / "results", [whole_record(spec) for spec in specs()])


@pytest.mark.parametrize("kind", ODD)
def test_a_record_that_is_not_a_plain_file_is_left_out(results: Path, kind: str):
    first, *others = Store(results).run_folders()
    (results / "runs" / first / "record.json").unlink()
    ODD[kind](results / "runs" / first / "record.json")
    ended = run_bounded(*([*words, str(results)] for words in COMMANDS.values()))
    build, check, status, reproduce = ended
    assert build.code == 1  # its board is not whole
    assert "1 record(s) cannot be read" in build.out
    assert "1 run folder(s) have no whole record and were left out" in build.err
    assert check.code == 1
    reason = "is a symbolic link that leads out" if kind == "endless" else "it is not a plain file"
    assert f"runs/{first}/record.json" in check.out
    assert reason in check.out
    assert status.code == 0
    assert f"{len(others)} done" in status.out
    assert reproduce.code == 2
    assert "no such row" in reproduce.err


@pytest.mark.parametrize("kind", ODD)
def test_no_other_file_that_is_not_plain_stops_a_command(results: Path, tmp_path: Path, kind: str):
    first, second, *_ = Store(results).run_folders()
    names = ["plans/a.json", "noise_floor/a.json", "records.jsonl.xz", "tasks/a.csv", "pooled.csv"]
    names += [f"runs/{first}/lock", f"runs/{second}/evaluations.jsonl"]
    for run_id in (first, second):
        (results / "runs" / run_id / "record.json").unlink()
    for name in names:
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).unlink(missing_ok=True)
        ODD[kind](results / name)
    build, check, status, reproduce = run_bounded(*([*words, str(results)] for words in COMMANDS.values()))
    assert [build.code, check.code, status.code, reproduce.code] == [1, 1, 0, 2]
    assert Store(results).steps_done(second) == 0


@pytest.mark.parametrize("kind", ODD)
def test_a_marker_that_is_not_a_plain_file_is_of_no_version(results: Path, kind: str):
    (results / "momentum-bench.json").unlink()
    ODD[kind](results / "momentum-bench.json")
    build, check, status, reproduce = run_bounded(*([*words, str(results)] for words in COMMANDS.values()))
    assert [build.code, check.code, status.code, reproduce.code] == [2, 1, 2, 2]
    assert "protocol version unreadable" in build.err
    assert "momentum-bench.json" in check.out


@pytest.mark.parametrize("kind", ["fifo", "endless"])
def test_a_table_that_is_not_a_plain_file_is_not_read_or_replaced(results: Path, tmp_path: Path, kind: str):
    (tmp_path / "out").mkdir()
    ODD[kind](tmp_path / "out" / "leaderboard.csv")
    (done,) = run_bounded(["leaderboard", "build", str(results), "--out", str(tmp_path / "out")])
    assert done.code == 2
    assert "its leaderboard.csv would be overwritten" in done.err


def test_a_plain_file_is_read_up_to_a_bound(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"123")
    assert plain_content(tmp_path / "file", 3) == b"123"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        plain_content(tmp_path / "file", 2)


def test_a_record_behind_a_link_is_still_read(results: Path):
    path = results / "runs" / Store(results).run_folders()[0] / "record.json"
    path.rename(results / "elsewhere.json")
    path.symlink_to(results / "elsewhere.json")
    write(build(Store(results)), results)
    assert len(Store(results).records()) == len(specs())
