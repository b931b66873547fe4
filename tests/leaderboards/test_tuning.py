"""Tuning budget and sensitivity: against enumeration, on known curves, and on the published boards."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.selection import dev_result, select
from momentum_bench.leaderboards.rows import Row, rows_of
from momentum_bench.leaderboards.tuning import (
    BUDGET_COLUMNS,
    SENSITIVITY_COLUMNS,
    budget_curves,
    budget_lines,
    decades_within,
    expected_scores,
    sensitivity,
    sensitivity_lines,
)
from tests.helpers.published import pairs_of, published_board
from tests.helpers.specs import make_record

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(SCORES, st.integers(0, 3))
def test_the_expectation_is_that_of_all_subsets(ranked: list[float], n_without: int):
    rates = [*range(len(ranked)), *[None] * n_without]
    for n, expected in enumerate(expected_scores(ranked, n_without), 1):
        chosen = [
            min(finished)
            for subset in combinations(rates, n)
            if (finished := [r for r in subset if r is not None])
        ]
        assert expected == pytest.approx(math.fsum(ranked[place] for place in chosen) / len(chosen))


@given(SCORES)
def test_all_rates_give_what_dev_chooses_and_one_rate_gives_the_mean(ranked: list[float]):
    expected = expected_scores(ranked, 0)
    assert expected[-1] == pytest.approx(ranked[0])
    assert expected[0] == pytest.approx(math.fsum(ranked) / len(ranked))


Grid = dict[float, tuple[float, float] | str]
"""Dev and test scores by rate, or a status."""


def grid(seed: int, scores: Grid, **changes: Any) -> list[RunRecord]:
    """The runs of a seed."""
    return [
        make_record(seed=seed, learning_rate=rate, status=score, **changes)
        if isinstance(score, str)
        else make_record(seed=seed, learning_rate=rate, dev=score[0], test=score[1], **changes)
        for rate, score in scores.items()
    ]


def row_of(*runs: list[RunRecord]) -> Row:
    [row] = rows_of([run for part in runs for run in part])
    return row


def test_the_budget_of_a_seed_follows_the_rule_that_chooses():
    runs = grid(13, {0.01: (0.5, 0.4), 0.1: (0.9, 0.8), 1.0: (0.7, 0.9)})
    curve = budget_curves(row_of(runs))[13]
    choice = select([dev_result(run) for run in runs], [run.spec.point for run in runs])
    assert curve[-1] == next(r.test.metric for r in runs if r.spec.run_id == choice.run_id if r.test)
    assert curve == pytest.approx([2.1 / 3, (0.8 + 0.9 + 0.8) / 3, 0.8])


def test_what_failed_is_no_grid_and_what_diverged_is():
    whole = grid(13, {0.01: (0.5, 0.4), 0.1: (0.9, 0.8)})
    failed = grid(21, {0.01: (0.5, 0.4), 0.1: "failed"})
    diverged = grid(42, {0.01: (0.5, 0.4), 0.1: "diverged"})
    nothing = grid(87, {0.01: "diverged", 0.1: "diverged"})
    missing = grid(100, {0.01: (0.5, 0.4)})
    row = row_of(whole, failed, diverged, nothing, missing)
    assert budget_curves(row) == {13: pytest.approx([0.6, 0.8]), 42: [0.4, 0.4]}


def test_the_budgets_of_two_arms_are_paired_over_the_seeds_that_both_have():
    runs = [
        *grid(13, {0.01: (0.5, 0.4), 0.1: (0.9, 0.8)}),
        *grid(21, {0.01: (0.5, 0.5), 0.1: (0.9, 0.7)}),
        *grid(42, {0.01: (0.5, 0.5), 0.1: (0.9, 0.7)}),
        *grid(13, {0.01: (0.5, 0.6), 0.1: (0.9, 0.8)}, optimizer="sgdm"),
        *grid(21, {0.01: (0.5, 0.6), 0.1: (0.9, 0.8)}, optimizer="sgdm"),
        *grid(42, {0.01: (0.5, 0.6), 0.1: "failed"}, optimizer="sgdm"),
    ]
    first, second = rows_of(runs)
    one, two = budget_lines([(first, second)])
    assert tuple(one) == BUDGET_COLUMNS
    assert (one["first"], one["second"], one["n_rates"], one["grid_size"]) == ("sgd", "sgdm", 1, 2)
    assert (one["seeds"], one["n_pairs"]) == ("13;21", 2)
    assert one["mean_difference"] == pytest.approx(0.1)
    assert (two["first_test_mean"], two["second_test_mean"]) == (pytest.approx(0.75), pytest.approx(0.8))
    # t of 1 degree of freedom: 12.706
    assert two["ci_high"] - two["mean_difference"] == pytest.approx(12.706 * 0.05, abs=1e-4)


def test_other_grids_are_no_pair():
    runs = [
        *grid(13, {0.01: (0.5, 0.4), 0.1: (0.9, 0.8)}),
        *grid(13, {0.03: (0.5, 0.6), 0.3: (0.9, 0.8)}, optimizer="sgdm"),
    ]
    first, second = rows_of(runs)
    assert list(budget_lines([(first, second)])) == []


def test_decades_of_known_curves():
    logs = [-2.0, -1.0, 0.0]
    assert decades_within(logs, [0.5, 0.5, 0.5], 0.02) == pytest.approx(2.0)
    assert decades_within(logs, [0.0, 1.0, 0.0], 0.1) == pytest.approx(0.2)
    assert decades_within(logs, [-math.inf, 0.5, 0.5], 0.02) == pytest.approx(1.0)
    assert decades_within(logs, [0.1, -math.inf, 0.5], 0.02) == 0.0
    assert decades_within(logs, [-math.inf] * 3, 0.02) == 0.0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.floats(0.001, 0.5))
def test_decades_are_no_more_than_the_grid_and_grow_with_the_tolerance(means: list[float], tolerance: float):
    logs = [0.5 * place for place in range(len(means))]
    narrow, wide = decades_within(logs, means, tolerance), decades_within(logs, means, 2 * tolerance)
    assert 0 <= narrow <= wide + 1e-12
    assert wide <= logs[-1] + 1e-12


def test_the_sensitivity_of_a_row():
    row = row_of(
        grid(13, {0.01: (0.5, 0.60), 0.1: (0.9, 0.80), 1.0: (0.7, 0.40)}),
        grid(21, {0.01: (0.5, 0.70), 0.1: (0.9, 0.90), 1.0: (0.7, 0.50)}),
    )
    found = sensitivity(row)
    assert found is not None
    assert (found.best_rate, found.best_mean) == (0.1, pytest.approx(0.85))
    assert (found.step_down, found.step_up) == (pytest.approx(0.2), pytest.approx(0.4))
    assert found.decades == pytest.approx(0.02 / 0.2 + 0.02 / 0.4)
    assert found.decades_low == pytest.approx(found.decades_high) == pytest.approx(found.decades)  # one shape
    [line] = sensitivity_lines([row])
    assert tuple(line) == SENSITIVITY_COLUMNS


def test_a_rate_that_diverges_on_a_seed_costs_all_and_beyond_the_edge_nothing_is_known():
    diverging = {0.1: (0.9, 0.8), 1.0: "diverged"}
    found = sensitivity(row_of(grid(13, {0.1: (0.9, 0.8), 1.0: (0.7, 0.4)}), grid(21, diverging)))
    assert found is not None
    assert (found.step_up, found.decades) == (math.inf, 0.0)
    assert math.isnan(found.step_down)
    assert sensitivity(row_of(grid(13, {0.1: "diverged", 1.0: "diverged"}))) is None
    assert sensitivity(row_of(grid(13, {0.1: (0.9, 0.8)}))) is None  # one rate has no slope


def test_a_seed_with_a_hole_in_its_grid_does_not_count_and_one_seed_has_no_interval():
    found = sensitivity(
        row_of(
            grid(13, {0.1: (0.9, 0.8), 1.0: (0.7, 0.4)}),
            grid(21, {0.1: (0.9, 0.8), 1.0: "failed"}),
            grid(42, {0.1: (0.9, 0.8)}),
        )
    )
    assert found is not None
    assert found.seeds == (13,)
    assert found.step_up == pytest.approx(0.4)
    assert math.isnan(found.decades_low)


def test_a_step_too_high_on_the_published_boards():
    """Computed apart from this code: on trec SGD loses 44.8 points, SGDM 4.6."""
    lines = {
        (line["task"], line["optimizer"]): line
        for line in sensitivity_lines(published_board("six-tasks-minilm-head").rows)
    }
    assert len(lines) == 18
    costs = {
        ("trec", "sgd"): 44.8,
        ("trec", "sgdm"): 4.6,
        ("subj", "sgd"): 18.4,
        ("subj", "sgdm"): 4.3,
        ("mpqa", "sgd"): 12.8,
        ("mpqa", "sgdm"): 5.3,
        ("sst2", "sgd"): 7.5,
        ("sst2", "sgdm"): 1.5,
    }
    assert {name: round(100 * lines[name]["cost_step_up"], 1) for name in costs} == costs
    decades = {("cr", "sgd"): 1.07, ("cr", "sgdm"): 1.33, ("sst2", "sgd"): 0.43, ("trec", "sgdm"): 0.56}
    for name, expected in decades.items():
        assert lines[name]["decades"] == pytest.approx(expected, abs=0.006)


def test_two_rates_on_the_published_digits():
    """Computed apart from this code: +4.8, +8.5, +13.4 and +4.6 points at batch 16, 64, 256 and 1024."""
    board = published_board("digits-batch-size")
    lines = [line for line in budget_lines(pairs_of(board)) if line["n_rates"] == 2]
    assert [round(100 * line["mean_difference"], 1) for line in lines] == [4.8, 8.5, 13.4, 4.6]
    ends = [(round(100 * line["ci_low"], 1), round(100 * line["ci_high"], 1)) for line in lines]
    assert (ends[0], ends[3]) == ((2.9, 6.7), (-2.0, 11.2))


def test_the_whole_budget_is_the_tuned_comparison():
    board = published_board("six-tasks-minilm-head")
    last = [line for line in budget_lines(pairs_of(board)) if line["n_rates"] == line["grid_size"]]
    tuned = [pair for pair in board.comparisons if pair.second.label == "sgdm"]
    for line, comparison in zip(last, tuned, strict=True):
        for name in ("task", "n_pairs", "first_row_id", "second_row_id"):
            assert line[name] == comparison.columns[name]
        for name in ("mean_difference", "ci_low", "ci_high"):
            assert line[name] == pytest.approx(comparison.columns[name])
