"""Tuning budget and sensitivity: against enumeration, and on curves whose answer is known."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.selection import dev_result, select
from momentum_bench.leaderboards.tuning import (
    budget_curves,
    decades_within,
    expected_scores,
    mean_curve,
    sensitivity,
)
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


def grid(seed: int, scores: dict[float, tuple[float, float] | str]) -> list[RunRecord]:
    """The runs of a seed, by their rates: dev and test, or a status."""
    return [
        make_record(seed=seed, learning_rate=rate, status=score)
        if isinstance(score, str)
        else make_record(seed=seed, learning_rate=rate, dev=score[0], test=score[1])
        for rate, score in scores.items()
    ]


def test_the_budget_of_a_seed_follows_the_rule_that_chooses():
    runs = grid(13, {0.01: (0.5, 0.4), 0.1: (0.9, 0.8), 1.0: (0.7, 0.9)})
    curve = budget_curves(runs)[13]
    choice = select([dev_result(run) for run in runs], [0.01, 0.1, 1.0])
    assert curve[-1] == next(r.test.metric for r in runs if r.spec.run_id == choice.run_id if r.test)
    assert curve == pytest.approx([2.1 / 3, (0.8 + 0.9 + 0.8) / 3, 0.8])


def test_what_failed_is_no_grid_and_what_diverged_is():
    whole = grid(13, {0.01: (0.5, 0.4), 0.1: (0.9, 0.8)})
    failed = grid(21, {0.01: (0.5, 0.4), 0.1: "failed"})
    diverged = grid(42, {0.01: (0.5, 0.4), 0.1: "diverged"})
    nothing = grid(87, {0.01: "diverged", 0.1: "diverged"})
    curves = budget_curves([*whole, *failed, *diverged, *nothing])
    assert curves == {13: pytest.approx([0.6, 0.8]), 42: [0.4, 0.4]}
    assert mean_curve(curves) == pytest.approx([0.5, 0.6])


def test_decades_of_known_curves():
    logs = [-2.0, -1.0, 0.0]
    assert decades_within(logs, [0.5, 0.5, 0.5], 0.02) == pytest.approx(2.0)
    assert decades_within(logs, [0.0, 1.0, 0.0], 0.1) == pytest.approx(0.2)
    assert decades_within(logs, [-math.inf, 0.5, 0.5], 0.02) == pytest.approx(1.0)
    assert decades_within(logs, [0.1, -math.inf, 0.5], 0.02) == 0.0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.floats(0.001, 0.5))
def test_decades_are_no_more_than_the_grid_and_grow_with_the_tolerance(means: list[float], tolerance: float):
    logs = [0.5 * place for place in range(len(means))]
    narrow, wide = decades_within(logs, means, tolerance), decades_within(logs, means, 2 * tolerance)
    assert 0 <= narrow <= wide + 1e-12
    assert wide <= logs[-1] + 1e-12


def test_the_sensitivity_of_a_row():
    runs = [
        *grid(13, {0.01: (0.5, 0.60), 0.1: (0.9, 0.80), 1.0: (0.7, 0.40)}),
        *grid(21, {0.01: (0.5, 0.70), 0.1: (0.9, 0.90), 1.0: (0.7, 0.50)}),
    ]
    found = sensitivity(runs)
    assert found is not None
    assert (found.best_rate, found.best_mean) == (0.1, pytest.approx(0.85))
    assert (found.step_down, found.step_up) == (pytest.approx(0.2), pytest.approx(0.4))
    assert found.decades == pytest.approx(0.02 / 0.2 + 0.02 / 0.4)
    assert found.decades_low == pytest.approx(found.decades_high) == pytest.approx(found.decades)  # one shape


def test_a_rate_that_diverges_on_a_seed_costs_all():
    runs = [*grid(13, {0.1: (0.9, 0.8), 1.0: (0.7, 0.4)}), *grid(21, {0.1: (0.9, 0.8), 1.0: "diverged"})]
    found = sensitivity(runs)
    assert found is not None
    assert (found.step_up, found.step_down, found.decades) == (math.inf, None, 0.0)
    assert sensitivity(grid(13, {0.1: "diverged"})) is None
