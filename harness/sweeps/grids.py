"""The learning rates of each optimizer, and how a grid grows at its edges."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.optimizers.arms import parse_axis, spec_name
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import arms_with, find_optimizer
from momentum_bench.harness.records.schema import RUN_AXES, Axis, Point, RunSpec, canonical_json
from momentum_bench.harness.records.selection import dev_result, select
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.tasks import SUITES

if TYPE_CHECKING:
    from momentum_bench.harness.records.schema import RunRecord


NO_RATES: Mapping[tuple[str, str], tuple[float, ...]] = MappingProxyType({})
NO_SETTINGS: Mapping[Axis, Any] = MappingProxyType({})


def entry_of(sweep: Sweep, optimizer: str) -> OptimizerEntry:
    """The entry of one of the sweep's optimizers: from the registry, or the user's own."""
    return find_optimizer(optimizer, sweep.optimizer_file)[1]


def check_entry(sweep: Sweep, optimizer: str) -> None:
    """Raises: UserError, where a function of the entry refuses the sweep, or is broken."""
    entry = entry_of(sweep, optimizer)
    for settings in products(sweep, optimizer):
        try:
            used = hyperparameters(sweep, optimizer, settings)
            found = (entry.torch_rate(used), *entry.schedule([1.0, 1.0], used))
            sound = len(found) == 3 and all(math.isfinite(r) and r >= 0 for r in found) and found[0] > 0
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"optimizer {optimizer}: its entry raises {first_line(error)}") from error
        if not sound:
            raise UserError(f"optimizer {optimizer}: torch_rate and schedule give {found} for rates 1 and 1")


def axes(sweep: Sweep, optimizer: str) -> dict[Axis, tuple[Any, ...]]:
    """The axes that an arm is tuned on next to the learning rate, sorted, with their ascending values.

    All arms have the axes that are settings of a run. An arm has momentum only if the sweep gives it one.
    What the sweep says of this optimizer alone counts first.
    """
    has = (*RUN_AXES, *entry_of(sweep, optimizer).hyperparameters)
    found = {name: values for name, values in sweep.axes.items() if name in has}
    for axis in map(parse_axis, sweep.tune or ()):
        if arms_with(axis, [optimizer], sweep.optimizer_file):
            found[axis.setting] = axis.values
    return dict(sorted(found.items()))


def products(sweep: Sweep, optimizer: str) -> list[dict[Axis, Any]]:
    """Each choice of one value from each of an arm's further axes; one empty choice without such axes."""
    of_arm = axes(sweep, optimizer)
    return [dict(zip(of_arm, values, strict=True)) for values in product(*of_arm.values())]


MOST_RUNS = 10_000
"""More runs are a mistake more often than a wish."""


def check_number_of_runs(sweep: Sweep) -> None:
    """Raises: UserError, where the grids of a sweep have more than `MOST_RUNS` runs.

    A suite counts as one task, so a few more runs than that may pass.
    """
    of_arms = {name: math.prod(map(len, axes(sweep, name).values())) for name in sweep.optimizers}
    n_runs = len(sweep.grid_seeds) * sum(
        sweep.trials or of_arms[name] * (1 if task in SUITES else len(grid(sweep, task, name)))
        for task in sweep.task
        for name in sweep.optimizers
    )
    if sweep.max_steps and n_runs > MOST_RUNS:
        raise UserError(
            f"this sweep has {n_runs:,} runs, more than {MOST_RUNS:,}: give fewer values, or add --yes"
        )


def points(
    sweep: Sweep, task: str, optimizer: str, added: Mapping[tuple[str, str], tuple[float, ...]] | None = None
) -> tuple[Point, ...]:
    """The grid of one optimizer, ascending: its rates times the values of its further axes, or trials of it.

    Args:
        added: as in `rates`.

    Raises:
        UserError: more trials are asked for than the product has points.
    """
    of_arm = rates(sweep, task, optimizer, NO_RATES if added is None else added)
    settings = [tuple(each.items()) for each in products(sweep, optimizer)]
    whole = tuple(sorted(Point(rate, each) for rate in of_arm for each in settings))
    if sweep.trials is None:
        return whole
    if sweep.trials > len(whole):
        raise UserError(
            f"--trials {sweep.trials}: the grid of {optimizer} has {len(whole)} points: give at most that "
            f"many, or more --learning-rates"
        )
    return _drawn(of_arm, axes(sweep, optimizer), sweep.trials)


def _drawn(rates: Sequence[float], of_arm: Mapping[Axis, Sequence[Any]], n: int) -> tuple[Point, ...]:
    """The first n different points of a product on which a scrambled Sobol sequence falls, ascending.

    Such a sequence spreads evenly over all axes. Its seed follows from the axes and their values alone, so
    that optimizers with equal axes get equal points, and the same sweep always gets the same.
    """
    from scipy.stats import qmc

    values = [tuple(rates), *map(tuple, of_arm.values())]
    digest = hashlib.sha256(canonical_json([list(of_arm), values]).encode()).digest()
    sequence = qmc.Sobol(len(values), rng=int.from_bytes(digest[:8], "big"))
    found: dict[Point, None] = {}
    size = 1  # a power of two each time, which keeps the sequence balanced
    while len(found) < n:
        for place in sequence.random(size):
            rate, *settings = (axis[int(x * len(axis))] for axis, x in zip(values, place, strict=True))
            if len(found) < n:
                found[Point(rate, tuple(zip(of_arm, settings, strict=True)))] = None
        size = sequence.num_generated
    return tuple(sorted(found))


def grid(sweep: Sweep, task: str, optimizer: str) -> tuple[float, ...]:
    """The grid of one optimizer, asked for or by default, on the sweep's axis, in ascending order."""
    if sweep.learning_rates is not None:
        return tuple(sorted(sweep.learning_rates))
    entry = entry_of(sweep, optimizer)
    # a task's hint is in effective rates, which mean nothing for an optimizer without an effective rate
    hint = None if entry.own_rate else find_task(task, sweep.task_file).learning_rates.get(sweep.method)
    # an entry without rates for causal uses those for prompt
    method = sweep.method if sweep.method in entry.default_rates else "prompt"
    if sweep.method == "scratch" and method != sweep.method:
        raise UserError(f"optimizer {optimizer} has no default rates for image tasks: add --learning-rates")
    return tuple(sorted(hint or entry.default_rates[method]))


def rates(
    sweep: Sweep, task: str, optimizer: str, added: Mapping[tuple[str, str], tuple[float, ...]] = NO_RATES
) -> tuple[float, ...]:
    """The effective learning rates of one optimizer's grid, in ascending order.

    Args:
        added: rates of a (task, optimizer) that are not in its grid, on the axis of `grid`.
    """
    asked = sorted((*grid(sweep, task, optimizer), *added.get((task, optimizer), ())))
    if sweep.learning_rates is None or sweep.learning_rate_axis == "effective":
        return tuple(asked)
    ratio = entry_of(sweep, optimizer).torch_rate(hyperparameters(sweep, optimizer))
    # 12 digits, so that 0.001 / 0.1 is the 0.01 of a grid on the effective axis, and the same run
    return tuple(float(f"{rate / ratio:.12g}") for rate in asked)


def next_rates(rates: Sequence[float], on_low_edge: bool, on_high_edge: bool) -> tuple[float, ...]:
    """The rates by which a grid grows: the next of 1, 3, 10, 30, ... beyond each edge that was hit.

    The new rate is at least a factor of 2 away, so that 0.01 does not follow 0.0099.
    """
    low, high = min(rates), max(rates)
    around = range(math.floor(math.log10(low)) - 2, math.ceil(math.log10(high)) + 3)
    steps = [float(f"{digit}e{exponent}") for exponent in around for digit in (1, 3)]
    below = [max(rate for rate in steps if rate <= low / 2)] if on_low_edge else []
    above = [min(rate for rate in steps if rate >= high * 2)] if on_high_edge else []
    return (*below, *above)


def hyperparameters(
    sweep: Sweep, optimizer: str, settings: Mapping[Axis, Any] = NO_SETTINGS
) -> dict[str, Any]:
    """The hyperparameters that the optimizer uses: those of the sweep, and its own constants.

    Args:
        settings: the values of a point of the grid. A tuned hyperparameter that is not among them is left
            out, because it is no constant of the arm.
    """
    entry = entry_of(sweep, optimizer)
    usual = {name: getattr(sweep, name) for name in entry.hyperparameters} | dict(entry.constants)
    used = {name: value for name, value in usual.items() if name not in axes(sweep, optimizer)}
    used |= {name: value for name, value in settings.items() if name not in RUN_AXES}
    # the arguments of a class are of any type; our optimizers take numbers
    return {name: float(value) if entry.promises else value for name, value in used.items()}


def is_of_arm(sweep: Sweep, arm: str, spec: RunSpec) -> bool:
    """Whether a run is one of an arm of the sweep: arms of one optimizer differ in their hyperparameters."""
    own = [name for name in axes(sweep, arm) if name in spec.hyperparameters]
    tuned = [name for name in spec.tuned or () if name in spec.hyperparameters]
    fixed = {name: value for name, value in spec.hyperparameters.items() if name not in tuned}
    return spec.optimizer == spec_name(arm) and own == tuned and fixed == hyperparameters(sweep, arm)


def extended(
    sweep: Sweep, runs: Sequence[RunRecord], added: Mapping[tuple[str, str], tuple[float, ...]]
) -> dict[tuple[str, str], tuple[float, ...]]:
    """`added` with one more rate at each edge on which the best rate of some optimizer and seed lies.

    Optimizers that share a grid of effective rates get the same new rates, so that all have the same
    search. An optimizer without an effective rate shares no axis and grows alone.

    Args:
        runs: all runs of the plan with `added`, finished.
    """
    more = dict(added)
    for task in sweep.task:
        tried = [
            Tried(
                name if entry_of(sweep, name).own_rate else "effective",
                tuple(sorted((*grid(sweep, task, name), *added.get((task, name), ())))),
                [run for run in runs if run.spec.task == task and is_of_arm(sweep, name, run.spec)],
            )
            for name in sweep.optimizers
        ]
        for name, new in zip(sweep.optimizers, further_rates(tried), strict=True):
            if new:
                more[task, name] = (*added.get((task, name), ()), *new)
    return more


@dataclass(frozen=True)
class Tried:
    """An arm on a task: the axis of its rates, the rates that were tried, sorted, and all runs at them."""

    axis: str
    rates: tuple[float, ...]
    runs: Sequence[RunRecord]


def further_rates(arms: Sequence[Tried]) -> list[tuple[float, ...]]:
    """For each arm, one more rate at each edge on which a best rate lies.

    Arms with the same axis and the same rates get the same new ones, so that all have the same search.
    """
    edges: dict[tuple[str, tuple[float, ...]], list[tuple[bool, bool]]] = defaultdict(list)
    for arm in arms:
        edges[arm.axis, arm.rates].append(edges_hit(arm.runs))
    new = {
        key: next_rates(key[1], any(low for low, _ in hit), any(high for _, high in hit))
        for key, hit in edges.items()
    }
    return [new[arm.axis, arm.rates] for arm in arms]


def edges_hit(runs: Sequence[RunRecord]) -> tuple[bool, bool]:
    """Whether the best rate of some seed, by dev, is the lowest one tried, and whether one is the highest.

    Where all runs of a seed diverged, lower rates are needed. Failed runs say nothing.

    Args:
        runs: of one task and optimizer.
    """
    low = high = False
    for seed in {run.spec.seed for run in runs}:
        of_seed = {run.spec.run_id: run for run in runs if run.spec.seed == seed}
        tried = [run.spec.learning_rate for run in of_seed.values()]
        results = [dev_result(run) for run in of_seed.values() if run.status == "done"]
        if results:
            points = [run.spec.point for run in of_seed.values()]
            best = of_seed[select(results, points).run_id].spec.learning_rate
            low, high = low or best == min(tried), high or best == max(tried)
        else:
            low = low or any(run.status == "diverged" for run in of_seed.values())
    return low, high
