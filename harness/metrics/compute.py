"""TODO: what this file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from momentum_bench.harness.metrics.functions import EVALUATE, METRICS, OF_QUESTIONS


def check_available(metric: str) -> None:
    """Raises: UserError, where `evaluate` is to compute the metric and cannot load it."""
    if metric.startswith(EVALUATE):
        from momentum_bench.harness.metrics.evaluate_bridge import load

        load(metric.removeprefix(EVALUATE).partition(":")[0])


def compute(
    metric: str, labels: Sequence[Any], predictions: Sequence[Any], questions: Sequence[int] | None = None
) -> float:
    """The score by a metric's id, one of `METRICS` or `evaluate:NAME`.

    Raises:
        UserError: `evaluate` cannot load or compute the metric.
    """
    if metric.startswith(EVALUATE):
        from momentum_bench.harness.metrics.evaluate_bridge import compute_by_evaluate  # loads torch

        return compute_by_evaluate(metric, labels, predictions)
    if metric in OF_QUESTIONS:
        return METRICS[metric](labels, predictions, questions)
    return METRICS[metric](labels, predictions)
