"""Paired differences of two optimizers, on one task and over several."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from momentum_bench.harness.reporting import joined
from momentum_bench.leaderboards.paired import (
    PairedDifference,
    holm,
    paired_difference,
    sentence,
    summary,
)
from momentum_bench.leaderboards.rows import Row, test_metric_of

FEWEST_TASKS = 3


@dataclass(frozen=True)
class Comparison:
    """Two rows of one setting, paired by seed: second minus first. `columns` as in comparison.csv."""

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
        """The verdict with an optimizer's name in place of a or b."""
        words = {"a better": f"{self.first.label} better", "b better": f"{self.second.label} better"}
        return words.get(verdict, verdict) if (verdict := self.difference.verdict) else "no verdict"


@dataclass(frozen=True)
class Pooled:
    """A pair of optimizers over the tasks of one family: the plain mean of the tasks' mean differences.

    Its t interval is over tasks: it speaks of tasks like these, not of further seeds, and weighs each
    task the same however noisy. It carries no verdict. `columns` as in pooled.csv.
    """

    comparisons: list[Comparison]
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The pooled line in words."""
        c, one = self.columns, self.comparisons[0]
        return (
            f"mean over {c['n_tasks']} tasks: {one.second.label.upper()} minus {one.first.label.upper()}: "
            f"{100 * c['mean_difference']:+.1f} points, 95 % interval over tasks "
            f"{100 * c['ci_low']:+.1f} to {100 * c['ci_high']:+.1f}."
        )


def budgets_apart(setting: Sequence[Row]) -> list[str]:
    """Which rows of one setting are not compared because no seed of theirs had equal search budgets."""
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
        f"{setting[0].columns['task']}: optimizers whose search budgets differ are not compared "
        f"({'; '.join(parts)})."
    ]


def _budget(tried: Counter[int]) -> str:
    """How many rates were tried on each seed."""
    if len(numbers := set(tried.values())) == 1:
        return f"{numbers.pop()} rates"
    return "rates: " + ", ".join(f"{n} on seed {seed}" for seed, n in sorted(tried.items()))


def compare(first: Row, second: Row, margin: float) -> tuple[Comparison | None, str]:
    """The comparison of two rows of one setting, and a note on what was left out of it, or why.

    A seed counts where both arms tried equally many learning rates on it: a larger search is a
    larger budget.
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
        return None, ""  # `budgets_apart` says so, once for all pairs
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
    """Adjust the p-values of all comparisons of the build that have a verdict, as one family."""
    family = [comparison.columns for comparison in comparisons if comparison.difference.verdict]
    for name in ("p_difference", "p_equivalence"):
        for columns, adjusted in zip(family, holm([c[name] for c in family]), strict=True):
            columns[f"{name}_holm"] = adjusted


def pooled_over_tasks(comparisons: Iterable[Comparison]) -> list[Pooled]:
    """One line for each pair of optimizers with three tasks or more of one family.

    A task that is there in two versions would count twice, so such a family has no line.
    """
    families: dict[tuple, list[Comparison]] = defaultdict(list)
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
