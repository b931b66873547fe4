"""Short names of optimizers, for tables and sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from momentum_bench.harness.records.schema import SHOWN_DIGITS, RunSpec, canonical_json, setting_text

Arm = tuple[str, Mapping[str, Any]]
"""An optimizer and its hyperparameters."""


def arm_at_point(spec: RunSpec) -> Arm:
    """The optimizer of a run, with the values of all axes that its sweep tunes next to the learning rate."""
    return spec.optimizer, spec.hyperparameters | dict(spec.point.settings)


def arm_key(arm: Arm) -> str:
    """A text that tells arms apart."""
    optimizer, hyperparameters = arm
    return canonical_json([optimizer, dict(hyperparameters)])


def arm_labels(arms: Iterable[Arm]) -> dict[str, str]:
    """A short name for each arm, by its key.

    It is the optimizer. Where an optimizer occurs with several settings, those follow that are not the same
    in all of its arms.
    """
    by_optimizer: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for optimizer, hyperparameters in arms:
        by_optimizer[optimizer][arm_key((optimizer, hyperparameters))] = setting_words(hyperparameters)
    return {
        key: " ".join([optimizer, *words])
        for optimizer, of_arms in by_optimizer.items()
        for key, words in zip(of_arms, without_common(list(of_arms.values())), strict=True)
    }


def without_common(lists: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each list of words without those that all lists have."""
    common = set(lists[0]).intersection(*lists)
    return [[word for word in words if word not in common] for words in lists]


def run_labels(specs: Iterable[RunSpec]) -> dict[str, str]:
    """The label of each run's arm at its point of the grid, by the run's id."""
    arms = {spec.run_id: arm_at_point(spec) for spec in specs}
    labels = arm_labels(arms.values())
    return {run_id: labels[arm_key(arm)] for run_id, arm in arms.items()}


def setting_words(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Hyperparameters as words, such as `betas=0.9/0.95` and `momentum=0.9`, sorted by name."""
    return [f"{name}={setting_text(value, SHOWN_DIGITS)}" for name, value in sorted(hyperparameters.items())]
