"""One verdict over all tasks of a leaderboard: for each seed, the mean of the tasks' differences.

It speaks of these tasks, with the same weight for each, and its chance is that between seeds. The interval of
`pooled.csv` is over tasks, and speaks of tasks like these.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.reporting import joined
from momentum_bench.harness.verdicts.looks import overall_p
from momentum_bench.harness.verdicts.paired import (
    FEWEST_PAIRS,
    PairedDifference,
    decided,
    holm,
    in_points,
    paired_difference,
)
from momentum_bench.harness.verdicts.sequential import over_looks
from momentum_bench.leaderboards.columns import PAIR_COLUMNS
from momentum_bench.leaderboards.comparison import IN_WORDS, Comparison, above_constant

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
        verdicts = {
            "equivalent": f"equivalent within {in_points(d.margin)}",
            "a better": f"{first} scores higher",
            "b better": f"{second} scores higher",
            "inconclusive": "inconclusive",
            "not learned": "not learned: equal, and on average hardly better than the commonest answers",
        }
        verdict = verdicts.get(d.verdict or "", f"no verdict ({d.no_verdict})")
        other = f" (the design's margin was {in_points(one.other_margin)})" if one.other_margin else ""
        what = IN_WORDS[one.question]
        return (
            f"over these {self.columns['n_tasks']} tasks, paired by seed{what}: {second} minus {first}: "
            f"{100 * d.mean:+.1f} points over {d.n_pairs} seeds, 95 % interval {100 * d.ci_low:+.1f} to "
            f"{100 * d.ci_high:+.1f}: {verdict}{other}."
        )


def over_tasks(comparisons: Iterable[Comparison]) -> list[OverTasks]:
    """One line for each pair that is compared on two or more tasks of one family with shared seeds.

    A task with two versions would count twice, so its family has no line. The pairs of a family are adjusted
    together (Holm).
    """
    pairs: dict[Hashable, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if not comparison.refused:
            pairs[_family(comparison), comparison.first.arm, comparison.second.arm].append(comparison)
    families: dict[Hashable, list[OverTasks]] = defaultdict(list)
    for part in pairs.values():
        if (line := _line(part)) is not None:
            families[_family(part[0])].append(line)
    return [line for lines in families.values() for line in _with_verdicts(lines)]


def _family(comparison: Comparison) -> Hashable:
    return comparison.first.family, comparison.question, comparison.first.columns["design"]


def _line(part: list[Comparison]) -> OverTasks | None:
    """What the seeds that all tasks share show, without a verdict; None: too few tasks or seeds."""
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
    difference = over_looks(paired_difference(differences, margin, floor), _looks(part))
    columns = {name: part[0].columns[name] for name in ("model", "method", "k", "question", *PAIR_COLUMNS)}
    columns |= {
        "tasks": joined(tasks),
        "n_tasks": len(tasks),
        "seeds": joined(shared),
        "n_pairs": difference.n_pairs,
        "mean_difference": difference.mean,
        "std_difference": difference.std,
        "ci_low": difference.ci_low,
        "ci_high": difference.ci_high,
        "p_difference": difference.p_difference,
        "p_difference_holm": math.nan,
        "p_equivalence": difference.p_equivalence,
        "p_equivalence_holm": math.nan,
        "margin": margin,
        "verdict": "",
        "no_verdict": difference.no_verdict,
        "protocol": part[0].columns["protocol"],
        "model_revision": part[0].columns["model_revision"],
        "design": part[0].columns["design"],
    }
    return OverTasks(part, difference, columns)


def _looks(part: Sequence[Comparison]) -> tuple[int, ...]:
    """The looks that the pairs share; without looks the seeds are tested once."""
    return part[0].looks or (FEWEST_PAIRS,)


def _with_verdicts(lines: Sequence[OverTasks]) -> list[OverTasks]:
    """The lines of one family with their verdicts."""
    tested = [line for line in lines if not line.difference.no_verdict]
    over = [(line.difference, _looks(line.comparisons)) for line in tested]
    differences = holm([overall_p(d.p_difference, looks) for d, looks in over])
    equivalences = holm([overall_p(d.p_equivalence, looks, one_sided=True) for d, looks in over])
    adjusted = zip(differences, equivalences, strict=True)
    return [line if line.difference.no_verdict else _with_verdict(line, *next(adjusted)) for line in lines]


def _with_verdict(line: OverTasks, p_difference: float, p_equivalence: float) -> OverTasks:
    margin, seeds = line.difference.margin, [int(seed) for seed in str(line.columns["seeds"]).split(";")]
    arms = zip(*((pair.first, pair.second) for pair in line.comparisons), strict=True)
    learned = all(above_constant([(row, seeds) for row in of_arm], margin) for of_arm in arms)
    difference = decided(line.difference, p_difference, p_equivalence, learned)
    columns = line.columns | {
        "p_difference_holm": p_difference,
        "p_equivalence_holm": p_equivalence,
        "verdict": difference.verdict or "",
    }
    return OverTasks(line.comparisons, difference, columns)


def _seeds(comparison: Comparison) -> list[int]:
    return [int(seed) for seed in str(comparison.columns["seeds"]).split(";")]
