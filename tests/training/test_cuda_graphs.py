"""Recorded steps, with a recorder that does its work again; `test_on_a_gpu.py` has graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.prepare import prepare
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.forward import read
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training import cuda_graphs
from momentum_bench.harness.training.cuda_graphs import check_recordable, rounded
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from tests.helpers.models import BERT, LLAMA, ROBERTA, built, sequences
from tests.helpers.runs import spec_for

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
ADAMW = {"optimizer": "adamw", "hyperparameters": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}}


class Again:
    """Does recorded work anew, and leaves its results where the first time left them, as a graph does."""

    recorded: list[int]

    def __init__(self) -> None:
        Again.recorded = []

    def run(self, work: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        results = work()
        self.n_results = len(results)
        return results

    def record(self, work: Callable[[], tuple[torch.Tensor, ...]]):
        number, places = len(self.recorded), [torch.full((), torch.nan) for _ in range(self.n_results)]
        self.recorded.append(0)

        def replay() -> None:
            self.recorded[number] += 1
            for place, result in zip(places, work(), strict=True):
                place.copy_(result)

        return replay, tuple(places)


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.fixture
def run(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunRecord]:
    def call(**changes: Any) -> RunRecord:
        monkeypatch.setattr(cuda_graphs, "Recorder", Again)
        changes = {"max_steps": 12, "eval_every": 1, "learning_rate": 0.03, "dropout": 0.0} | changes
        return finetune(spec_for(session, **changes), session, Journal(tmp_path / "run" / "e.jsonl"))

    return call


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("steps", [(64, 16), (7, 5), (1, 1)])
@pytest.mark.parametrize(("config", "method"), [(BERT, "prompt"), (ROBERTA, "head"), (LLAMA, "head")])
def test_filler_changes_neither_scores_nor_gradients(config, method: str, steps: tuple[int, int], tokenizer):
    loaded: LoadedModel = built(config, method, tokenizer)
    packing = rounded(loaded.packing)
    assert packing.steps == cuda_graphs.ROUNDED_TO
    packing = type(packing)(**vars(packing) | {"steps": steps})
    encoded, found = sequences(method), []
    for layout in (loaded.packing, packing):
        batch = encoded.batch(range(6), config.pad_token_id, CPU, layout)
        scores = read(loaded, batch)
        weights = torch.linspace(-1, 1, scores.numel()).view_as(scores)
        gradients = torch.autograd.grad(
            (scores * weights).mean(), list(loaded.model.parameters()), allow_unused=True
        )
        found.append((batch.inputs, scores.detach(), gradients))
    (plain, scores, gradients), (filled, of_filled, gradients_of_filled) = found
    n = plain["input_ids"].shape[1]
    assert filled["input_ids"].shape[1] == n + -n % steps[0]
    assert filled["segments"].longest % steps[1] == 0
    torch.testing.assert_close(of_filled, scores, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(gradients_of_filled, gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "method", "max_grad_norm"),
    [("sgd", "head", 1.0), ("sgd", "prompt", None), ("sgdm", "prompt", 0.01), ("nesterov", "head", None)],
)
def test_a_recorded_run_is_the_one_that_launches_each_step(
    run, optimizer: str, method: str, max_grad_norm: float | None
):
    momentum = {} if optimizer == "sgd" else {"momentum": 0.9}
    changes = {"optimizer": optimizer, "hyperparameters": momentum, "method": method}
    changes["max_grad_norm"] = max_grad_norm
    plain, recorded = run(**changes), run(cuda_graphs=True, **changes)
    for a, b in zip(plain.evaluations, recorded.evaluations, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, abs=1e-4)
        assert b.dev_loss == pytest.approx(a.dev_loss, abs=1e-4)
        assert b.learning_rate == a.learning_rate
    assert recorded.test.predictions == plain.test.predictions
    assert recorded.clipped_fraction == plain.clipped_fraction
    losses = [e.train_loss for e in recorded.evaluations]
    assert max(losses) - min(losses) > 1e-2  # batches differ, so that the first one's would show


def test_what_a_recorded_run_says_of_itself(run):
    plain, recorded = (run(optimizer="sgdm", cuda_graphs=asked) for asked in (None, True))
    assert recorded.read_back.layout == plain.read_back.layout | {"recorded_steps": cuda_graphs.LAYOUT}
    assert all(group["fused"] for group in recorded.read_back.param_groups)
    assert recorded.read_back.param_groups[0]["lr"] == pytest.approx(0.03 * 0.1)
    assert recorded.read_back.torch_learning_rate == plain.read_back.torch_learning_rate
    assert recorded.read_back.state_tensors == ("momentum_buffer",)
    assert recorded.read_back.optimizer_state_bytes == plain.read_back.optimizer_state_bytes
    assert recorded.spec.run_id != plain.spec.run_id


def test_a_shape_is_recorded_when_it_is_seen_again(run):
    run(cuda_graphs=True, max_steps=20)
    assert Again.recorded  # of 20 steps some shape came three times
    assert max(Again.recorded) > 1
    assert sum(Again.recorded) < 20  # the first batch of each was trained on as it came


def test_a_loss_that_is_not_finite_ends_a_recorded_run(run):
    record = run(cuda_graphs=True, learning_rate=1e30, max_grad_norm=None)
    assert record.status == "diverged"
    assert record.test is None


@pytest.mark.parametrize(
    ("changes", "seen", "message"),
    [
        (ADAMW, {}, "adamw is not torch's SGD"),
        ({}, {"candidates": [2, 3]}, "head differ in their number of sequences"),
        ({}, {"packing": None, "why_padded": "as an example"}, r"not packed \(as an example\)"),
        ({}, {"device": torch.device("cpu")}, "this runs on cpu, without a GPU"),
    ],
)
def test_what_cannot_be_recorded_is_refused(session: Session, changes: dict, seen: dict, message: str):
    spec = spec_for(session, cuda_graphs=True, **changes)
    train = dataclasses.replace(session.split(spec).train, candidates=seen.get("candidates"))
    packing = {name: value for name, value in seen.items() if name in ("packing", "why_padded")}
    on_gpu = SimpleNamespace(
        accelerator=SimpleNamespace(device=seen.get("device", torch.device("cuda"))),
        optimizer=session.optimizer,
        split=lambda spec: SimpleNamespace(train=train),
        loaded=lambda spec: dataclasses.replace(session.loaded(spec), **packing),
    )
    with pytest.raises(UserError, match=f"--cuda-graphs: .*{message}.*: leave the flag out"):
        check_recordable(spec, on_gpu)
    check_recordable(spec.model_copy(update={"cuda_graphs": None}), on_gpu)


@pytest.mark.parametrize("optimizer", ["sgd", "sgdm", "sgd_matched", "nesterov"])
def test_all_that_are_torch_s_sgd_can_be_recorded(session: Session, optimizer: str):
    momentum = {} if optimizer == "sgd" else {"momentum": 0.9}
    spec = spec_for(session, cuda_graphs=True, optimizer=optimizer, hyperparameters=momentum)
    on_gpu = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cuda")),
        optimizer=session.optimizer,
        split=session.split,
        loaded=session.loaded,
    )
    check_recordable(spec, on_gpu)


def test_a_sweep_that_asks_for_it_without_a_gpu_ends_before_it_trains(session: Session):
    spec = spec_for(session, cuda_graphs=True)
    with pytest.raises(UserError, match="--cuda-graphs: this runs on cpu"):
        prepare([spec], session.inputs, "fp32")
