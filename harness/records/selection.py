"""Which point of a grid is chosen: a learning rate, and a value of each further axis that is tuned.

The rules are fixed in advance and see dev results only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from momentum_bench.harness.records.schema import Axis, Point, RunRecord, Settings

NO_FURTHER: dict[Axis, float] = {"batch_size": 1}
"""The smallest value that an axis can have, where it is not 0. It is no edge, because there is nothing beyond
it to try."""

FEWEST_VALUES = 3
"""With fewer values on a further axis, each of them is an end, so an end says nothing."""


@dataclass(frozen=True)
class DevResult:
    """The dev results of a run, which is all that a choice may see. There is no test field, on purpose."""

    run_id: str
    learning_rate: float
    dev_metric: float
    dev_loss: float
    settings: Settings = ()

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
        *edges_of(best.point, grid),
    )


def edges_of(chosen: Point, grid: Sequence[Point]) -> tuple[bool, tuple[str, ...]]:
    """Whether a point is on an edge of its grid, and the axes on which it is at an end: see `Selection`."""
    rates = [point.learning_rate for point in grid]
    ends: list[str] = ["learning_rate"] if chosen.learning_rate in (min(rates), max(rates)) else []
    on_edge = bool(ends)
    for place, (name, value) in enumerate(chosen.settings):
        values = {point.settings[place][1] for point in grid}
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue  # truth values, texts and lists have no end
        if value == max(values) or (value == min(values) and value != NO_FURTHER.get(name, 0)):
            ends.append(name)
            on_edge = on_edge or len(values) >= FEWEST_VALUES
    return on_edge, tuple(ends)


Group = Sequence[DevResult]
"""The finished runs of one arm on one seed, one for each point."""


def select_point(groups: Sequence[Group]) -> Point | None:
    """One point of an arm's grid for all seeds: best mean dev metric, then mean dev loss, then smaller point.

    Only a point with a finished run in every group can be chosen, because one that diverged in one of them
    has no mean. Means are compared to 12 digits, so that rounding does not decide a tie.

    Args:
        groups: one for each seed.

    Returns:
        The point; None: none finished in all groups.
    """
    means = _means(groups)
    return min(means, key=lambda point: (*means[point].rank, point), default=None)


def select_matched(arms: Sequence[Sequence[Group]]) -> list[Point] | None:
    """One point for each of several arms, with one learning rate and one value of each shared axis for all.

    Shared are the settings of a run (`RUN_AXES`).

    Where an arm has axes of its own, it stands at each rate for the best of their values, by the rule of
    `select_point`. By the same rule, over all arms and seeds, the rate and the shared values are chosen.

    Args:
        arms: the groups of each arm, one for each seed.

    Returns:
        The point of each arm; None: no rate, with the shared values, finished in all groups, or there is no
        arm.
    """
    best = [_best_at(_means(groups)) for groups in arms]
    common = set.intersection(*(set(of_arm) for of_arm in best)) if best else set()

    def order(at: Point) -> tuple[float, float, Point]:
        return (*Mean.over(of_arm[at][1] for of_arm in best).rank, at)

    chosen = min(common, key=order, default=None)
    return None if chosen is None else [of_arm[chosen][0] for of_arm in best]


@dataclass(frozen=True)
class Mean:
    """The dev results of several runs.

    Attributes:
        metrics, losses: of each of them.
    """

    metrics: tuple[float, ...]
    losses: tuple[float, ...]

    @classmethod
    def over(cls, parts: Iterable[Mean]) -> Mean:
        """All results of these."""
        parts = list(parts)
        return cls(tuple(m for p in parts for m in p.metrics), tuple(x for p in parts for x in p.losses))

    @property
    def rank(self) -> tuple[float, float]:
        """Sorts means, the one that is chosen first."""
        metric, loss = (math.fsum(values) / len(values) for values in (self.metrics, self.losses))
        return -round(metric, 12), round(loss, 12)


def _means(groups: Sequence[Group]) -> dict[Point, Mean]:
    """The dev results of each point that finished in all groups."""
    found = [{result.point: result for result in group} for group in groups]
    common = set.intersection(*(set(group) for group in found)) if found else set()
    return {
        point: Mean(
            tuple(group[point].dev_metric for group in found), tuple(group[point].dev_loss for group in found)
        )
        for point in common
    }


def _best_at(means: Mapping[Point, Mean]) -> dict[Point, tuple[Point, Mean]]:
    """The best point of an arm at each rate with shared values."""
    best: dict[Point, tuple[Point, Mean]] = {}
    for point in sorted(means, key=lambda point: (*means[point].rank, point)):
        best.setdefault(point.shared, (point, means[point]))
    return best


def dev_result(run: RunRecord) -> DevResult:
    """The part of a done run that a choice may see."""
    assert run.best is not None  # a run that is done has chosen a checkpoint
    point = run.spec.point
    return DevResult(
        run.spec.run_id, point.learning_rate, run.best.dev_metric, run.best.dev_loss, point.settings
    )
