"""The design of a sweep: what was planned before its first run. No torch here.

A design says which seeds choose the learning rate and which seeds confirm, over which grid, when the results
are looked at, and how small a difference does not matter. It is written once, before the first run, into
`designs/` of the results directory, and it is published with the records, so that anybody can see that
the plan did not follow the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

from pydantic import model_validator

from momentum_bench.harness.records.schema import (
    IN_STEPS,
    RUN_AXES,
    Axis,
    Point,
    RunSpec,
    Stored,
    StoredSetting,
    canonical_json,
    content_id,
)

ARM = ("seed", "optimizer", "hyperparameters", "learning_rate")
"""The fields in which two compared runs may differ; all others must be equal."""

FIRST_CONFIRMING_SEED = 1000
"""Confirming seeds are counted from here: fresh numbers that nobody has picked."""

Confirm = Literal["matched", "own"]


class DesignArm(Stored):
    """One optimizer of a design.

    Attributes:
        hyperparameters: those that all its runs have, without one that is tuned.
        shares_axis: whether its rates are effective rates, which all such arms have in common.
        tuned: the hyperparameters that are tuned, sorted; None: none is.
    """

    optimizer: str
    hyperparameters: dict[str, StoredSetting]
    shares_axis: bool
    tuned: tuple[Axis, ...] | None = None

    @property
    def key(self) -> str:
        """A text that tells the arms of a design apart."""
        return canonical_json(_arm(self.optimizer, self.hyperparameters, self.tuned or ()))


class DesignTask(Stored):
    """One task of a design; `grids` holds the rates of each arm, ascending, in the order of the arms.

    Attributes:
        points: the whole grid of each arm, where further axes are tuned; None: the rates are the grid.
    """

    task: str
    task_version: str
    data_fingerprint: str
    grids: tuple[tuple[float, ...], ...]
    points: tuple[tuple[Point, ...], ...] | None = None

    @property
    def whole_grids(self) -> tuple[tuple[Point, ...], ...]:
        """The points of each arm."""
        return self.points or tuple(tuple(map(Point, rates)) for rates in self.grids)


class Design(Stored):
    """What a sweep plans.

    Attributes:
        template: one of its runs. The others have its settings, but for the task, the seed and the arm.
        tune_seeds: seeds on which the whole grid runs.
        confirm_seeds: fresh seeds, in the order in which they run; none: each seed is tuned for itself.
        confirm: at which rates they run: `matched`, one for all arms, or `own`, at each arm's own rate too.
        looks: ascending numbers of confirming seeds at which the results are tested; the last is the most.
        pairs: the pairs of arms that are compared, by their places; the first of a pair is the baseline.
        margin: half width of the band of equivalence, a fraction.
        extend_grid: how many times a grid may grow at its edges.
    """

    template: RunSpec
    arms: tuple[DesignArm, ...]
    tasks: tuple[DesignTask, ...]
    tune_seeds: tuple[int, ...]
    confirm_seeds: tuple[int, ...] = ()
    confirm: Confirm | None = None
    looks: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    margin: float
    extend_grid: int = 0

    @model_validator(mode="after")
    def _a_grid_for_each_arm(self) -> Design:
        if any(len(task.whole_grids) != len(self.arms) for task in self.tasks):
            raise ValueError("expected a grid for each arm")
        return self

    @property
    def design_id(self) -> str:
        """The name of its file, a digest of every field."""
        return content_id(self)

    def setting(self, task: DesignTask) -> dict[str, Any]:
        """What all runs of a task have in common, as `setting_of` gives it."""
        of_task = {
            "task": task.task,
            "task_version": task.task_version,
            "data_fingerprint": task.data_fingerprint,
        }
        return setting_of(self.template) | of_task

    def spec(self, task: DesignTask, arm: int, seed: int, point: Point) -> RunSpec:
        """One run of the design."""
        shared = dict(point.shared.settings)
        return RunSpec.model_validate(
            at_batch_size(self.template.model_dump(), int(shared.get("batch_size", self.template.batch_size)))
            | shared
            | {
                "task": task.task,
                "task_version": task.task_version,
                "data_fingerprint": task.data_fingerprint,
                "seed": seed,
                "optimizer": self.arms[arm].optimizer,
                "hyperparameters": self.arms[arm].hyperparameters | dict(point.own),
                "learning_rate": point.learning_rate,
                "tuned": tuple(name for name, _ in point.settings) or None,
            }
        )


def at_batch_size(fields: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """The fields of a run at another batch size: with as many steps, or as many examples if it keeps them."""
    if fields.get("examples") is None:
        return {**fields, "batch_size": batch_size}
    ratio = Fraction(fields["batch_size"], batch_size)
    return {**fields, "batch_size": batch_size} | {
        name: _scaled(fields[name], ratio) for name in IN_STEPS if fields[name] is not None
    }


def _scaled(steps: int | Sequence[int], ratio: Fraction) -> int | tuple[int, ...]:
    """Numbers of steps, times a ratio. The checks of a sweep have made sure that these are whole numbers."""
    return int(steps * ratio) if isinstance(steps, int) else tuple(int(step * ratio) for step in steps)


def setting_of(spec: RunSpec) -> dict[str, Any]:
    """The fields of a spec that compared runs share. A field that is tuned is not shared: its name is."""
    fields = spec.model_dump(mode="json", exclude=set(ARM))
    if spec.examples is None:
        del fields["examples"]  # as in the rows of earlier versions, whose ids follow from these fields
    else:  # what the runs share is what they see in so many steps
        fields |= {name: in_examples(spec, name) for name in IN_STEPS}
    shared = [name for name in spec.tuned or () if name in RUN_AXES]
    return {name: fields[name] for name in fields if name not in shared} | {"tuned": shared or None}


def in_examples(spec: RunSpec, name: str) -> int | list[int] | None:
    """One of the numbers of steps of a run as the number of examples that it sees in them."""
    steps = getattr(spec, name)
    if isinstance(steps, tuple):
        return [step * spec.batch_size for step in steps]
    return None if steps is None else int(steps) * spec.batch_size


def arm_of(spec: RunSpec) -> list[Any]:
    """What tells a run's arm from others of its setting: optimizer, hyperparameters, and those it tunes."""
    own = tuple(name for name in spec.tuned or () if name not in RUN_AXES)
    return _arm(spec.optimizer, fixed_hyperparameters(spec), own)


def fixed_hyperparameters(spec: RunSpec) -> dict[str, Any]:
    """The hyperparameters that all runs of the spec's arm share."""
    return {name: v for name, v in spec.hyperparameters.items() if name not in (spec.tuned or ())}


def shown_hyperparameters(spec: RunSpec) -> dict[str, Any]:
    """The hyperparameters of an arm as it is named; a tuned one has no value of its own."""
    fixed = fixed_hyperparameters(spec)
    return {name: fixed.get(name, "tuned") for name in spec.hyperparameters}


def _arm(optimizer: str, hyperparameters: dict[str, Any], tuned: tuple[str, ...]) -> list[Any]:
    return [optimizer, hyperparameters, *([list(tuned)] if tuned else [])]


def confirming_seeds(designs: Iterable[Design]) -> dict[str, set[int]]:
    """The confirming seeds of these designs, by `setting_of` the runs as canonical JSON."""
    found: dict[str, set[int]] = {}
    for design in designs:
        for task in design.tasks:
            found.setdefault(canonical_json(design.setting(task)), set()).update(design.confirm_seeds)
    return found


def fresh_seeds(number: int, taken: tuple[int, ...]) -> tuple[int, ...]:
    """The confirming seeds: the first whole numbers from 1000 on that are not among those taken."""
    seeds = (seed for seed in range(FIRST_CONFIRMING_SEED, FIRST_CONFIRMING_SEED + number + len(taken)))
    return tuple(seed for seed in seeds if seed not in taken)[:number]
