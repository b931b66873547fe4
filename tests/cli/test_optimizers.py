"""`optimizers list`, `show` and `check`: each fault of an optimizer is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.execution.optimizer_check import entry_text
from momentum_bench.harness.optimizers.registry import OPTIMIZERS

FAULTY = """
import torch


class IgnoresMomentum(torch.optim.SGD):
    def __init__(self, params, lr=1e-3, momentum=0.9):
        super().__init__(params, lr=lr)


class StillBiases(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim == 1:
                    p.grad = None
        super().step()


class WrongDevice(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["buffer"] = torch.zeros(p.shape, device="meta")
        super().step()


class LosesBuffer(torch.optim.SGD):
    def __init__(self, params, lr=1e-3, momentum=0.9):
        super().__init__(params, lr=lr, momentum=momentum)

    def state_dict(self):
        whole = super().state_dict()
        return {"state": {}, "param_groups": whole["param_groups"]}


class Random(torch.optim.SGD):
    n = 0

    def step(self, closure=None):
        Random.n += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.data += 1e-3 * Random.n
        super().step()
"""


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["optimizers", *words])


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("IgnoresMomentum", "it ignores momentum: 0.5 and 0.9 give the same parameters"),
        ("StillBiases", "does not move hidden.bias, head.bias, which have a gradient"),
        ("WrongDevice", "buffer is on the device meta, its parameter on cpu"),
        ("LosesBuffer", "its state dict loses momentum_buffer"),
        ("Random", "the same steps twice give different parameters"),
    ],
)
def test_each_fault_is_named(kind: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_optimizers.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    done = call("check", f"faulty_optimizers.{kind}")
    assert done.exit_code == 1, done.output
    assert fault in done.stdout


@pytest.mark.parametrize(
    "name", [*OPTIMIZERS, "torch.optim.NAdam:betas=0.9/0.99", "torch.optim.Muon", "torch.optim.Adafactor"]
)
def test_sound_optimizers_have_no_fault(name: str) -> None:
    done = call("check", name)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("0 fault(s)\n")


def test_the_entry_that_check_writes_is_an_optimizer_file(tmp_path: Path) -> None:
    text = entry_text("torch.optim.NAdam:betas=0.9/0.99")
    file = tmp_path / "mynadam.py"
    file.write_text(text)
    assert text.splitlines()[0] in call("check", "torch.optim.NAdam:betas=0.9/0.99").stdout
    done = call("check", str(file))
    assert done.exit_code == 0, done.output
    assert "promises    of the entry are kept" in done.stdout
    file.write_text(text.replace('"mu_product", ', ""))
    broken = tmp_path / "broken.py"
    broken.write_text(file.read_text())
    assert "it breaks a promise of its entry" in call("check", str(broken)).stdout


def test_list_and_show() -> None:
    listed = call("list", "-q").stdout.splitlines()
    assert listed[: len(OPTIMIZERS)] == list(OPTIMIZERS)
    assert json.loads(call("list", "--json").stdout)["optimizers"][1]["settings"] == ["momentum"]
    assert "torch's is 0.1 of it" in call("show", "sgdm").stdout
    assert "closure" not in call("show", "torch.optim.NAdam").stdout
    assert "none; `optimizers check` tries it" in call("show", "torch.optim.NAdam").stdout
    for words in (("show", "sgdn"), ("check", "torch.optim.Nadam"), ("check", "nowhere.py")):
        done = call(*words)
        assert done.exit_code == 2
        assert "error: " in done.stderr
