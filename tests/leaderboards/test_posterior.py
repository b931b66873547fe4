"""The posterior of a mean difference: its limits, its symmetry, and the published boards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.leaderboards.posterior import posterior
from tests.helpers.published import published_board

DIFFERENCES = st.lists(st.integers(-200, 200).map(lambda n: n / 1000), min_size=2, max_size=8)


@given(DIFFERENCES, st.floats(0.001, 0.1))
def test_three_probabilities_that_turn_with_the_sign(differences: list[float], margin: float):
    below, within, above = posterior(differences, margin)
    assert min(below, within, above) >= -1e-12
    assert below + within + above == pytest.approx(1)
    assert posterior([-d for d in differences], margin) == pytest.approx((above, within, below), abs=1e-12)


def test_it_is_the_share_of_drawn_worlds():
    """sigma^2 from its posterior, then the mean given sigma: the textbook's way to the same distribution."""
    differences = [0.01, 0.03, -0.02, 0.04, 0.0]
    n, mean, std = 5, np.mean(differences), np.std(differences, ddof=1)
    rng = np.random.default_rng(3)
    sigma = std * np.sqrt((n - 1) / rng.chisquare(n - 1, 400_000))
    drawn = rng.normal(mean, sigma / math.sqrt(n))
    shares = (np.mean(drawn < -0.01), np.mean(np.abs(drawn) <= 0.01), np.mean(drawn > 0.01))
    assert posterior(differences, 0.01) == pytest.approx(shares, abs=0.005)


def test_equal_differences_and_too_few():
    assert posterior([0.005] * 5, 0.01) == (0.0, 1.0, 0.0)
    assert posterior([0.02] * 5, 0.01) == (0.0, 0.0, 1.0)
    below, within, above = posterior([0.0] * 5, 0.01, floor=0.01)
    assert below == pytest.approx(above)
    assert 0.5 < within < 1.0
    assert all(map(math.isnan, posterior([0.1], 0.01)))
    with pytest.raises(ValueError, match="margin above 0"):
        posterior([0.1, 0.2], 0.0)


def test_the_published_boards():
    """Computed apart from this code."""
    expected = {
        "cr": (0.55, 0.26, 0.19),
        "mpqa": (0.52, 0.34, 0.13),
        "mr": (0.01, 0.92, 0.07),
        "sst2": (0.49, 0.26, 0.24),
        "subj": (0.11, 0.85, 0.04),
        "trec": (0.95, 0.03, 0.02),
    }
    pairs = published_board("six-tasks-minilm-head").comparisons
    for comparison in (pair for pair in pairs if pair.second.label == "sgdm"):
        found = posterior(comparison.differences, 0.01)
        assert found == pytest.approx(expected[comparison.columns["task"]], abs=0.0051)
