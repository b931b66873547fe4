"""The accumulated rate against the optimizers themselves."""

from __future__ import annotations

import pytest
import torch

from momentum_bench.harness.optimizers.accumulated import accumulated_rate
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.optimizers.schedules import learning_rate
from tests.helpers.synthetic import make_spec


def moved(spec) -> float:
    """How far a parameter moves in a run whose gradient is 1 at each step."""
    entry = OPTIMIZERS[spec.optimizer]
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    rates = [learning_rate(spec, step) for step in range(spec.max_steps)]
    scheduled = entry.schedule(rates, spec.hyperparameters)
    ratio = entry.torch_rate(spec.hyperparameters)
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    optimizer = entry.build(groups, rates[0] * ratio, spec.hyperparameters, 0)
    for rate in scheduled:
        optimizer.param_groups[0]["lr"] = rate * ratio
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return -float(parameter.detach())


@pytest.mark.parametrize("steps", [3, 40, 200])
@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("name", ["sgd", "sgdm", "sgdm_ema", "sgd_matched", "nesterov", "qhm"])
def test_it_is_what_the_optimizer_moves(name, schedule, steps):
    hyperparameters = OPTIMIZERS[name].all_hyperparameters(momentum=0.9)
    arm = {"optimizer": name, "hyperparameters": hyperparameters}
    spec = make_spec(max_steps=steps, lr_schedule=schedule, **arm)
    sgd = make_spec(max_steps=steps, lr_schedule=schedule)
    assert accumulated_rate(spec) == pytest.approx(moved(spec) / moved(sgd), rel=1e-9)


@pytest.mark.parametrize(("steps", "ratio"), [(1000, 0.98), (200, 0.91), (40, 0.66)])
def test_short_runs_of_momentum_fall_behind(steps, ratio):
    arm = {"optimizer": "sgdm", "hyperparameters": {"momentum": 0.9}}
    found = accumulated_rate(make_spec(max_steps=steps, **arm))
    assert found == pytest.approx(ratio, abs=0.005)


def test_an_optimizer_without_an_effective_rate_has_none():
    assert accumulated_rate(make_spec(optimizer="adamw", hyperparameters={"beta1": 0.9})) is None
    assert accumulated_rate(make_spec(optimizer="none", max_steps=0, learning_rate=0.0)) is None
