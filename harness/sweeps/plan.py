"""The runs of a sweep, how much work each of them is, and shares of equal work. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.arms import spec_name
from momentum_bench.harness.records.design import Design, DesignArm, DesignTask, at_batch_size, fresh_seeds
from momentum_bench.harness.records.schema import NO_OPTIMIZER, RUN_AXES, Point, RunSpec, setting_text
from momentum_bench.harness.sweeps.grids import NO_RATES, axes, entry_of, hyperparameters, points, rates
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.tasks.types import ImageTask


def plan(
    sweep: Sweep,
    data: Iterable[TaskData],
    model: str,
    model_revision: str,
    added: Mapping[tuple[str, str], tuple[float, ...]] = NO_RATES,
) -> list[RunSpec]:
    """All runs of a sweep: by task, by seed, by point of the grid, and then by optimizer.

    Without steps neither optimizers nor rates matter, so there is one run for each task and seed.

    Args:
        data: the rows of each of the sweep's tasks, in the order of the tasks.
        model, model_revision: as records call them.
        added: rates of a (task, optimizer) that are not in its grid, as in `rates`.
    """
    common = {name: getattr(sweep, name) for name in RunSpec.model_fields if name in Sweep.model_fields}
    common |= {"model": model, "model_revision": model_revision}
    specs = []
    for rows in data:
        for seed in sweep.grid_seeds:
            cells = [(p, o) for o in sweep.optimizers for p in points(sweep, rows.task.name, o, added)]
            if not sweep.max_steps:
                cells = [(Point(0.0), NO_OPTIMIZER)]
            specs += [
                RunSpec(
                    **_at(sweep, common, point)
                    | {
                        "task": rows.task.name,
                        "task_version": rows.task.version_for(sweep.method),
                        "data_fingerprint": rows.fingerprint,
                        "seed": seed,
                        "optimizer": spec_name(optimizer),
                        "hyperparameters": hyperparameters(sweep, optimizer, dict(point.settings))
                        if sweep.max_steps
                        else {},
                        "learning_rate": point.learning_rate,
                        "tuned": tuple(name for name, _ in point.settings) or None,
                    }
                )
                for point, optimizer in sorted(cells, key=_by_point)
            ]
    return specs


def _by_point(cell: tuple[Point, str]) -> tuple[Any, ...]:
    """Sorts the points of several optimizers, whose axes may have values that do not compare."""
    point, _ = cell
    settings = [
        (name, 0, value) if isinstance(value, int | float) else (name, 1, setting_text(value))
        for name, value in point.settings
    ]
    return point.learning_rate, settings


def _at(sweep: Sweep, common: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """The settings of the runs at a point of the grid."""
    shared = dict(point.shared.settings)
    if "batch_size" not in shared:
        return {**common, **shared}
    smallest = sweep.batch_sizes[0]
    kept = sweep.max_steps * smallest if sweep.batch_size_keeps == "examples" else None
    of_smallest = {**common, "batch_size": smallest, "examples": kept}
    return {**at_batch_size(of_smallest, shared["batch_size"]), **shared}


def design_of(sweep: Sweep, specs: Sequence[RunSpec]) -> Design | None:
    """The design of a sweep; None: it trains nothing, so nothing is chosen or compared.

    Args:
        specs: all runs of the sweep's first grids, as `plan` gives them without added rates.

    Raises:
        UserError: confirming seeds are asked for, and fewer than two optimizers have an effective rate.
    """
    if not sweep.max_steps:
        return None
    arms = tuple(
        DesignArm(
            optimizer=spec_name(name),
            hyperparameters=hyperparameters(sweep, name),
            shares_axis=not entry_of(sweep, name).own_rate and sweep.learning_rate_axis == "effective",
            tuned=tuple(axis for axis in axes(sweep, name) if axis not in RUN_AXES) or None,
        )
        for name in sweep.optimizers
    )
    n_sharing = sum(arm.shares_axis for arm in arms)
    if sweep.confirms and sweep.confirm == "matched" and n_sharing < 2:
        raise UserError(
            f"--optimizers {','.join(sweep.optimizers)}: confirming seeds run at one effective rate, which "
            f"{n_sharing} of these optimizers has: add --confirm own, or compare optimizers that have one"
        )
    of_task = {spec.task: spec for spec in specs}
    tasks = tuple(
        DesignTask(
            task=name,
            task_version=spec.task_version,
            data_fingerprint=spec.data_fingerprint,
            grids=tuple(rates(sweep, name, optimizer) for optimizer in sweep.optimizers),
            points=tuple(points(sweep, name, o) for o in sweep.optimizers) if sweep.tunes else None,
        )
        for name, spec in of_task.items()
    )
    looks = sweep.all_looks
    return Design(
        template=specs[0],
        arms=arms,
        tasks=tasks,
        tune_seeds=sweep.grid_seeds,
        confirm_seeds=fresh_seeds(looks[-1], sweep.grid_seeds) if looks else (),
        confirm=sweep.confirm if looks else None,
        looks=looks,
        pairs=tuple(
            (first, second)
            for first, second in combinations(range(len(arms)), 2)
            if sweep.pairs == "all" or first == 0
        ),
        margin=sweep.margin,
        extend_grid=sweep.extend_grid,
    )


CHARACTERS_PER_TOKEN = 4
"""An average for English text and usual tokenizers. It only has to put tasks in an order."""

ROWS_LOOKED_AT = 1000


def work(spec: RunSpec, data: TaskData) -> float:
    """About how many tokens a run computes; the backward pass of a step counts as two forward passes.

    For images it counts pixels. It depends on the spec and the data alone, so that every process makes
    the same shares.
    """
    if isinstance(data.task, ImageTask):
        tokens = float(data.task.size**2)
    else:
        rows = data.train[:ROWS_LOOKED_AT]
        mean = sum(len(text) for row in rows for text in row.texts) / len(rows) / CHARACTERS_PER_TOKEN
        tokens = min(mean, data.task.max_length)
    n_test = len(data.test) if spec.test_limit is None else min(spec.test_limit, len(data.test))
    n_dev = spec.k * max(1, len(data.task.labels))
    examples = 3 * spec.max_steps * spec.batch_size + spec.max_steps // spec.eval_every * n_dev + n_test
    return round(tokens * examples, 1)


def longest_first(specs: Sequence[RunSpec], work: Sequence[float]) -> list[RunSpec]:
    """The runs, most work first, so that the last one to end is short. Equal runs keep their order."""
    order = sorted(range(len(specs)), key=lambda i: -work[i])
    return [specs[i] for i in order]


def share_out(specs: Sequence[RunSpec], work: Sequence[float], n: int) -> list[list[RunSpec]]:
    """The runs in n shares of about equal work: the next longest goes to the share with the least work."""
    shares: list[list[RunSpec]] = [[] for _ in range(n)]
    sums = [0.0] * n
    known = {spec.run_id: amount for spec, amount in zip(specs, work, strict=True)}
    for spec in longest_first(specs, work):
        least = min(range(n), key=lambda i: sums[i])
        shares[least].append(spec)
        sums[least] += known[spec.run_id]
    return shares
