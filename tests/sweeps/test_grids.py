"""`--extend-grid`: where a grid grows, by which rates, and for whom."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import Evaluation, RunRecord, RunSpec
from momentum_bench.harness.sweeps.grids import edges_hit, extended, next_rates, rates
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.tasks import get_task


@pytest.mark.parametrize(
    ("grid", "low", "high", "expected"),
    [
        ((0.1, 0.3, 1.0), False, False, ()),
        ((0.1, 0.3, 1.0), False, True, (3.0,)),
        ((0.1, 0.3, 1.0), True, False, (0.03,)),
        ((0.1, 0.3, 1.0), True, True, (0.03, 3.0)),
        ((3e-5,), True, True, (1e-5, 1e-4)),
        ((0.0099, 0.02), False, True, (0.1,)),
        ((0.0099, 0.02), True, False, (0.003,)),
        ((0.05,), False, True, (0.1,)),
        ((0.06,), False, True, (0.3,)),  # 0.1 would be too close
    ],
)
def test_next_rates(grid, low, high, expected) -> None:
    assert next_rates(grid, low, high) == expected


@given(st.lists(st.floats(1e-9, 1e4), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_next_rates_lie_outside_by_a_factor_of_two_to_seven(grid, low, high) -> None:
    new = next_rates(grid, low, high)
    assert len(new) == low + high
    for rate in new:
        digits = f"{rate:.0e}".partition("e")[0]
        assert digits in ("1", "3")
        assert float(f"{rate:.0e}") == rate
        factor = rate / max(grid) if rate > max(grid) else min(grid) / rate
        assert 2 <= factor < 7


def run_of(spec: RunSpec, dev_metric: float | None) -> RunRecord:
    """A finished run; without a dev metric, one that diverged."""
    if dev_metric is None:
        return RunRecord(spec=spec, metric="accuracy", status="diverged", failure="loss not finite")
    evaluation = Evaluation(
        step=1, learning_rate=spec.learning_rate, train_loss=1.0, dev_metric=dev_metric, dev_loss=1.0
    )
    return RunRecord(spec=spec, metric="accuracy", status="done", evaluations=(evaluation,), best_step=1)


def specs_of(sweep: Sweep, added=None) -> list[RunSpec]:
    rows = [Example(("text",), label % 2) for label in range(80)]
    task = get_task("sst2")
    data = TaskData(task=task, train=rows, test=rows, fingerprint="f", origin="o", n_empty=0, n_unlabelled=0)
    return plan(sweep, [data], "model", "revision", added or {})


def sweep_of(optimizers: str, **changes) -> Sweep:
    flags = {"task": "sst2", "k": 2, "seeds": "13,21", "optimizers": optimizers, "extend_grid": 2}
    return make_sweep(flags | changes, None)


def peak_at(best: dict[str, float], specs: list[RunSpec]) -> list[RunRecord]:
    """Runs of which each optimizer's are the better, the nearer to its best rate."""
    return [run_of(s, 1 - abs(math.log10(s.learning_rate / best[s.optimizer])) / 10) for s in specs]


def test_arms_that_share_a_grid_grow_together_until_the_best_is_inside() -> None:
    sweep = sweep_of("sgd,sgdm,adamw", learning_rates=[0.01, 0.03, 0.1])
    best = {"sgd": 0.3, "sgdm": 0.03, "adamw": 0.03}
    added = extended(sweep, peak_at(best, specs_of(sweep)), {})
    assert added == {("sst2", "sgd"): (0.3,), ("sst2", "sgdm"): (0.3,)}
    again = extended(sweep, peak_at(best, specs_of(sweep, added)), added)
    assert again == {("sst2", "sgd"): (0.3, 1.0), ("sst2", "sgdm"): (0.3, 1.0)}
    assert extended(sweep, peak_at(best, specs_of(sweep, again)), again) == again
    assert rates(sweep, "sst2", "sgdm", again) == (0.01, 0.03, 0.1, 0.3, 1.0)
    assert rates(sweep, "sst2", "adamw", again) == (0.01, 0.03, 0.1)
    planned = {(s.optimizer, s.learning_rate) for s in specs_of(sweep, again)}
    assert ("sgdm", 1.0) in planned
    assert ("adamw", 1.0) not in planned


def test_on_the_torch_axis_arms_share_torch_rates() -> None:
    sweep = sweep_of("sgd,sgdm", learning_rates=[0.001, 0.003, 0.01], learning_rate_axis="torch")
    added = extended(sweep, peak_at({"sgd": 0.001, "sgdm": 0.03}, specs_of(sweep)), {})
    assert added == {("sst2", "sgd"): (0.0003,), ("sst2", "sgdm"): (0.0003,)}
    assert rates(sweep, "sst2", "sgdm", added) == (0.003, 0.01, 0.03, 0.1)


def test_one_seed_is_enough_and_both_edges_can_be_hit() -> None:
    specs = specs_of(sweep_of("sgd", learning_rates=[0.01, 0.03, 0.1]))
    best = {13: 0.01, 21: 0.1}
    assert edges_hit([run_of(s, float(s.learning_rate == best[s.seed])) for s in specs]) == (True, True)
    assert edges_hit([run_of(s, float(s.learning_rate == 0.03)) for s in specs]) == (False, False)


def test_diverged_runs_are_tried_rates() -> None:
    specs = specs_of(sweep_of("sgd", learning_rates=[0.01, 0.03, 0.1]))
    runs = [run_of(s, None if s.learning_rate == 0.1 else s.learning_rate) for s in specs]
    assert edges_hit(runs) == (False, False)  # 0.03 is best, and 0.1 was tried
    assert edges_hit([run_of(s, None) for s in specs]) == (True, False)
    failed = [RunRecord(spec=s, metric="accuracy", status="failed", failure="bug") for s in specs]
    assert edges_hit(failed) == (False, False)


def test_ties_go_to_the_lower_rate_as_in_the_selection() -> None:
    specs = specs_of(sweep_of("sgd", learning_rates=[0.01, 0.03, 0.1]))
    assert edges_hit([run_of(s, 0.5) for s in specs]) == (True, False)


def test_ranks_are_told_to_extend_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without a launcher"):
        check_launcher(sweep_of("sgd"))
    check_launcher(sweep_of("sgd", extend_grid=0))
