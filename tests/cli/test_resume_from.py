"""Finished runs taken from elsewhere, and kept elsewhere: `run --resume-from` and `run --archive`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momentum_bench.harness.cli import archiving
from momentum_bench.harness.cli.archiving import ArchivingEvents
from momentum_bench.harness.errors import UserError
from momentum_bench.leaderboards.archive import ARCHIVE, ArchivedStore
from tests.helpers.command_line import run_command
from tests.helpers.sweeps import records, small_sweep


@pytest.mark.parametrize("archived", [True, False])
def test_runs_of_another_directory_are_taken_and_not_done_again(
    archived: bool, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = small_sweep(tiny_model, toy_data)
    less = ["--seeds", 13, "--output-dir", tmp_path / "first"]
    assert run_command("run", *words, *less).returncode == 0
    source = tmp_path / "first"
    if archived:
        source = tmp_path / "board"
        words_of_build = ("leaderboard", "build", tmp_path / "first", "--out", source, "--archive")
        assert run_command(*words_of_build).returncode == 0
    onto = ("--output-dir", tmp_path / "second", "--resume-from", source)
    plan = run_command("run", *words, *onto, "--dry-run")
    assert "4 of them already there" in plan.stderr
    assert plan.stdout.count("done") == 4
    assert not (tmp_path / "second").exists()
    done = run_command("run", *words, *onto)
    assert done.returncode == 0, done.stderr
    assert "4 finished run(s) were taken from elsewhere" in done.stderr
    assert "[4/4]" in done.stderr
    there = records(tmp_path / "first")
    assert {run_id: records(tmp_path / "second")[run_id] for run_id in there} == there
    assert len(records(tmp_path / "second")) == 8


def test_runs_that_have_not_ended_are_not_taken(tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = small_sweep(tiny_model, toy_data, "--seeds", 13)
    assert run_command("run", *words, "--output-dir", tmp_path / "first").returncode == 0
    left = min((tmp_path / "first" / "runs").iterdir()) / "record.json"
    left.unlink()  # as where a process was killed
    left.with_name("evaluations.jsonl").write_text("")
    done = run_command(
        "run", *words, "--output-dir", tmp_path / "second", "--resume-from", tmp_path / "first"
    )
    assert done.returncode == 0, done.stderr
    assert "3 finished run(s) were taken from elsewhere" in done.stderr


def test_nothing_is_taken_from_what_does_not_pass_the_check(tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = small_sweep(tiny_model, toy_data, "--seeds", 13)
    assert run_command("run", *words, "--output-dir", tmp_path / "first").returncode == 0
    path = min((tmp_path / "first").glob("runs/*/record.json"))
    content = json.loads(path.read_text())
    content["best_step"] = 1
    path.write_text(json.dumps(content) + "\n")
    done = run_command(
        "run", *words, "--output-dir", tmp_path / "second", "--resume-from", tmp_path / "first"
    )
    assert done.returncode == 2
    assert "does not pass the check" in " ".join(done.stderr.split())
    assert not list((tmp_path / "second").glob("runs/*/record.json"))
    empty = run_command("run", *words, "--output-dir", tmp_path / "third", "--resume-from", tmp_path)
    assert empty.returncode == 2
    assert "no folder runs/" in " ".join(empty.stderr.split())


def test_an_archive_goes_on_on_another_machine(tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = small_sweep(tiny_model, toy_data, "--archive", tmp_path / "board")
    assert run_command("run", *words, "--seeds", 13, "--output-dir", tmp_path / "first").returncode == 0
    assert run_command("leaderboard", "check", tmp_path / "board").returncode == 0
    first = records_in(tmp_path / "board")
    done = run_command("run", *words, "--seeds", 21, "--output-dir", tmp_path / "second")
    assert done.returncode == 0, done.stderr
    assert records_in(tmp_path / "board") > first  # runs of another sweep stay
    done = run_command("run", *words, "--output-dir", tmp_path / "third")
    assert "8 finished run(s) were taken from elsewhere" in done.stderr
    assert run_command("leaderboard", "check", tmp_path / "board").returncode == 0
    build = ("leaderboard", "build", tmp_path / "third", "--out", tmp_path / "whole", "--archive")
    assert run_command(*build).returncode == 0
    for name in ("leaderboard.csv", "comparison.csv", "records.jsonl.xz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "board" / name).read_bytes()


def records_in(board: Path) -> set[str]:
    return set(ArchivedStore(board, board / ARCHIVE).run_folders())


@pytest.mark.slow
def test_the_archive_is_written_while_the_sweep_runs(
    tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After each of its runs, if no time has to pass; the check then names what is still to come."""
    monkeypatch.setattr(archiving, "SECONDS_BETWEEN", 0.0)
    found = []
    write = ArchivingEvents.write

    def written(self: ArchivingEvents) -> None:
        write(self)
        check = run_command("leaderboard", "check", tmp_path / "board")
        lines = check.stdout.splitlines()
        assert all(": no run of seed " in line for line in lines)  # nothing but what is still to come
        found.append((len(records_in(tmp_path / "board")), check.returncode))

    monkeypatch.setattr(ArchivingEvents, "write", written)
    words = small_sweep(tiny_model, toy_data, "--archive", tmp_path / "board")
    words = [word for word in words if word not in ("--seeds", "13,21")]
    words += ["--tune-seeds", "13,21", "--confirm-seeds", 3]
    done = run_command("run", *words, "--output-dir", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert [n for n, _ in found] == [*range(1, 15), 14]
    assert found[-1] == (14, 0)
    assert list((tmp_path / "board" / "designs").glob("*.json"))


def test_an_archive_goes_into_a_folder_of_its_own(tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = small_sweep(tiny_model, toy_data, "--seeds", 13, "--output-dir", tmp_path / "results")
    done = run_command("run", *words, "--archive", tmp_path / "results")
    assert done.returncode == 2
    assert "that is a results directory" in " ".join(done.stderr.split())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "leaderboard.csv").write_text("my own\n")
    done = run_command("run", *words, "--archive", tmp_path / "mine")
    assert done.returncode == 2
    assert "holds no leaderboard" in " ".join(done.stderr.split())
    assert (tmp_path / "mine" / "leaderboard.csv").read_text() == "my own\n"
    assert not list((tmp_path / "results").glob("runs/*/record.json"))


def test_a_folder_that_is_gone_is_a_warning_until_the_end(
    tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archiving, "SECONDS_BETWEEN", 0.0)
    words = small_sweep(tiny_model, toy_data, "--seeds", 13, "--output-dir", tmp_path / "results")

    def refused(self: ArchivingEvents) -> None:
        raise UserError("the folder cannot be written")

    monkeypatch.setattr(ArchivingEvents, "write", refused)
    done = run_command("run", *words, "--archive", tmp_path / "board")
    assert done.returncode == 2
    assert "warning: the folder cannot be written" in done.stderr
    assert len(list((tmp_path / "results").glob("runs/*/record.json"))) == 4
    assert (tmp_path / "results" / "leaderboard.csv").exists()
