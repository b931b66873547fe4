"""Finished runs taken from elsewhere: `run --resume-from`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    done = run_command("run", *words, "--output-dir", tmp_path / "second", "--resume-from", source)
    assert done.returncode == 0, done.stderr
    assert "4 finished run(s) were taken from elsewhere" in done.stderr
    assert "[4/4]" in done.stderr
    there = records(tmp_path / "first")
    assert {run_id: records(tmp_path / "second")[run_id] for run_id in there} == there
    assert len(records(tmp_path / "second")) == 8


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
