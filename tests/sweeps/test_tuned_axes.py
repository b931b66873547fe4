"""Lists of values of momentum, batch size and weight decay: what they plan, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.studies.study import study_sweep
from momentum_bench.harness.sweeps.grids import axes, check_number_of_runs, hyperparameters, points
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import design_of, plan
from momentum_bench.harness.sweeps.protocols import settings_name
from tests.conftest import sentiment_rows, write_rows

LISTS = {"momentum": "0.9,0.5,0.99", "batch_size": "8,4", "learning_rates": "0.1,0.01"}


NADAM = "sgd,torch.optim.NAdam"


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
        ({"batch_size": "8,4", "tune": "sgdm:momentum=0.5,x"}, "several kinds: a number, a text"),
        ({"tune": "sgdm"}, "--tune sgdm: expected an optimizer, a setting and its values"),
        ({"tune": "sgdm:momentum"}, "for example --tune adamw:beta1=0,0.9"),
        ({"tune": "sgdm:momentum=0.5,,0.9"}, "a value is empty"),
        ({"tune": "sgdm:momentum=0.5"}, "one value tunes nothing: write sgdm:momentum=0.5 in --optimizers"),
        ({"tune": "sgdm:momentum=0.5,0.50"}, "--tune sgdm:momentum=0.5,0.50: 0.5 is given more than once"),
        ({"tune": "sgdm:momentum=0.5,1.5"}, "expected at least 0 and below 1"),
        ({"tune": "sgdm:mometum=0.5,0.9"}, "there is no setting mometum. Did you mean momentum?"),
        ({"tune": "sgdm:weight_decay=0,0.1"}, "weight_decay is shared by all arms: give --weight-decay"),
        ({"tune": "adamw:beta1=0,0.9"}, "adamw is not among --optimizers sgd,sgdm: name it there"),
        ({"tune": "adamv:beta1=0,0.9"}, "adamv is not among --optimizers sgd,sgdm"),
        (
            {"tune": "sgdm:momentum=0,0.9", "optimizers": "sgd,sgdm:momentum=0.5"},
            "sgdm has this setting already in --optimizers sgd,sgdm:momentum=0.5",
        ),
        ({"tune": ["sgdm:momentum=0,0.9"] * 2}, "--tune: sgdm:momentum is given more than once"),
        ({"tune": "torch.optim.NAdam:betas=1/2,0.9/0.99", "optimizers": NADAM}, "Invalid beta parameter"),
        ({"tune": "torch.optim.NAdam:beta=1,2", "optimizers": NADAM}, "Did you mean betas"),
        ({"batch_size_keeps": "examples"}, "examples is for several batch sizes: give a list"),
        (
            {"batch_size_keeps": "examples", "batch_size": "8,16,24", "max_steps": 100},
            "--max-steps 100 at the smallest batch size, 8, is no whole number of larger batches: give a "
            "multiple of 6 as --max-steps",
        ),
        (
            {"batch_size_keeps": "examples", "batch_size": "8,16", "eval_every": 5},
            "--eval-every 5 at the smallest batch size",
        ),
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


def test_any_constant_of_an_optimizer_is_an_axis_of_its_arms_that_leave_it_open():
    asked = sweep(
        tune=["adamw:beta1=0.9,0", "qhm:nu=1,0.7,0.5"],
        optimizers="sgd,qhm,adamw:beta2=0.9,adamw:beta1=0.5",
        learning_rates="0.1",
    )
    found = {arm: [point.settings for point in points(asked, "sst2", arm)] for arm in asked.optimizers}
    assert found == {
        "sgd": [()],
        "qhm": [(("nu", 0.5),), (("nu", 0.7),), (("nu", 1.0),)],
        "adamw:beta2=0.9": [(("beta1", 0.0),), (("beta1", 0.9),)],
        "adamw:beta1=0.5": [()],
    }
    used = hyperparameters(asked, "qhm", {"nu": 0.5})
    assert used == {"momentum": 0.9, "nu": 0.5}
    assert hyperparameters(asked, "qhm") == {"momentum": 0.9}  # what is tuned is no constant of the arm
    assert hyperparameters(asked, "adamw:beta1=0.5")["beta1"] == 0.5


def test_what_is_said_of_one_optimizer_counts_before_the_option_for_all():
    asked = sweep(tune="sgdm:momentum=0.8,0.95", momentum="0.5,0.9", optimizers="sgd,sgdm,nesterov")
    assert axes(asked, "sgdm") == {"momentum": (0.8, 0.95)}
    assert axes(asked, "nesterov") == {"momentum": (0.5, 0.9)}


def test_settings_of_a_class_are_axes_too_and_need_no_numbers():
    asked = sweep(
        tune=[
            "torch.optim.NAdam:betas=0.9/0.999,0.5/0.9",
            "torch.optim.NAdam:decoupled_weight_decay=true,false",
        ],
        optimizers=NADAM,
        learning_rates="0.1",
    )
    nadam = asked.optimizers[1]
    grid = points(asked, "sst2", nadam)
    assert [point.settings_text for point in grid] == [
        "betas=0.5/0.9 decoupled_weight_decay=false",
        "betas=0.5/0.9 decoupled_weight_decay=true",
        "betas=0.9/0.999 decoupled_weight_decay=false",
        "betas=0.9/0.999 decoupled_weight_decay=true",
    ]
    assert hyperparameters(asked, nadam, dict(grid[0].settings)) == dict(grid[0].settings)


def planned(tmp_path: Path, **flags: Any) -> tuple[Any, list[RunSpec]]:
    """A sweep over made rows, and its runs."""
    for part, n in (("train", 40), ("validation", 24)):
        write_rows(tmp_path / "sst2" / f"{part}.jsonl", sentiment_rows(n))
    asked = sweep(**flags, k=4, seeds="13", learning_rates="0.1", data_dir=str(tmp_path))
    data = [load_task_data(find_task("sst2"), asked.data_dir)]
    return asked, plan(asked, data, "hub:some/model", "0123456789abcdef")


def test_larger_batches_keep_the_steps_or_the_examples(tmp_path: Path):
    flags = {"batch_size": "8,16", "max_steps": 40, "eval_every": 10, "warmup_steps": 4, "optimizers": "sgd"}
    _, specs = planned(tmp_path, **flags)
    assert [(s.batch_size, s.max_steps, s.examples) for s in specs] == [(8, 40, None), (16, 40, None)]
    asked, specs = planned(tmp_path, **flags, batch_size_keeps="examples")
    found = [(s.batch_size, s.max_steps, s.eval_every, s.warmup_steps, s.examples) for s in specs]
    assert found == [(8, 40, 10, 4, 320), (16, 20, 5, 2, 320)]
    design = design_of(asked, specs)
    assert design is not None
    again = [design.spec(design.tasks[0], 0, 13, point) for point in design.tasks[0].whole_grids[0]]
    assert again == specs
    assert len({settings_name(spec) for spec in specs}) == 1
    assert "max_steps=320/batch_size eval_every=80/batch_size" in settings_name(specs[0])


def test_a_design_with_constants_of_a_class_plans_the_same_runs(tmp_path: Path):
    """Whole numbers, lists and texts come back from the design's file as they were."""
    flags = {
        "optimizers": "torch.optim.Muon,qhm",
        "tune": ["torch.optim.Muon:ns_steps=3,5", "torch.optim.Muon:adjust_lr_fn=original,match_rms_adamw"],
        "weight_decay": "0,0.01",
    }
    asked, specs = planned(tmp_path, **flags, confirm="own", confirm_seeds=5)
    made = design_of(asked, specs)
    assert made is not None
    design = Design.model_validate_json(made.model_dump_json())
    assert design.design_id == made.design_id
    [task] = design.tasks
    again = {
        design.spec(task, arm, 13, point).run_id
        for arm, grid in enumerate(task.whole_grids)
        for point in grid
    }
    assert again == {spec.run_id for spec in specs}
    assert len(again) == 2 * 2 * 2 + 2


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
