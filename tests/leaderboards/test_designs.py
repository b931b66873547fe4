"""Boards of designs: rows by role and grid, verdicts of families, and tables of earlier versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from momentum_bench.harness.records.design import Design, DesignArm, DesignTask, fresh_seeds
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.sweeps.confirming import standing
from momentum_bench.leaderboards.build import Leaderboard, board_of
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.over_tasks import over_tasks
from tests.conftest import ROOT
from tests.helpers.synthetic import RATES, Scores, make_record, make_spec, sweep_records

TUNE = (13, 21, 42)
ScoreOf = Callable[[RunSpec], Scores]


def design_of(names: tuple[str, ...] = ("sst2",), **changes) -> Design:
    fields = {
        "template": make_spec(learning_rate=RATES[0]),
        "arms": (
            DesignArm(optimizer="sgd", hyperparameters={}, shares_axis=True),
            DesignArm(optimizer="sgdm", hyperparameters={"momentum": 0.9}, shares_axis=True),
        ),
        "tasks": tuple(
            DesignTask(task=name, task_version="1a2b3c", data_fingerprint="f00d", grids=(RATES, RATES))
            for name in names
        ),
        "tune_seeds": TUNE,
        "confirm_seeds": fresh_seeds(10, TUNE),
        "confirm": "matched",
        "looks": (5, 10),
        "pairs": ((0, 1),),
        "margin": 0.01,
    }
    return Design.model_validate(fields | changes)


def whole_sweep(design: Design, score: ScoreOf) -> list[RunRecord]:
    records = {
        record.spec.run_id: record
        for task in design.tasks
        for record in sweep_records(score, seeds=design.tune_seeds, task=task.task)
    }
    while runs := standing(design, records).runs:
        records |= {spec.run_id: make_record(spec, score(spec)) for spec in runs}
    return list(records.values())


def board(design: Design, score: ScoreOf) -> Leaderboard:
    return board_of(whole_sweep(design, score), designs=[design])


def close_arms(by: float = 0.0) -> ScoreOf:
    """SGDM is better by this, with a spread of 0.2 points between seeds; dev prefers the rate 0.01."""

    def score(spec: RunSpec) -> Scores:
        shift = by + (spec.seed % 3 - 1) * 0.002 if spec.optimizer == "sgdm" else 0.0
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=0.8 + shift)

    return score


def test_confirming_seeds_and_tuning_seeds_are_never_one_row():
    found = board(design_of(), close_arms())
    assert [(row.role, row.columns["seeds"]) for row in found.rows if row.label == "sgd"] == [
        ("tuned", "13;21;42"),
        ("matched", "1000;1001;1002;1003;1004"),
    ]
    assert len({row.row_id for row in found.rows}) == 4
    questions = {pair.question: pair for pair in found.comparisons}
    assert set(questions) == {"tuned", "matched"}
    matched = questions["matched"]
    assert matched.verdict == "equivalent"
    assert (matched.columns["look"], matched.columns["looks"]) == (5, "5;10")
    for words in (
        "Do SGD and SGDM differ at one effective",
        "equivalent within 1 point",
        "at look 1 of at most 2",
    ):
        assert words in matched.sentence
    assert "in at most 5 % of cases" in matched.sentence


def test_a_row_of_the_old_way_keeps_its_id_next_to_confirming_rows():
    old = board_of(sweep_records(close_arms(), seeds=TUNE))
    new = board(design_of(), close_arms())
    assert [row.row_id for row in old.rows] == [row.row_id for row in new.rows if row.role == "tuned"]


def test_two_sweeps_with_different_grids_are_two_rows_and_a_note():
    wide = design_of(confirm_seeds=(), confirm=None, looks=())
    narrow = design_of(
        confirm_seeds=(),
        confirm=None,
        looks=(),
        tune_seeds=(1, 2, 3),
        tasks=(wide.tasks[0].model_copy(update={"grids": (RATES[:2], RATES[:2])}),),
    )
    records = [
        *sweep_records(close_arms(), seeds=TUNE),
        *sweep_records(close_arms(), seeds=(1, 2, 3), rates=RATES[:2]),
    ]
    found = board_of(records, designs=[wide, narrow])
    assert {(row.label, row.columns["seeds"]) for row in found.rows} == {
        ("sgd", "13;21;42"),
        ("sgd", "1;2;3"),
        ("sgdm", "13;21;42"),
        ("sgdm", "1;2;3"),
    }
    assert [row.columns["n_missing"] for row in found.rows] == [0] * 4
    assert [pair.difference.n_pairs for pair in found.comparisons] == [3, 3]
    assert sum("ran over different learning rates" in note for note in found.notes) == 2
    assert len({row.row_id for row in found.rows}) == 4


def test_seeds_of_a_design_that_lack_cells_are_not_another_grid():
    design = design_of(confirm_seeds=(), confirm=None, looks=())
    records = sweep_records(close_arms(), seeds=TUNE)
    found = board_of(records[:-1], designs=[design])
    assert [row.columns["n_missing"] for row in found.rows] == [0, 1]


def test_nothing_is_learned_where_both_guess():
    def guess(spec: RunSpec) -> Scores:
        return Scores(dev_metric=0.5, test_metric=0.5 + spec.seed % 3 * 0.001)

    found = board(design_of(), guess)
    assert {pair.verdict for pair in found.comparisons} == {"not learned"}
    assert "commonest answer, 50.0 %" in found.comparisons[0].sentence


def test_the_family_decides():
    """p = 0.02 alone is a difference; among six tasks it is none."""

    def score(spec: RunSpec) -> Scores:
        shift = 0.0
        if spec.task == "t0" and spec.optimizer == "sgdm":
            shift = 0.05 + 0.028 * {13: -1.3, 21: -0.5, 42: 0.0, 87: 0.5, 100: 1.3}[spec.seed]
        elif spec.optimizer == "sgdm":
            shift = {13: -0.1, 21: 0.1, 42: 0.05, 87: -0.05, 100: 0.0}[spec.seed]
        return Scores(test_metric=0.7 + shift)

    def first_task(n_tasks: int):
        records = [r for n in range(n_tasks) for r in sweep_records(score, rates=(0.01,), task=f"t{n}")]
        return board_of(records).comparisons[0]

    alone, among = first_task(1), first_task(6)
    assert alone.columns["p_difference"] == among.columns["p_difference"] < 0.05
    assert among.columns["p_difference_holm"] == pytest.approx(6 * among.columns["p_difference"])
    assert (alone.verdict, among.verdict) == ("sgdm better", "inconclusive")


def test_pairs_that_are_not_of_interest_are_not_compared():
    nesterov = DesignArm(optimizer="nesterov", hyperparameters={"momentum": 0.9}, shares_axis=True)
    arms = (*design_of().arms, nesterov)
    tasks = (design_of().tasks[0].model_copy(update={"grids": (RATES,) * 3}),)
    records = sweep_records(
        close_arms(), seeds=TUNE, arms={"sgd": {}, "sgdm": {"momentum": 0.9}, "nesterov": {"momentum": 0.9}}
    )
    for pairs, n in ((((0, 1), (0, 2)), 2), (((0, 1), (0, 2), (1, 2)), 3)):
        design = design_of(arms=arms, tasks=tasks, pairs=pairs, confirm_seeds=(), confirm=None, looks=())
        found = board_of(records, designs=[design]).comparisons
        assert len(found) == n
        assert [pair.first.label for pair in found].count("sgd") == 2


def test_the_margin_is_that_of_the_design():
    design = design_of(margin=0.05)
    found = board(design, close_arms(0.03))
    assert {pair.columns["margin"] for pair in found.comparisons} == {0.05}
    assert {pair.verdict for pair in found.comparisons} == {"equivalent"}
    other = board_of(whole_sweep(design, close_arms(0.03)), margin=0.01, designs=[design])
    assert all("the design's margin was 5 points" in pair.sentence for pair in other.comparisons)


def test_one_verdict_over_all_tasks_is_paired_by_seed():
    def score(spec: RunSpec) -> Scores:
        sign = 1 if spec.task == "t0" else -1  # the tasks' spreads cancel in a seed's mean
        shift = 0.03 + sign * (spec.seed % 5 - 2) * 0.05 if spec.optimizer == "sgdm" else 0.0
        return Scores(test_metric=0.7 + shift)

    records = [record for n in range(2) for record in sweep_records(score, task=f"t{n}")]
    found = board_of(records)
    assert {pair.verdict for pair in found.comparisons} == {"inconclusive"}
    (line,) = over_tasks(found.comparisons)
    assert (line.columns["n_pairs"], line.columns["verdict"]) == (5, "b better")
    assert line.columns["mean_difference"] == pytest.approx(0.03)
    assert "over these 2 tasks, paired by seed: SGDM minus SGD: +3.0 points" in line.sentence


def test_a_design_that_is_not_finished_says_what_is_missing():
    design = design_of()
    records = whole_sweep(design, close_arms())
    tuning = [record for record in records if record.spec.seed in TUNE]
    assert any("2 run(s) of the tuning seeds" in n for n in board_of(tuning[:-2], designs=[design]).notes)
    half = board_of([*tuning, *records[len(tuning) :][:3]], designs=[design])
    assert any("the look at 5 confirming seeds waits" in note for note in half.notes)
    assert {pair.question for pair in half.comparisons} == {"tuned"}


def test_two_designs_over_the_same_runs_are_named():
    first, second = design_of(), design_of(margin=0.05)
    found = board_of(whole_sweep(first, close_arms()), designs=[first, second])
    assert any("2 designs share runs" in note for note in found.notes)


@pytest.mark.parametrize("name", ["six-tasks-minilm-head", "digits-batch-size"])
def test_tables_of_earlier_versions_are_still_what_the_records_give(name: str, tmp_path: Path):
    """They have columns that are gone, lack new ones, and their verdicts are by unadjusted p-values."""
    mine = shutil.copytree(ROOT / "leaderboards" / "published" / name, tmp_path / "mine")
    shutil.rmtree(mine / "tasks")
    shutil.rmtree(mine / "designs", ignore_errors=True)  # runs were added to the boards later
    for name_of_later in ("over_tasks", "tuning_budget", "sensitivity", "matched_differences", "regret"):
        (mine / f"{name_of_later}.csv").unlink(missing_ok=True)
    for table in (ROOT / "tests" / "golden" / "earlier_tables" / name).iterdir():
        shutil.copy(table, mine / table.name)
    assert departures(mine) == []
    path = mine / "comparison.csv"
    text = path.read_text()
    path.write_text(text.replace("inconclusive", "a better", 1))
    assert any("column verdict" in line for line in departures(mine))
    path.write_text(text.replace("1", "2", 1))
    assert departures(mine)
