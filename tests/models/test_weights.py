"""Weights: taken by name from safetensors files, and the same in memory as in the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    BertForMaskedLM,
    DistilBertForTokenClassification,
    MixtralConfig,
    MixtralForCausalLM,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
)

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.pretrained import draw_new_parameters, load_model
from tests.conftest import ROOT, cli_environment

METHODS = ("prompt", "head", "causal")
PARTS = ("weight", "bias")


def changed(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], dict]) -> Path:
    """A copy of a model with other tensors."""
    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    return target


def load(folder: Path, method: str = "head") -> LoadedModel:
    return load_model(resolve_model(str(folder)), method, 2 if method == "head" else 0, None)


def with_adapter_files(folder: Path, target: Path) -> Path:
    """A copy of a model that has a LoRA adapter of peft next to it, one that changes what it computes."""
    shutil.copytree(folder, target)
    model = get_peft_model(
        BertForMaskedLM.from_pretrained(folder), LoraConfig(init_lora_weights=False, target_modules=["query"])
    )
    model.save_pretrained(target)
    assert (target / "adapter_model.safetensors").is_file()
    return target


@pytest.mark.parametrize("method", ["prompt", "head"])
def test_an_adapter_next_to_a_model_is_refused(method: str, tiny_model: Path, tmp_path: Path):
    folder = with_adapter_files(tiny_model, tmp_path / "model")
    with pytest.raises(
        UserError, match=r"a model and an adapter \(adapter_config\.json\).*without adapter_c"
    ):
        load(folder, method)
    (folder / "adapter_config.json").unlink()  # what is left of it is no file that is loaded by name
    loaded = load(folder, method)
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]


def test_an_adapter_alone_is_refused_with_what_to_do(tiny_model: Path, tmp_path: Path):
    folder = with_adapter_files(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"an adapter \(adapter_config\.json\) and no model: merge it into"):
        resolve_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"PeftModel\.from_pretrained\(BASE, FOLDER\)\.merge_and_unload"):
        resolve_model(str(folder))


def test_an_adapter_next_to_a_gguf_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    (tmp_path / "adapter_config.json").write_text("{}")
    package = SimpleNamespace(files=[PurePosixPath("small.gguf")], locate_file=lambda file: tmp_path / file)
    monkeypatch.setattr("momentum_bench.harness.models.files.metadata.distribution", lambda name: package)
    monkeypatch.setattr("momentum_bench.harness.models.files.find_spec", lambda name: object())
    with pytest.raises(UserError, match=r"adapter \(adapter_config\.json\)"):
        resolve_model("package:small")


def test_an_adapter_that_was_not_merged_is_refused(tiny_model: Path, tmp_path: Path):
    place = "bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    folder = changed(tiny_model, tmp_path / "model", lambda old: old | {place: torch.zeros(8, 32)})
    with pytest.raises(UserError, match=r"holds an adapter's tensors \(bert.*lora_A.*merge it"):
        load(folder)


def test_other_files_in_the_folder_are_not_loaded(tiny_model: Path, tmp_path: Path):
    """transformers would take these before model.safetensors."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    other = {name: torch.zeros_like(value) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(other, folder / "shard-00001-model-00001-of-00001.safetensors", {"format": "pt"})
    word = load(folder).model.get_input_embeddings().weight
    assert word.abs().sum() > 0
    save_file(other, folder / "other.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"transformers_weights": "other.safetensors"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="names other weights"):
        load(folder)


@pytest.mark.parametrize("method", METHODS)
def test_weights_in_several_files_are_those_in_one(
    method: str, tiny_model: Path, tiny_decoder: Path, tmp_path: Path
):
    whole = tiny_decoder if method == "causal" else tiny_model
    shutil.copytree(whole, tmp_path / "model")
    tensors = load_file(whole / "model.safetensors")
    places = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    (tmp_path / "model" / "model.safetensors").unlink()
    for file in set(places.values()):
        part = {name: value for name, value in tensors.items() if places[name] == file}
        save_file(part, tmp_path / "model" / file, {"format": "pt"})
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    one, parts = load(whole, method), load(tmp_path / "model", method)
    for name, value in one.pristine.items():
        assert torch.equal(value, parts.pristine[name]), name
    index.write_text(json.dumps({"weight_map": places | {"x": "../model.safetensors"}}))
    with pytest.raises(UserError, match=r"index\.json lists .*expected files \*\.safetensors next to it"):
        resolve_model(str(tmp_path / "model"))
    index.write_text(json.dumps({"weight_map": places | {"x": "gone.safetensors"}}))
    with pytest.raises(UserError, match=r"lists gone\.safetensors"):
        resolve_model(str(tmp_path / "model"))
    index.write_text("[]")
    with pytest.raises(UserError, match=r"index\.json cannot be read"):
        resolve_model(str(tmp_path / "model"))


def test_a_file_of_another_name_is_named(tiny_model: Path, tmp_path: Path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "bert.safetensors")
    with pytest.raises(UserError, match=r"expected model\.safetensors or .*, found bert\.safetensors"):
        resolve_model(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load(tmp_path / "model")


@pytest.mark.parametrize("method", ["prompt", "head"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "student."])
def test_a_prefix_before_all_names_is_named(prefix: str, method: str, tiny_model: Path, tmp_path: Path):
    folder = changed(
        tiny_model, tmp_path / "model", lambda old: {f"{prefix}{name}": value for name, value in old.items()}
    )
    with pytest.raises(UserError, match=rf"start with '{prefix}'.*: save the model without it") as found:
        load(folder, method)
    assert "bert.embeddings.word_embeddings.weight" in str(found.value)


@pytest.mark.parametrize("method", ["prompt", "head"])
def test_a_missing_encoder_weight_is_named_with_its_nearest(method: str, tiny_model: Path, tmp_path: Path):
    key = "bert.encoder.layer.1.output.dense.weight"
    folder = changed(
        tiny_model,
        tmp_path / "model",
        lambda old: {
            name.replace("output.dense", "output.linear") if name == key else name: v
            for name, v in old.items()
        },
    )
    with pytest.raises(
        UserError, match=rf"{key} missing; the nearest names.*layer\.1\.output\.linear\.weight"
    ):
        load(folder, method)


def test_only_the_classifier_and_a_pooler_that_was_never_there_are_new(tiny_model: Path, tmp_path: Path):
    pooler = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
    new = load(tiny_model).new_parameters
    assert set(new) == {*pooler, "classifier.weight", "classifier.bias"}
    there = changed(tiny_model, tmp_path / "there", lambda old: old | pooler)
    assert set(load(there).new_parameters) == {"classifier.weight", "classifier.bias"}
    half = changed(tiny_model, tmp_path / "half", lambda old: old | dict([*pooler.items()][:1]))
    with pytest.raises(UserError, match=r"bert\.pooler\.dense\.bias missing"):
        load(half)


def with_classifier(folder: Path, target: Path, n_labels: int, **config: object) -> Path:
    """A copy of a model that was trained as a classifier, without the head of its vocabulary."""

    def change(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kept = {name: value for name, value in old.items() if name.startswith("bert.")}
        pooler = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
        head = {"classifier.weight": torch.ones(n_labels, 32), "classifier.bias": torch.ones(n_labels)}
        return kept | pooler | head

    changed(folder, target, change)
    content = json.loads((target / "config.json").read_text())
    content |= {"architectures": ["BertForSequenceClassification"]} | config
    (target / "config.json").write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("n_labels", [2, 3])
def test_an_old_classifier_is_not_kept(n_labels: int, tiny_model: Path, tmp_path: Path):
    """Its labels may stand in another order, so that training would start from wrong answers."""
    loaded = load(with_classifier(tiny_model, tmp_path / "model", n_labels))
    assert set(loaded.new_parameters) == {"classifier.weight", "classifier.bias"}
    draw_new_parameters(loaded.model, loaded.new_parameters, 7)
    classifier = loaded.model.get_parameter("classifier.weight")
    assert classifier.shape == (2, 32)
    # it is the classifier that a model without an old one gets from this seed
    fresh = load_model(resolve_model(str(tiny_model)), "head", 2, None)
    draw_new_parameters(fresh.model, ("classifier.weight",), 7)
    assert torch.equal(classifier, fresh.model.get_parameter("classifier.weight"))


def test_a_part_of_another_classifier_is_not_kept_either(tmp_path: Path):
    """The one layer of a classifier of tokens has the name of a layer here, and perhaps its size."""
    sizes = {"vocab_size": 40, "dim": 32, "n_heads": 2, "n_layers": 1, "hidden_dim": 32}
    config = loads.config_of_type("distilbert", num_labels=2, **sizes)
    DistilBertForTokenClassification(config).save_pretrained(tmp_path)
    new = load(tmp_path).new_parameters
    assert set(new) == {f"{layer}.{part}" for layer in ("pre_classifier", "classifier") for part in PARTS}


def test_what_a_language_model_has_above_its_encoder_stays(tmp_path: Path):
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes |= {"cls_token_id": 1, "sep_token_id": 2, "classifier_bias": True}
    config = loads.config_of_type("modernbert", **sizes)
    ModernBertForMaskedLM(config).save_pretrained(tmp_path / "language")
    loaded = load(tmp_path / "language")
    assert set(loaded.new_parameters) == {"classifier.weight", "classifier.bias"}
    ModernBertForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    assert {"head.dense.weight", "classifier.weight"} <= set(load(tmp_path / "classifier").new_parameters)


LABELS = (("negative", "0"), ("positive", "1"))


@pytest.mark.parametrize("names", [["negative", "positive"], ["NEGATIVE", "Positive"], ["0", "1"]])
def test_a_classifier_is_kept_if_it_is_asked_for(names: list[str], tiny_model: Path, tmp_path: Path):
    folder = with_classifier(tiny_model, tmp_path / "model", 2, id2label=dict(enumerate(names)))
    loaded = load_model(resolve_model(str(folder)), "head", 2, None, LABELS)
    assert loaded.new_parameters == ()
    assert torch.equal(loaded.model.get_parameter("classifier.weight"), torch.ones(2, 32))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["positive", "negative"],
            r"the labels positive, negative .*and the task has, in this order, negative or 0, p",
        ),
        (["LABEL_0", "LABEL_1"], r"the labels LABEL_0, LABEL_1 .*write the task's names into id2label"),
        (["negative", "neutral", "positive"], r"has 3 outputs, and the task needs 2: leave out --head"),
    ],
)
def test_a_classifier_of_other_labels_is_not_kept(
    names: list[str], message: str, tiny_model: Path, tmp_path: Path
):
    folder = with_classifier(tiny_model, tmp_path / "model", len(names), id2label=dict(enumerate(names)))
    with pytest.raises(UserError, match=message):
        load_model(resolve_model(str(folder)), "head", 2, None, LABELS)


def test_a_model_without_a_classifier_has_none_to_keep(tiny_model: Path):
    with pytest.raises(UserError, match=r"LABEL_0"):
        load_model(resolve_model(str(tiny_model)), "head", 2, None, LABELS)
    with pytest.raises(UserError, match=r"--head kept: .* has no classifier of its own"):
        load_model(resolve_model(str(tiny_model)), "head", 2, None, (("LABEL_0",), ("LABEL_1",)))


@pytest.mark.parametrize("method", ["head", "causal"])
def test_a_table_stored_as_the_output_alone_is_the_input_too(method: str, tiny_decoder: Path, tmp_path: Path):
    def as_output(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"lm_head.weight" if "embed_tokens" in name else name: value for name, value in old.items()}

    folder = changed(tiny_decoder, tmp_path / "model", as_output)
    table = load_file(folder / "model.safetensors")["lm_head.weight"]
    loaded = load(folder, method)
    assert torch.equal(loaded.model.get_input_embeddings().weight, table)
    assert loaded.new_parameters == (("score.weight",) if method == "head" else ())
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight missing"):
        load(folder, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_memory_holds_is_compared_with_the_file(
    method: str,
    dtype: torch.dtype,
    tiny_model: Path,
    tiny_decoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    whole = tiny_decoder if method == "causal" else tiny_model

    def cast(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        cast = {name: value.to(dtype) for name, value in old.items()}
        cast[max(cast)].view(-1)[0] = torch.nan  # a NaN is the same as itself
        return cast

    folder = changed(whole, tmp_path / "model", cast)
    if method == "head":
        load(folder, method)
    right = loads.model_of_weights

    def wrong(*given):
        model, info = right(*given)
        with torch.no_grad():
            next(p for name, p in model.named_parameters() if "layers.1" in name or "layer.1" in name)[0] += (
                1e-3
            )
        return model, info

    monkeypatch.setattr(loads, "model_of_weights", wrong)
    with pytest.raises(UserError, match=r"after loading, .*layers?\.1.* is not what the file holds"):
        load(folder, method)


@pytest.fixture
def mixture(tmp_path: Path, tiny_decoder: Path) -> Path:
    """A decoder whose experts are stored one by one, and are one tensor in memory."""
    folder = tmp_path / "mixture"
    shutil.copytree(tiny_decoder, folder)
    config = MixtralConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        max_position_embeddings=64,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["head", "causal"])
def test_experts_are_compared_one_by_one(method: str, mixture: Path, monkeypatch: pytest.MonkeyPatch):
    assert any("experts.3" in name for name in load_file(mixture / "model.safetensors"))
    loaded = load(mixture, method)
    assert loaded.new_parameters == (("score.weight",) if method == "head" else ())
    right = loads.model_of_weights

    def wrong(*given):
        model, info = right(*given)
        with torch.no_grad():
            next(p for name, p in model.named_parameters() if "layers.1" in name and "experts" in name)[
                3
            ] += 1
        return model, info

    monkeypatch.setattr(loads, "model_of_weights", wrong)
    with pytest.raises(UserError, match=r"layers\.1.*experts\.3.* is not what the file holds"):
        load(mixture, method)


STARTS = """
import sys
from pathlib import Path
import torch
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.training.session import Session
from tests.helpers.runs import spec_for
torch.manual_seed(int(sys.argv[1]))
for folder, methods in ((sys.argv[3], ("prompt", "head")), (sys.argv[4], ("causal", "head"))):
    session = Session(Inputs(folder, Path(sys.argv[2])), make_accelerator("fp32"))
    for method in methods:
        for peft in (None, "lora", "prefix", "prompt", "ia3"):
            model = session.fresh_model(spec_for(session, method=method, peft=peft)).model
            print(method, peft, hash_of({name: p.detach() for name, p in model.named_parameters()}))
"""


@pytest.mark.slow
def test_two_processes_start_from_the_same_parameters(tiny_model: Path, tiny_decoder: Path, toy_data: Path):
    """Whatever state torch's own generator is in."""
    said = [
        subprocess.run(
            [sys.executable, "-c", STARTS, seed, str(toy_data), str(tiny_model), str(tiny_decoder)],
            cwd=ROOT,
            env=cli_environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(set(said[0].splitlines())) == 20


def test_a_vector_that_transformers_draws_is_drawn_from_the_seed(tiny_model: Path):
    model = load(tiny_model).model
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.1, -0.1]))  # as torch's own layers start
    draw_new_parameters(model, ("classifier.bias",), 7)
    first = model.classifier.bias.detach().clone()
    draw_new_parameters(model, ("classifier.bias",), 8)
    assert not torch.equal(model.classifier.bias, first)
    draw_new_parameters(model, ("classifier.bias",), 7)
    assert torch.equal(model.classifier.bias, first)
