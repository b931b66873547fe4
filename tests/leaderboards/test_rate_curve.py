"""Matched differences at each rate: their simultaneous intervals, and those of the published boards."""

from __future__ import annotations

import math

import numpy as np
import pytest

from momentum_bench.harness.intervals import t_quantile
from momentum_bench.leaderboards.rate_curve import MATCHED_COLUMNS, matched_curve, matched_lines
from momentum_bench.leaderboards.rows import Row, rows_of
from tests.helpers.published import pairs_of, published_board
from tests.helpers.specs import make_record

RATES = (0.01, 0.1, 1.0)


def pair(score, rates=RATES, seeds=(13, 21, 42), second="sgdm") -> tuple[Row, Row]:
    """Two rows; `score(optimizer, rate, seed)` is a test score or a status."""
    records = []
    for optimizer in ("sgd", second):
        for rate in rates:
            for seed in seeds:
                found = score(optimizer, rate, seed)
                how = {"status": found} if isinstance(found, str) else {"test": found}
                records.append(make_record(optimizer=optimizer, learning_rate=rate, seed=seed, **how))
    by_name = {row.columns["optimizer"]: row for row in rows_of(records)}
    return by_name["sgd"], by_name[second]


def test_each_rate_is_paired_by_itself_and_no_choice_is_made():
    gain = {0.01: 0.1, 0.1: 0.0, 1.0: -0.2}
    points = matched_curve(
        *pair(lambda name, rate, seed: 0.5 + (seed % 5) / 100 + (name == "sgdm") * gain[rate])
    )
    assert [point.rate for point in points] == list(RATES)
    assert [point.difference.mean for point in points] == pytest.approx(list(gain.values()))
    assert [point.seeds for point in points] == [(13, 21, 42)] * 3


def test_the_simultaneous_interval_is_bonferroni_s():
    points = matched_curve(
        *pair(lambda name, rate, seed: 0.5 + (name == "sgdm") * {13: 0.0, 21: 0.02, 42: 0.07}[seed])
    )
    for point in points:
        d = point.difference
        assert point.n_intervals == 3
        half = t_quantile(2, 1 - 0.05 / 3) * d.std / math.sqrt(3)
        assert (point.low, point.high) == (pytest.approx(d.mean - half), pytest.approx(d.mean + half))
        assert point.low < d.ci_low < d.ci_high < point.high


def test_what_diverged_is_counted_and_in_no_mean():
    def score(name: str, rate: float, seed: int) -> float | str:
        if rate == 1.0 and name == "sgd":
            return "diverged" if seed != 42 else 0.4
        return "failed" if (rate, name, seed) == (0.1, "sgdm", 13) else 0.5

    low, middle, high = matched_curve(*pair(score))
    assert (low.n_diverged, middle.n_diverged, high.n_diverged) == ((0, 0), (0, 0), (2, 0))
    assert (middle.seeds, high.seeds) == ((21, 42), (42,))
    assert high.difference.mean == pytest.approx(0.1)
    assert math.isnan(high.low)
    assert [point.n_intervals for point in (low, middle, high)] == [2, 2, 2]


def test_an_arm_without_effective_rates_has_no_matched_rate():
    assert matched_curve(*pair(lambda *_: 0.5, second="adamw")) == []


def test_the_intervals_hold_together():
    """In at most 5 % of worlds without a difference one of three points excludes 0."""
    rng = np.random.default_rng(7)
    n_worlds, n_false = 400, 0
    first, second = pair(lambda *_: 0.5, seeds=range(6))
    scores = {run.spec.run_id: run for run in (*first.runs, *second.runs)}
    for _ in range(n_worlds):
        for run in scores.values():
            assert run.test is not None
            object.__setattr__(run.test, "metric", float(rng.normal(0.5, 0.05)))
        n_false += any(point.low > 0 or point.high < 0 for point in matched_curve(first, second))
    assert n_false / n_worlds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_worlds)


def test_the_published_curves():
    """Computed apart from this code: of 36 matched cells one difference, and no equivalence."""
    lines = list(matched_lines(pairs_of(published_board("six-tasks-minilm-head"))))
    assert len(lines) == 36
    assert tuple(lines[0]) == MATCHED_COLUMNS
    shown = [e for e in lines if e["ci_simultaneous_low"] > 0 or e["ci_simultaneous_high"] < 0]
    [one] = shown
    assert (one["task"], one["learning_rate"]) == ("trec", 0.1)
    ends = (one["mean_difference"], one["ci_simultaneous_low"], one["ci_simultaneous_high"])
    assert [round(100 * value, 1) for value in ends] == [-6.0, -11.1, -1.0]
    within = [max(-e["ci_simultaneous_low"], e["ci_simultaneous_high"]) < 0.01 for e in lines]
    assert not any(within)
