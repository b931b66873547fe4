"""`mb.Sweep`: the names, defaults, rules and errors of the command line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import momentum_bench as mb
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import SETTINGS
from tests.helpers.command_line import run_command


def test_it_is_the_sweep_of_the_command_line():
    flags = {"task": "sst2,trec", "k": 4, "seeds": "13,21", "learning_rates": "1e-2,1e-1"}
    asked = mb.Sweep(task=["sst2", "trec"], k=4, seeds=(13, 21), learning_rates=[1e-2, 1e-1])
    assert asked.checked == make_sweep(flags, None)
    assert mb.Sweep(**flags) == asked
    assert mb.Sweep().checked == make_sweep({}, None)


def test_a_range_or_an_array_is_a_list():
    by_range = mb.Sweep(task="sst2", seeds=range(3), learning_rates=(10.0**-n for n in (1, 2)))
    by_array = mb.Sweep(task="sst2", seeds=np.arange(3), k=np.int64(16), learning_rates=np.array([0.1, 0.01]))
    assert by_range == by_array == mb.Sweep(task="sst2", seeds="0,1,2", learning_rates="0.1,0.01")


def test_none_means_none():
    sweep = mb.Sweep(task="sst2", max_grad_norm=None, test_limit=None)
    assert sweep == mb.Sweep(task="sst2", max_grad_norm="none", test_limit="none")
    assert sweep != mb.Sweep(task="sst2")


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (("--k", "0", "--task", "sst2"), {"k": 0, "task": "sst2"}),
        (("--task", "sst3"), {"task": "sst3"}),
        (("--peft", "lora", "--freeze", "encoder"), {"peft": "lora", "freeze": "encoder"}),
        (("--learning-rates", "0.1,0.1"), {"learning_rates": [0.1, 0.1]}),
    ],
)
def test_an_error_has_the_text_of_the_command_line(flags: tuple[str, ...], settings: dict):
    with pytest.raises(mb.UserError) as raised:
        mb.Sweep(**settings)
    typed = run_command("run", *flags)
    assert typed.returncode == 2
    assert typed.stderr.strip() == f"error: {raised.value}"


@pytest.mark.parametrize(
    "value", [["a"], [["a"]], {"a": 1}, {}, 3, [3], object(), b"a", float("inf"), [None]]
)
@pytest.mark.parametrize("others", [{}, {"task": "digits"}], ids=["text", "images"])
def test_a_value_of_any_type_makes_a_sweep_or_a_message(value: object, others: dict):
    """A sweep file and Python code may hold values of types that a command line cannot."""
    for name in SETTINGS:
        with suppress(mb.UserError):
            mb.Sweep(**others | {name: value})


def test_an_unknown_name_is_named_with_a_close_one():
    with pytest.raises(mb.UserError, match=r"unknown name 'seed'\. Did you mean seeds\?"):
        mb.Sweep(seed=13)
    with pytest.raises(mb.UserError, match="unknown name 'zzzz'"):
        mb.run(zzzz=13)


def test_a_sweep_file_is_read_and_overridden(tmp_path: Path):
    file = tmp_path / "small.toml"
    file.write_text('task = "sst2"\nk = 4\nmax-steps = 6\neval-every = 3\n')
    assert mb.Sweep.from_toml(file) == mb.Sweep(task="sst2", k=4, max_steps=6, eval_every=3)
    assert mb.Sweep.from_toml(str(file), k=8).checked.k == 8
    assert repr(mb.Sweep.from_toml(file, k=8)) == f"Sweep.from_toml('{file}', k=8)"
    file.write_text("tasks = 3\n")
    with pytest.raises(mb.UserError, match=r"unknown name 'tasks'\. Did you mean task\?"):
        mb.Sweep.from_toml(file)
    with pytest.raises(mb.UserError, match=r"none\.toml"):
        mb.Sweep.from_toml(tmp_path / "none.toml")


def test_its_repr_makes_it_again():
    sweep = mb.Sweep(task="sst2", k=4, seeds=range(2))
    assert repr(sweep) == "Sweep(task='sst2', k=4, seeds=range(0, 2))"
    assert eval(repr(sweep), {"Sweep": mb.Sweep}) == sweep


def test_data_parallel_takes_the_ranks_of_the_launcher(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert mb.Sweep(data_parallel=True).checked.data_parallel_ranks == 2
    assert mb.Sweep(data_parallel=False).checked.data_parallel_ranks is None


def test_a_sweep_and_settings_do_not_go_together():
    with pytest.raises(mb.UserError, match="both a Sweep and k are given"):
        mb.run(mb.Sweep(), k=4)
    with pytest.raises(mb.UserError, match=r"expected a Sweep or settings by name.*found str"):
        mb.run("sst2")  # type: ignore[arg-type]
