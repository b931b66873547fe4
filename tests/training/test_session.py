"""What a process keeps between runs, and how it tells tasks of text from tasks of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from momentum_bench.harness.data.images import load_image_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models import files
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.training import session as session_module
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from momentum_bench.tasks import get_task
from tests.helpers.runs import spec_for

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.mark.parametrize(
    "change", [{"seed": 21}, {"k": 6}, {"method": "prompt"}, {"test_limit": 7}, {"peft": "prompt"}]
)
def test_a_split_is_kept_for_the_runs_that_it_is_the_split_of(session: Session, change: dict[str, Any]):
    first = session.split(spec_for(session))
    assert session.split(spec_for(session, learning_rate=3.0, optimizer="sgdm")) is first
    other = session.split(spec_for(session, **change))
    assert other is not first
    assert (other.test is first.test) == (change.keys() <= {"seed", "k"})  # all seeds share the test rows
    assert session.split(spec_for(session)) is first


@pytest.mark.parametrize(
    "change",
    [{"method": "prompt"}, {"dropout": 0.2}, {"peft": "lora"}, {"freeze": "embeddings"}],
)
def test_a_model_is_kept_for_the_runs_that_ask_for_the_same(session: Session, change: dict[str, Any]):
    first = session.loaded(spec_for(session))
    assert session.loaded(spec_for(session, seed=21, weight_decay=0.1)) is first
    other = session.loaded(spec_for(session, **change))
    assert other is not first
    assert session.loaded(spec_for(session, **change, seed=21)) is other


def own_digits(monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A spec of a run on an image task that is a user's own, found under its name."""
    digits = get_task("digits")
    own = digits.model_copy(update={"name": "own_digits", "mean": (0.4,)})

    def find(name: str, task_file: Path | None = None):
        assert (name, task_file) == (own.name, Path("own.py"))
        return own

    monkeypatch.setattr(session_module, "find_task", find)
    monkeypatch.setattr(files, "find_task", find)
    asked = {"task": "digits", "k": 5, "max_steps": 4, "eval_every": 2, "seeds": "13", "optimizers": "sgd"}
    source = files.resolve_model("task:own_digits", Path("own.py"))
    sweep = make_sweep(asked | {"learning_rates": "0.1"}, None)
    [spec] = plan(sweep, [load_image_data(own, None)], source.name, source.revision)
    return spec


def test_a_users_own_image_task_is_trained_and_scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    spec = own_digits(monkeypatch)
    assert (spec.task, spec.model) == ("own_digits", "task:own_digits")
    session = Session(Inputs(spec.model, None, task_file=Path("own.py")), make_accelerator("fp32"))
    record = finetune(spec, session, Journal(tmp_path / "evaluations.jsonl"))
    assert record.status == "done"
    assert record.test is not None
    assert record.read_back is not None
    assert record.read_back.layout["inputs"] == "images"
    assert record.dev is not None
    assert record.best is not None
    n_right = sum(a == b for a, b in zip(record.dev.labels, record.dev.predictions, strict=True))
    assert record.best.dev_metric == n_right / len(record.dev.labels)
    assert [e.step for e in record.evaluations] == [2, 4]


def test_a_network_is_that_of_an_image_task():
    with pytest.raises(UserError, match=r"--model task:sst2: sst2 is a task of text.*pre-trained model"):
        files.resolve_model("task:sst2")
