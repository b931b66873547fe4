"""What the wrong choice of an optimizer costs, over the tasks and seeds of a board: the regret profile.

For a threshold, it is the share of (task, seed) pairs on which choosing one optimizer instead of the other
costs more than the threshold. It is the performance profile of Dolan and More (2002), on differences of test
scores instead of ratios of times. A mean hides whether many small losses or few large ones stand behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from momentum_bench.harness.reporting import joined
from momentum_bench.leaderboards.columns import PAIR_COLUMNS
from momentum_bench.leaderboards.comparison import Comparison

THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1)
"""Fractions of the metric: 0.01 is one point."""

REGRET_COLUMNS = (
    *("model", "method", "k", "question", *PAIR_COLUMNS),
    *("tasks", "n_tasks", "n_pairs", "threshold", "first_costs_more", "second_costs_more"),
    *("protocol", "model_revision", "design"),
)
"""The columns of regret.csv."""


def regret(differences: Sequence[float], threshold: float) -> tuple[float, float]:
    """The shares of pairs on which the first, and on which the second arm costs more than a threshold.

    Differences are rounded to 12 digits, so that one that equals the threshold does not cross it by its last
    bits.

    Args:
        differences: second minus first, fractions; at least one.
        threshold: a fraction, 0 or more.

    Raises:
        ValueError: there are no differences.
    """
    if not differences:
        raise ValueError("no differences to take a share of")
    rounded = [round(d, 12) for d in differences]
    n = len(rounded)
    return sum(d > threshold for d in rounded) / n, sum(d < -threshold for d in rounded) / n


def regret_lines(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """The rows of regret.csv: for each question and pair of arms of one family, one for each threshold.

    A family shares all settings but the task. A comparison without pairs does not count.
    """
    families: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.differences:
            first, second = comparison.first, comparison.second
            design = first.design.design_id if first.design else ""
            families[first.family, comparison.question, design, first.arm, second.arm].append(comparison)
    for (_, question, design, _, _), part in families.items():
        differences = [d for comparison in part for d in comparison.differences]
        tasks = list(dict.fromkeys(comparison.columns["task"] for comparison in part))
        for threshold in THRESHOLDS:
            first_costs, second_costs = regret(differences, threshold)
            yield {
                **{name: part[0].columns[name] for name in ("model", "method", "k")},
                "question": question,
                **{name: part[0].columns[name] for name in PAIR_COLUMNS},
                "tasks": joined(tasks),
                "n_tasks": len(tasks),
                "n_pairs": len(differences),
                "threshold": threshold,
                "first_costs_more": first_costs,
                "second_costs_more": second_costs,
                **{name: part[0].columns[name] for name in ("protocol", "model_revision")},
                "design": design,
            }
