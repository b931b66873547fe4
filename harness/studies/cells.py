"""What the cells of all studies have in common: their specs, their records, their times of measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.schema import RunSpec, Split, Stored, content_id
from momentum_bench.harness.studies.arms import Arm, ArmFacts
from momentum_bench.harness.training.run_parts import EncodedSplit


class CellSpec(Stored):
    """One cell of a study: models that train side by side.

    Attributes:
        sgd: the SGD arm, as a run.
    """

    sgd: RunSpec

    @property
    def cell_id(self) -> str:
        """The name of its folder. It depends on every field."""
        return content_id(self)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.sgd.label


class CellRecord(Stored):
    """A finished cell. `diverged`: a loss was not finite, and the measurements end before that step."""

    spec: CellSpec
    status: Literal["done", "diverged"]
    failure: str | None
    arms: tuple[ArmFacts, ...]
    split: Split
    run_seconds: float
    environment: dict[str, str]


def even_steps(n_steps: int, n_times: int) -> tuple[int, ...]:
    """`n_times` steps (from 1), evenly spaced, the last of them `n_steps`."""
    return tuple(round(i * n_steps / n_times) for i in range(1, n_times + 1))


def outcome(
    arms: Sequence[Arm], split: EncodedSplit, failures: Sequence[str], started: float
) -> dict[str, Any]:
    """The fields that all records of cells share.

    Args:
        failures: why arms diverged.
        started: when the cell began, by `time.perf_counter`.
    """
    return {
        "status": "diverged" if failures else "done",
        "failure": "; ".join(failures) or None,
        "arms": tuple(arm.facts() for arm in arms),
        "split": split.facts,
        "run_seconds": time.perf_counter() - started,
        "environment": environment(),
    }
