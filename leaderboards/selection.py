"""Which learning rate of a grid counts. The rule is fixed in advance and sees dev results only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DevResult:
    """What a choice may look at: a run's dev results. There is no test field, on purpose."""

    run_id: str
    learning_rate: float
    dev_metric: float
    dev_loss: float


@dataclass(frozen=True)
class Selection:
    """The chosen run of one seed.

    Attributes:
        n_tied: how many other learning rates reached the winner's dev metric.
        on_edge: the chosen rate is the smallest or the largest that was tried.
    """

    run_id: str
    n_tied: int
    on_edge: bool


def select(results: Sequence[DevResult], grid: Sequence[float]) -> Selection:
    """Best dev metric, then lower dev loss, then smaller learning rate, then run id.

    Args:
        results: the finished runs of one seed; diverged and failed runs are not among them.
        grid: all learning rates that were tried, those that diverged included.

    Raises:
        ValueError: there is nothing to choose from.
    """
    if not results:
        raise ValueError("no finished run to choose from")
    best = min(results, key=lambda r: (-r.dev_metric, r.dev_loss, r.learning_rate, r.run_id))
    tied = {r.learning_rate for r in results if r.dev_metric == best.dev_metric}
    return Selection(best.run_id, len(tied) - 1, best.learning_rate in (min(grid), max(grid)))
