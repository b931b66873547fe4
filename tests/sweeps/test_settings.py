from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from pydantic import BaseModel, BeforeValidator

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.records.schema import PrecisionName, RunSpec
from momentum_bench.harness.sweeps.defaults import DEFAULTS, QUICK_START
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.protocols import BY_PROTOCOL, PROTOCOLS, UNLESS_STATED
from momentum_bench.harness.sweeps.request import SETTINGS, Sweep
from momentum_bench.harness.sweeps.settings import FILES, GROUPS, TRAINING, WHAT, About, settings_of
from momentum_bench.tasks.types import AnyMethod


class Small(BaseModel):
    """A few settings of every kind."""

    folder: Annotated[Path | None, About("Where", FILES)] = None
    word: Annotated[Literal["a", "b"], About("a or b", WHAT)] = "b"
    numbers: Annotated[tuple[int, ...], BeforeValidator(str.split), About("Some", WHAT)] = (1, 2)
    size: Annotated[int, About("How many", TRAINING, by_protocol={"one": 1, "two": 1})]
    limit: Annotated[
        float | None,
        BeforeValidator(lambda value: None if value == "none" else value),
        About("At most", TRAINING, by_protocol={"one": 0.5, "two": None}),
    ]
    exact: Annotated[Literal[True] | None, About("Exactly", WHAT)] = None
    together: Annotated[int | None, About("All", WHAT, flag="--all")] = None


def test_a_declaration_says_how_a_setting_is_typed_and_what_holds_without_it():
    small = settings_of(Small)
    assert list(small) == ["word", "numbers", "exact", "together", "size", "limit", "folder"]
    assert small["word"].values == ("a", "b")
    assert [small[name].kind for name in Small.model_fields] == [Path, str, str, int, str, bool, bool]
    assert small["together"].flag == "--all"
    assert small["word"].help == "a or b (default: b)"
    assert small["numbers"].help == "Some (default: 1,2)"
    assert small["size"].help == "How many (default: 1)"
    assert small["limit"].help == "At most (default: one: 0.5, two: none)"
    assert small["folder"].help == "Where"


def test_every_field_is_declared():
    assert set(SETTINGS) == set(Sweep.model_fields)
    assert {setting.group for setting in SETTINGS.values()} == set(GROUPS)
    for setting in SETTINGS.values():
        assert not setting.about.help.endswith(".")
        assert "default" not in setting.about.help.replace("defaults", "").replace("the default of", "")
        for value in setting.values:
            assert value in setting.help  # who reads the help knows all values


def test_a_field_has_a_default_or_one_in_each_protocol():
    assert set(BY_PROTOCOL) == set(SETTINGS) - set(DEFAULTS)
    for name in BY_PROTOCOL:
        assert Sweep.model_fields[name].is_required()
        assert all(name in defaults for defaults in PROTOCOLS.values())
    assert set(QUICK_START) <= set(SETTINGS)


def test_a_default_in_the_help_is_the_one_that_holds():
    sweep = make_sweep({"task": "sst2"}, None)
    for name in ("k", "seeds", "optimizers", "precision", "batch_size", "lr_schedule", "output_dir"):
        value = getattr(sweep, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert f"(default: {shown})" in SETTINGS[name].help


def test_values_that_are_written_down_twice_are_equal():
    """Rooms that may not import one another."""
    assert get_args(RunSpec.model_fields["method"].annotation) == get_args(AnyMethod)
    assert set(get_args(PrecisionName)) == set(PRECISIONS)


def test_what_is_part_of_a_run_is_known():
    of_a_run = {name for name, setting in SETTINGS.items() if setting.is_of_a_run}
    assert set(UNLESS_STATED) | set(BY_PROTOCOL) <= of_a_run
    places = {"data_dir", "output_dir", "task_file", "optimizer_file", "checkpoint_every", "log_with"}
    assert not places & of_a_run


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.values])
def test_a_value_that_is_on_no_list_is_refused_with_the_list(name: str):
    with pytest.raises(UserError) as told:
        make_sweep({"task": "sst2", name: "nonsense"}, None)
    assert SETTINGS[name].flag in str(told.value)
    assert all(value in str(told.value) for value in SETTINGS[name].values)
