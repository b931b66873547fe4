"""What a script gets: one JSON document, or nothing but paths."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.cli.output import json_text
from momentum_bench.harness.records.schema import Plan
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.reporting import cell
from momentum_bench.tasks import task_names
from tests.conftest import ROOT
from tests.helpers.specs import make_record, make_spec
from tests.helpers.sweeps import small_sweep

RESULTS = ("leaderboard.csv", "comparison.csv", "index.html")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def as_cells(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Rows of a document as the text that a CSV has for them."""
    return [{name: cell(value) for name, value in row.items()} for row in rows]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two optimizers on three seeds, all done."""
    store = Store(tmp_path / "results")
    store.open()
    records = [
        make_record(test=0.5 + 0.01 * seed + shift, seed=seed, optimizer=name)
        for name, shift in (("sgd", 0.0), ("sgdm", 0.02))
        for seed in (1, 2, 3)
    ]
    for record in records:
        store.write(record)
    specs = (*(record.spec for record in records), make_spec(seed=4))
    store.keep_plan(Plan(specs=specs, work=(1.0,) * len(specs)))
    return store.output_dir


def test_no_number_is_null_and_a_path_is_text():
    text = json_text({"a": math.nan, "b": [math.inf, 1.5], "c": Path("x"), "d": (None, "é")})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": "x", "d": [None, "é"]}


class TestBuild:
    def test_the_document_has_the_rows_of_the_tables_with_their_types(self, results: Path, tmp_path: Path):
        done = call("leaderboard", "build", results, "--out", tmp_path / "out", "--json")
        assert done.exit_code == 1, done.stderr  # a planned run is missing
        document = json.loads(done.stdout)
        assert document["left_out"] == ["sst2: sgd has no result at rate 0.1 on seed 4 (missing)."]
        assert document["files"] == [str(tmp_path / "out" / name) for name in RESULTS]
        assert as_cells(document["rows"]) == csv_rows(tmp_path / "out" / "leaderboard.csv")
        assert as_cells(document["comparisons"]) == csv_rows(tmp_path / "out" / "comparison.csv")
        assert document["pooled"] == []
        (row, _) = document["rows"]
        assert isinstance(row["test_mean"], float)
        assert isinstance(row["n_seeds"], int)

    def test_without_a_folder_no_file_is_named(self, results: Path):
        assert json.loads(call("leaderboard", "build", results, "--json").stdout)["files"] == []

    def test_quiet_prints_paths_alone(self, results: Path, tmp_path: Path):
        done = call("leaderboard", "build", results, "--out", tmp_path / "out", "--quiet")
        assert done.stdout == ", ".join(str(tmp_path / "out" / name) for name in RESULTS) + "\n"
        left_out = "the leaderboard is not whole: sst2: sgd has no result at rate 0.1 on seed 4 (missing)\n"
        assert done.stderr == left_out
        done = call("leaderboard", "build", results, "-q")
        assert (done.stdout, done.stderr, done.exit_code) == ("", left_out, 1)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--json", "--format", "latex"], "--format latex does not go with --json"),
            (["--png"], "--png writes files: add --out DIR"),
            (["--archive"], "--archive writes files: add --out DIR"),
        ],
    )
    def test_what_cannot_be_is_refused(self, results: Path, words: list[str], message: str):
        done = call("leaderboard", "build", results, *words)
        assert done.exit_code == 2
        assert message in done.stderr


class TestStatus:
    def test_the_document_has_every_run_with_its_state(self, results: Path):
        document = json.loads(call("status", results, "--json").stdout)
        assert document["counts"] == {"done": 6, "missing": 1}
        assert document["summary"].startswith("6 done, 1 missing")
        (missing,) = [run for run in document["runs"] if run["state"] == "missing"]
        assert (missing["seed"], missing["fraction"], missing["seconds"]) == (4, 0.0, None)
        assert missing["run_id"] == make_spec(seed=4).run_id

    def test_quiet_leaves_the_last_line(self, results: Path):
        (line,) = call("status", results, "-q").stdout.splitlines()
        assert line == call("status", results).stdout.splitlines()[-1]


class TestTasks:
    def test_the_document_has_every_task(self):
        tasks = json.loads(call("tasks", "list", "--json").stdout)["tasks"]
        assert {task["name"] for task in tasks} >= set(task_names())
        (sst2,) = [task for task in tasks if task["name"] == "sst2"]
        assert (sst2["classes"], sst2["metrics"]) == (2, ["accuracy"])
        assert "glue" in sst2["suites"]
        assert {task["classes"] for task in tasks if task["name"] == "stsb"} == {None}

    def test_quiet_leaves_the_names(self):
        listed = call("tasks", "list", "-q").stdout.splitlines()
        assert listed == [line.split("\t")[0] for line in call("tasks", "list").stdout.splitlines()][1:]


def test_a_sweep_gives_one_document_and_a_quiet_one_gives_paths(
    command, command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = [*small_sweep(tiny_model, toy_data, "--seeds", 13, "--max-steps", 2, "--eval-every", 1)]
    planned = json.loads(command_here("run", *words, "--dry-run", "--json").stdout)
    assert [run["state"] for run in planned["runs"]] == ["missing"] * 4
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert as_cells(document["rows"]) == csv_rows(tmp_path / "results" / "leaderboard.csv")
    assert [Path(file).name for file in document["files"]] == list(RESULTS)
    assert "4 runs" in done.stderr  # the lines for a person are not in the way

    quiet = command_here("run", *words, "--quiet", "--output-dir", "quiet")
    assert quiet.stdout == ", ".join(f"quiet/{name}" for name in RESULTS) + "\n"
    assert quiet.stderr == ""
    planned = json.loads(command_here("run", *words, "--dry-run", "--json").stdout)
    assert [run["state"] for run in planned["runs"]] == ["done"] * 4
    assert command_here("run", *words, "--quiet", "--k", 10_000).stderr.startswith("error: ")


def test_a_published_board_is_one_document():
    done = call("leaderboard", "build", ROOT / "leaderboards/published/six-tasks-minilm-head", "--json")
    document = json.loads(done.stdout)
    assert len(document["rows"]) == 18
    assert len(document["comparisons"]) == 12
    assert len(document["pooled"]) == 2
