"""A leaderboard that leaves something out says so in every format, and the exit code is 1."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import Plan, RunRecord, RunSpec
from momentum_bench.harness.records.store import SweepStore
from momentum_bench.leaderboards.build import board_of, build
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.comparisons import best_of_task
from momentum_bench.leaderboards.publishing.merge import merge
from momentum_bench.leaderboards.rendering.files import contents, write
from momentum_bench.leaderboards.rendering.model_card import model_index
from momentum_bench.leaderboards.rendering.paper_table import latex, markdown
from momentum_bench.leaderboards.rendering.terminal import print_board
from tests.helpers.command_line import run_command
from tests.helpers.submissions import specs, submission, whole_record
from tests.helpers.synthetic import Scores, fill, make_record

FAILED = "sst2: sgdm has no result at rate 0.1 on seed 21 (failed)."
COMPARED = (
    "sst2: sgd and sgdm are compared on 2 of 3 seeds: their search budgets differ on the others "
    "(sgdm failed at rate 0.1 on seed 21)."
)


def lost(spec: RunSpec) -> bool:
    return (spec.optimizer, spec.learning_rate, spec.seed) == ("sgdm", 0.1, 21)


def elsewhere(run: RunRecord) -> RunRecord:
    return run.model_copy(update={"environment": {"torch": "2.12.1"}})


@pytest.fixture
def records() -> list[RunRecord]:
    """A grid of which one run failed."""
    failed = Scores(status="failed")
    return [make_record(spec, failed) if lost(spec) else whole_record(spec) for spec in specs()]


@pytest.fixture
def other_torch() -> list[RunRecord]:
    """A whole grid, in which SGDM ran with another torch."""
    return [elsewhere(run) if run.spec.optimizer == "sgdm" else run for run in map(whole_record, specs())]


def printed(text: str) -> str:
    return " ".join(text.split())


def test_every_format_names_the_cells(records: list[RunRecord], tmp_path: Path):
    board = board_of(records)
    console = Console(width=100)
    with console.capture() as shown:
        print_board(board, console)
    page = re.sub(r"<[^>]*>", " ", str(contents(board)["index.html"]))
    texts = [printed(text) for text in (shown.get(), page, markdown(board), latex(board), model_index(board))]
    for text in texts:
        assert FAILED in text
        assert COMPARED in text
    rows, pairs = (
        list(csv.DictReader(str(contents(board)[name]).splitlines()))
        for name in ("leaderboard.csv", "comparison.csv")
    )
    assert [row["left_out"] for row in rows] == ["", "failed: rate 0.1 on seed 21"]
    assert [pair["left_out"] for pair in pairs] == ["sgdm failed at rate 0.1 on seed 21"]


@pytest.mark.parametrize(
    "words", [[], ["--json"], ["--quiet"], *(["--format", n] for n in ("latex", "markdown", "model-index"))]
)
def test_the_exit_code_says_it_too(records: list[RunRecord], tmp_path: Path, words: list[str]):
    fill(tmp_path / "results", records)
    done = run_command("leaderboard", "build", tmp_path / "results", *words)
    assert done.returncode == 1
    assert printed(done.stderr) == f"the leaderboard is not whole: {COMPARED.rstrip('.')}; and 1 more"
    if words == ["--json"]:
        document = json.loads(done.stdout)
        assert document["left_out"] == document["notes"] == [COMPARED, FAILED]


def test_an_unfinished_sweep_gives_a_board_that_is_not_whole(tmp_path: Path):
    whole = [whole_record(spec) for spec in specs()]
    store = fill(tmp_path / "results", whole)
    assert run_command("leaderboard", "build", store.output_dir).returncode == 0
    planned = (*specs(), specs()[0].model_copy(update={"learning_rate": 1.0}))
    store.keep_plan(Plan(specs=planned, work=(1.0,) * len(planned)))
    done = run_command("leaderboard", "build", store.output_dir)
    assert done.returncode == 1
    assert "sst2: sgd has no result at rate 1 on seed 13 (missing)" in printed(done.stdout)
    assert departures(submission(tmp_path / "results", whole)) == []


def test_mixed_environments_take_an_option(other_torch: list[RunRecord], tmp_path: Path):
    fill(tmp_path / "results", other_torch)
    refused = run_command("leaderboard", "build", tmp_path / "results", "--out", tmp_path / "out")
    assert refused.returncode == 1
    assert "sgd and sgdm are not compared: their runs mix torch 2.12 and 2.13" in printed(refused.stdout)
    assert "SGDM minus SGD" not in refused.stdout
    words = ("--out", tmp_path / "mixed", "--archive", "--mix-environments")
    allowed = run_command("leaderboard", "build", tmp_path / "results", *words)
    assert allowed.returncode == 0, allowed.stderr
    assert "SGDM minus SGD" in allowed.stdout
    assert "This leaderboard mixes torch 2.12 and 2.13" in printed(allowed.stdout)
    assert run_command("leaderboard", "check", tmp_path / "mixed").returncode == 1
    assert run_command("leaderboard", "check", tmp_path / "mixed", "--mix-environments").returncode == 0


def test_where_a_pair_is_refused_no_mean_is_bold(other_torch: list[RunRecord]):
    refused, allowed = board_of(other_torch), board_of(other_torch, mix_environments=True)
    assert not best_of_task(refused.rows, refused.comparisons)
    assert best_of_task(allowed.rows, allowed.comparisons)
    assert "**" not in markdown(refused)
    assert "No mean is bold" in markdown(refused)


def test_a_refused_pair_is_in_no_plot(other_torch: list[RunRecord]):
    assert "plots/forest.svg" not in contents(board_of(other_torch))
    assert "plots/forest.svg" in contents(board_of(other_torch, mix_environments=True))


def test_runs_of_another_environment_are_not_published_into_a_row(tmp_path: Path):
    """They would take the score away from a row of somebody else."""
    whole = [whole_record(spec) for spec in specs()]
    published = tmp_path / "published"
    mine = [elsewhere(run) for run in whole if run.spec.seed == 42]
    write(build(fill(tmp_path / "mine", mine)), tmp_path / "mine")
    fill(published, [run for run in whole if run.spec.seed != 42])
    with pytest.raises(UserError, match=r"2 row\(s\) would lose their score.*mix torch 2.12 and 2.13"):
        merge(published, [], tmp_path / "mine", replace=False)


def without(text: str, names: set[str]) -> str:
    """A CSV without some columns."""
    header, *lines = csv.reader(text.splitlines())
    kept = [place for place, name in enumerate(header) if name not in names]
    out = [[line[place] for place in kept] for line in (header, *lines)]
    return "".join(",".join(f'"{c}"' if set(c) & set(',"') else c for c in line) + "\n" for line in out)


LATER = {"device", "torch", "effective_precision", "matmul_precision", "momentum_bench", "mixed", "left_out"}


def test_tables_from_before_these_columns_pass_the_check(tmp_path: Path):
    folder = submission(tmp_path, [whole_record(spec) for spec in specs()])
    for path in [folder / "leaderboard.csv", folder / "comparison.csv", *folder.glob("tasks/*.csv")]:
        older = without(path.read_text(), LATER)
        assert older != path.read_text()
        path.write_text(older)
    assert departures(folder) == []

    table = folder / "leaderboard.csv"
    table.write_text(table.read_text().replace(",accuracy,", ",f1,", 1))
    assert [line.split(", column ")[1] for line in departures(folder)] == [
        "metric: 'f1', the records give 'accuracy'"
    ]
    table.write_text(without(table.read_text(), {"n_failed"}).replace(",f1,", ",accuracy,"))
    assert departures(folder) == ["leaderboard.csv: column n_failed is missing"]


def test_the_board_of_a_sweep_names_its_missing_runs_and_counts_the_runs_of_others(tmp_path: Path):
    whole = [whole_record(spec) for spec in specs()]
    store = fill(tmp_path / "results", whole)
    mine = [run for run in whole if run.spec.seed == 13]
    missing = mine[0].spec.model_copy(update={"learning_rate": 1.0})
    board = build(SweepStore(store.output_dir, [*(run.spec for run in mine), missing], mine))
    assert [row.columns["seeds"] for row in board.rows] == ["13", "13"]
    assert board.notes[0].startswith(
        f"{store.output_dir} holds {len(whole) - len(mine)} run(s) of other sweeps"
    )
    assert [each.sentence for each in board.left_out] == [
        "sst2: sgd has no result at rate 1 on seed 13 (missing)."
    ]
