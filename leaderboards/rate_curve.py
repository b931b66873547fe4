"""Two optimizers at each learning rate of their grid: the curve of matched differences.

A matched difference is the second arm's test score minus the first's, for one seed, both at one effective
rate. No choice of a rate is in it. The curve has many points, and one of them differs by chance sooner than
one alone would. So each point has two intervals: one for itself, and a wider one with which all points of
the curve hold together in 95 % of cases (Bonferroni: each at 1 - 0.05 / number of rates, which is correct
for any dependence between rates).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from momentum_bench.harness.intervals import t_quantile
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.reporting import joined
from momentum_bench.harness.verdicts.paired import CONFIDENCE, Summary, summary
from momentum_bench.leaderboards.columns import PAIR_COLUMNS, metric_on_test
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tuning import pair_beginning, pair_identity

MATCHED_COLUMNS = (
    *("task", "model", "method", "k", "metric", *PAIR_COLUMNS),
    *("learning_rate", "seeds", "n_pairs", "first_test_mean", "second_test_mean"),
    *("first_n_diverged", "second_n_diverged", "mean_difference", "std_difference", "ci_low", "ci_high"),
    *("n_intervals", "ci_simultaneous_low", "ci_simultaneous_high"),
    *("protocol", "data_fingerprint", "model_revision", "first_row_id", "second_row_id"),
)
"""The columns of matched_differences.csv."""


@dataclass(frozen=True)
class RatePoint:
    """The matched difference at one effective rate; fractions.

    Attributes:
        seeds: those on which both arms finished at this rate.
        first, second: the arms' mean test scores over these seeds.
        n_diverged: seeds on which the first and the second arm diverged. They are in no mean.
        difference: over the seeds, with the interval of this point alone; NaN where nothing defines it.
        n_intervals: points of the curve that have an interval, which are those with two or more seeds.
        low, high: the simultaneous interval.
    """

    rate: float
    seeds: tuple[int, ...]
    first: float
    second: float
    n_diverged: tuple[int, int]
    difference: Summary
    n_intervals: int
    low: float
    high: float


def matched_curve(first: Row, second: Row) -> list[RatePoint]:
    """The matched differences of two rows of one table, at each effective rate that both ran, ascending.

    It is empty if a row has an optimizer without an effective rate, has no score, tunes further axes (several
    runs then have one rate), or shares no rate.
    """
    if first.mixed or second.mixed or first.axes or second.axes:
        return []
    if not (first.has_effective_rate and second.has_effective_rate):
        return []
    by_cell = [{(run.spec.learning_rate, run.spec.seed): run for run in row.runs} for row in (first, second)]
    rates = sorted({rate for rate, _ in by_cell[0]} & {rate for rate, _ in by_cell[1]})
    points = []
    for rate in rates:
        seeds = sorted({seed for at, seed in by_cell[0].keys() & by_cell[1].keys() if at == rate})
        done = [s for s in seeds if all(cells[rate, s].status == "done" for cells in by_cell)]
        scores = [[metric_on_test(cells[rate, seed]) for seed in done] for cells in by_cell]
        first_diverged, second_diverged = (_n_diverged(cells, rate) for cells in by_cell)
        points.append(
            RatePoint(
                rate=rate,
                seeds=tuple(done),
                first=summary(scores[0]).mean,
                second=summary(scores[1]).mean,
                n_diverged=(first_diverged, second_diverged),
                difference=summary([b - a for a, b in zip(*scores, strict=True)]),
                n_intervals=0,
                low=math.nan,
                high=math.nan,
            )
        )
    return _with_simultaneous(points)


def _n_diverged(cells: Mapping[tuple[float, int], RunRecord], rate: float) -> int:
    return sum(at == rate and run.status == "diverged" for (at, _), run in cells.items())


def _with_simultaneous(points: Sequence[RatePoint]) -> list[RatePoint]:
    n_intervals = sum(point.difference.n > 1 for point in points)
    wide = []
    for point in points:
        d = point.difference
        half = math.nan
        if d.n > 1:
            half = t_quantile(d.n - 1, 1 - (1 - CONFIDENCE) / n_intervals) * d.std / math.sqrt(d.n)
        wide.append(replace(point, n_intervals=n_intervals, low=d.mean - half, high=d.mean + half))
    return wide


def matched_lines(pairs: Iterable[tuple[Row, Row]]) -> Iterator[dict[str, Any]]:
    """The rows of matched_differences.csv: for each pair of rows, one for each effective rate of both."""
    for first, second in pairs:
        for point in matched_curve(first, second):
            yield {
                **pair_beginning(first, second),
                "learning_rate": point.rate,
                "seeds": joined(point.seeds),
                "n_pairs": point.difference.n,
                "first_test_mean": point.first,
                "second_test_mean": point.second,
                "first_n_diverged": point.n_diverged[0],
                "second_n_diverged": point.n_diverged[1],
                "mean_difference": point.difference.mean,
                "std_difference": point.difference.std,
                "ci_low": point.difference.ci_low,
                "ci_high": point.difference.ci_high,
                "n_intervals": point.n_intervals,
                "ci_simultaneous_low": point.low,
                "ci_simultaneous_high": point.high,
                **pair_identity(first, second),
            }
