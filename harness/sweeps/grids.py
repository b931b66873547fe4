"""The learning rates of each optimizer, and how a grid grows at its edges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.sweeps.request import Sweep

if TYPE_CHECKING:
    from momentum_bench.harness.records.schema import RunRecord


NO_RATES: Mapping[tuple[str, str], tuple[float, ...]] = MappingProxyType({})


def entry_of(sweep: Sweep, optimizer: str) -> OptimizerEntry:
    """The registry entry, or the user's, behind one of the sweep's optimizers."""
    return find_optimizer(optimizer, sweep.optimizer_file)[1]


def check_entry(sweep: Sweep, optimizer: str) -> None:
    """Raises: UserError, when an entry's own functions refuse the sweep, or are broken."""
    entry = entry_of(sweep, optimizer)
    try:
        used = hyperparameters(sweep, optimizer)
        found = (entry.torch_rate(used), *entry.schedule([1.0, 1.0], used))
        sound = len(found) == 3 and all(math.isfinite(rate) and rate >= 0 for rate in found) and found[0] > 0
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"optimizer {optimizer}: its entry raises {first_line(error)}") from error
    if not sound:
        raise UserError(f"optimizer {optimizer}: torch_rate and schedule give {found} for rates 1 and 1")


def grid(sweep: Sweep, task: str, optimizer: str) -> tuple[float, ...]:
    """One optimizer's grid as it was asked for or by default, on the sweep's axis, ascending."""
    if sweep.learning_rates is not None:
        return tuple(sorted(sweep.learning_rates))
    entry = entry_of(sweep, optimizer)
    # a task's hint is in effective rates, which say nothing to an optimizer that has none
    hint = None if entry.own_rate else find_task(task, sweep.task_file).learning_rates.get(sweep.method)
    method = sweep.method if sweep.method in entry.default_rates else "prompt"  # causal's stand-in
    if sweep.method == "scratch" and method != sweep.method:
        raise UserError(f"the optimizer {optimizer} has no default rates from scratch: give --learning-rates")
    return tuple(sorted(hint or entry.default_rates[method]))


def rates(
    sweep: Sweep, task: str, optimizer: str, added: Mapping[tuple[str, str], tuple[float, ...]] = NO_RATES
) -> tuple[float, ...]:
    """The effective learning rates of one optimizer's grid, ascending.

    Args:
        added: more rates of a (task, optimizer), on the axis of `grid`.
    """
    asked = sorted((*grid(sweep, task, optimizer), *added.get((task, optimizer), ())))
    if sweep.learning_rates is None or sweep.learning_rate_axis == "effective":
        return tuple(asked)
    ratio = entry_of(sweep, optimizer).torch_rate(hyperparameters(sweep, optimizer))
    # 12 digits: 0.001 / 0.1 is to be the 0.01 of a grid on the effective axis, the same run
    return tuple(float(f"{rate / ratio:.12g}") for rate in asked)


def next_rates(rates: Sequence[float], on_low_edge: bool, on_high_edge: bool) -> tuple[float, ...]:
    """The rates by which a grid grows: the next of 1, 3, 10, 30, ... beyond each edge that was hit.

    The next one is at least a factor of 2 away, so that 0.0099 is not followed by 0.01.
    """
    low, high = min(rates), max(rates)
    around = range(math.floor(math.log10(low)) - 2, math.ceil(math.log10(high)) + 3)
    steps = [float(f"{digit}e{exponent}") for exponent in around for digit in (1, 3)]
    below = [max(rate for rate in steps if rate <= low / 2)] if on_low_edge else []
    above = [min(rate for rate in steps if rate >= high * 2)] if on_high_edge else []
    return (*below, *above)


def hyperparameters(sweep: Sweep, optimizer: str) -> dict[str, float]:
    """Those that the optimizer uses: of the sweep's, and its own constants."""
    entry = entry_of(sweep, optimizer)
    used = {name: getattr(sweep, name) for name in entry.hyperparameters} | dict(entry.constants)
    return {name: float(value) for name, value in used.items()}


def extended(
    sweep: Sweep, runs: Sequence[RunRecord], added: Mapping[tuple[str, str], tuple[float, ...]]
) -> dict[tuple[str, str], tuple[float, ...]]:
    """`added` with one more rate at each edge where some optimizer's best rate of some seed lies.

    Optimizers that share a grid of effective rates get the same ones, so none is searched more finely
    than another. One that has only its own rates shares no axis and grows alone.

    Args:
        runs: all runs of the plan with `added`, finished.
    """
    more = dict(added)
    for task in sweep.task:
        sharing: dict[tuple[str, tuple[float, ...]], list[str]] = {}
        for name in sweep.optimizers:
            axis = name if entry_of(sweep, name).own_rate else "effective"
            tried = (*grid(sweep, task, name), *added.get((task, name), ()))
            sharing.setdefault((axis, tried), []).append(name)
        for (_, tried), names in sharing.items():
            edges = [
                edges_hit([r for r in runs if (r.spec.task, r.spec.optimizer) == (task, n)]) for n in names
            ]
            new = next_rates(tried, any(low for low, _ in edges), any(high for _, high in edges))
            if new:
                more |= {(task, name): (*added.get((task, name), ()), *new) for name in names}
    return more


def edges_hit(runs: Sequence[RunRecord]) -> tuple[bool, bool]:
    """Whether some seed's best rate, by dev, is the lowest and whether one is the highest tried.

    A seed whose every run diverged asks for lower rates. Failed runs say nothing.

    Args:
        runs: of one task and optimizer.
    """
    from momentum_bench.harness.records.selection import dev_result, select

    low = high = False
    for seed in {run.spec.seed for run in runs}:
        of_seed = {run.spec.run_id: run for run in runs if run.spec.seed == seed}
        tried = [run.spec.learning_rate for run in of_seed.values()]
        results = [dev_result(run) for run in of_seed.values() if run.status == "done"]
        if results:
            best = of_seed[select(results, tried).run_id].spec.learning_rate
            low, high = low or best == min(tried), high or best == max(tried)
        else:
            low = low or any(run.status == "diverged" for run in of_seed.values())
    return low, high
