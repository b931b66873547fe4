"""Paired differences of two optimizers on one task and over several tasks, and the best row of a task."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from momentum_bench.harness.reporting import joined
from momentum_bench.leaderboards.environments import mixed
from momentum_bench.leaderboards.paired import (
    PairedDifference,
    holm,
    no_difference,
    paired_difference,
    sentence,
    summary,
)
from momentum_bench.leaderboards.rows import Cell, Row, cells_in_words, test_metric_of

FEWEST_TASKS = 3
"""A pooled line needs at least three tasks."""

MIX = "`momentum-bench leaderboard build DIR --mix-environments` allows it"
"""What a sentence on mixed environments ends with."""

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
    def refused(self) -> bool:
        """Whether the two rows must not be compared; `columns["no_verdict"]` says why."""
        return not self.difference.n_pairs

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


def same_search(first: Row, second: Row, seed: int) -> bool:
    """Whether two rows of one setting searched the same learning rates on a seed.

    Rates are compared on the axis of effective rates, and else as torch ran them, because a sweep may ask
    for equal rates on either axis. An optimizer with a rate of its own shares no axis with others. There the
    two searches are equal if both rows have a result in each cell of their grids, and equally many cells.
    """
    rates, others = first.budget[seed], second.budget[seed]
    if rates == others:
        return True
    if first.has_effective_rate and second.has_effective_rate:
        ran = _torch_rates(first, seed)
        return ran is not None and ran == _torch_rates(second, seed)
    return len(rates) == len(others) and rates == first.grid and others == second.grid


def _torch_rates(row: Row, seed: int) -> set[float] | None:
    """The rates of a seed's budget as torch ran them, to 12 digits; None if one is not recorded."""
    runs = [run for run in row.runs if run.spec.seed == seed and run.spec.learning_rate in row.budget[seed]]
    recorded = [run.read_back.torch_learning_rate for run in runs if run.read_back]
    return {float(f"{rate:.12g}") for rate in recorded} if len(recorded) == len(runs) else None


def lacking(first: Row, second: Row, seeds: Iterable[int]) -> str:
    """The cells that make the searches of two rows unequal on some seeds, with their states, in words."""
    seeds = list(seeds)
    shared = first.has_effective_rate and second.has_effective_rate
    parts = []
    for row, other in ((first, second), (second, first)):
        wanted = other.budget if shared else dict.fromkeys(seeds, row.grid)
        cells = [(s, rate) for s in seeds for rate in sorted(wanted[s] - row.budget[s])]
        failed = set(row.left_out["failed"])
        states: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            states["failed" if cell in failed else "missing"].append(cell)
        parts += [f"{row.label} {state} at {cells_in_words(cells)}" for state, cells in states.items()]
    return "; ".join(parts)


def budgets_apart(setting: Sequence[Row]) -> tuple[str, bool]:
    """A sentence on the rows of one setting that share no seed with equal searches; empty without such rows.

    Returns:
        The sentence, and whether cells of one row are missing in another. Where rows share no axis, their
        grids may have other sizes and no cell needs to be missing.
    """
    apart: set[str] = set()
    gaps = False
    for first, second in combinations([row for row in setting if row.chosen], 2):
        common = first.chosen.keys() & second.chosen.keys()
        if common and not any(same_search(first, second, seed) for seed in common):
            apart |= {first.row_id, second.row_id}
            gaps = gaps or bool(lacking(first, second, common))
    groups: dict[str, list[str]] = defaultdict(list)
    for row in setting:
        if row.row_id in apart:
            groups[_budget(row)].append(row.label)
    parts = [f"{budget} for {', '.join(labels)}" for budget, labels in sorted(groups.items())]
    what = f"{setting[0].columns['task']}: optimizers with different search budgets are not compared"
    return f"{what} ({'; '.join(parts)})." if parts else "", gaps


def _budget(row: Row) -> str:
    """The rates of a row that ended in a result on each seed, in words."""
    if len(budgets := set(row.budget.values())) == 1:
        rates = sorted(budgets.pop())
        return f"{len(rates)} rates ({' '.join(f'{rate:g}' for rate in rates)})"
    return cells_in_words((seed, rate) for seed, rates in row.budget.items() for rate in rates)


def compare(
    first: Row, second: Row, margin: float, mix_environments: bool = False
) -> tuple[Comparison | None, str]:
    """The comparison of two rows of one setting, if there is one, and a note on what was left out.

    A seed counts only if both arms searched the same learning rates on it (`same_search`), because a larger
    search has a better chance to find a good rate. Two rows whose runs have different environments are not
    compared, because the difference may come from the environment.

    Args:
        margin: half width of the band of equivalence, a fraction.
        mix_environments: compare them all the same.
    """
    pair = f"{first.columns['task']}: {first.label} and {second.label}"
    common = sorted(first.chosen.keys() & second.chosen.keys())
    if not common:
        if first.mixed or second.mixed:  # a row without a score because of its environments has its own note
            return None, ""
        without = [row.label for row in (first, second) if not row.chosen]
        why = f"{' and '.join(without)} finished no run" if without else "they share no seed"
        return None, f"{pair} are not compared: {why}."
    if not mix_environments and (facts := mixed(first.facts, second.facts)):
        reason = f"their runs mix {facts}"
        return _comparison(first, second, [], no_difference(margin, reason), ""), (
            f"{pair} are not compared: {reason}; {MIX}."
        )
    seeds = [seed for seed in common if same_search(first, second, seed)]
    unequal = [seed for seed in common if seed not in seeds]
    cells = lacking(first, second, unequal)
    if not seeds:  # `budgets_apart` says it once for all pairs
        reason = "their search budgets differ on all seeds"
        return _comparison(first, second, [], no_difference(margin, reason), cells), ""
    differences = [test_metric_of(second.chosen[s]) - test_metric_of(first.chosen[s]) for s in seeds]
    comparison = _comparison(first, second, seeds, paired_difference(differences, margin), cells)
    if not unequal:
        return comparison, ""
    return comparison, (
        f"{pair} are compared on {len(seeds)} of {len(common)} seeds: their search budgets differ on the "
        f"others ({cells or 'grids of other sizes'})."
    )


def _comparison(
    first: Row, second: Row, seeds: Sequence[int], difference: PairedDifference, left_out: str
) -> Comparison:
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
        "mixed": mixed(first.facts, second.facts),
        "left_out": left_out,
        "protocol": first.columns["protocol"],
        "data_fingerprint": first.columns["data_fingerprint"],
        "model_revision": first.columns["model_revision"],
        "first_row_id": first.row_id,
        "second_row_id": second.row_id,
    }
    return Comparison(first, second, difference, columns)


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
        if comparison.refused:
            continue
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


def best_of_task(rows: Iterable[Row], comparisons: Iterable[Comparison]) -> list[Row]:
    """The rows with the highest test mean among rows of one task; empty where no best row can be known.

    Rows without a score do not count. If a row rests on one seed, or if two of the rows must not be compared,
    there is no best row.
    """
    scored = [row for row in rows if row.chosen]
    ids = {row.row_id for row in scored}
    if any(c.refused and {c.first.row_id, c.second.row_id} <= ids for c in comparisons):
        return []
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
