"""The manual's guide to a task of one's own, followed to the letter; its commands are run in `tests/docs`."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

from momentum_bench.harness.data.find_task import ENTRY_POINTS, task_of
from tests.conftest import ROOT
from tests.helpers.command_line import run_command
from tests.helpers.manual import blocks

BLOCKS = {f"{b.language} {b.word}".strip(): b.text for b in blocks(ROOT / "docs" / "add-a-task.md")}
FILE = BLOCKS["python tickets.py"]


def test_the_example_is_short_and_sound(tmp_path: Path):
    assert len([line for line in FILE.splitlines() if line]) <= 20
    (tmp_path / "tickets.py").write_text(FILE)
    task = task_of(tmp_path / "tickets.py")
    row = json.loads(BLOCKS["json"])
    assert set(task.columns) == set(row)
    assert row["label"] in task.labels


def test_the_entry_point_is_the_one_that_is_looked_up():
    points = tomllib.loads(BLOCKS["toml"])["project"]["entry-points"]
    assert set(points) == {ENTRY_POINTS}
    (field,) = (
        word for word in ast.walk(ast.parse(FILE)) if isinstance(word, ast.keyword) and word.arg == "name"
    )
    assert [field.value.value] == list(points[ENTRY_POINTS])  # type: ignore[attr-defined]


def test_a_row_is_shown_only_where_there_is_one(tmp_path: Path):
    (tmp_path / "tickets.py").write_text(FILE)
    done = run_command("tasks", "show", tmp_path / "tickets.py")
    assert done.returncode == 0
    assert done.stderr.startswith("no row is shown; give one with --data-dir DIR: tickets cannot be")
    assert "0 fine" not in done.stdout
    assert "calm calm -> fine" in done.stdout
