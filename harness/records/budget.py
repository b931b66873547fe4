"""The budget of a search: its runs, and the gradients that they evaluate. No torch here.

A gradient evaluation is one forward and backward pass over a whole batch. Most optimizers evaluate one
gradient in a step. One that takes a closure evaluates more (SAM: two).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from momentum_bench.harness.records.design import arm_of, shown_hyperparameters
from momentum_bench.harness.records.labels import arm_key, arm_labels
from momentum_bench.harness.records.schema import RESULTS, RunRecord, RunSpec, canonical_json


@dataclass(frozen=True)
class Budget:
    """What the search of one arm on one task costs, over all of its tuning seeds.

    Attributes:
        n_evaluations: gradient evaluations; None: what a step costs is not known yet. Where the number of
            evaluations varies from step to step, this is an estimate, and not a whole number.
    """

    task: str
    label: str
    n_runs: int
    n_evaluations: float | None

    @property
    def in_words(self) -> str:
        """Such as `sgd 18 runs, 360 gradient evaluations`."""
        if self.n_evaluations is None:
            cost = "the cost of a step is known when a run is done"
        else:
            about = "" if self.n_evaluations == int(self.n_evaluations) else "about "
            cost = f"{about}{self.n_evaluations:,.0f} gradient evaluations"
        return f"{self.label} {self.n_runs:,} run{'' if self.n_runs == 1 else 's'}, {cost}"


def evaluations_by_run(runs: Iterable[RunRecord]) -> dict[str, int]:
    """The gradient evaluations of each run that has a result, by its id.

    A run that diverged counts like a whole one, because its point was searched like the others.

    Args:
        runs: all of one arm.
    """
    with_result = [run for run in runs if run.status in RESULTS]
    done = [run for run in with_result if run.status == "done" and run.spec.max_steps]
    most = max((_recorded(run) / run.spec.max_steps for run in done), default=1.0)
    return {
        run.spec.run_id: _recorded(run) if run.status == "done" else math.ceil(run.spec.max_steps * most)
        for run in with_result
    }


def _recorded(run: RunRecord) -> int:
    passes = run.costs.forward_backward_passes if run.costs else None
    return run.spec.max_steps if passes is None else passes


def budgets_of(specs: Iterable[RunSpec], per_step: Callable[[RunSpec], float | None]) -> list[Budget]:
    """The budget of each arm on each task, in the order of the runs.

    Args:
        specs: the runs of the tuning seeds.
        per_step: the gradient evaluations of a step of a run; None: not known.
    """
    trained = [spec for spec in specs if spec.max_steps]
    arms = {spec.run_id: (spec.optimizer, shown_hyperparameters(spec)) for spec in trained}
    labels = arm_labels(arms.values())
    groups: dict[tuple[str, str, str], list[RunSpec]] = defaultdict(list)
    for spec in trained:
        label = labels[arm_key(arms[spec.run_id])]
        groups[spec.task, label, canonical_json(arm_of(spec))].append(spec)
    return [
        Budget(task, label, len(part), _total(part, per_step)) for (task, label, _), part in groups.items()
    ]


def _total(specs: Sequence[RunSpec], per_step: Callable[[RunSpec], float | None]) -> float | None:
    total = 0.0
    for spec in specs:
        if (passes := per_step(spec)) is None:
            return None
        total += passes * spec.max_steps
    return total


def budgets_in_words(budgets: Iterable[Budget]) -> list[str]:
    """One line for tasks whose arms have equal budgets: `sst2, trec: sgd 18 runs, 360 gradient ...; ...`."""
    of_task: dict[str, list[str]] = defaultdict(list)
    for budget in budgets:
        of_task[budget.task].append(budget.in_words)
    tasks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for task, words in of_task.items():
        tasks[tuple(words)].append(task)
    return [f"Search on {', '.join(names)}: {'; '.join(words)}" for words, names in tasks.items()]


def not_compared_in_words(budgets: Iterable[Budget]) -> str:
    """What to type where the arms of some task have unequal budgets; empty where all are equal or unknown."""
    of_task: dict[str, set[float]] = defaultdict(set)
    for budget in budgets:
        if budget.n_evaluations is not None:
            of_task[budget.task].add(budget.n_evaluations)
    if all(len(found) == 1 for found in of_task.values()):
        return ""
    return (
        "Searches with unequal numbers of gradient evaluations are not compared: give --learning-rates (all "
        "get the same number), --trials N where further settings are tuned, or another sweep with the same "
        "--output-dir and more rates for the cheaper optimizer"
    )
