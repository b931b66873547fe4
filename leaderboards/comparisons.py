"""Paired differences of two optimizers on one task and over several tasks, and the best row of a task."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from momentum_bench.harness.reporting import joined
from momentum_bench.harness.verdicts.paired import (
    PairedDifference,
    holm,
    paired_difference,
    sentence,
    summary,
)
from momentum_bench.leaderboards.rows import Row, test_metric_of

FEWEST_TASKS = 3
"""A pooled line needs at least three tasks."""

FEWEST_SEEDS = 2
"""One seed says nothing about chance, so it cannot show which row is the best."""


@dataclass(frozen=True)
class Comparison:
    """Two rows of one setting, paired by seed; differences are second minus first.

    Attributes:
        columns: the row of comparison.csv.
    """

    first: Row
    second: Row
    difference: PairedDifference
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        what = f"{self.columns['task']}: "
        return what + sentence(self.first.label.upper(), self.second.label.upper(), self.difference)

    @property
    def verdict(self) -> str:
        """The verdict in words, with the name of the better optimizer instead of a or b."""
        words = {"a better": f"{self.first.label} better", "b better": f"{self.second.label} better"}
        return words.get(verdict, verdict) if (verdict := self.difference.verdict) else "no verdict"


@dataclass(frozen=True)
class Pooled:
    """A pair of optimizers over the tasks of one family: the plain mean of the tasks' mean differences.

    Its t interval is over tasks. It is about tasks like these and not about more seeds. Each task has the
    same weight, however noisy it is. There is no verdict.

    Attributes:
        columns: the row of pooled.csv.
    """

    comparisons: list[Comparison]
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The mean difference and its interval in words."""
        c, one = self.columns, self.comparisons[0]
        return (
            f"mean over {c['n_tasks']} tasks: {one.second.label.upper()} minus {one.first.label.upper()}: "
            f"{100 * c['mean_difference']:+.1f} points, 95 % interval over tasks "
            f"{100 * c['ci_low']:+.1f} to {100 * c['ci_high']:+.1f}."
        )


def budgets_apart(setting: Sequence[Row]) -> list[str]:
    """A sentence on rows of one setting that share no seed with equal search budgets."""
    budgets = {row.row_id: row.tried for row in setting}
    apart = set()
    for pair in combinations([row for row in setting if row.chosen], 2):
        first, second = pair
        common = first.chosen.keys() & second.chosen.keys()
        if common and all(budgets[first.row_id][seed] != budgets[second.row_id][seed] for seed in common):
            apart |= {row.row_id for row in pair}
    groups: dict[str, list[str]] = defaultdict(list)
    for row in setting:
        if row.row_id in apart:
            groups[_budget(budgets[row.row_id])].append(row.label)
    if not groups:
        return []
    parts = [f"{budget} for {', '.join(labels)}" for budget, labels in sorted(groups.items())]
    return [
        f"{setting[0].columns['task']}: optimizers with different search budgets are not compared "
        f"({'; '.join(parts)})."
    ]


def _budget(tried: Counter[int]) -> str:
    """The number of rates that were tried on each seed, in words."""
    if len(numbers := set(tried.values())) == 1:
        return f"{numbers.pop()} rates"
    return "rates: " + ", ".join(f"{n} on seed {seed}" for seed, n in sorted(tried.items()))


def compare(first: Row, second: Row, margin: float) -> tuple[Comparison | None, str]:
    """The comparison of two rows of one setting, if there is one, and a note on what was left out.

    A seed counts only if both arms tried the same number of learning rates on it, because a larger search
    has a better chance to find a good rate.

    Args:
        margin: half width of the band of equivalence, a fraction.
    """
    pair = f"{first.columns['task']}: {first.label} and {second.label}"
    common = sorted(first.chosen.keys() & second.chosen.keys())
    if not common:
        without = [row.label for row in (first, second) if not row.chosen]
        why = f"{' and '.join(without)} finished no run" if without else "they share no seed"
        return None, f"{pair} are not compared: {why}."
    tried = first.tried, second.tried
    seeds = [seed for seed in common if tried[0][seed] == tried[1][seed]]
    unequal = [f"seed {s} ({tried[0][s]} rates against {tried[1][s]})" for s in common if s not in seeds]
    note = f"their search budgets differ on {', '.join(unequal)}." if unequal else ""
    if not seeds:
        return None, ""  # `budgets_apart` says it once for all pairs
    differences = [test_metric_of(second.chosen[s]) - test_metric_of(first.chosen[s]) for s in seeds]
    difference = paired_difference(differences, margin)
    shared = ("task", "model", "method", "k", "metric")
    columns = {name: first.columns[name] for name in shared}
    columns |= {
        "first": first.columns["optimizer"],
        "second": second.columns["optimizer"],
        "first_momentum": first.columns["momentum"],
        "second_momentum": second.columns["momentum"],
        "seeds": joined(seeds),
        "n_pairs": difference.n_pairs,
        "mean_difference": difference.mean,
        "std_difference": difference.std,
        "ci_low": difference.ci_low,
        "ci_high": difference.ci_high,
        "bootstrap_low": difference.bootstrap_low,
        "bootstrap_high": difference.bootstrap_high,
        "p_sign_flip": difference.p_sign_flip,
        "p_difference": difference.p_difference,
        "p_difference_holm": math.nan,
        "p_equivalence": difference.p_equivalence,
        "p_equivalence_holm": math.nan,
        "margin": difference.margin,
        "verdict": difference.verdict or "",
        "no_verdict": difference.no_verdict,
        "n_seeds_to_decide": difference.n_seeds_to_decide,
        "protocol": first.columns["protocol"],
        "data_fingerprint": first.columns["data_fingerprint"],
        "model_revision": first.columns["model_revision"],
        "first_row_id": first.row_id,
        "second_row_id": second.row_id,
    }
    note = f"{pair} are compared on {len(seeds)} of {len(common)} seeds: {note}" if note else ""
    return Comparison(first, second, difference, columns), note


def add_holm(comparisons: Sequence[Comparison]) -> None:
    """Fill in the Holm columns: the p-values of all comparisons with a verdict are one family."""
    family = [comparison.columns for comparison in comparisons if comparison.difference.verdict]
    for name in ("p_difference", "p_equivalence"):
        for columns, adjusted in zip(family, holm([c[name] for c in family]), strict=True):
            columns[f"{name}_holm"] = adjusted


def pooled_over_tasks(comparisons: Iterable[Comparison]) -> list[Pooled]:
    """One line for each pair of optimizers that is compared on three or more tasks of one family.

    A task with two versions would count twice, so its family has no line.
    """
    families: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        first, second = comparison.first, comparison.second
        families[first.family, first.arm, second.arm].append(comparison)
    lines = []
    for part in families.values():
        tasks = [comparison.columns["task"] for comparison in part]
        if len(set(tasks)) < max(FEWEST_TASKS, len(tasks)):
            continue
        over_tasks = summary([comparison.difference.mean for comparison in part])
        names = ("model", "method", "k", "first", "second", "first_momentum", "second_momentum")
        columns = {name: part[0].columns[name] for name in names}
        columns |= {
            "tasks": joined(tasks),
            "n_tasks": over_tasks.n,
            "mean_difference": over_tasks.mean,
            "std_over_tasks": over_tasks.std,
            "ci_low": over_tasks.ci_low,
            "ci_high": over_tasks.ci_high,
            "protocol": part[0].columns["protocol"],
            "model_revision": part[0].columns["model_revision"],
        }
        lines.append(Pooled(part, columns))
    return lines


def best_of_task(rows: Iterable[Row]) -> list[Row]:
    """The rows with the highest test mean among rows of one task; empty where no best row can be known.

    Rows without a score do not count. If a row rests on one seed, there is no best row.
    """
    scored = [row for row in rows if row.chosen]
    if any(len(row.chosen) < FEWEST_SEEDS for row in scored):
        return []
    top = max((row.columns["test_mean"] for row in scored), default=None)
    return [row for row in scored if row.columns["test_mean"] == top]


def equivalent_to(best: Iterable[Row], comparisons: Iterable[Comparison]) -> set[str]:
    """Ids of the rows whose comparison with one of the best rows has the verdict `equivalent`."""
    ids = {row.row_id for row in best}
    pairs = [
        (comparison.first.row_id, comparison.second.row_id)
        for comparison in comparisons
        if comparison.difference.verdict == "equivalent"
    ]
    return {second for first, second in pairs if first in ids} | {
        first for first, second in pairs if second in ids
    }
