"""The score of a model that has learned nothing but which answer is the commonest. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from momentum_bench.harness.metrics.functions import CORRELATIONS, EVALUATE, score


def best_constant(metric: str, labels: Sequence[Any], questions: Sequence[int] | None = None) -> float | None:
    """The best score that one prediction for all rows can have, from the labels alone.

    For accuracy it is the share of the commonest label. A correlation with a constant is undefined and counts
    as 0.

    Args:
        labels: of the scored rows: classes or numbers.
        questions: the question that each row answers.

    Returns:
        The score; None: labels are texts, or `evaluate` computes the metric.
    """
    if metric.startswith(EVALUATE) or (labels and isinstance(labels[0], tuple)):
        return None
    if metric in CORRELATIONS:
        return 0.0
    return _best(metric, tuple(labels), None if questions is None else tuple(questions))


@lru_cache(maxsize=64)  # the runs of a leaderboard are scored on few sets of rows
def _best(metric: str, labels: tuple[Any, ...], questions: tuple[int, ...] | None) -> float:
    return max(score(metric, labels, (label,) * len(labels), questions) for label in sorted(set(labels)))
