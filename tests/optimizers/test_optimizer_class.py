"""Classes by their paths: how arms are written, what a trial finds, and what is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.arms import arm_text, parse_arm
from momentum_bench.harness.optimizers.entry import HEADS, MATRICES, VECTORS, ClosureUse
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.optimizers.live import role_groups, state_tensors
from momentum_bench.harness.optimizers.optimizer_class import all_arguments
from momentum_bench.harness.optimizers.partnered import Partnered
from momentum_bench.harness.sweeps.grids import hyperparameters
from momentum_bench.harness.sweeps.make import make_sweep
from tests.helpers.specs import make_spec

VERSION = torch.__version__.partition("+")[0]

CLASSES = '''
import torch


class Sam(torch.optim.SGD):
    """Takes the gradient that is there, moves along it, and asks for another one."""

    def step(self, closure=None):
        if closure is None:
            raise RuntimeError("Sam needs a closure")
        parameters = [p for group in self.param_groups for p in group["params"]]
        moves = [0.1 * p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        with torch.no_grad():
            for p, move in zip(parameters, moves):
                p += move
        closure()
        with torch.no_grad():
            for p, move in zip(parameters, moves):
                p -= move
        super().step()


class Asks(torch.optim.SGD):
    """Computes every gradient itself."""

    def step(self, closure):
        closure()
        super().step()


class Searches(torch.optim.SGD):
    """Evaluates one gradient more in each step."""

    n_steps = 0

    def step(self, closure):
        self.n_steps += 1
        for _ in range(self.n_steps):
            closure()
        super().step()


class Second(torch.optim.SGD):
    """Needs the graph of the gradient."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                torch.autograd.grad(p.grad.sum(), p, retain_graph=True, allow_unused=True)
        super().step()


class Swallows(torch.optim.SGD):
    def __init__(self, params, lr=1e-3, **kwargs):
        super().__init__(params, lr=lr)


class NoRate(torch.optim.Optimizer):
    def __init__(self, params, speed=1.0):
        super().__init__(params, {"speed": speed})
'''


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of optimizers without a package, under a name that no other test has imported."""
    name = "classes_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    (tmp_path / f"{name}.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_an_arm_is_a_name_and_settings() -> None:
    settings = "betas=0.9/0.95:amsgrad=true:eps=1e-6:maximize=false:foreach=none"
    arm = parse_arm(f"torch.optim.AdamW@2.13.0:{settings}")
    assert (arm.optimizer, arm.partner, arm.is_class) == ("torch.optim.AdamW", None, True)
    assert arm.settings == {
        **{"betas": (0.9, 0.95), "amsgrad": True, "eps": 1e-6, "maximize": False, "foreach": None}
    }
    assert parse_arm(arm_text(arm.name, arm.settings)) == arm
    assert parse_arm("torch.optim.Muon+adamw@2.13.0").partner == "adamw"
    one, other = "a.B:x=1:y=2", "a.B:y=2:x=1"
    assert arm_text("a.B", parse_arm(one).settings) == arm_text("a.B", parse_arm(other).settings)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("sgdm:momentum", "'momentum' is no setting: write NAME:SETTING=VALUE"),
        ("sgdm:momentum=", "is no setting"),
        ("sgdm:momentum=0.9:momentum=0.8", "momentum is given more than once"),
        ("sgdm:lr=1", "lr is shared by all arms: give --learning-rates"),
        ("adamw:weight_decay=1", "give --weight-decay"),
        ("sgdm:momentum=inf", "not a finite number"),
        ("sgdm:momentum=1.5", "expected at least 0 and below 1"),
        ("sgdm:momentum=fast", "expected a number"),
        ("sgdm:momentun=0.5", r"there is no setting momentun\. Did you mean momentum\?"),
        ("sgd:momentum=0.5", "It has no settings"),
        ("adamw:beta1=2", "does not take these settings: ValueError"),
        ("sgdm+adamw", "only a class that is named by its path takes a partner"),
        ("tourch.optim.NAdam", r"tried `import tourch`.* Did you mean torch"),
        ("torch.optim.Nadam", r"has no Nadam\. Did you mean NAdam"),
        ("torch.nn.Linear", "a class that is no optimizer"),
        ("torch.optim.", r"expected PACKAGE\.CLASS"),
        ("torch.optim.SGD:momentun=0.5", r"it takes no momentun\. Did you mean momentum\?.*dampening=0"),
        ("torch.optim.SparseAdam", "it cannot be run: .*dense gradients"),
        ("torch.optim.LBFGS", "cannot be built: .*parameter groups"),
        ("torch.optim.NAdam@1.0", rf"@1\.0 was asked for, and .*NAdam@{VERSION} is installed"),
        ("torch.optim.Muon+sgdm", "sgdm cannot be a partner"),
        ("torch.optim.NAdam:partner_rate=0.1", "partner_rate is for an optimizer with a partner"),
        ("{classes}.NoRate", "it has no lr"),
        ("{classes}.Swallows:speed=3", "it takes no speed"),
        ("{classes}.Second", "needs a second backward pass through the graph"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_sweep(classes: str, arm: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sweep({"task": "sst2", "optimizers": arm.replace("{classes}", classes)}, None)


def test_a_missing_argument_is_named(classes: str, tmp_path: Path) -> None:
    (tmp_path / f"{classes}_more.py").write_text(
        "import torch\nclass Needs(torch.optim.SGD):\n"
        "    def __init__(self, params, radius, lr=1e-3):\n        super().__init__(params, lr=lr)\n"
    )
    with pytest.raises(UserError, match=r"it needs radius: write .*Needs:radius=VALUE.*lr=0\.001"):
        find_optimizer(f"{classes}_more.Needs")
    assert find_optimizer(f"{classes}_more.Needs:radius=2")[1].constants == {"radius": 2}


def test_a_setting_of_ours_is_the_same_run_as_its_option() -> None:
    by_option = make_sweep({"task": "sst2", "optimizers": "sgdm", "momentum": 0.99}, None)
    by_arm = make_sweep({"task": "sst2", "optimizers": "sgdm:momentum=0.99,sgdm,adamw:beta1=0"}, None)
    assert hyperparameters(by_arm, by_arm.optimizers[0]) == hyperparameters(by_option, "sgdm")
    assert [hyperparameters(by_arm, arm) for arm in by_arm.optimizers[1:]] == [
        {"momentum": 0.9},
        {"beta1": 0.0, "beta2": 0.999, "eps": 1e-8},
    ]
    with pytest.raises(UserError, match=r"sgdm and sgdm:momentum=0\.9 are the same arm"):
        make_sweep({"task": "sst2", "optimizers": "sgdm,sgdm:momentum=0.9"}, None)


def test_a_class_is_named_with_the_version_of_its_package() -> None:
    name, entry = find_optimizer("torch.optim.NAdam:betas=0.8/0.9")
    assert name == f"torch.optim.NAdam@{VERSION}:betas=0.8/0.9"
    assert find_optimizer(name)[0] == name
    assert (entry.promises, entry.own_rate, entry.closure, entry.by_role) == (False, True, None, False)
    # AdamW's grid times 2, because the default rate of NAdam is 2e-3 and that of AdamW 1e-3
    assert entry.default_rates["head"] == (2e-5, 6e-5, 2e-4, 6e-4, 2e-3, 6e-3)
    arguments = all_arguments("torch.optim.NAdam", {"betas": (0.8, 0.9)})
    assert arguments["betas"] == (0.8, 0.9)
    assert arguments["momentum_decay"] == 0.004


def test_a_spec_keeps_settings_of_any_type_and_the_numbers_of_ours() -> None:
    used = {"betas": (0.9, 0.95), "amsgrad": True, "ns_steps": 5, "mode": "fast", "clip": None}
    spec = make_spec(optimizer="a.B@1", hyperparameters=used)
    again = type(spec).model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.run_id == spec.run_id
    assert type(again.hyperparameters["ns_steps"]) is int
    ours = [make_spec(optimizer="sgdm", hyperparameters={"momentum": value}) for value in (0, 0.0)]
    assert ours[0].run_id == ours[1].run_id
    with pytest.raises(ValueError, match="expected a number"):
        make_spec(optimizer="sgdm", hyperparameters={"momentum": "0.9"})
    with pytest.raises(ValueError, match="finite number"):
        make_spec(optimizer="a.B@1", hyperparameters={"x": float("nan")})


def test_a_trial_finds_how_an_optimizer_is_called(classes: str) -> None:
    found = {name: find_optimizer(f"{classes}.{name}")[1].closure for name in ("Sam", "Asks", "Swallows")}
    assert found == {"Sam": ClosureUse.AFTER_GRADIENT, "Asks": ClosureUse.ALONE, "Swallows": None}


def test_a_class_is_described_in_its_own_words_or_by_its_path(classes: str) -> None:
    end = "; own rate, because nothing is known about it"
    assert find_optimizer(f"{classes}.Asks")[1].summary == "Computes every gradient itself" + end
    assert find_optimizer(f"{classes}.Swallows")[1].summary == f"{classes}.Swallows" + end


def test_an_optimizer_of_matrices_gets_a_partner_for_the_rest() -> None:
    name, entry = find_optimizer("torch.optim.Muon:partner_rate=0.1")
    assert name == f"torch.optim.Muon+adamw@{VERSION}:partner_rate=0.1"
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
    groups = role_groups(model, list(model.named_parameters()), ("2.weight", "2.bias"), 0.01)
    assert [(g["role"], len(g["params"]), g["weight_decay"]) for g in groups] == [
        (MATRICES, 1, 0.01),
        (HEADS, 2, 0.01),
        (VECTORS, 2, 0.0),
    ]
    optimizer = entry.build(groups, 0.1, entry.constants, 1)
    assert isinstance(optimizer, Partnered)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.arange(5)).square().sum().backward()
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.1]
    assert set(optimizer.state) == set(model.parameters())
    assert state_tensors(optimizer)[0] == ("exp_avg", "exp_avg_sq", "momentum_buffer", "step")

    # the same two by hand
    twin = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
    twin.load_state_dict(before)
    matrices = [twin[1].weight]
    others = [p for n, p in twin.named_parameters() if n != "1.weight"]
    by_hand = [
        torch.optim.Muon(matrices, lr=0.1, weight_decay=0.01),
        torch.optim.AdamW(
            [{"params": [p], "weight_decay": 0.01 if p.ndim > 1 else 0.0} for p in others], lr=0.01
        ),
    ]
    twin(torch.arange(5)).square().sum().backward()
    for each in by_hand:
        each.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_state_counts_tensors_at_any_depth_once() -> None:
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    shared = torch.zeros(3)
    optimizer.state[parameter] = {"GG": [torch.zeros(2, 2), {"deep": (shared,)}], "again": shared, "step": 1}
    assert state_tensors(optimizer) == (("GG", "again"), 4 * (4 + 3))


def test_weight_decay_that_a_class_does_not_have(classes: str, tmp_path: Path) -> None:
    (tmp_path / f"{classes}_more.py").write_text(
        "import torch\nclass Plain(torch.optim.Optimizer):\n"
        "    def __init__(self, params, lr=1e-3):\n        super().__init__(params, {'lr': lr})\n"
        "    def step(self, closure=None):\n        pass\n"
    )
    with pytest.raises(UserError, match="takes no weight decay"):
        make_sweep({"task": "sst2", "optimizers": f"{classes}_more.Plain", "weight_decay": 0.1}, None)


@pytest.mark.parametrize(("name", "number"), [("Sam", 2), ("Asks", 1), ("Searches", None)])
def test_the_trial_counts_the_gradients_of_a_step(classes: str, name: str, number: int | None) -> None:
    _, entry = find_optimizer(f"{classes}.{name}")
    assert entry.closure
    assert entry.evaluations_per_step == number


def test_a_dry_run_says_what_the_search_of_each_arm_costs(classes: str, tmp_path: Path) -> None:
    arms = f"sgd,{classes}.Sam,{classes}.Searches"
    words = ["--optimizers", arms, "--learning-rates", "0.1,0.01", "--seeds", "13,21", "--max-steps", "20"]
    words += ["--eval-every", "10", "--output-dir", str(tmp_path / "out"), "--dry-run"]
    shown = CliRunner().invoke(app, ["run", *words])
    text = " ".join(shown.stdout.split())
    assert "Search on bbc_news: sgd 4 runs, 80 gradient evaluations;" in text
    assert "4 runs, 160 gradient evaluations;" in text
    assert "4 runs, the cost of a step is known when a run is done" in text
    assert "unequal numbers of gradient evaluations are not compared" in text
    budgets = json.loads(CliRunner().invoke(app, ["run", *words, "--json"]).stdout)["budgets"]
    assert [each["n_evaluations"] for each in budgets] == [80, 160, None]
