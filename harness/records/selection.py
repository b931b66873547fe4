"""Which point of a grid is chosen: a learning rate, and a value of each further axis that is tuned.

The rules are fixed in advance and see dev results only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from momentum_bench.harness.records.schema import Axis, Point, RunRecord

NO_FURTHER: dict[Axis, float] = {"batch_size": 1, "momentum": 0, "weight_decay": 0}
"""The smallest value that an axis can have. It is no edge, because there is nothing beyond it to try."""

FEWEST_VALUES = 3
"""With fewer values on a further axis, each of them is an end, so an end says nothing."""


@dataclass(frozen=True)
class DevResult:
    """The dev results of a run, which is all that a choice may see. There is no test field, on purpose."""

    run_id: str
    learning_rate: float
    dev_metric: float
    dev_loss: float
    settings: tuple[tuple[Axis, float], ...] = ()

    @property
    def point(self) -> Point:
        """Where it stands in the grid."""
        return Point(self.learning_rate, self.settings)


@dataclass(frozen=True)
class Selection:
    """The chosen run of one seed.

    Attributes:
        tied: ids of all runs that reached the winner's dev metric, the winner's among them.
        n_tied: how many other points reached the winner's dev metric.
        on_edge: whether the chosen rate is the smallest or the largest of the grid, or the chosen value of a
            further axis with at least three values is.
        ends: the axes on which the chosen value is an end, `learning_rate` among them, whatever the number
            of values. The smallest value that an axis can have (`NO_FURTHER`) is no end.
    """

    run_id: str
    tied: tuple[str, ...]
    n_tied: int
    on_edge: bool
    ends: tuple[str, ...] = ()


def by_choice(result: DevResult) -> tuple[float, float, Point, str]:
    """Sorts results, the one that is chosen first: dev metric, lower dev loss, smaller point, run id."""
    return -result.dev_metric, result.dev_loss, result.point, result.run_id


def select(results: Sequence[DevResult], grid: Sequence[Point]) -> Selection:
    """Best dev metric, then lower dev loss, then smaller learning rate, then smaller values, then run id.

    The values are those of the further axes, in the order of the axes' names.

    Args:
        results: the finished runs of one seed, without diverged and failed ones.
        grid: all points that were tried, also those that diverged.

    Raises:
        ValueError: there is nothing to choose from.
    """
    if not results:
        raise ValueError("no finished run to choose from")
    best = min(results, key=by_choice)
    tied = [r for r in results if r.dev_metric == best.dev_metric]
    return Selection(
        best.run_id,
        tuple(sorted(r.run_id for r in tied)),
        len({r.point for r in tied}) - 1,
        *_edges(best.point, grid),
    )


def _edges(chosen: Point, grid: Sequence[Point]) -> tuple[bool, tuple[str, ...]]:
    """Whether a point is on an edge of its grid, and the axes on which it is at an end."""
    rates = [point.learning_rate for point in grid]
    ends: list[str] = ["learning_rate"] if chosen.learning_rate in (min(rates), max(rates)) else []
    on_edge = bool(ends)
    for place, (name, value) in enumerate(chosen.settings):
        values = {point.settings[place][1] for point in grid}
        if value == max(values) or (value == min(values) and value > NO_FURTHER[name]):
            ends.append(name)
            on_edge = on_edge or len(values) >= FEWEST_VALUES
    return on_edge, tuple(ends)


def select_rate(groups: Sequence[Sequence[DevResult]]) -> float | None:
    """One learning rate for several grids: best mean dev metric, then mean dev loss, then smaller rate.

    Only a rate with a finished run in every group can be chosen, because a rate that diverged in one of
    them has no mean. Means are compared to 12 digits, so that rounding does not decide a tie.

    Args:
        groups: the finished runs of each seed, and of each arm where one rate is chosen for several arms;
            in a group one run for each rate.

    Returns:
        The rate; None: no rate finished in all groups.
    """
    if not groups:
        return None
    rates = [{r.learning_rate: r for r in results} for results in groups]

    def order(rate: float) -> tuple[float, float, float]:
        metric = math.fsum(group[rate].dev_metric for group in rates) / len(rates)
        loss = math.fsum(group[rate].dev_loss for group in rates) / len(rates)
        return -round(metric, 12), round(loss, 12), rate

    common = set.intersection(*(set(group) for group in rates))
    return min(common, key=order, default=None)


def dev_result(run: RunRecord) -> DevResult:
    """The part of a done run that a choice may see."""
    assert run.best is not None  # a run that is done has chosen a checkpoint
    point = run.spec.point
    return DevResult(
        run.spec.run_id, point.learning_rate, run.best.dev_metric, run.best.dev_loss, point.settings
    )
