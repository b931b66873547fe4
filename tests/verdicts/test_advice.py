"""The advice on the number of seeds: it decides as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momentum_bench.harness.verdicts.advice import advice
from momentum_bench.harness.verdicts.paired import LEVEL, MARGIN, t_tests


def share_decided(total: int, n: int, mean: float, sd: float, if_equal: bool, repeats: int = 4000) -> float:
    """The share of verdicts after `total` seeds, simulated one by one under the assumptions of the advice."""
    rng = np.random.default_rng(8)
    shape = np.linspace(-1, 1, n)
    at_hand = mean + sd * shape / shape.std(ddof=1)
    decided = 0
    for _ in range(repeats):
        sigma = sd * math.sqrt((n - 1) / rng.chisquare(n - 1))
        true_mean = 0.0 if if_equal else mean + rng.normal() * sigma / math.sqrt(n)
        all_seeds = np.concatenate([at_hand, rng.normal(true_mean, sigma, total - n)])
        p = t_tests(float(all_seeds.mean()), float(all_seeds.std(ddof=1)), total, MARGIN)
        decided += min(p) < LEVEL
    return decided / repeats


@pytest.mark.parametrize(("n", "mean", "sd"), [(5, 0.0, 0.015), (5, 0.02, 0.03), (10, 0.005, 0.02)])
def test_the_advised_number_decides_in_80_percent_of_cases(n, mean, sd):
    advised = advice(n, mean, sd, MARGIN)
    assert advised.if_equal is not None
    assert advised.as_observed is not None
    assert 0.75 <= share_decided(advised.if_equal, n, mean, sd, if_equal=True) <= 0.85
    assert 0.75 <= share_decided(advised.as_observed, n, mean, sd, if_equal=False) <= 0.85


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 12), st.floats(0, 0.05), st.floats(0.001, 0.06))
def test_advice_repeats_and_is_above_what_is_there(n, mean, sd):
    found = advice(n, mean, sd, MARGIN)
    assert found == advice(n, mean, sd, MARGIN)
    assert found.if_equal is None or found.if_equal > n


def test_no_number_where_even_many_seeds_would_not_decide():
    # a spread of 50 points: equivalence within 0.01 points takes tens of millions of seeds
    assert advice(5, 0.0, 0.5, 0.0001).if_equal is None


def test_a_spread_of_zero_is_refused():
    with pytest.raises(ValueError, match="spread"):
        advice(5, 0.0, 0.0, MARGIN)
