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
    name, _ = find_optimizer("mine", path)
    inputs = pickle.dumps(Inputs("model", None, path))  # what a worker process is started with
    _offers_from_outside.cache_clear()  # and it remembers nothing
    spec = RunSpec.model_construct(optimizer=name)
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
