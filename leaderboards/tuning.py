"""How much an optimizer depends on the search for its learning rate: two answers from the whole grid.

*Tuning budget*: the test score that is to be expected where only n of the grid's rates are tried and dev
chooses among them (Dodge et al. 2019, "Show Your Work", with the test score of the dev choice). It is exact
over all subsets of n rates, so nothing is drawn.

*Sensitivity*: over how many decades of rate the mean test score stays within a tolerance of its best, and
what one grid step next to the best costs. It describes the test scores of the grid and chooses nothing.

Rates are effective ones. Scores are fractions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.selection import by_choice, dev_result

TOLERANCE = 0.02
"""A rate whose mean score is within two points of the best one's counts as good."""

RESAMPLES = 2000
"""Of the seeds, for the interval of the decades; with a fixed seed."""


def expected_scores(ranked: Sequence[float], n_without: int) -> list[float]:
    """The expected score of the best-ranked of n rates, for n = 1 .. all of them.

    The rate of rank r (from 0) is the choice in a subset of n out of N rates where the subset holds it and
    none before it: in C(N - 1 - r, n - 1) of the C(N, n) subsets.

    Args:
        ranked: test scores of the rates that finished, the one that dev prefers first.
        n_without: rates that were tried and gave no score. A subset of these alone has no choice; the
            expectation is over the other subsets.

    Returns:
        One value for each n.
    """
    size = len(ranked) + n_without
    expected = []
    for n in range(1, size + 1):
        weights = [math.comb(size - 1 - rank, n - 1) for rank in range(len(ranked))]
        total = sum(weights)
        expected.append(math.fsum(w * score for w, score in zip(weights, ranked, strict=True)) / total)
    return expected


def budget_curves(runs: Sequence[RunRecord]) -> dict[int, list[float]]:
    """The expected test score by the number of rates tried, for each seed of one row.

    A seed of which a run failed, or all diverged, has none: its grid is not the one that was asked for.
    """
    by_seed: dict[int, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_seed[run.spec.seed].append(run)
    curves = {}
    for seed, of_seed in sorted(by_seed.items()):
        done = [run for run in of_seed if run.status == "done"]
        if not done or any(run.status == "failed" for run in of_seed):
            continue
        done.sort(key=lambda run: by_choice(dev_result(run)))
        curves[seed] = expected_scores([_test(run) for run in done], len(of_seed) - len(done))
    return curves


@dataclass(frozen=True)
class Sensitivity:
    """How the mean test score of one row depends on the learning rate.

    Attributes:
        best_rate: where the mean over the seeds is highest.
        best_mean: that mean.
        decades: of the learning rate (log10) within `tolerance` of it, between the rates log-linearly.
        decades_low, decades_high: 95 % interval of `decades`, by resampling the seeds.
        step_up, step_down: what the next higher and lower rate of the grid costs; None: the best is the
            edge of the grid; infinite: a run diverged there.
    """

    best_rate: float
    best_mean: float
    decades: float
    decades_low: float
    decades_high: float
    step_up: float | None
    step_down: float | None


def sensitivity(runs: Sequence[RunRecord], tolerance: float = TOLERANCE) -> Sensitivity | None:
    """The sensitivity of one row; None where no rate finished on every seed.

    A rate at which a run diverged on some seed has no mean and counts as bad. So does one that is missing
    or failed on some seed.
    """
    scores: dict[float, dict[int, float]] = defaultdict(dict)
    seeds = sorted({run.spec.seed for run in runs})
    rates = sorted({run.spec.learning_rate for run in runs})
    for run in runs:
        if run.status == "done":
            scores[run.spec.learning_rate][run.spec.seed] = _test(run)
    table = np.array([[scores[rate].get(seed, -math.inf) for rate in rates] for seed in seeds])
    means = table.mean(axis=0)
    if not np.isfinite(means).any():
        return None
    best = int(np.argmax(means))
    draws = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    logs = [math.log10(rate) for rate in rates]
    resampled = [decades_within(logs, table[draw].mean(axis=0).tolist(), tolerance) for draw in draws]
    low, high = np.quantile(resampled, [0.025, 0.975])

    def cost(place: int) -> float | None:
        return float(means[best] - means[place]) if 0 <= place < len(rates) else None

    return Sensitivity(
        best_rate=rates[best],
        best_mean=float(means[best]),
        decades=decades_within(logs, means.tolist(), tolerance),
        decades_low=float(low),
        decades_high=float(high),
        step_up=cost(best + 1),
        step_down=cost(best - 1),
    )


def decades_within(logs: Sequence[float], means: Sequence[float], tolerance: float) -> float:
    """The length of the part of the axis on which the curve is within a tolerance of its highest point.

    Args:
        logs: log10 of the rates, ascending.
        means: the curve at these rates; minus infinity where there is none. From such a rate to the next
            one nothing counts.
    """
    threshold = max(means) - tolerance
    length = 0.0
    for (x0, y0), (x1, y1) in pairwise(zip(logs, means, strict=True)):
        if not (math.isfinite(y0) and math.isfinite(y1)):
            continue
        above = [y >= threshold for y in (y0, y1)]
        if all(above):
            length += x1 - x0
        elif any(above):
            inside, outside = (y0, y1) if above[0] else (y1, y0)
            length += (x1 - x0) * (inside - threshold) / (inside - outside)
    return float(length)


def mean_curve(curves: Mapping[int, Sequence[float]]) -> list[float]:
    """The mean over the seeds for each number of rates; the seeds must have grids of one size."""
    return [math.fsum(values) / len(values) for values in zip(*curves.values(), strict=True)]


def _test(run: RunRecord) -> float:
    assert run.test is not None  # a run that is done was scored on test
    return run.test.metric
