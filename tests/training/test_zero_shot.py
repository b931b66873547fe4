"""Without training: the pre-trained model's own scores, as a row beside those of trained ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.schema import NO_OPTIMIZER, RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal, Store
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.scoring import score
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.zero_shot import zero_shot
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.tasks import get_task
from tests.helpers.runs import spec_for
from tests.helpers.specs import make_record


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


def planned(rows: Path, **flags) -> list[RunSpec]:
    sweep = make_sweep({"task": "sst2", "k": 4, "max_steps": 0} | flags, None)
    return plan(sweep, [load_task_data(get_task("sst2"), rows)], "model", "revision")


def test_there_is_one_run_a_task_and_seed(toy_data: Path):
    specs = planned(toy_data, seeds="13,21", optimizers="sgd,sgdm,adamw", learning_rates="1e-3,1e-2")
    assert [(s.seed, s.optimizer, s.learning_rate) for s in specs] == [(13, "none", 0), (21, "none", 0)]
    assert [s.run_id for s in planned(toy_data, seeds="13,21")] == [s.run_id for s in specs]


def run(session: Session, tmp_path: Path, **changes) -> RunRecord:
    fields = {"method": "prompt", "max_steps": 0, "optimizer": NO_OPTIMIZER, "learning_rate": 0.0}
    spec = spec_for(session, **fields | changes)
    return zero_shot(spec, session, Journal(tmp_path / "run" / "evaluations.jsonl"))


def test_the_model_is_scored_as_it_was_pre_trained(session: Session, tmp_path: Path):
    record = run(session, tmp_path)
    loaded = session.loaded(record.spec)
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, loaded.pristine[name])
    assert record.parameters_hash == hash_of({n: p.detach() for n, p in loaded.model.named_parameters()})
    words = session.objective(record.spec)
    split = session.split(record.spec)
    test = score(loaded, split.test, words, "accuracy", 0, session.accelerator)
    assert record.test is not None
    assert (record.test.metric, record.test.loss) == (test.metric, test.loss)
    assert record.test.predictions == tuple(test.predictions)
    assert record.test.labels == tuple(split.test.labels)
    [evaluation] = record.evaluations
    dev = score(loaded, split.dev, words, "accuracy", 0, session.accelerator)
    assert (evaluation.step, evaluation.train_loss) == (0, None)
    assert (evaluation.dev_metric, evaluation.dev_loss) == (dev.metric, dev.loss)
    assert record.best == evaluation
    assert record.dev is not None
    assert record.dev.predictions == tuple(dev.predictions)
    assert record.dev.labels == tuple(split.dev.labels)
    back = record.read_back
    assert back is not None
    assert (back.optimizer_class, back.n_trainable_parameters, back.trained) == ("none", 0, ())
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


def test_it_is_the_same_after_a_run_that_trained(session: Session, tmp_path: Path):
    alone = run(session, tmp_path)
    trained = spec_for(session, method="prompt", learning_rate=1.0, max_steps=2)
    finetune(trained, session, Journal(tmp_path / "other" / "evaluations.jsonl"))
    again = run(session, tmp_path)
    assert again.model_copy(update={"costs": None}) == alone.model_copy(update={"costs": None})


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"max_steps": 0}, "optimizer sgd, max_steps 0"),
        ({"optimizer": NO_OPTIMIZER}, "optimizer none, max_steps 6"),
        ({"optimizer": NO_OPTIMIZER, "max_steps": 0}, "learning_rate 0.1, expected above 0, or 0 without"),
        ({"optimizer": NO_OPTIMIZER, "max_steps": 0, "learning_rate": 0}, "something was trained"),
    ],
)
def test_a_record_that_mixes_the_two_is_found(tmp_path: Path, changes: dict, wrong: str):
    store = Store(tmp_path)
    store.open()
    store.write(make_record(**{"task_version": get_task("sst2").version} | changes))
    assert any(wrong in line for line in departures(tmp_path))
