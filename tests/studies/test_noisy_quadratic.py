from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from momentum_bench.harness.studies.noisy_quadratic import quadratic_gap

RATES = [0.02 / 2**i for i in range(6)]


def simulated(eta: float, beta: float, sigma: float, steps: int, paths: int) -> tuple[np.ndarray, np.ndarray]:
    """SGD's x and SGDM's y at the end of many paths with common noise, by their update rules."""
    draw = np.random.default_rng(0)
    x, y, m = np.ones(paths), np.ones(paths), np.zeros(paths)
    for _ in range(steps):
        noise = sigma * draw.standard_normal(paths)
        x, gradient = x - eta * (x + noise), y + noise
        m = beta * m + (1 - beta) * gradient
        y = y - eta * m
    return x, y


@pytest.mark.parametrize(("eta", "beta", "sigma"), [(0.1, 0.9, 1.0), (0.05, 0.5, 0.05**-0.5)])
def test_the_closed_form_is_what_paths_do(eta: float, beta: float, sigma: float):
    x, y = simulated(eta, beta, sigma, steps=60, paths=40_000)
    gap = quadratic_gap(eta, beta, sigma, steps=60)
    for sample, expected in (
        ((x - y) ** 2, gap.rms_distance**2),
        (x, gap.mean[0]),
        (y, gap.mean[1]),
        (x**2, gap.second_moment[0]),
        (y**2, gap.second_moment[1]),
    ):
        assert abs(sample.mean() - expected) < 4 * sample.std(ddof=1) / math.sqrt(len(sample))
    difference = x**2 - y**2
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    assert abs(abs(difference.mean()) - gap.weak_error) < 4 * error


@given(
    eta=st.floats(0.001, 0.3),
    beta=st.floats(0, 0.95),
    sigma=st.floats(0, 5),
    curvature=st.floats(0.1, 2),
    steps=st.integers(0, 60),
)
@settings(max_examples=40, deadline=None)
def test_the_closed_form_is_the_sum_over_every_noise(
    eta: float, beta: float, sigma: float, curvature: float, steps: int
):
    """The same moments from unrolled weights: noise j steps before the end has a weight of its own."""
    x, y, m = np.zeros(steps + 1), np.zeros(steps + 1), np.zeros(steps + 1)  # [start, noise 1, noise 2, ...]
    x[0] = y[0] = 1.0
    for step in range(steps):
        noise = np.zeros(steps + 1)
        noise[step + 1] = sigma
        x, gradient = x - eta * (curvature * x + noise), curvature * y + noise
        m = beta * m + (1 - beta) * gradient
        y = y - eta * m
    gap = quadratic_gap(eta, beta, sigma, steps, curvature)
    assert gap.mean == pytest.approx((x[0], y[0]), abs=1e-9)
    # the start is certain, the noises are independent of variance 1
    assert gap.second_moment == pytest.approx((x @ x, y @ y), abs=1e-9)
    assert gap.rms_distance == pytest.approx(math.sqrt((x - y) @ (x - y)), abs=1e-6)
    assert gap.weak_error == pytest.approx(abs(x @ x - y @ y), abs=1e-9)


def slopes(beta: float, noise_exponent: float) -> tuple[float, float]:
    """Of log distance and of log weak error against log eta, at effective time 2."""
    rates = [rate * (1 - beta) for rate in RATES]
    gaps = [quadratic_gap(eta, beta, eta**noise_exponent, round(2 / eta)) for eta in rates]
    distance = linregress(np.log(rates), np.log([gap.rms_distance for gap in gaps])).slope
    return distance, linregress(np.log(rates), np.log([gap.weak_error for gap in gaps])).slope


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_at_fixed_noise_paths_close_in_as_eta(beta: float):
    distance, weak = slopes(beta, noise_exponent=0)
    assert distance == pytest.approx(1, abs=0.03)
    assert weak == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_at_the_theorems_noise_paths_close_in_as_its_square_root_and_expectations_faster(beta: float):
    distance, weak = slopes(beta, noise_exponent=-0.5)
    assert distance == pytest.approx(0.5, abs=0.03)
    assert weak == pytest.approx(1, abs=0.05)


def test_without_momentum_there_is_no_gap():
    gap = quadratic_gap(0.1, 0.0, 3.0, 50)
    assert gap.rms_distance == pytest.approx(0, abs=1e-7)  # the root of float64's rounding
    assert gap.weak_error == pytest.approx(0, abs=1e-12)


def test_an_unstable_rate_is_refused():
    with pytest.raises(ValueError, match="not stable"):
        quadratic_gap(2.5, 0.5, 1.0, 10)
