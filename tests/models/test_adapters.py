"""Adapters and frozen parts: what is trained, from where, and that nothing else moves."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.adapters import (
    PREFIX_TOKENS,
    PROMPT_TOKENS,
    PromptedEncoder,
    draw_adapter,
    with_adapter,
)
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.pretrained import load_model
from momentum_bench.harness.models.trainable import choose_trainable
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Journal, Store
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.session import Session
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.reproduce import sweep_text
from momentum_bench.leaderboards.rows import rows_of
from momentum_bench.tasks import get_task
from tests.helpers.runs import spec_for
from tests.helpers.specs import make_spec

ADAPTERS = ("lora", "prefix", "prompt", "ia3")


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.fixture
def run(session: Session, tmp_path: Path) -> Callable[..., RunRecord]:
    def call(on: Session = session, **changes) -> RunRecord:
        return finetune(spec_for(on, **changes), on, Journal(tmp_path / "run" / "evaluations.jsonl"))

    return call


def values(session: Session, **changes) -> dict[str, torch.Tensor]:
    """The model of a run as it starts."""
    model = session.fresh_model(spec_for(session, **changes)).model
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("method", ["prompt", "head"])
@pytest.mark.parametrize("what", [*({"peft": name} for name in ADAPTERS), {"freeze": "encoder"}])
def test_only_what_is_listed_moves(session: Session, run, method: str, what: dict[str, str]):
    changes = {"method": method, "learning_rate": 1.0, "lr_schedule": "constant", **what}
    start = values(session, **changes)
    record = run(**changes)
    model = session.loaded(record.spec).model
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert moved == trained
    back = record.read_back
    assert back is not None
    assert back.trained is not None
    assert back.n_trainable_parameters == sum(start[name].numel() for name in trained)
    assert record.parameters_hash == hash_of({name: model.get_parameter(name).detach() for name in trained})
    assert ("classifier.weight" in trained) == (method == "head")
    in_encoder = {name for name in trained if name.startswith("bert.") and "pooler" not in name}
    assert bool(in_encoder) == ("peft" in what)
    # the tiny model was saved without a pooler, so under a head it is new and must be trained
    assert any("pooler" in name for name in trained) == (method == "head")


@pytest.mark.parametrize(
    ("adapter", "n"),
    [
        # 2 layers of width 32: A and B of rank 8 for query and value
        ("lora", 2 * 2 * (8 * 32 + 32 * 8)),
        ("prefix", PREFIX_TOKENS * 2 * 2 * 32),
        ("prompt", PROMPT_TOKENS * 32),
        # a factor for each element of keys, values and attention outputs, and of what enters the MLP's output
        ("ia3", 2 * (32 + 32 + 32 + 64)),
    ],
)
def test_the_number_of_trained_parameters_is_the_formula(run, adapter: str, n: int):
    back = run(method="prompt", peft=adapter, optimizer="sgdm", max_steps=1).read_back
    assert back.n_trainable_parameters == n
    assert back.optimizer_state_bytes == 4 * n
    assert back.adapter["peft"]
    if adapter == "lora":
        assert (back.adapter["r"], back.adapter["lora_alpha"], back.adapter["lora_dropout"]) == (8, 16, 0)
        places = "bert.encoder.layer.*.attention.self.{}.lora_{}.default.weight"
        assert back.trained == tuple(places.format(m, ab) for m in ("query", "value") for ab in "AB")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_run_with_an_adapter_is_the_same_alone_and_after_others(
    run, adapter: str, tiny_model: Path, toy_data: Path
):
    fresh = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
    alone = run(fresh, seed=21, peft=adapter, method="prompt")
    run(method="prompt", freeze="embeddings")
    run(method="prompt", peft=adapter, optimizer="sgdm", seed=13, learning_rate=3.0)
    torch.manual_seed(99)
    again = run(seed=21, peft=adapter, method="prompt")
    assert again.evaluations == alone.evaluations
    assert again.test == alone.test
    assert again.parameters_hash == alone.parameters_hash


def test_other_seeds_are_other_adapters_but_where_an_adapter_starts_as_none(session: Session):
    for adapter in ("lora", "prefix", "prompt"):
        a, b = (values(session, method="prompt", peft=adapter, seed=seed) for seed in (13, 21))
        assert {name for name in a if not torch.equal(a[name], b[name])} == {
            name for name in a if "lora_A" in name or "prompt_encoder" in name
        }
    plain = session.fresh_model(spec_for(session, method="prompt"))
    batch = session.split(spec_for(session, method="prompt")).dev.batch(range(4), 0, torch.device("cpu"))
    plain.model.eval()
    expected = logits(plain, batch)
    for adapter in ("lora", "ia3"):
        adapted = session.fresh_model(spec_for(session, method="prompt", peft=adapter))
        adapted.model.eval()
        torch.testing.assert_close(logits(adapted, batch), expected)


def tiny_bert_lm() -> torch.nn.Module:
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    ).eval()


def adapted(model: torch.nn.Module, adapter: str) -> LoadedModel:
    return with_adapter(LoadedModel(model, {}, (), None), adapter)


@pytest.mark.parametrize("adapter", ["prefix", "prompt"])
def test_virtual_tokens_are_the_tokens_they_start_as(adapter: str):
    """The scores of a text behind virtual tokens that were not yet trained are those behind the tokens.

    Up to the second layer alone under prefix tuning: there the tokens did not see the text.
    """
    model = tiny_bert_lm()
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    model.config.num_hidden_layers = 1
    table = model.get_input_embeddings().weight.detach().clone()
    text = torch.arange(5, 13).view(1, 8)
    loaded = adapted(model, adapter)
    model.eval()
    [wrapped] = (module for module in model.modules() if isinstance(module, PromptedEncoder))
    generator = torch.Generator().manual_seed(7)
    n_virtual = loaded.adapter.virtual_tokens
    tokens = torch.randint(60, (1, n_virtual), generator=generator)
    draw_adapter(loaded, seed=7)
    segments = torch.tensor([[0] * 4 + [1] * 4])
    with torch.no_grad():
        found = model(input_ids=text, token_type_ids=segments).logits
        if adapter == "prompt":
            [embedding] = (encoder.embedding for encoder in wrapped.prompt_encoder.values())
            assert torch.equal(embedding.weight, table[tokens[0]])
        model.bert = wrapped.base_model
        whole = model(
            input_ids=torch.cat([tokens, text], dim=1),
            token_type_ids=torch.nn.functional.pad(segments, (n_virtual, 0)),
        ).logits
    assert found.shape == (1, 8, 60)
    torch.testing.assert_close(found, whole[:, n_virtual:])


@pytest.mark.parametrize("adapter", ["prefix", "prompt"])
def test_what_scoring_sends_to_a_device_can_be_trained_on(adapter: str):
    """Scoring is in inference mode, whose tensors cannot be saved for a backward pass."""
    model = tiny_bert_lm()
    adapted(model, adapter)
    [wrapped] = (module for module in model.modules() if isinstance(module, PromptedEncoder))
    with torch.inference_mode():
        wrapped._send_tokens(torch.device("meta"))
    [tokens] = wrapped.prompt_tokens.values()
    assert tokens.device.type == "meta"
    assert not tokens.is_inference()


@pytest.mark.parametrize("adapter", ["prefix", "prompt"])
def test_padding_behind_virtual_tokens_changes_nothing(adapter: str):
    model = tiny_bert_lm()
    adapted(model, adapter)
    model.eval()
    ids = torch.arange(5, 21).view(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask).logits[1, :5]
        alone = model(input_ids=ids[1:, :5]).logits[0]
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_in_the_layers_take_packed_batches(session: Session, adapter: str):
    """Loading compares packed scores with padded ones; the adapter is not at rest then."""
    loaded = session.loaded(spec_for(session, peft=adapter, method="prompt"))
    values = dict(loaded.model.named_parameters())
    assert not any(torch.equal(values[n], loaded.pristine[n]) for n in loaded.adapter.parameters)
    if adapter in ("lora", "ia3"):
        assert loaded.packing is not None
    else:
        assert loaded.packing is None
        assert loaded.why_padded == "virtual tokens stand before each sequence"


def test_a_pooled_head_reads_the_text_and_not_a_virtual_token(tiny_model: Path):
    loaded = with_adapter(load_model(resolve_model(str(tiny_model)), "head", 2, 0.0), "prompt")
    encoder = loaded.model.base_model
    loaded.model.eval()
    output = encoder(input_ids=torch.tensor([[2, 6, 7, 3]]))
    assert output.last_hidden_state.shape[1] == 4
    torch.testing.assert_close(output.pooler_output, encoder.base_model.pooler(output.last_hidden_state))


def test_decoders_take_adapters_wherever_their_heads_call_them():
    for adapter in ADAPTERS:
        config = OPTConfig(
            vocab_size=60,
            hidden_size=32,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=64,
            max_position_embeddings=64,
        )
        loaded = adapted(OPTForCausalLM(config), adapter)  # which looks whether its scores depend on it
        assert loaded.adapter.parameters


@pytest.mark.parametrize("adapter", ["lora", "ia3", "prefix"])
def test_a_model_that_cannot_have_an_adapter_says_so(adapter: str):
    model = DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=60, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    )
    with pytest.raises(
        UserError, match=rf"--peft {adapter} does not work with DistilBert.*Use --peft prompt"
    ):
        adapted(model, adapter)


def test_the_input_leaves_room_for_virtual_tokens(session: Session):
    for adapter, n_virtual in ((None, 0), ("lora", 0), ("prefix", PREFIX_TOKENS), ("prompt", PROMPT_TOKENS)):
        spec = spec_for(session, peft=adapter)
        data = session.data(get_task("sst2"))
        long = [type(data.train[0])(("film " * 99,), 0)]
        encoded = session.setup(spec).encode(
            data, long, spec.method, partial(session.loaded, spec), to_train=False
        )
        assert len(encoded.input_ids[0]) == 64 - n_virtual


def test_frozen_embeddings_stay(session: Session, run):
    start = values(session, freeze="embeddings", method="prompt")
    record = run(freeze="embeddings", method="prompt", learning_rate=1.0, optimizer="sgdm")
    model = session.loaded(record.spec).model
    still = {name for name, p in model.named_parameters() if torch.equal(p, start[name])}
    assert {
        f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")
    } == still
    assert "bert.embeddings.LayerNorm.weight" in record.read_back.trained
    assert record.read_back.optimizer_state_bytes == 4 * record.read_back.n_trainable_parameters


def test_a_frozen_model_without_a_head_of_its_own_is_refused():
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    config.tie_word_embeddings = True
    loaded = LoadedModel(LlamaForCausalLM(config), {}, (), None)
    with pytest.raises(UserError, match="--freeze encoder leaves nothing of LlamaForCausalLM to train"):
        choose_trainable(loaded, "prompt", peft=None, freeze="encoder")


def test_what_is_none_is_no_part_of_a_run():
    assert make_spec().run_id == make_spec(peft=None, freeze=None).run_id
    ids = {make_spec(peft=p, freeze=f).run_id for p in (None, *ADAPTERS) for f in (None, "encoder")}
    assert len(ids) == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"peft": "adalora"}, "--peft: .*'lora'"),
        ({"freeze": "head"}, "--freeze: .*'encoder'"),
        ({"peft": "lora", "freeze": "encoder"}, "--freeze encoder does not go with --peft lora"),
    ],
)
def test_wrong_requests_are_explained(flags: dict[str, str], message: str):
    with pytest.raises(UserError, match=message):
        make_sweep({"task": "sst2", **flags}, None)


@pytest.mark.slow
def test_whole_models_adapters_and_zero_shot_stand_apart(command_here, tiny_model: Path, toy_data: Path):
    common = ("--task", "sst2", "--model", tiny_model, "--data-dir", toy_data, "--k", 4, "--seeds", "13,21")
    common += ("--batch-size", 4, "--eval-every", 1, "--runs-at-a-time", 1, "--learning-rates", "1e-2,1e-1")
    common += ("--output-dir", "out")
    for flags in (("--max-steps", 2), ("--max-steps", 0, "--extend-grid", 1)):
        done = command_here("run", *common, *flags)
        assert done.returncode == 0, done.stderr
    assert "1 task(s) x 2 seeds = 2 runs without training" in done.stderr
    lora = command_here("run", *common, "--max-steps", 2, "--peft", "lora")
    assert lora.returncode == 0, lora.stderr
    board = command_here("leaderboard", "build", "out")
    assert "they differ in max_steps (0, 2), peft (lora, none)" in " ".join(board.stdout.split())
    out = toy_data.parent / "out"
    rows = list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines()))
    arms = {(row["optimizer"], "peft=lora" in row["protocol"]) for row in rows}
    trained = {(name, lora) for name in ("sgd", "sgdm") for lora in (True, False)}
    assert arms == trained | {("none", False)}
    assert len(rows) == len({row["row_id"] for row in rows}) == 5
    [zero_shot] = [row for row in rows if row["optimizer"] == "none"]
    assert [zero_shot[name] for name in ("n_runs", "n_missing", "on_grid_edge")] == ["2", "0", "0"]
    assert float(zero_shot["test_std"]) == 0  # one model, one test split
    pairs = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    protocols = {row["row_id"]: row["protocol"] for row in rows}
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("sgd", "sgdm")] * 2
    for pair in pairs:
        assert protocols[pair["first_row_id"]] == protocols[pair["second_row_id"]]
    records = Store(out).records()
    names = {r.spec.peft: r.read_back.trained for r in records if r.read_back and r.spec.max_steps}
    assert names[None] is None
    assert names["lora"]
    assert all("lora" in name for name in names["lora"])
    assert departures(out) == []
    texts = {(r.label, r.setting["peft"]): sweep_text(r) for r in rows_of(records)}
    assert 'peft = "lora"' in texts["sgd", "lora"]
    assert "max_steps = 0" in texts["zero-shot", None]
    assert "optimizers" not in texts["zero-shot", None]
    assert "zero-shot" in (out / "index.html").read_text()
