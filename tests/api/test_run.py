"""`mb.run` does what `momentum-bench run` does, and leaves the caller's process as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import momentum_bench as mb
from momentum_bench.harness.execution import one_run
from momentum_bench.harness.records.schema import RunRecord
from tests.conftest import SOURCES, cli_environment, sentiment_rows, write_rows
from tests.helpers.command_line import run_command
from tests.helpers.sweeps import launch, records, small_sweep, table

AT_A_TIME = "runs_at_a_time"
"""The setting that says how many runs a process has at a time."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """The keywords of `small_sweep`, whose values are Python's own."""
    data = tmp_path_factory.mktemp("data")
    write_rows(data / "sst2" / "train.jsonl", sentiment_rows(40))
    write_rows(data / "sst2" / "validation.jsonl", sentiment_rows(64)[40:])
    return {
        **{"task": "sst2", "data_dir": data, "model": str(tiny_model), "method": "prompt", "k": 4},
        **{"seeds": [13, 21], "learning_rates": [1e-2, 1e-1], "max_steps": 6, "eval_every": 3},
        **{"batch_size": 4, AT_A_TIME: 1},
    }


class Told(mb.SweepEvents):
    """Keeps what a sweep tells."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done: list[RunRecord] = []
        self.n_begun: list[int] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def begun(self, n_runs: int) -> None:
        self.n_begun.append(n_runs)

    def finished(self, number: int, n_runs: int, record: RunRecord) -> None:
        self.done.append(record)


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def results(settings: dict[str, Any], told: Told, tmp_path_factory: pytest.TempPathFactory) -> mb.Results:
    """A small sweep that Python code ran."""
    return mb.run(**settings, output_dir=tmp_path_factory.mktemp("python") / "out", events=told)


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """A program of a user, in a process of its own."""
    (folder / "program.py").write_text(text)
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env=cli_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_gives_the_same_runs_and_tables(
    results: mb.Results, settings: dict[str, Any], tmp_path: Path
):
    out = tmp_path / "cli"
    words = small_sweep(Path(settings["model"]), settings["data_dir"], "--output-dir", out)
    typed = run_command("run", *words)
    assert typed.returncode == 0, typed.stderr
    assert len(records(out)) == 8
    assert records(results.directory) == records(out)
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert files == {p.relative_to(results.directory) for p in results.directory.rglob("*") if p.is_file()}
    for name in ("leaderboard.csv", "comparison.csv", "pooled.csv", "tasks/sst2.csv"):
        assert table(results.directory / name) == table(out / name)


def test_it_returns_the_runs_of_the_sweep(results: mb.Results, told: Told):
    assert len(results.records) == 8
    assert results.failed == []
    assert told.n_begun == [8]
    assert {r.spec.run_id for r in told.done} == {r.spec.run_id for r in results.records}
    assert any("8 runs" in text for text in told.messages)
    assert repr(results) == f"Results: 8 runs in {results.directory} (8 done)"


def test_finished_runs_are_not_run_again(results: mb.Results, settings: dict[str, Any]):
    again = Told()
    sweep = mb.Sweep(**settings | {"seeds": 13}, output_dir=results.directory)
    part = mb.run(sweep, events=again)
    assert again.done == []
    assert [r.spec.seed for r in part.records] == [13] * 4
    assert {r.spec.run_id for r in part.records} < {r.spec.run_id for r in results.records}
    board = part.leaderboard()
    assert [row.columns["seeds"] for row in board.rows] == ["13", "13"]
    assert board.notes[0].startswith(f"{results.directory} holds 4 run(s) of other sweeps")
    assert not board.left_out
    # the tables of the directory are of all its runs, as after the same command line
    assert {row["seeds"] for row in table(results.directory / "leaderboard.csv")} == {"13;21"}


def test_events_that_do_nothing_are_silent(
    results: mb.Results, settings: dict[str, Any], capfd: pytest.CaptureFixture[str]
):
    mb.run(**settings, output_dir=results.directory, events=mb.SweepEvents())
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_to_stdout(results: mb.Results, settings: dict[str, Any], capfd):
    mb.run(**settings, output_dir=results.directory)
    written = capfd.readouterr()
    assert written.out == ""
    assert "8 of them already there" in written.err


def test_a_failed_run_is_a_result(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    def broken(*_: object) -> None:
        raise RuntimeError("made up")

    small = settings | {"seeds": 13, "learning_rates": 0.1, "output_dir": tmp_path / "out"}
    with monkeypatch.context() as patched:
        patched.setattr(one_run, "finetune", broken)
        results = mb.run(**small)
    assert len(results.failed) == len(results.records) == 2
    assert results.failed[0].failure == "RuntimeError: made up"
    assert "(2 failed)" in repr(results)
    assert "failed (RuntimeError: made up)" in capfd.readouterr().err
    assert results.to_pandas()["test_metric"].isna().all()
    assert [row.columns["n_failed"] for row in results.leaderboard().rows] == [1, 1]
    still = mb.run(**small, events=mb.SweepEvents())
    assert len(still.failed) == 2
    again = mb.run(**small, retry_failed=True, events=mb.SweepEvents())
    assert again.failed == []


def test_torch_is_as_it_was_and_a_second_precision_is_no_trouble(settings: dict[str, Any], tmp_path: Path):
    mine = Accelerator(cpu=True)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(7)
        expected = torch.get_rng_state().clone()
        small = settings | {"seeds": 13, "learning_rates": 0.1, "optimizers": "sgd"}
        for each in ("fp32", "bf16", "fp32"):
            results = mb.run(**small, precision=each, output_dir=tmp_path / each, events=mb.SweepEvents())
            assert results.records[0].spec.precision == each
            assert results.records[0].status == "done"
        assert torch.get_num_threads() == 2
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.equal(torch.get_rng_state(), expected)
        assert mine.mixed_precision == "no"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
def test_workers_do_not_run_a_script_again_that_has_no_main_guard(settings: dict[str, Any], tmp_path: Path):
    words = settings | {"data_dir": str(settings["data_dir"]), AT_A_TIME: 2, "output_dir": "out"}
    text = (
        "import os\n"
        "print('from the top', flush=True)\n"
        "import momentum_bench as mb\n"
        f"results = mb.run(**{words!r}, events=mb.SweepEvents())\n"
        "assert __file__.endswith('program.py')\n"
        "print(len(results.records), len(results.failed))\n"
    )
    done = script(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["from the top", "8 0"]


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_leaves_the_callers_own_processes(
    settings: dict[str, Any], tmp_path: Path
):
    words = settings | {"data_dir": str(settings["data_dir"]), AT_A_TIME: 2, "output_dir": "out"}
    text = (
        "import multiprocessing, sys\n"
        "import momentum_bench as mb\n"
        "class Interrupted(mb.SweepEvents):\n"
        "    def finished(self, number, n_runs, record):\n"
        "        raise KeyboardInterrupt\n"
        "if __name__ == '__main__':\n"
        "    here, there = multiprocessing.get_context('spawn').Pipe()\n"
        "    mine = multiprocessing.get_context('spawn').Process(target=there.recv)\n"
        "    mine.start()\n"
        "    try:\n"
        f"        mb.run(**{words!r}, events=Interrupted())\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
        "    here.send('end')\n"
        "    mine.join()\n"
        "    print(mine.exitcode, len(multiprocessing.active_children()))\n"
    )
    done = script(tmp_path, text)
    assert done.stdout.splitlines() == ["interrupted", "0 0"], done.stderr
    assert "leaked" not in done.stderr


@pytest.mark.slow
def test_ranks_of_a_launcher_share_the_runs_of_a_script(settings: dict[str, Any], tmp_path: Path):
    words = settings | {"data_dir": str(settings["data_dir"]), "output_dir": "out"}
    (tmp_path / "program.py").write_text(
        "import momentum_bench as mb\n"
        "class Counted(mb.SweepEvents):\n"
        "    n_done = 0\n"
        "    def finished(self, number, n_runs, record):\n"
        "        self.n_done += 1\n"
        "events = Counted()\n"
        f"mb.run(**{words!r}, events=events)\n"
        "print('did', events.n_done)\n"
        "board = mb.leaderboard('out')\n"
    )
    options = ("torch.distributed.run", "--nproc_per_node", 2, "--master_port", 0)
    done = launch(*options, "program.py", cwd=tmp_path, PYTHONPATH=str(SOURCES), ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    did = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("did")]
    assert len(did) == 2
    assert min(did) >= 4  # its share; and a rank that is ready sooner does what the other has not begun
    assert len(records(tmp_path / "out")) == 8
    assert {row["seeds"] for row in table(tmp_path / "out" / "leaderboard.csv")} == {"13;21"}
