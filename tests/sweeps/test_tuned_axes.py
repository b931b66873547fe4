"""Lists of values of momentum, batch size and weight decay: what they plan, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.studies.study import study_sweep
from momentum_bench.harness.sweeps.grids import axes, check_number_of_runs, points
from momentum_bench.harness.sweeps.make import make_sweep

LISTS = {"momentum": "0.9,0.5,0.99", "batch_size": "8,4", "learning_rates": "0.1,0.01"}


def sweep(**flags: Any) -> Any:
    return make_sweep({"task": "sst2", **flags}, None)


def test_the_grid_of_an_arm_is_the_product_of_the_axes_that_it_has():
    asked = sweep(**LISTS, optimizers="sgd,sgdm,sgdm:momentum=0.8")
    of_arms = {arm: len(points(asked, "sst2", arm)) for arm in asked.optimizers}
    assert of_arms == {"sgd": 4, "sgdm": 12, "sgdm:momentum=0.8": 4}
    assert axes(asked, "sgdm") == {"batch_size": (4, 8), "momentum": (0.5, 0.9, 0.99)}
    first = points(asked, "sst2", "sgdm")[0]
    assert first == (0.01, (("batch_size", 4), ("momentum", 0.5)))


def test_trials_are_as_many_different_points_for_every_arm_and_always_the_same():
    asked = sweep(**LISTS, weight_decay="0,0.01", optimizers="sgd,nesterov,sgdm", trials=7)
    drawn = {arm: points(asked, "sst2", arm) for arm in asked.optimizers}
    wholes = {arm: points(asked.model_copy(update={"trials": None}), "sst2", arm) for arm in drawn}
    for arm, found in drawn.items():
        assert len(set(found)) == 7
        assert set(found) < set(wholes[arm])
        assert list(found) == sorted(found)
    assert drawn == {arm: points(asked, "sst2", arm) for arm in asked.optimizers}
    assert drawn["sgdm"] == drawn["nesterov"]  # they have the same axes


@pytest.mark.parametrize("n", range(1, 13))
def test_trials_reach_every_number_of_points_and_spread(n: int):
    found = points(sweep(**LISTS, optimizers="sgdm", trials=n), "sst2", "sgdm")
    assert len(set(found)) == n
    if n >= 8:  # every value of every axis is tried
        assert {point.learning_rate for point in found} == {0.01, 0.1}
        for place in range(2):
            assert len({point.settings[place] for point in found}) == (2, 3)[place]


def test_one_value_tunes_nothing_whether_it_is_a_list_or_not():
    assert sweep(momentum=[0.9], batch_size="8").axes == {}
    assert sweep(momentum=[0.9]) == sweep(momentum=0.9)
    assert sweep(momentum=[0.9, 0.5]) == sweep(momentum="0.5,0.9")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"momentum": "0.9,0.9"}, "--momentum: 0.9 is given more than once"),
        ({"momentum": "0.9,1.5"}, "--momentum: Input should be less than 1 (found '1.5')"),
        ({"momentum": "0.9,x"}, "--momentum: Input should be a valid number"),
        ({"momentum": ""}, "--momentum: Input should be a valid number"),
        ({"batch_size": []}, "--batch-size: the list is empty"),
        ({"batch_size": "8,0"}, "--batch-size: Input should be greater than or equal to 1"),
        ({"batch_size": "8,4.5"}, "--batch-size: Input should be a valid integer"),
        ({"batch_size": "8,6", "gradient_accumulation_steps": 4}, "--batch-size 6,8 is the global batch"),
        ({"batch_size": "8,4", "max_steps": 0}, "--batch-size 4,8 does not go with --max-steps 0"),
        ({"batch_size": "8,4", "confirm_seeds": 5}, "does not go with confirming seeds"),
        ({"momentum": "0.5,0.9", "learning_rates": "0.1", "learning_rate_axis": "torch"}, "axis torch"),
        ({"momentum": "0.5,0.9", "optimizers": "sgd"}, "none of sgd takes it from this option"),
        ({"weight_decay": "0,0.01", "optimizers": "sgd,torch.optim.Rprop"}, "takes no weight decay"),
        ({"trials": 4}, "--trials 4 draws points of a grid with several axes"),
        ({"trials": 0, "momentum": "0.5,0.9"}, "--trials: Input should be greater than or equal to 1"),
        ({"trials": 4, "extend_grid": 1, "momentum": "0.5,0.9"}, "does not go with --extend-grid 1"),
        ({"trials": 9, "momentum": "0.5,0.9"}, "--trials 9: the grid of sgd has 6 points"),
        ({"task": "digits", "batch_size": "16,64"}, "the steps of digits follow from one batch size"),
    ],
)
def test_what_cannot_be_tuned_is_refused(flags: dict[str, Any], told: str):
    with pytest.raises(UserError) as error:
        sweep(**flags)
    assert told in str(error.value)


def test_an_image_task_takes_several_batch_sizes_with_one_number_of_steps():
    assert sweep(task="digits", batch_size="16,64", max_steps=50).axes == {"batch_size": (16, 64)}


def test_a_study_takes_one_value():
    settings = {"steps": 100, "rates": {"head": (0.1,)}, "task": "sst2", "method": "head"}
    assert study_sweep(settings).axes == {}
    with pytest.raises(UserError, match=r"--momentum 0.5,0.9: a study tunes nothing"):
        study_sweep({**settings, "momentum": "0.5,0.9"})


def test_more_than_ten_thousand_runs_need_a_word():
    many = ",".join(f"{place / 1000:g}" for place in range(900))
    check_number_of_runs(sweep(momentum="0.5,0.9"))
    with pytest.raises(UserError, match=r"this sweep has 27,030 runs, more than 10,000.*--yes"):
        check_number_of_runs(sweep(momentum=many))
