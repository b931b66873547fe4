from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.exchanged_forward import is_exchanged
from momentum_bench.harness.models.trainable import trained_state
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training import finetune as loop
from momentum_bench.harness.training import steps
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.vocabulary_rows import WHOLE_TABLES, UsedElsewhereError, reached_rows
from tests.helpers.gpu import a_gpu
from tests.helpers.runs import spec_for


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.fixture
def run(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return run_in(session, tmp_path, monkeypatch)


def run_in(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A run and the parameters that it leaves; `apart` False trains whole tables."""

    def call(apart: bool = True, **changes: Any) -> tuple[RunRecord, dict[str, torch.Tensor]]:
        with monkeypatch.context() as patch:
            if not apart:
                patch.setattr(loop, "reached_rows", lambda *_: contextlib.nullcontext(WHOLE_TABLES))
            record = finetune(spec_for(session, **changes), session, Journal(tmp_path / "run" / "e.jsonl"))
        model = session.loaded(record.spec).model
        tables = (model.get_input_embeddings(), model.get_output_embeddings())
        assert not any(is_exchanged(table) for table in tables if table is not None)
        return record, {name: value.detach().clone() for name, value in trained_state(model).items()}

    return call


def sizes(session: Session, **changes: Any) -> list[int]:
    """How many rows of each table are trained apart."""
    spec = spec_for(session, **changes)
    model = session.loaded(spec).model
    with reached_rows(spec, session.parts(spec)) as reached:
        pairs = zip(reached.parameters(model), model.named_parameters(), strict=True)
        return [len(used) for (_, used), (_, parameter) in pairs if used is not parameter]


@pytest.mark.parametrize(
    ("optimizer", "method", "accumulation", "dropout"),
    [
        ("sgd", "head", 1, 0.1),
        ("sgd", "prompt", 2, 0.1),
        ("sgd", "prompt", 1, 0.0),
        ("sgd_matched", "head", 2, 0.0),
        ("signsgd", "prompt", 1, 0.1),
    ],
)
def test_a_run_is_the_one_that_trains_whole_tables(
    run, optimizer: str, method: str, accumulation: int, dropout: float
):
    # small, for rounding is all that may differ and steps that overshoot multiply it
    rate = 1e-4 if optimizer == "signsgd" else 0.01
    momentum = {"momentum": 0.9} if optimizer == "sgd_matched" else {}
    changes = {"optimizer": optimizer, "method": method, "learning_rate": rate, "dropout": dropout}
    changes |= {"hyperparameters": momentum, "gradient_accumulation_steps": accumulation}
    (apart, parameters), (whole, expected) = run(**changes), run(apart=False, **changes)
    assert [e.train_loss for e in apart.evaluations] == pytest.approx(
        [e.train_loss for e in whole.evaluations], abs=1e-6
    )
    assert apart.test.predictions == whole.test.predictions
    assert apart.clipped_fraction == whole.clipped_fraction
    assert apart.read_back == whole.read_back
    for name, value in parameters.items():
        if optimizer == "signsgd" and name.endswith("key.bias"):
            continue  # its gradient is 0 but for rounding, of which the sign is taken
        torch.testing.assert_close(
            value, expected[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_of_a_decoder_with_an_output_of_its_own_the_label_words_are_trained(
    tiny_decoder: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = shutil.copytree(tiny_decoder, tmp_path / "untied")
    config = AutoConfig.from_pretrained(folder, tie_word_embeddings=False)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    session = Session(Inputs(str(folder), toy_data), make_accelerator("fp32"))
    changes = {"optimizer": "sgd", "method": "causal", "learning_rate": 0.01}
    train = session.split(spec_for(session, **changes)).train
    assert sizes(session, **changes)[-1] == len(train.words) == 2
    run = run_in(session, tmp_path, monkeypatch)
    (apart, parameters), (whole, expected) = run(**changes), run(apart=False, **changes)
    assert apart.test.predictions == whole.test.predictions
    for name, value in parameters.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    moved = (parameters["lm_head.weight"] != session.loaded(apart.spec).pristine["lm_head.weight"]).any(dim=1)
    assert set(moved.nonzero()[:, 0].tolist()) == set(train.words)


@pytest.mark.parametrize("method", ["head", "prompt"])
def test_only_rows_that_are_reached_move_and_all_of_them_do(run, session: Session, method: str):
    record, parameters = run(optimizer="sgd", method=method, learning_rate=0.3)
    loaded, split = session.loaded(record.spec), session.split(record.spec)
    tables = {loaded.model.get_input_embeddings(): set().union(*split.train.input_ids)}
    if method == "prompt":
        tables[loaded.model.get_output_embeddings()] = set(split.train.words)
    names = {id(parameter): name for name, parameter in loaded.model.named_parameters()}
    for module, reached in tables.items():
        name = names[id(module.weight)]
        moved = (parameters[name] != loaded.pristine[name]).any(dim=1).nonzero()[:, 0].tolist()
        assert set(moved) <= reached
        assert len(moved) > 1
        assert len(reached) < len(module.weight) / 2  # else there would be little to leave out


def test_momentum_zero_is_sgd_to_the_bit(run):
    sgd, sgdm = (run(optimizer=o, hyperparameters=h) for o, h in (("sgd", {}), ("sgdm", {"momentum": 0.0})))
    assert sgd[0].parameters_hash == sgdm[0].parameters_hash


def test_which_tables_are_set_apart(session: Session):
    assert len(sizes(session, optimizer="sgd", method="head")) == 1
    assert sizes(session, optimizer="sgd", method="prompt")[1] == 2  # two label words
    assert sizes(session, optimizer="sgd", freeze="embeddings") == []


@pytest.mark.parametrize("changes", [{"optimizer": "sgdm"}, {"optimizer": "sgd", "weight_decay": 0.1}])
def test_what_moves_other_rows_too_trains_whole_tables(session: Session, changes: dict[str, Any]):
    assert sizes(session, **changes) == []


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if entry.still_at_zero])
def test_an_element_without_gradient_stays_where_it_is(name: str):
    entry, hyperparameters = OPTIMIZERS[name], {"momentum": 0.9}
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, -3.0]))
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    optimizer = entry.build(groups, 0.5, {h: hyperparameters[h] for h in entry.hyperparameters}, 1)
    for _ in range(5):
        parameter.grad = torch.tensor([0.3, 0.0, -0.1])
        optimizer.step()
    assert parameter[1] == 2.0
    assert parameter[0] != 1.0


def test_a_table_that_two_modules_share_is_trained_whole(session: Session):
    spec = spec_for(session, optimizer="sgd", method="prompt")
    model = session.loaded(spec).model
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    assert sizes(session, optimizer="sgd", method="prompt") == []


def test_a_token_that_no_example_has_is_an_error(session: Session):
    spec = spec_for(session, optimizer="sgd", method="head")
    model = session.loaded(spec).model
    model.train()
    embedding = model.get_input_embeddings()
    other = next(iter(set(range(len(embedding.weight))) - set().union(*session.split(spec).train.input_ids)))
    with reached_rows(spec, session.parts(spec)), pytest.raises(IndexError):
        embedding(torch.tensor([[other + 1 if other == 0 else other]]))
    assert embedding(torch.tensor([[other]])).shape[:2] == (1, 1)


def test_a_table_that_is_used_elsewhere_too_is_trained_whole(run, session: Session, monkeypatch):
    """A loss that reads a table past its module: the run starts over with whole tables."""
    spec = spec_for(session, optimizer="sgd", method="head")
    model = session.loaded(spec).model
    true_logits, seen = steps.logits, []

    def logits(loaded, batch):
        scores = true_logits(loaded, batch)
        return scores + loaded.model.get_input_embeddings().weight.sum()

    def tables(*given: Any):
        seen.append("apart")
        return reached_rows(*given)

    monkeypatch.setattr(steps, "logits", logits)
    monkeypatch.setattr(loop, "reached_rows", tables)
    record, parameters = run(optimizer="sgd", method="head")
    assert seen == ["apart"]
    whole, expected = run(apart=False, optimizer="sgd", method="head")
    assert record.parameters_hash == whole.parameters_hash
    assert all(torch.equal(parameters[name], expected[name]) for name in expected)
    assert model is session.loaded(spec).model


def test_gradients_past_a_table_are_found():
    table = SimpleNamespace(
        module=nn.Embedding(2, 2), rows=SimpleNamespace(grad=None), table=SimpleNamespace(grad=None)
    )
    with pytest.raises(UsedElsewhereError, match="Embedding is not the only use"):
        type(WHOLE_TABLES)([table]).check()


def test_on_a_gpu_a_token_that_no_example_has_gives_nan_and_no_device_assert(
    tiny_model: Path, toy_data: Path
):
    """A device assert would end all work in the process."""
    with a_gpu():
        session = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
        spec = spec_for(session, optimizer="sgd", method="head")
        model = session.loaded(spec).model
        model.train()
        embedding = model.get_input_embeddings()
        known = set().union(*session.split(spec).train.input_ids)
        other = max(set(range(len(embedding.weight))) - known)
        with reached_rows(spec, session.parts(spec)):
            ids = torch.tensor([[min(known), other]], device="cuda")
            found = embedding(ids).isnan().all(dim=2).tolist()
        assert found == [[False, True]]
    AcceleratorState._reset_state(reset_partial_state=True)
