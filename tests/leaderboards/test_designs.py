"""Boards of designs: rows by role and grid, verdicts of families, and tables of earlier versions."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from momentum_bench.harness.records.design import Design, DesignArm, DesignTask, fresh_seeds
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.sweeps.confirming import standing
from momentum_bench.harness.verdicts.advice import advice
from momentum_bench.harness.verdicts.looks import nominal_level, overall_p
from momentum_bench.harness.verdicts.paired import holm, summary
from momentum_bench.leaderboards.build import Leaderboard, board_of
from momentum_bench.leaderboards.checking.check import check, departures
from momentum_bench.leaderboards.checking.designs import design_gaps
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
        for record in sweep_records(score, seeds=design.tune_seeds, rates=task.grids[0], task=task.task)
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


@pytest.mark.parametrize("confirm", ["matched", "own"])
def test_the_sentence_says_whether_dev_had_a_choice_of_rates(confirm: str):
    """A sweep of one rate asks at this rate, and nobody chose it."""
    grids = {"several": (RATES, RATES), "one": (RATES[1:2], RATES[1:2])}
    told = {}
    for name, of_arms in grids.items():
        task = design_of().tasks[0].model_copy(update={"grids": of_arms})
        design = design_of(confirm=confirm, tasks=(task,))
        found = board(design, close_arms())
        [told[name]] = [pair.sentence for pair in found.comparisons if pair.question == confirm]
    assert "chosen by dev on 3 other seeds?" in told["several"]
    assert "the only one that was tried?" in told["one"]
    assert "chosen" not in told["one"]
    assert ("luck of this choice" in told["several"]) == (confirm == "own")


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


def test_a_seed_that_one_design_tunes_on_and_another_confirms_on_stays_in_the_tuned_row():
    tuned = design_of(confirm_seeds=(), confirm=None, looks=(), tune_seeds=(*TUNE, 1000))
    records = {r.spec.run_id: r for r in sweep_records(close_arms(), seeds=(*TUNE, 1000))}
    records |= {r.spec.run_id: r for r in whole_sweep(design_of(), close_arms())}
    found = board_of(records.values(), designs=[tuned, design_of()])
    assert {row.columns["seeds"] for row in found.rows if row.role == "tuned"} == {"13;21;42;1000"}


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
    assert "over these 2 tasks, paired by seed, tuned: SGDM minus SGD: +3.0 points" in line.sentence


def test_over_tasks_pairs_are_adjusted_for_looks_and_for_each_other():
    def score(spec: RunSpec) -> Scores:
        by = {"sgd": 0.0, "sgdm": 0.012, "nesterov": 0.0}[spec.optimizer]
        return Scores(test_metric=0.8 + by + (spec.seed % 5 - 2) * 0.008 * bool(by))

    arms = {"sgd": {}, "sgdm": {"momentum": 0.9}, "nesterov": {"momentum": 0.9}}
    records = [r for n in range(2) for r in sweep_records(score, arms=arms, task=f"t{n}")]
    lines = [line.columns for line in over_tasks(board_of(records).comparisons)]
    assert len(lines) == 3
    for name in ("p_difference", "p_equivalence"):
        assert [line[f"{name}_holm"] for line in lines] == holm([line[name] for line in lines])

    design = design_of(("t0", "t1"), looks=(5, 10))
    [line] = over_tasks(
        [pair for pair in board(design, close_arms(0.02)).comparisons if pair.question == "matched"]
    )
    c = line.columns
    assert c["p_difference_holm"] == overall_p(c["p_difference"], (5, 10))
    half = (c["ci_high"] - c["ci_low"]) / 2
    plain_half = summary(list(line.comparisons[0].differences)).ci_high - c["mean_difference"]
    assert half > plain_half  # it holds over both looks


def test_over_tasks_nothing_is_learned_where_all_guess():
    def guess(spec: RunSpec) -> Scores:
        return Scores(test_metric=0.5 + spec.seed % 3 * 0.001)

    records = [record for n in range(2) for record in sweep_records(guess, task=f"t{n}")]
    [line] = over_tasks(board_of(records).comparisons)
    assert line.columns["verdict"] == "not learned"
    assert "hardly better than the commonest answers" in line.sentence


def test_sentences_over_tasks_say_which_question_they_answer():
    found = board(design_of(("t0", "t1", "t2")), close_arms())
    sentences = [line.sentence for line in (*found.pooled, *over_tasks(found.comparisons))]
    assert [("at matched rates" in text, ", tuned" in text) for text in sentences] == [
        (True, False),
        (False, True),
    ] * 2


def test_another_margin_is_adjusted_for_the_other_comparisons_too():
    def score(spec: RunSpec) -> Scores:
        spread = {"t0": 0.004, "t1": 0.02, "t2": 0.02}[spec.task]
        shift = (spec.seed % 5 - 2) * spread if spec.optimizer == "sgdm" else 0.0
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=0.8 + shift)

    design = design_of(("t0", "t1", "t2"), looks=(5,), confirm_seeds=fresh_seeds(5, TUNE), margin=0.0001)
    found = board_of(whole_sweep(design, score), margin=0.01, designs=[design]).comparisons
    first = next(p.columns for p in found if (p.question, p.columns["task"]) == ("matched", "t0"))
    assert first["p_equivalence_holm"] == pytest.approx(3 * first["p_equivalence"])


def test_the_advice_is_for_the_level_that_the_family_and_the_looks_leave():
    """One comparison of three alike needs more seeds than one alone, and of looks it is one of them."""

    def score(spec: RunSpec) -> Scores:
        shift = (spec.seed % 5 - 2) * 0.02 if spec.optimizer == "sgdm" else 0.0
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=0.8 + shift)

    def tuned(n_tasks: int) -> dict:
        records = [r for n in range(n_tasks) for r in sweep_records(score, rates=(0.01,), task=f"t{n}")]
        return board_of(records).comparisons[0].columns

    alone, of_three = tuned(1), tuned(3)
    assert (alone["level_difference"], alone["level_equivalence"]) == (0.05, 0.05)
    assert of_three["level_difference"] == pytest.approx(0.05 / 3)
    assert of_three["n_seeds_if_equal"] > alone["n_seeds_if_equal"]
    matched = [p for p in board(design_of(), score).comparisons if p.question == "matched"]
    [columns] = [p.columns for p in matched]
    assert columns["level_difference"] == nominal_level((5, 10)) < 0.05
    waiting = [r for r in whole_sweep(design_of(), score) if r.spec.seed < 1005]
    [early] = [p for p in board_of(waiting, designs=[design_of()]).comparisons if p.question == "matched"]
    assert early.columns["look"] == 5
    plain = advice(5, early.difference.mean, early.difference.spread, 0.01, early.levels)
    assert early.columns["n_seeds_as_observed"] == (10 if plain.as_observed <= 10 else plain.as_observed)


def test_only_a_share_of_right_rows_has_a_floor():
    """Of other metrics, disagreement says nothing about sampling: numbers differ on every row."""

    def floor(metric: str) -> float:
        records = [r.model_copy(update={"metric": metric}) for r in sweep_records(close_arms(), seeds=TUNE)]
        records = [
            r.model_copy(update={"test": r.test.model_copy(update={"predictions": (0, 1)})})
            if r.test and r.spec.optimizer == "sgd"
            else r
            for r in records
        ]
        return board_of(records).comparisons[0].columns["spread_floor"]

    assert floor("accuracy") == pytest.approx((0.5 / 2) ** 0.5)
    assert math.isnan(floor("f1"))
    assert math.isnan(floor("matthews_correlation"))


def breaks(*seeds: int, both: tuple[int, ...] = ()) -> ScoreOf:
    """SGDM is 3 points better, but diverges on some seeds; on others both diverge."""

    def score(spec: RunSpec) -> Scores:
        if spec.seed in both or (spec.optimizer == "sgdm" and spec.seed in seeds):
            return Scores(status="diverged")
        shift = 0.03 + spec.seed % 3 * 0.001 if spec.optimizer == "sgdm" else 0.0
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=0.8 + shift)

    return score


def test_an_optimizer_that_diverges_on_confirming_seeds_is_not_called_better():
    """A diverged run scores as the best constant answer, which is 0.5 here."""
    whole = board(design_of(), breaks()).comparisons
    assert {pair.verdict for pair in whole if pair.question == "matched"} == {"sgdm better"}
    found = board(design_of(), breaks(1001, 1004, both=(1003,))).comparisons
    [pair] = [pair for pair in found if pair.question == "matched"]
    assert pair.verdict == "inconclusive"
    assert pair.columns["worst_difference"] == pytest.approx(-0.3)
    assert pair.columns["n_pairs"] == 9  # the seed on which both diverged says nothing
    words = "SGDM diverged on seeds 1001, 1004, which counts as the best constant answer"
    assert words in pair.sentence
    assert pair.columns["left_out"] == f"no pair on seed 1003; {words}"


def test_a_seed_on_which_all_rates_diverge_counts_for_tuned_rows_too():
    records = sweep_records(breaks(42, both=(87,)), seeds=(13, 21, 42, 87, 100))
    [pair] = board_of(records).comparisons
    assert pair.columns["seeds"] == "13;21;42;100"
    assert pair.verdict == "inconclusive"
    assert "SGDM diverged on seed 42, which counts" in pair.sentence
    assert min(pair.differences) == pytest.approx(-0.3)


def test_an_optimizer_that_diverges_everywhere_is_not_compared():
    records = sweep_records(breaks(13, 21, 42), seeds=TUNE)
    found = board_of(records)
    assert found.comparisons == []
    assert any("sgdm finished no run" in note for note in found.notes)


def test_a_design_that_lacks_runs_is_told_from_one_that_grows():
    def undecided(spec: RunSpec) -> Scores:
        shift = (spec.seed % 5 - 2) * 0.02 if spec.optimizer == "sgdm" else 0.0
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=0.8 + shift)

    design = design_of()
    records = whole_sweep(design, undecided)
    assert max(record.spec.seed for record in records) == 1009
    assert design_gaps([design], records) == ([], [])

    def without(*seeds: int, optimizer: str = "") -> tuple[list[str], list[str]]:
        kept = [
            r
            for r in records
            if not (r.spec.seed in seeds and r.spec.optimizer.startswith(optimizer or r.spec.optimizer))
        ]
        return design_gaps([design], kept)

    for gap in (without(21), without(21, optimizer="sgdm"), without(1002), without(1002, optimizer="sgdm")):
        [line], open_ends = gap
        assert "runs that come after them are" in line
        assert open_ends == []
    for end in (
        without(*range(1005, 1010)),
        without(1007),
        without(*range(1000, 1010)),
        without(21, *range(1000, 1010)),
    ):
        gaps, [line] = end
        assert "it is not finished" in line
        assert gaps == []
    other = design_of(margin=0.05)  # of two designs on these runs, the later runs may be the other's
    gaps, lines = design_gaps([design, other], [r for r in records if r.spec.seed != 21])
    assert (gaps, len(lines)) == ([], 2)


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
    assert any("not checked there" in note and "p_difference_holm" in note for note in check(mine).notes)
    path = mine / "comparison.csv"
    text = path.read_text()
    path.write_text(text.replace("inconclusive", "a better", 1))
    assert any("column verdict" in line for line in departures(mine))
    path.write_text(text.replace("1", "2", 1))
    assert departures(mine)
