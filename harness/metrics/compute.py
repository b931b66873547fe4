"""A score by its id: one of our metrics, or one that `evaluate` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from momentum_bench.harness.metrics.functions import EVALUATE, score


def check_available(metric: str) -> None:
    """Raises: UserError, when `evaluate` must compute the metric and cannot load it."""
    if metric.startswith(EVALUATE):
        from momentum_bench.harness.metrics.evaluate_bridge import load

        load(metric.removeprefix(EVALUATE).partition(":")[0])


def compute(
    metric: str, labels: Sequence[Any], predictions: Sequence[Any], questions: Sequence[int] | None = None
) -> float:
    """The score by a metric's id: one of `METRICS`, or `evaluate:NAME`.

    Args:
        questions: the question that each row answers, for the metrics `OF_QUESTIONS`.

    Raises:
        UserError: `evaluate` cannot load or compute the metric.
    """
    if metric.startswith(EVALUATE):
        from momentum_bench.harness.metrics.evaluate_bridge import compute_by_evaluate  # loads torch

        return compute_by_evaluate(metric, labels, predictions)
    return score(metric, labels, predictions, questions)
