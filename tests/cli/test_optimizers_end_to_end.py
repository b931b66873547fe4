"""The optimizers through the real command line: a user's own, a schedule of its own, a grid that grows."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.optimizers.find_optimizer import _offers_from_outside, find_optimizer
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.training.session import Session

MINE = '''
"""SGD that counts its steps in a tensor."""

import torch

from momentum_bench import OptimizerEntry


class Counting(torch.optim.SGD):
    def __init__(self, groups, lr, threshold):
        super().__init__(groups, lr=lr)
        for group in self.param_groups:
            group["threshold"] = threshold

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", torch.zeros(())) + 1
        return super().step(closure)


OPTIMIZER = OptimizerEntry(
    "x <- x - eta g, and counts",
    lambda groups, rate, hyperparameters, seed: Counting(groups, rate, **hyperparameters),
    constants={"threshold": 0.5},
    state_tensors=lambda hyperparameters: frozenset({"count"}),
)
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_grid_grows_for_all_and_a_users_optimizer_runs(
    command_here, tiny_model: Path, toy_data: Path, mine: Path
) -> None:
    done = command_here(
        "run",
        *("--task", "sst2", "--data-dir", toy_data, "--model", tiny_model, "--output-dir", "out"),
        *("--optimizers", "sgd_matched,random_scaling,mine", "--optimizer-file", "mine.py"),
        *(
            "--learning-rates",
            "0.01",
            "--extend-grid",
            "1",
            "--runs-at-a-time",
            "1",
            "--seeds",
            "13",
            "--batch-size",
            4,
            "--k",
            "2",
        ),
        *("--max-steps", "2", "--eval-every", "1", "--lr-schedule", "constant", "--test-limit", "4"),
    )
    assert done.returncode == 0, done.stderr
    runs = {
        (r.spec.optimizer.partition("@")[0], r.spec.learning_rate): r for r in Store(mine / "out").records()
    }
    # of one rate, the best is on both edges
    assert set(runs) == {
        (o, rate) for o in ("sgd_matched", "random_scaling", "mine") for rate in (0.003, 0.01, 0.03)
    }
    assert {run.status for run in runs.values()} == {"done"}

    matched = runs["sgd_matched", 0.01]
    assert [e.learning_rate for e in matched.evaluations] == pytest.approx([0.0019, 0.001])
    scaled = runs["random_scaling", 0.03].read_back
    assert scaled is not None
    assert scaled.state_tensors == ("delta",)
    assert scaled.optimizer_state_bytes == 4 * scaled.n_trainable_parameters
    assert scaled.torch_learning_rate == pytest.approx(0.03 * 0.1 / 0.9)
    assert {group["seed"] for group in scaled.param_groups} == {13}
    own = runs["mine", 0.01]
    assert own.spec.hyperparameters == {"threshold": 0.5}
    assert own.read_back is not None
    assert own.read_back.optimizer_class.endswith("Counting")
    assert own.read_back.param_groups[0]["threshold"] == 0.5


def test_a_worker_process_finds_the_users_optimizer_or_says_that_it_changed(mine: Path) -> None:
    path = mine / "mine.py"
    name, _ = find_optimizer("mine", (path,))
    inputs = pickle.dumps(Inputs("model", None, (path,)))  # what a worker process is started with
    _offers_from_outside.cache_clear()  # and it remembers nothing
    spec = RunSpec.model_construct(optimizer=name, hyperparameters={})
    session = Session(pickle.loads(inputs), accelerator=None)  # type: ignore[arg-type]
    assert session.optimizer(spec).constants == {"threshold": 0.5}
    _offers_from_outside.cache_clear()
    path.write_text(MINE + "# edited while the sweep ran")
    with pytest.raises(UserError, match=f"optimizer {name} was asked for"):
        session.optimizer(spec)


def test_an_unknown_optimizer_writes_nothing(command_here, mine: Path) -> None:
    done = command_here(
        "run", "--optimizers", "sgd,mine2", "--optimizer-file", "mine.py", "--output-dir", "out"
    )
    assert done.returncode == 2
    assert "Did you mean mine?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (mine / "out").exists()


CLASSES = '''
import torch


class Averaging(torch.optim.SGD):
    """Scores twice the parameters that it trains, so the modes can be seen."""

    training = None

    def scale(self, factor):
        with torch.no_grad():
            for group in self.param_groups:
                torch._foreach_mul_(group["params"], factor)

    def train(self):
        if self.training is False:
            self.scale(0.5)
        self.training = True

    def eval(self):
        self.scale(2.0)
        self.training = False

    def step(self, closure=None):
        if not self.training:
            raise RuntimeError("a step in the mode of scoring")
        super().step()


class Sam(torch.optim.SGD):
    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"]]
        moves = [0.01 * p.grad for p in parameters]
        with torch.no_grad():
            torch._foreach_add_(parameters, moves)
        closure()
        with torch.no_grad():
            torch._foreach_sub_(parameters, moves)
        super().step()


class Growing(torch.optim.SGD):
    """Keeps every gradient of vectors in a list."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("history", []).append(torch.zeros(3))
        super().step()


class Lazy(torch.optim.SGD):
    def step(self, closure=None):
        pass
'''


def test_classes_by_their_paths_run_and_are_recorded_wholly(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "end_to_end_classes.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    arms = ["sgd", "sgdm:momentum=0.5", "sgdm", "torch.optim.NAdam:betas=0.8/0.9", "torch.optim.Muon"]
    arms += ["signum", "nadam", "muon"]
    arms += [f"end_to_end_classes.{name}" for name in ("Averaging", "Sam", "Growing", "Lazy")]
    small = ("--seeds", "13", "--k", "2", "--max-steps", "2", "--eval-every", "1", "--test-limit", "4")
    small += ("--batch-size", "4")
    done = command_here(
        "run",
        *("--task", "sst2", "--data-dir", toy_data, "--model", tiny_model, "--output-dir", "out"),
        *("--optimizers", ",".join(arms), "--learning-rates", "0.01", "--runs-at-a-time", "1", *small),
    )
    assert done.returncode == 1, done.stderr  # Lazy failed
    runs = list(Store(tmp_path / "out").records())
    by_name = {r.spec.optimizer.partition("@")[0].rpartition(".")[2]: r for r in runs}
    assert len(runs) == len(arms)
    assert sorted(r.spec.hyperparameters["momentum"] for r in runs if r.spec.optimizer == "sgdm") == [
        0.5,
        0.9,
    ]

    lazy = by_name.pop("Lazy")
    assert lazy.status == "failed"
    assert "returned from 2 steps without moving any parameter" in str(lazy.failure)
    assert {run.status for run in by_name.values()} == {"done"}

    nadam = by_name["NAdam"].read_back
    assert nadam is not None
    assert nadam.optimizer_class == "torch.optim.nadam.NAdam"
    assert str(nadam.optimizer_package).startswith("torch ")
    assert nadam.optimizer_arguments is not None
    assert nadam.optimizer_arguments["betas"] == (0.8, 0.9)
    assert nadam.state_tensors == ("exp_avg", "exp_avg_sq", "mu_product", "step")
    assert nadam.parameter_groups is not None
    n_tensors = by_name["Growing"].read_back.optimizer_state_bytes // 12
    # two moments of each parameter, and two scalars of each tensor
    assert nadam.optimizer_state_bytes == 8 * nadam.n_trainable_parameters + 8 * n_tensors

    muon = by_name["Muon+adamw"].read_back
    assert muon is not None
    assert [group["role"] for group in muon.param_groups] == [
        *("hidden matrices", "embeddings and heads", "vectors and others")
    ]
    assert any("embedding" in name for name in muon.parameter_groups[1])
    assert not any("embedding" in name for name in muon.parameter_groups[0])

    growing = by_name["Growing"].read_back
    assert growing.state_tensors == ("history",)
    assert growing.final_state_bytes == 2 * growing.optimizer_state_bytes
    # scored with other parameters than the same steps without modes, and trained with the same
    assert by_name["Averaging"].parameters_hash != by_name["Growing"].parameters_hash
    losses = [[e.train_loss for e in by_name[name].evaluations] for name in ("Averaging", "Growing")]
    assert losses[0] == losses[1]
    assert by_name["Sam"].costs.forward_backward_passes == 4
    assert by_name["NAdam"].costs.forward_backward_passes is None

    checked = command_here("leaderboard", "check", "out")
    assert "1 departure(s)" in checked.stderr, checked.stdout + checked.stderr
    assert "Lazy" in checked.stdout
    again = command_here(
        "run",
        *("--task", "sst2", "--data-dir", toy_data, "--model", tiny_model, "--output-dir", "out"),
        *("--optimizers", ",".join(arms), "--learning-rates", "0.01", "--runs-at-a-time", "1", *small),
    )
    assert f"{len(arms)} of them already there" in again.stderr


def test_what_cannot_be_run_writes_nothing(command_here, tmp_path: Path) -> None:
    for arm, reason in (("torch.optim.Nadam", "Did you mean NAdam?"), ("torch.optim.SparseAdam", "dense")):
        done = command_here("run", "--optimizers", arm, "--output-dir", "out")
        assert done.returncode == 2
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()
