"""Activations that are computed again: the same numbers, and less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.activations import checkpoint_activations, n_checkpointed
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.seeds import batch_indices
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.session import Session
from tests.helpers.runs import spec_for

KINDS = [
    ("tiny_model", {"method": "prompt"}),
    ("tiny_model", {"method": "head"}),
    ("tiny_decoder", {"method": "causal"}),
    ("tiny_decoder", {"method": "head"}),
    ("tiny_model", {"method": "prompt", "peft": "lora"}),
    ("tiny_model", {"method": "head", "peft": "prompt"}),
    ("tiny_model", {"method": "prompt", "gradient_accumulation_steps": 2}),
    ("tiny_model", {"method": "head", "freeze": "embeddings"}),
]


@pytest.fixture
def session(request: pytest.FixtureRequest, toy_data: Path) -> Any:
    def make(model: str) -> Session:
        return Session(Inputs(str(request.getfixturevalue(model)), toy_data), make_accelerator("fp32"))

    return make


@pytest.mark.parametrize(
    ("model", "kind", "packed"),
    [*((model, kind, True) for model, kind in KINDS), *((model, kind, False) for model, kind in KINDS[:3])],
    ids=str,
)
def test_a_run_is_the_same_to_the_bit(
    model: str, kind: dict, packed: bool, session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With dropout, whose masks the second pass must draw again."""
    if not packed:
        monkeypatch.setattr(
            "momentum_bench.harness.training.text_setup.with_packing", lambda loaded, *_, **__: loaded
        )
    here = session(model)
    records: list[RunRecord] = []
    for again in (None, True):
        spec = spec_for(here, **kind, dropout=0.2, max_steps=6, checkpoint_activations=again)
        records.append(finetune(spec, here, Journal(tmp_path / "run" / "evaluations.jsonl")))
    kept, computed = records
    assert computed.evaluations == kept.evaluations
    assert computed.parameters_hash == kept.parameters_hash
    assert computed.test == kept.test
    assert computed.spec.run_id != kept.spec.run_id
    layouts = [record.read_back.layout for record in records if record.read_back]
    assert layouts[1].pop("layers_computed_again") == here.loaded(spec).model.config.num_hidden_layers
    assert layouts[0] == layouts[1]


def saved_bytes(session: Session, **changes: Any) -> int:
    """Bytes that the forward pass of one batch keeps for the backward pass, the parameters left out."""
    spec = spec_for(session, method="head", **changes)
    parts = session.parts(spec)
    parts.loaded.model.train()
    rows = batch_indices(spec.seed, 0, len(parts.split.train.labels), spec.batch_size)
    parameters = {p.data_ptr() for p in parts.loaded.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = logits(parts.loaded, parts.training_batch(rows, parts.loaded.packing))
    assert scores.requires_grad
    return sum(kept.values())


def test_less_is_kept(session: Any):
    here = session("tiny_model")
    assert saved_bytes(here, checkpoint_activations=True) < 0.6 * saved_bytes(here)


def test_a_model_without_such_layers_is_refused(session: Any):
    model = session("tiny_model").loaded(spec_for(session("tiny_model"))).model
    type(model).supports_gradient_checkpointing, before = False, type(model).supports_gradient_checkpointing
    try:
        with pytest.raises(UserError, match=r"--checkpoint-activations: .* has no layers that can do this"):
            checkpoint_activations(model)
    finally:
        type(model).supports_gradient_checkpointing = before
    assert n_checkpointed(model) == 0


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"task": "digits"}, "Leave out --checkpoint-activations"),
        ({"task": "sst2", "max_steps": 0}, "--checkpoint-activations does not go with --max-steps 0"),
        ({"task": "sst2", "cuda_graphs": True}, "does not go with --cuda-graphs"),
        ({"task": "sst2", "peft": "prefix"}, "does not go with --peft prefix"),
    ],
)
def test_what_does_not_go_together_is_said(others: dict, message: str):
    with pytest.raises(UserError, match=message):
        make_sweep({"checkpoint_activations": True, **others}, None)
