from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    DistilBertConfig,
    GPTNeoXConfig,
    MistralConfig,
)

from momentum_bench.harness.encoding import packed_rows
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models import packed_attention
from momentum_bench.harness.models.forward import read
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.packing import with_packing
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training import text_setup
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from momentum_bench.leaderboards.build import board_of
from tests.helpers.models import BERT, LLAMA, ROBERTA, SIZES, built, sequences
from tests.helpers.runs import spec_for

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
DISTILBERT = DistilBertConfig(
    **SIZES
    | {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0}
    | {"attention_dropout": 0.0, "seq_classif_dropout": 0.0}
)
NEOX = GPTNeoXConfig(**SIZES | {"bos_token_id": 2, "eos_token_id": 3})
WINDOWED = MistralConfig(
    **SIZES | {"num_key_value_heads": 2, "sliding_window": 8, "bos_token_id": 2, "eos_token_id": 3}
)
PACKABLE = [
    (BERT, "prompt", "rows read"),
    (BERT, "head", "rows read"),
    (ROBERTA, "prompt", "rows read"),
    (ROBERTA, "head", "rows read"),
    (DISTILBERT, "prompt", "all rows"),
    (DISTILBERT, "head", "all rows"),
    (LLAMA, "causal", "rows read"),
    (LLAMA, "head", "rows read"),
    (NEOX, "causal", "all rows"),
    (NEOX, "head", "all rows"),
]
NAMES = [f"{type(config).__name__}-{method}" for config, method, _ in PACKABLE]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize(("config", "method", "last_layer"), PACKABLE, ids=NAMES)
def test_packed_scores_and_gradients_are_the_padded_ones(config, method: str, last_layer: str, tokenizer):
    loaded = built(config, method, tokenizer)
    assert loaded.packing is not None, loaded.why_padded
    assert loaded.packing.last_layer == last_layer
    encoded, model = sequences(method), loaded.model
    found = []
    for layout in (None, loaded.packing):
        scores = read(loaded, encoded.batch(range(6), config.pad_token_id, CPU, layout))
        weights = torch.linspace(-1, 1, scores.numel()).view_as(scores)
        # what reaches no score has no gradient in either layout
        gradients = torch.autograd.grad(
            (scores * weights).mean(), list(model.parameters()), allow_unused=True
        )
        found.append((scores.detach(), gradients))
    (padded, padded_gradients), (packed, packed_gradients) = found
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)
    for (name, _), ours, theirs in zip(
        model.named_parameters(), packed_gradients, padded_gradients, strict=True
    ):
        if ours is None or theirs is None:
            assert not (ours if theirs is None else theirs).any() if ours is not theirs else True, name
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("config", "method"),
    [(BERT, "head"), (ROBERTA, "prompt"), (LLAMA, "causal")],
    ids=["bert", "roberta", "llama"],
)
def test_twenty_steps_without_padding_give_the_losses_of_twenty_with(
    config, method: str, momentum: float, rate: float, tokenizer
):
    encoded = sequences(method, 16)
    losses: dict[bool, list[float]] = {}
    for packed in (False, True):
        loaded = built(config, method, tokenizer)
        optimizer = torch.optim.SGD(loaded.model.parameters(), lr=rate * (1 - momentum), momentum=momentum)
        loaded.model.train()
        losses[packed] = []
        for step in range(20):
            rows = [(step * 4 + i) % 16 for i in range(4)]
            batch = encoded.batch(rows, config.pad_token_id, CPU, loaded.packing if packed else None)
            scores = read(loaded, batch)
            # the same task in every method: one of two tokens or classes, by the label of the sequence
            read_of = [len((encoded.read_at or [[0]] * 16)[row]) for row in rows]
            labels = torch.repeat_interleave(batch.labels, torch.tensor(read_of))
            loss = nn.functional.cross_entropy(scores, labels)
            loss.backward()
            nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses[packed].append(loss.item())
    assert losses[True] == pytest.approx(losses[False], abs=1e-4)
    assert max(losses[True]) - min(losses[True]) > 1e-3  # something was learned, so something was compared


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (WINDOWED, "MistralAttention uses sliding_window"),
        (AlbertConfig(**SIZES | {"embedding_size": 16}), "no one list of its layers"),
    ],
)
def test_what_cannot_be_packed_is_padded_and_says_why(config, why: str, tokenizer):
    loaded = built(config, "head", tokenizer)
    assert loaded.packing is None
    assert why in loaded.why_padded
    assert loaded.model.config._attn_implementation == "sdpa"
    assert "forward" not in vars(list(loaded.model.modules())[-1])


def test_a_model_whose_packed_scores_differ_is_padded(tokenizer, monkeypatch: pytest.MonkeyPatch):
    def across_sequences(query, key, value, how):
        return nn.functional.scaled_dot_product_attention(query, key, value, scale=how.scaling)

    monkeypatch.setattr(packed_attention, "_one_by_one", across_sequences)
    loaded = built(BERT, "prompt", tokenizer)
    assert loaded.packing is None
    assert "packed scores are not the padded ones" in loaded.why_padded


def test_a_model_that_took_packed_rows_and_fails_a_later_trial_is_padded(
    tokenizer, monkeypatch: pytest.MonkeyPatch
):
    """As where what was tried on the CPU is tried again on the devices of several ranks."""
    loaded = built(BERT, "prompt", tokenizer)
    assert loaded.packing is not None
    batch = sequences("prompt").batch(range(6), BERT.pad_token_id, CPU)
    before = read(loaded, batch)
    monkeypatch.setattr(packed_attention, "_one_by_one", lambda query, *_: query)
    again = with_packing(loaded, tokenizer, is_head=False)
    assert again.packing is None
    assert "packed scores are not the padded ones" in again.why_padded
    assert torch.equal(read(again, batch), before)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows_read", [False, True])
def test_attention_is_the_same_one_by_one_and_side_by_side(rows_read: bool, causal: bool):
    torch.manual_seed(0)
    segments = packed_rows.Segments((3, 7, 1), ((2,), (0, 3, 6), (0,)), CPU)
    n = 5 if rows_read else 11
    query, key, value = torch.randn(1, 4, n, 8), torch.randn(1, 2, 11, 8), torch.randn(1, 2, 11, 8)
    ways = (packed_attention._one_by_one, packed_attention._side_by_side)
    how = packed_attention.Attention(segments, rows_read, causal, dropout=0.0, scaling=None)
    one, side = (way(query, key, value, how) for way in ways)
    assert one.shape == (1, 4, n, 8)
    torch.testing.assert_close(one, side)


def test_a_deep_copy_computes_with_its_own_parameters(tokenizer):
    loaded = built(BERT, "head", tokenizer)
    batch = sequences("head").batch(range(3), 0, CPU, loaded.packing)
    before = read(loaded, batch)
    other = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(read(loaded, batch), before)
    assert not read(LoadedModel(other, {}, (), None), batch).any()


@pytest.fixture
def runs(tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def call(packed: bool, **changes: Any) -> list[RunRecord]:
        with monkeypatch.context() as patch:
            if not packed:
                patch.setattr(text_setup, "with_packing", lambda loaded, *_, **__: loaded)
            session = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
            grid = [
                spec_for(session, optimizer=o, learning_rate=r, seed=s, **{"dropout": 0.0} | changes)
                for o in ("sgd", "sgdm")
                for r in (1e-3, 1e-2)
                for s in (13, 21)
            ]
            return [finetune(spec, session, Journal(tmp_path / "r" / "e.jsonl")) for spec in grid]

    return call


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt", pytest.param("head", marks=pytest.mark.slow)])
def test_a_grid_without_padding_selects_what_the_padded_grid_selects(runs: Callable, method: str):
    padded, packed = runs(False, method=method), runs(True, method=method)
    for a, b in zip(padded, packed, strict=True):
        assert (a.read_back.layout["padding"], b.read_back.layout["padding"]) == ("dynamic", "none")
        assert [e.train_loss for e in b.evaluations] == pytest.approx(
            [e.train_loss for e in a.evaluations], abs=1e-4
        )
        assert b.test.predictions == a.test.predictions
    chosen = [
        [
            (row.label, seed, run.spec.learning_rate)
            for row in board_of(r).rows
            for seed, run in row.chosen.items()
        ]
        for r in (padded, packed)
    ]
    assert chosen[0] == chosen[1]


@pytest.mark.slow
def test_rows_of_another_layout_are_never_merged(runs: Callable):
    padded, packed = runs(False), runs(True)
    mixed = [a if a.spec.seed == 13 else b for a, b in zip(padded, packed, strict=True)]
    assert len(board_of(packed).rows) == 2
    assert len(board_of(mixed).rows) == 4
