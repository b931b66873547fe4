"""One verdict over all tasks of a leaderboard: for each seed, the mean of the tasks' differences.

It speaks of these tasks, with the same weight for each, and its chance is that between seeds. The interval of
`pooled.csv` is over tasks, and speaks of tasks like these.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.reporting import joined
from momentum_bench.harness.verdicts.looks import overall_p
from momentum_bench.harness.verdicts.paired import PairedDifference, decided, in_points, paired_difference
from momentum_bench.leaderboards.comparison import Comparison

FEWEST_TASKS = 2


@dataclass(frozen=True)
class OverTasks:
    """A pair of optimizers over all tasks of one family that share seeds.

    Attributes:
        comparisons: one for each task.
        difference: what the seeds' means show, with the verdict.
        columns: the row of over_tasks.csv.
    """

    comparisons: list[Comparison]
    difference: PairedDifference
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        one, d = self.comparisons[0], self.difference
        first, second = one.first.name, one.second.name
        what = {"matched": ", at matched rates", "own": ", at their own rates"}.get(one.question, "")
        verdicts = {
            "equivalent": f"equivalent within {in_points(d.margin)}",
            "a better": f"{first} scores higher",
            "b better": f"{second} scores higher",
            "inconclusive": "inconclusive",
        }
        verdict = verdicts.get(d.verdict or "", f"no verdict ({d.no_verdict})")
        return (
            f"over these {self.columns['n_tasks']} tasks, paired by seed{what}: {second} minus {first}: "
            f"{100 * d.mean:+.1f} points over {d.n_pairs} seeds, 95 % interval {100 * d.ci_low:+.1f} to "
            f"{100 * d.ci_high:+.1f}: {verdict}."
        )


def over_tasks(comparisons: Iterable[Comparison]) -> list[OverTasks]:
    """One line for each pair that is compared on two or more tasks of one family with shared seeds.

    A task with two versions would count twice, so its family has no line.
    """
    families: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if not comparison.refused:
            first, second = comparison.first, comparison.second
            key = (first.family, comparison.question, first.columns["design"], first.arm, second.arm)
            families[key].append(comparison)
    return [line for part in families.values() if (line := _line(part)) is not None]


def _line(part: list[Comparison]) -> OverTasks | None:
    tasks = [str(comparison.columns["task"]) for comparison in part]
    if len(set(tasks)) < max(FEWEST_TASKS, len(tasks)):
        return None
    by_seed = [dict(zip(_seeds(comparison), comparison.differences, strict=True)) for comparison in part]
    shared = [seed for seed in by_seed[0] if all(seed in of_task for of_task in by_seed)]
    if len(shared) < 2:
        return None
    differences = [math.fsum(of_task[seed] for of_task in by_seed) / len(part) for seed in shared]
    margin = min(comparison.difference.margin for comparison in part)
    # the mean over tasks of independent test sets: their variances add up
    floor = math.sqrt(math.fsum(comparison.floor**2 for comparison in part)) / len(part)
    difference = paired_difference(differences, margin, floor)
    looks: Sequence[int] = part[0].looks or (difference.n_pairs,)
    p_difference = overall_p(difference.p_difference, looks)
    p_equivalence = overall_p(difference.p_equivalence, looks, one_sided=True)
    difference = decided(difference, p_difference, p_equivalence)
    names = ("model", "method", "k", "question", "first", "second", "first_momentum", "second_momentum")
    columns = {name: part[0].columns[name] for name in names}
    columns |= {
        "tasks": joined(tasks),
        "n_tasks": len(tasks),
        "seeds": joined(shared),
        "n_pairs": difference.n_pairs,
        "mean_difference": difference.mean,
        "std_difference": difference.std,
        "ci_low": difference.ci_low,
        "ci_high": difference.ci_high,
        "p_difference": p_difference,
        "p_equivalence": p_equivalence,
        "margin": margin,
        "verdict": difference.verdict or "",
        "no_verdict": difference.no_verdict,
        "protocol": part[0].columns["protocol"],
        "model_revision": part[0].columns["model_revision"],
        "design": part[0].columns["design"],
    }
    return OverTasks(part, difference, columns)


def _seeds(comparison: Comparison) -> list[int]:
    return [int(seed) for seed in str(comparison.columns["seeds"]).split(";")]
