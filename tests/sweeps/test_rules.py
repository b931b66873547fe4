from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import flag_of
from momentum_bench.harness.sweeps.rules import EXCLUSIVE, Choice, Exclusive

VALUES: dict[str, Any] = {
    "checkpoint_activations": True,
    "checkpoint_every": 10,
    "confirm_seeds": 5,
    "cuda_graphs": True,
    "data_dir": "rows",
    "data_revision": "main",
    "data_parallel_ranks": True,  # a flag without a value on the command line
    "decay_steps": "500,750",
    "dropout": 0.1,
    "executor": "local",
    "freeze": "encoder",
    "gradient_accumulation_steps": 2,
    "head": "kept",
    "log_with": "tensorboard",
    "lr_schedule": "linear",
    "method": "prompt",
    "peft": "lora",
    "ray_address": "auto",
    "runs_at_a_time": 2,
    "until_decided": True,
}
"""A value of each setting that some rule is about, where the rule itself does not name one."""


def value_of(choice: Choice) -> Any:
    return choice.only[0] if choice.only else VALUES[choice.name]


def words_of(pair: Exclusive) -> list[str]:
    """The command line that makes both choices."""
    words = ["run", "--task", "sst2"]
    for choice in (pair.first, pair.second):
        value = value_of(choice)
        if value == "scratch":  # an image task brings this method with it
            words[2] = "digits"
        elif value is True:
            words.append(flag_of(choice.name))
        else:
            words += [flag_of(choice.name), str(value)]
    return words


def told(flags: dict[str, Any]) -> str:
    """What is wrong with the flags, in words."""
    try:
        make_sweep(flags, None)
    except UserError as error:
        return str(error)
    return ""


def name_of(pair: Exclusive) -> str:
    return f"{pair.first.name} and {pair.second.name}"


@pytest.mark.parametrize("pair", EXCLUSIVE, ids=name_of)
def test_a_pair_that_is_excluded_ends_in_a_message_with_both_flags(pair: Exclusive):
    done = CliRunner().invoke(app, words_of(pair))
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if pair.reason in line]
    assert lines, done.stderr
    said = lines[0].removeprefix("error: ").split(":")[0]
    for choice in (pair.first, pair.second):
        value = value_of(choice)
        shown = flag_of(choice.name) if value is True else f"{flag_of(choice.name)} {value}"
        assert shown in said
    assert "_" not in said


@pytest.mark.parametrize("pair", EXCLUSIVE, ids=name_of)
def test_each_choice_alone_is_no_mistake_of_this_rule(pair: Exclusive):
    """A rule that refuses one of its two choices whatever the other is would pass the test above."""
    otherwise = {"method": {"task": "digits"}, "executor": {"executor": "ray"}}
    otherwise |= {"lr_schedule": {"lr_schedule": "step"}}  # where the default itself is one of the choices
    for choice, other in ((pair.first, pair.second), (pair.second, pair.first)):
        value = 2 if choice.name == "data_parallel_ranks" else value_of(choice)
        flags = {"task": "digits"} if value == "scratch" else {"task": "sst2", choice.name: value}
        if other.is_made(make_sweep({"task": "sst2"}, None)):
            flags |= {"method": "head"} if choice.name == "head" else otherwise[other.name]
        assert pair.reason not in told(flags)  # another rule may have something to say


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_steps": 0, "warmup_steps": 1}, "--warmup-steps 1 leaves no step of --max-steps 0"),
        ({"warmup_steps": 1000}, "--warmup-steps 1000 leaves no step of --max-steps 1000"),
        (
            {"gradient_accumulation_steps": 3},
            "--batch-size 8 is the global batch and does not divide .* --gradient-accumulation-steps 3",
        ),
        (
            {"data_parallel_ranks": 3, "gradient_accumulation_steps": 2},
            r"--data-parallel: a micro-batch of 4 \(--batch-size 8, --gradient-accumulation-steps 2\) does "
            "not divide into equal parts for 3 ranks",
        ),
        ({"lr_schedule": "step"}, "--lr-schedule step needs --decay-steps"),
        ({"lr_schedule": "step", "decay_steps": "5,4"}, "--decay-steps 5,4 must ascend between"),
        ({"lr_schedule": "step", "decay_steps": "4,4"}, "--decay-steps 4,4 must ascend between"),
        (
            {"lr_schedule": "step", "decay_steps": "900,1000"},
            "--decay-steps 900,1000 must ascend between --warmup-steps 0 and --max-steps 1000",
        ),
        ({"tsv": "raw"}, "--tsv raw is about files of a folder: add --data-dir DIR"),
    ],
)
def test_numbers_that_do_not_fit_are_explained(flags: dict, message: str):
    with pytest.raises(UserError, match=message):
        make_sweep({"task": "sst2"} | flags, None)


def test_all_broken_rules_are_named_at_once():
    with pytest.raises(UserError) as told:
        make_sweep({"task": "sst2", "max_steps": 0, "peft": "lora", "freeze": "encoder"}, None)
    assert len(str(told.value).splitlines()) == 3


def test_what_comes_with_one_process_goes_with_data_parallel():
    sweep = make_sweep({"task": "sst2", "data_parallel_ranks": 2, "runs_at_a_time": 1}, None)
    assert sweep.data_parallel_ranks == 2
