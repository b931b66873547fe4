"""Search budgets in gradient evaluations: an optimizer whose step costs two passes over the batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from momentum_bench.harness.records.budget import (
    Budget,
    budgets_in_words,
    budgets_of,
    evaluations_by_run,
    not_compared_in_words,
)
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.leaderboards.build import Leaderboard, build
from tests.helpers.synthetic import Scores, fill, make_record, make_spec

RATES, SEEDS, STEPS = (0.001, 0.003, 0.01, 0.03), (13, 21, 42), 1000
SAM = "my.Sam@1"


def costing(record: RunRecord, passes: int) -> RunRecord:
    """The record with this cost, which is recorded where a closure was used."""
    assert record.costs
    costs = record.costs.model_copy(update={"forward_backward_passes": passes})
    return record.model_copy(update={"costs": costs})


def grid(optimizer: str, rates: tuple[float, ...], per_step: int | None = None) -> list[RunRecord]:
    """Runs on all seeds; the best dev score is at a rate in the middle."""
    runs = []
    for seed in SEEDS:
        for place, rate in enumerate(rates):
            spec = make_spec(optimizer=optimizer, seed=seed, learning_rate=rate)
            run = make_record(spec, Scores(dev_metric=0.8 if place == 1 else 0.7, test_metric=0.7))
            runs.append(run if per_step is None else costing(run, per_step * STEPS))
    return runs


def board_of(folder: Path, *grids: list[RunRecord]) -> Leaderboard:
    return build(fill(folder, [run for each in grids for run in each]))


def test_equally_many_runs_of_dearer_steps_are_not_compared_and_the_sentence_says_what_to_type(
    tmp_path: Path,
):
    board = board_of(tmp_path, grid("adamw", RATES), grid(SAM, RATES, 2))
    [pair] = board.comparisons
    assert pair.refused
    assert pair.columns["no_verdict"] == "their search budgets differ on all seeds"
    [note] = [note for note in board.notes if "search budgets" in note]
    rates = "4 rates (0.001 0.003 0.01 0.03)"
    assert f"{rates}, 4,000 gradient evaluations a seed for adamw" in note
    assert f"{rates}, 8,000 gradient evaluations a seed for {SAM}" in note
    assert f"(in one step: {SAM} 2, others 1)" in note
    assert "--learning-rates" in note
    by_name = {row.columns["optimizer"]: row.columns["gradient_evaluations"] for row in board.rows}
    assert by_name == {"adamw": 12_000, SAM: 24_000}


def test_half_as_many_runs_of_twice_the_cost_are_compared(tmp_path: Path):
    board = board_of(tmp_path, grid("adamw", RATES), grid(SAM, RATES[:2], 2))
    [pair] = board.comparisons
    assert (pair.refused, pair.columns["n_pairs"]) == (False, 3)


def test_two_optimizers_of_equal_rates_and_unequal_cost_are_not_compared(tmp_path: Path):
    """Their rates are the same points, which once was enough."""
    board = board_of(tmp_path, grid("my.Twice@1", RATES, 2), grid("my.Thrice@1", RATES, 3))
    assert [pair.refused for pair in board.comparisons] == [True]


def test_steps_of_varying_cost_match_no_other_search(tmp_path: Path):
    varying = [costing(run, STEPS + place) for place, run in enumerate(grid("my.LBFGS@1", RATES))]
    board = board_of(tmp_path, grid("adamw", RATES), varying)
    [note] = [note for note in board.notes if "search budgets" in note]
    assert "my.LBFGS@1 take gradient evaluations whose number varies" in note
    assert "--learning-rates" not in note


def test_a_run_that_diverged_costs_as_much_as_a_whole_one_and_a_failed_one_nothing():
    runs = grid(SAM, RATES, 2)
    diverged = costing(make_record(runs[0].spec, Scores(status="diverged")), 6)
    failed = make_record(runs[1].spec, Scores(status="failed"))
    counts = evaluations_by_run([diverged, failed, *runs[2:]])
    assert set(counts.values()) == {2 * STEPS}
    assert failed.spec.run_id not in counts
    alone = make_record(make_spec(), Scores(status="diverged"))
    assert evaluations_by_run([alone]) == {alone.spec.run_id: STEPS}


def test_a_diverged_rate_leaves_the_comparison_with_a_dearer_optimizer(tmp_path: Path):
    sam = grid(SAM, RATES[:2], 2)
    sam[0] = costing(make_record(sam[0].spec, Scores(status="diverged")), 6)
    [pair] = board_of(tmp_path, grid("adamw", RATES), sam).comparisons
    assert pair.columns["n_pairs"] == 3


def test_budgets_count_runs_and_evaluations_of_each_arm_and_join_equal_tasks():
    specs = [
        make_spec(task=task, seed=seed, optimizer=name, hyperparameters=h)
        for task in ("sst2", "trec")
        for seed in SEEDS
        for name, h in (("sgd", {}), ("sgdm", {"momentum": 0.5}), ("sgdm", {"momentum": 0.9}))
    ]
    budgets = budgets_of(specs, lambda spec: 1 if spec.optimizer == "sgd" else 2)
    assert budgets[0] == Budget("sst2", "sgd", 3, 3 * STEPS)
    assert budgets_in_words(budgets) == [
        "Search on sst2, trec: sgd 3 runs, 3,000 gradient evaluations; "
        "sgdm momentum=0.5 3 runs, 6,000 gradient evaluations; "
        "sgdm momentum=0.9 3 runs, 6,000 gradient evaluations"
    ]


@pytest.mark.parametrize(
    ("per_step", "words"),
    [
        (None, "sgd 1 run, the cost of a step is known when a run is done"),
        (1.0625, "sgd 1 run, about 1,062 gradient evaluations"),
    ],
)
def test_a_cost_that_is_unknown_or_varies_is_called_so(per_step: float | None, words: str):
    [budget] = budgets_of([make_spec()], lambda spec: per_step)
    assert budget.in_words == words


def test_unequal_budgets_are_told_before_the_sweep():
    cheap, dear, unknown = (Budget("sst2", "sgd", 3, n) for n in (300, 600, None))
    assert "--learning-rates" in not_compared_in_words([cheap, dear])
    other_task = Budget("trec", "sgd", 6, 600)
    assert not_compared_in_words([cheap, cheap, unknown, other_task]) == ""
    assert not_compared_in_words([]) == ""


def test_a_run_without_training_has_no_budget():
    assert budgets_of([make_spec(max_steps=0, optimizer="none")], lambda spec: 1) == []
