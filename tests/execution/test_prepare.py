"""What makes numbers wrong is found before the first run trains, and counted in records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AlbertConfig, AlbertForMaskedLM, AutoTokenizer

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.prepare import prepare, remarks
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.training.session import Session
from tests.conftest import sentiment_rows, write_rows
from tests.helpers.runs import spec_for
from tests.helpers.sweeps import records, small_sweep, table

FOREIGN = "\u96fb\u5f71"


def foreign(folder: Path, share: float) -> Path:
    """Data in which some of the texts are of a script that the tiny vocabulary does not have."""
    for split, rows in (("train", sentiment_rows(40)), ("validation", sentiment_rows(64)[40:])):
        n = round(share * len(rows))
        changed = [row | {"sentence": f"{FOREIGN}{i} {FOREIGN}"} for i, row in enumerate(rows[:n])]
        write_rows(folder / "sst2" / f"{split}.jsonl", changed + rows[n:])
    return folder


def test_a_vocabulary_that_does_not_know_the_texts_is_refused(tiny_model: Path, tmp_path: Path):
    inputs = Inputs(str(tiny_model), foreign(tmp_path / "data", 1.0))
    spec = spec_for(Session(inputs, make_accelerator("fp32")))
    with pytest.raises(UserError, match=r"% of the tokens are unknown .*add --allow-unknown-tokens"):
        prepare([spec], inputs, "fp32", cpu=True)
    session = prepare([spec], inputs, "fp32", cpu=True, allow_unknown=True)
    assert session.split(spec).facts.n_unknown_tokens


def test_texts_without_a_word_are_refused(tiny_model: Path, tmp_path: Path):
    rows = [row | {"sentence": " " if i % 3 else row["sentence"]} for i, row in enumerate(sentiment_rows(60))]
    write_rows(tmp_path / "data" / "sst2" / "train.jsonl", rows[:40])
    write_rows(tmp_path / "data" / "sst2" / "validation.jsonl", sentiment_rows(64)[40:])
    inputs = Inputs(str(tiny_model), tmp_path / "data")
    spec = spec_for(Session(inputs, make_accelerator("fp32")), seed=13)
    with pytest.raises(UserError, match=r"% of the texts give special tokens alone"):
        prepare([spec], inputs, "fp32", cpu=True)


def test_a_few_unknown_tokens_are_counted_and_told(tiny_model: Path, tmp_path: Path):
    inputs = Inputs(str(tiny_model), foreign(tmp_path / "data", 0.1))
    spec = spec_for(Session(inputs, make_accelerator("fp32")))
    facts = prepare([spec], inputs, "fp32", cpu=True).split(spec).facts
    assert facts.n_unknown_tokens
    assert facts.n_tokens > 5 * facts.n_unknown_tokens
    assert any("tokens are unknown to the vocabulary" in line for line in remarks(spec, facts))


def test_a_test_split_that_is_the_training_split_is_refused(
    command_here: Callable, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    write_rows(toy_data / "sst2" / "validation.jsonl", sentiment_rows(24))
    done = command_here("run", *small_sweep(tiny_model, toy_data, "--output-dir", tmp_path / "out"))
    assert done.returncode == 2
    assert "24 of 24 test rows (100.0%) are training rows too: the test would measure memory" in done.stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_leaked_rows_are_counted_in_the_record_and_on_the_row(
    command_here: Callable, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    leaked = sentiment_rows(70)[40:] + sentiment_rows(10)
    write_rows(toy_data / "sst2" / "validation.jsonl", leaked)
    out = tmp_path / "out"
    words = small_sweep(tiny_model, toy_data, "--output-dir", out, "--seeds", 13, "--learning-rates", 0.1)
    done = command_here("run", *words, "--k", 10)
    assert done.returncode == 0, done.stderr
    assert "warning: sst2: 10 of 40 test rows (25.0%) are training rows too" in done.stderr
    counts = {content["split"]["n_leaked"] for content in records(out).values()}
    assert len(counts) == 1
    [n] = counts
    assert 1 <= n <= 10
    assert f"warning: sst2, seed 13: {n} of 40 scored test rows are train or dev rows too" in done.stderr
    rows = table(out / "leaderboard.csv")
    assert {row["n_leaked"] for row in rows} == {str(n)}
    assert {row["unknown_tokens"] for row in rows} == {"0"}
    assert f"{n} test rows are train or dev rows too" in (out / "index.html").read_text()
    checked = command_here("leaderboard", "check", out)
    assert checked.returncode == 0, checked.stdout


def test_a_text_that_gives_no_token_is_named_before_training(tiny_decoder: Path, tmp_path: Path):
    """A decoder's tokenizer may add no special tokens, so an empty text has nothing to read."""
    model = tmp_path / "model"
    shutil.copytree(tiny_decoder, model)
    content = json.loads((model / "tokenizer.json").read_text()) | {"post_processor": None}
    (model / "tokenizer.json").write_text(json.dumps(content))
    rows = sentiment_rows(64)
    rows[45]["sentence"] = ""
    write_rows(tmp_path / "data" / "sst2" / "train.jsonl", rows[:40])
    write_rows(tmp_path / "data" / "sst2" / "validation.jsonl", rows[40:])
    inputs = Inputs(str(model), tmp_path / "data")
    spec = spec_for(Session(inputs, make_accelerator("fp32")))
    with pytest.raises(UserError, match=r"sst2, validation, row 6 cannot be read .*: it has 0 tokens"):
        prepare([spec], inputs, "fp32", cpu=True)


def test_a_token_without_an_embedding_is_named_before_training(tiny_model: Path, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["plotty"])
    tokenizer.save_pretrained(model)
    rows = sentiment_rows(64)
    rows[50]["sentence"] = "a plotty film"
    write_rows(tmp_path / "data" / "sst2" / "train.jsonl", rows[:40])
    write_rows(tmp_path / "data" / "sst2" / "validation.jsonl", rows[40:])
    inputs = Inputs(str(model), tmp_path / "data")
    spec = spec_for(Session(inputs, make_accelerator("fp32")))
    with pytest.raises(UserError, match=r"sst2, validation, row 11 .*without resize_token_embeddings"):
        prepare([spec], inputs, "fp32", cpu=True)


def test_the_texts_of_a_pair_have_their_segments(tiny_model: Path, tmp_path: Path):
    """A tokenizer that leaves segment ids out by default, under a model that knows segments."""
    model = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, model_input_names=["input_ids", "attention_mask"])
    tokenizer.save_pretrained(model)
    assert "token_type_ids" not in tokenizer("a", "b")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = AlbertConfig(vocab_size=len(tokenizer), embedding_size=16, max_position_embeddings=64, **sizes)
    AlbertForMaskedLM(config).save_pretrained(model)
    for split, start in (("train", 0), ("validation", 40)):
        rows = [
            {"premise": f"a film {i}", "hypothesis": f"it was fun {i}", "label": i % 2}
            for i in range(start, start + 40)
        ]
        write_rows(tmp_path / "data" / "rte" / f"{split}.jsonl", rows)
    inputs = Inputs(str(model), tmp_path / "data")
    spec = spec_for(Session(inputs, make_accelerator("fp32")), task="rte")
    train = prepare([spec], inputs, "fp32", cpu=True).split(spec).train
    assert all(set(types) == {0, 1} for types in train.token_type_ids)


def test_a_batch_larger_than_the_training_rows_is_refused(tiny_model: Path, toy_data: Path):
    inputs = Inputs(str(tiny_model), toy_data)
    session = Session(inputs, make_accelerator("fp32"))
    for size in (9, 100_000):
        with pytest.raises(UserError, match=rf"--batch-size {size} is more than the 8 training rows"):
            prepare([spec_for(session, batch_size=size)], inputs, "fp32", cpu=True)
    prepare([spec_for(session, batch_size=8)], inputs, "fp32", cpu=True)
