"""The README's guide to a task of one's own, followed to the letter on tiny data."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from momentum_bench.harness.cli.main import main
from momentum_bench.harness.data.find_task import ENTRY_POINTS, task_of
from tests.conftest import ROOT, needs_quickstart, write_rows
from tests.helpers.command_line import run_command

GUIDE = (ROOT / "README.md").read_text().split("## Add a task")[1].split("\n## ")[0]
BLOCKS = dict(re.findall(r"```(.*?)\n(.*?)```", GUIDE, flags=re.DOTALL))
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
    assert done.stderr.startswith(
        "no row is shown; give one with --data-dir DIR: tickets cannot be downloaded"
    )
    assert "0 fine" not in done.stdout
    assert "calm calm -> fine" in done.stdout


@needs_quickstart
def test_the_commands_run_as_they_stand(tmp_path: Path, monkeypatch, capfd):
    (tmp_path / "tickets.py").write_text(FILE)
    given = json.loads(BLOCKS["json"])
    texts = {"urgent": "Nobody can log in since {}:00.", "calm": "Thank you for ticket {}, all is well."}
    rows = [given, *({"text": texts[name].format(i), "label": name} for i in range(20) for name in texts)]
    write_rows(tmp_path / "data" / "tickets" / "train.jsonl", rows[:34])
    write_rows(tmp_path / "data" / "tickets" / "test.jsonl", rows[34:])
    monkeypatch.chdir(tmp_path)
    task_of.cache_clear()
    commands = BLOCKS["bash add-a-task"].replace("\\\n", " ").splitlines()
    assert [line.split()[:2] for line in commands] == [
        *(["momentum-bench", "tasks"],) * 2,
        ["momentum-bench", "run"],
    ]
    for line in commands:
        words = shlex.split(line)[1:]
        # in this process, and the runs too: a start costs more than all of them
        with pytest.raises(SystemExit) as stopped:
            main(words + ["--runs-at-a-time", "1"] * (words[0] == "run"))
        assert stopped.value.code == 0, line
    task_of.cache_clear()
    out, err = capfd.readouterr()
    assert "passed   0 warning(s)" in out
    assert "first prompt     Nobody can log in since noon. This is [mask]." in out
    assert "4 runs of 5 steps" in err
    assert (tmp_path / "results" / "leaderboard.csv").read_text().count("\ntickets,") == 2
