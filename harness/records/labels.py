"""Short names of optimizers, for tables and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    found = {arm_key(arm): arm for arm in arms}
    words = {key: setting_words(hyperparameters) for key, (_, hyperparameters) in found.items()}
    common: dict[str, set[str]] = {}
    for key, (optimizer, _) in found.items():
        common[optimizer] = common.get(optimizer, set(words[key])).intersection(words[key])
    return {
        key: " ".join([optimizer, *(word for word in words[key] if word not in common[optimizer])])
        for key, (optimizer, _) in found.items()
    }


def run_labels(specs: Iterable[RunSpec]) -> dict[str, str]:
    """The label of each run's arm at its point of the grid, by the run's id."""
    arms = {spec.run_id: arm_at_point(spec) for spec in specs}
    labels = arm_labels(arms.values())
    return {run_id: labels[arm_key(arm)] for run_id, arm in arms.items()}


def setting_words(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Hyperparameters as words, such as `betas=0.9/0.95` and `momentum=0.9`, sorted by name."""
    return [f"{name}={setting_text(value, SHOWN_DIGITS)}" for name, value in sorted(hyperparameters.items())]
