"""How much an optimizer depends on the search for its learning rate: two answers from the whole grid.

*Tuning budget*: the test score that is to be expected where only n of the grid's rates are tried and dev
chooses among them (Dodge et al. 2019, "Show Your Work", with the test score of the dev choice). It is exact
over all subsets of n rates, so nothing is drawn.

*Sensitivity*: over how many decades of rate the mean test score stays within a tolerance of its best, and
what one step of the grid above or below the best rate costs. It describes the test scores of the grid and
chooses nothing.

Scores are fractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.selection import by_choice, dev_result
from momentum_bench.harness.reporting import joined
from momentum_bench.harness.verdicts.paired import summary
from momentum_bench.leaderboards.columns import PAIR_COLUMNS, metric_on_test, pair_columns
from momentum_bench.leaderboards.comparisons import same_search
from momentum_bench.leaderboards.rows import Row

TOLERANCE = 0.02
"""A rate whose mean score is within two points of the best one's counts as good."""

RESAMPLES = 2000
"""Of the seeds, for the interval of the decades; with a fixed seed."""

BUDGET_COLUMNS = (
    *("task", "model", "method", "k", "metric", *PAIR_COLUMNS),
    *("n_rates", "grid_size", "seeds", "n_pairs", "first_test_mean", "second_test_mean"),
    *("mean_difference", "std_difference", "ci_low", "ci_high"),
    *("protocol", "data_fingerprint", "model_revision", "first_row_id", "second_row_id"),
)
"""The columns of tuning_budget.csv."""

SENSITIVITY_COLUMNS = (
    *("task", "model", "method", "k", "metric", "optimizer", "momentum", "hyperparameters"),
    *("seeds", "n_seeds", "grid", "best_learning_rate", "best_test_mean", "tolerance"),
    *("decades", "decades_low", "decades_high", "cost_step_up", "cost_step_down"),
    *("protocol", "data_fingerprint", "model_revision", "row_id"),
)
"""The columns of sensitivity.csv."""


def expected_scores(ranked: Sequence[float], n_without: int) -> list[float]:
    """The expected score of the best-ranked of n rates, for n = 1 .. all of them.

    The rate of rank r (from 0) is the choice in a subset of n out of N rates if the subset holds it and
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


def whole_seeds(row: Row) -> dict[int, list[RunRecord]]:
    """The runs of each seed on which every rate of the row's grid ended in a result.

    On another seed the grid is not the one that was asked for, so it says nothing about a search. A row of
    mixed environments has no such seed, because it has no score. A row with further tuned axes is left out,
    because what is said here is about the learning rate alone.
    """
    if row.mixed or row.axes:
        return {}
    return {
        seed: [run for run in row.runs if run.spec.seed == seed]
        for seed, rates in row.budget.items()
        if rates == row.grid
    }


def budget_curves(row: Row) -> dict[int, list[float]]:
    """The expected test score by the number of rates tried (from 1), for each whole seed of a row.

    A seed on which all rates diverged has none.
    """
    curves = {}
    for seed, runs in whole_seeds(row).items():
        done = [run for run in runs if run.status == "done"]
        if done:
            done.sort(key=lambda run: by_choice(dev_result(run)))
            curves[seed] = expected_scores([metric_on_test(run) for run in done], len(runs) - len(done))
    return curves


def budget_lines(pairs: Iterable[tuple[Row, Row]]) -> Iterator[dict[str, Any]]:
    """The rows of tuning_budget.csv: for each pair of rows and each number of rates, the paired difference.

    The two rows of a pair stand in one table (`Row.table_key`). Seeds count on which both searched the same
    rates, or, where they share no axis, equally many.
    """
    for first, second in pairs:
        curves = budget_curves(first), budget_curves(second)
        seeds = [
            seed
            for seed in sorted(curves[0].keys() & curves[1].keys())
            if same_search(first, second, seed) and len(curves[0][seed]) == len(curves[1][seed])
        ]
        if not seeds:
            continue
        size = len(curves[0][seeds[0]])
        for place in range(size):
            scores = [[curve[seed][place] for seed in seeds] for curve in curves]
            found = summary([b - a for a, b in zip(*scores, strict=True)])
            yield {
                **pair_beginning(first, second),
                "n_rates": place + 1,
                "grid_size": size,
                "seeds": joined(seeds),
                "n_pairs": found.n,
                "first_test_mean": summary(scores[0]).mean,
                "second_test_mean": summary(scores[1]).mean,
                "mean_difference": found.mean,
                "std_difference": found.std,
                "ci_low": found.ci_low,
                "ci_high": found.ci_high,
                **pair_identity(first, second),
            }


def pair_beginning(first: Row, second: Row) -> dict[str, Any]:
    """The columns that name a pair of rows and their table, at the beginning of a line."""
    table = {name: first.columns[name] for name in ("task", "model", "method", "k", "metric")}
    return table | pair_columns(first.columns, second.columns)


def pair_identity(first: Row, second: Row) -> dict[str, Any]:
    """The columns that say what exactly a pair was made from, at the end of a line."""
    return {
        **{name: first.columns[name] for name in ("protocol", "data_fingerprint", "model_revision")},
        "first_row_id": first.row_id,
        "second_row_id": second.row_id,
    }


@dataclass(frozen=True)
class Sensitivity:
    """How the mean test score of one row depends on the learning rate.

    Attributes:
        seeds: those that count.
        best_rate: where the mean over the seeds is highest; of several such rates the smallest.
        best_mean: that mean.
        decades: of the learning rate (log10) within `tolerance` of it, between the rates log-linearly.
        decades_low, decades_high: 95 % interval of `decades`, by resampling the seeds; NaN for one seed.
        step_up, step_down: what the next higher and lower rate of the grid costs; NaN: the best rate is the
            edge of the grid; infinite: a run diverged there.
    """

    seeds: tuple[int, ...]
    best_rate: float
    best_mean: float
    decades: float
    decades_low: float
    decades_high: float
    step_up: float
    step_down: float


def sensitivity(row: Row, tolerance: float = TOLERANCE) -> Sensitivity | None:
    """The sensitivity of one row; None if its grid has one rate, or no rate finished on every whole seed.

    A rate at which a run diverged on some seed has no mean and counts as bad.
    """
    runs_of = whole_seeds(row)
    rates = sorted(point.learning_rate for point in row.grid)
    if not runs_of or len(rates) < 2:
        return None
    scores = {
        seed: {run.spec.learning_rate: metric_on_test(run) for run in runs if run.status == "done"}
        for seed, runs in runs_of.items()
    }
    table = np.array([[of_seed.get(rate, -math.inf) for rate in rates] for of_seed in scores.values()])
    means = [math.fsum(column) / len(column) for column in table.T.tolist()]
    if not any(map(math.isfinite, means)):
        return None
    best = int(np.argmax(means))
    logs = [math.log10(rate) for rate in rates]
    low, high = math.nan, math.nan
    if len(table) > 1:
        draws = np.random.default_rng(0).integers(len(table), size=(RESAMPLES, len(table)))
        resampled = [decades_within(logs, table[draw].mean(axis=0).tolist(), tolerance) for draw in draws]
        low, high = (float(end) for end in np.quantile(resampled, [0.025, 0.975]))

    def cost(place: int) -> float:
        return means[best] - means[place] if 0 <= place < len(rates) else math.nan

    return Sensitivity(
        seeds=tuple(scores),
        best_rate=rates[best],
        best_mean=means[best],
        decades=decades_within(logs, means, tolerance),
        decades_low=low,
        decades_high=high,
        step_up=cost(best + 1),
        step_down=cost(best - 1),
    )


def decades_within(logs: Sequence[float], means: Sequence[float], tolerance: float) -> float:
    """The length of the part of the axis on which the curve is within a tolerance of its highest point.

    Args:
        logs: log10 of the rates, ascending.
        means: the curve at these rates; minus infinity where there is none. From such a rate to the next
            one nothing counts.

    Returns:
        Decades; 0 where the curve has no point at all.
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


def sensitivity_lines(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """The rows of sensitivity.csv, one for each of these rows that has a sensitivity."""
    for row in rows:
        if (found := sensitivity(row)) is None:
            continue
        named = ("task", "model", "method", "k", "metric", "optimizer", "momentum", "hyperparameters")
        yield {
            **{name: row.columns[name] for name in named},
            "seeds": joined(found.seeds),
            "n_seeds": len(found.seeds),
            "grid": row.columns["grid"],
            "best_learning_rate": found.best_rate,
            "best_test_mean": found.best_mean,
            "tolerance": TOLERANCE,
            "decades": found.decades,
            "decades_low": found.decades_low,
            "decades_high": found.decades_high,
            "cost_step_up": found.step_up,
            "cost_step_down": found.step_down,
            **{name: row.columns[name] for name in ("protocol", "data_fingerprint", "model_revision")},
            "row_id": row.row_id,
        }
