"""`--method causal`: candidates behind a prompt, scored by a decoder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from momentum_bench.harness.data.examples import Example
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.task_kinds import candidate_texts
from momentum_bench.harness.encoding import texts
from momentum_bench.harness.encoding.texts import encode_candidates, encode_plain
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.models.pretrained import load_model
from momentum_bench.harness.training.objectives import objective_of
from momentum_bench.harness.training.scoring import logits, scoring_batches
from momentum_bench.tasks import Task, get_task

SST2, COPA, RECORD = map(get_task, ("sst2", "copa", "record"))
CPU = torch.device("cpu")
COPA_ROWS = [
    Example(("The film was bad.", "because"), 1, ("It was fun.", "The plot was terrible.")),
    Example(("It was a great film.", "so"), 0, ("I was good.", "A plot")),
]
RECORD_ROWS = [
    Example(("a film", "@placeholder was fun"), 0, ("it", "the film", "a"), ("it",)),
    Example(("the plot was bad " * 9, "was @placeholder good"), 1, ("it", "the plot"), ("the plot",)),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_decoder: Path):
    return AutoTokenizer.from_pretrained(tiny_decoder)


def by_hand(folder: Path, prompts: Sequence[str], candidates: Sequence[str]) -> list[float]:
    """Mean log-probability a token of each candidate behind its prompt, from the whole model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    means = []
    for prompt, candidate in zip(prompts, candidates, strict=True):
        n_prompt = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(prompt + candidate)["input_ids"]
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        found = [scores[i - 1, ids[i]].item() for i in range(n_prompt, len(ids))]
        means.append(sum(found) / len(found))
    return means


def test_candidates_are_the_last_tokens_and_the_places_before_them_are_read(tokenizer):
    encoded = encode_candidates(tokenizer, COPA, COPA_ROWS, 64)
    assert encoded.candidates == [2, 2]
    assert (encoded.labels, encoded.n_truncated) == ([1, 0], 0)
    assert encoded.read_at is not None
    assert encoded.targets is not None
    words = []
    for ids, places, targets in zip(encoded.input_ids, encoded.read_at, encoded.targets, strict=True):
        assert ids[0] == tokenizer.bos_token_id
        assert [ids[place + 1] for place in places] == targets
        assert places[-1] == len(ids) - 2
        words.append(tokenizer.decode(targets).replace(" .", "."))
    assert words == ["it was fun.", "the plot was terrible.", "i was good.", "a plot"]
    assert tokenizer.decode(encoded.input_ids[1], skip_special_tokens=True).startswith("the film was bad ")


@pytest.mark.parametrize("everywhere", [False, True])
def test_scores_are_mean_log_probabilities(tiny_decoder: Path, tokenizer, everywhere: bool):
    loaded = load_model(resolve_model(str(tiny_decoder)), "causal", 0, None)
    assert loaded.vocabulary_head is not None
    assert loaded.new_parameters == ()
    if everywhere:  # the scores of all positions, of which the same ones are read
        loaded = dataclasses.replace(loaded, vocabulary_head=None)
    encoded = encode_candidates(tokenizer, RECORD, RECORD_ROWS, 64)
    batch = encoded.batch([1, 0], 0, CPU)
    with torch.no_grad():
        scores = logits(loaded, batch)
    first = by_hand(
        tiny_decoder, ["the plot was bad " * 9 + "\n-"] * 2, [" was it good", " was the plot good"]
    )
    second = by_hand(tiny_decoder, ["a film\n-"] * 3, [" it was fun", " the film was fun", " a was fun"])
    assert scores[0, :2].tolist() == pytest.approx(first, abs=1e-5)
    assert scores[1].tolist() == pytest.approx(second, abs=1e-5)
    assert scores[0, 2] == -torch.inf


def test_label_words_of_several_tokens_are_candidates_too(tiny_decoder: Path, tokenizer):
    loaded = load_model(resolve_model(str(tiny_decoder)), "causal", 0, None)
    task = SST2.model_copy(update={"label_words": ("terrible plot", "fun")})
    encoded = encode_candidates(tokenizer, task, [Example(("a film",), 1)], 64)
    with torch.no_grad():
        scores = logits(loaded, encoded.batch([0], 0, CPU))
    expected = by_hand(tiny_decoder, ["a film It was"] * 2, [" terrible plot", " fun"])
    assert scores[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_label_words_of_one_token_are_read_at_one_place(tiny_decoder: Path, tokenizer, monkeypatch):
    """With the loss, the gradients and the choice of candidates that are scored one by one."""
    examples = [Example(("a film",), 1), Example(("the plot was bad",), 0)]
    once = encode_candidates(tokenizer, SST2, examples, 64)
    assert (once.candidates, once.targets) == (None, None)
    assert once.words == tokenizer.convert_tokens_to_ids(["terrible", "great"])
    assert once.read_at == [[len(ids) - 1] for ids in once.input_ids]
    assert tokenizer.decode(once.input_ids[0], skip_special_tokens=True) == "a film it was"
    monkeypatch.setattr(texts, "_at_one_place", lambda encoded: encoded)
    each = encode_candidates(tokenizer, SST2, examples, 64)
    assert each.candidates == [2, 2]
    objective, found = objective_of(SST2, "causal"), []
    for encoded in (once, each):
        model = load_model(resolve_model(str(tiny_decoder)), "causal", 0, None)
        batch = encoded.batch([0, 1], 0, CPU)
        scores = logits(model, batch)
        loss = objective.loss(scores, batch.labels)
        gradients = torch.autograd.grad(loss, list(model.model.parameters()))
        found.append([scores.log_softmax(dim=1), loss, objective.predictions(scores), *gradients])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    prompts = ["a film It was", "the plot was bad It was"]
    for prompt, scores in zip(prompts, found[0][0], strict=True):
        expected = torch.tensor(by_hand(tiny_decoder, [prompt] * 2, [" terrible", " great"]))
        torch.testing.assert_close(scores, expected.log_softmax(dim=0), rtol=1e-4, atol=1e-5)


def test_a_word_that_joins_the_prompts_end_in_some_example_is_a_candidate_in_all(tokenizer):
    task = SST2.model_copy(update={"causal_template": "{sentence}{candidate}"})
    apart, joined = Example(("a film ",), 1), Example(("a film",), 0)
    assert encode_candidates(tokenizer, task, [apart], 64).words is not None
    both = encode_candidates(tokenizer, task, [apart, joined], 64)
    assert (both.words, both.candidates) == (None, [2, 2])
    assert both.targets is not None
    assert [len(targets) for targets in both.targets] == [1, 1, 8, 5]


def test_to_train_a_choice_the_right_candidate_is_enough(tokenizer):
    every = encode_candidates(tokenizer, RECORD, RECORD_ROWS, 64)
    right = encode_candidates(tokenizer, RECORD, RECORD_ROWS, 64, right_only=True)
    assert right.input_ids == [every.input_ids[0], every.input_ids[4]]
    assert right.targets == [every.targets[0], every.targets[4]]
    assert (right.candidates, right.labels) == ([1, 1], [0, 0])


@pytest.mark.parametrize("encode", [encode_candidates, encode_plain])
def test_of_too_long_an_input_the_passage_alone_is_cut(tokenizer, encode):
    encoded = encode(tokenizer, RECORD, RECORD_ROWS, 24)
    assert encoded.n_truncated == 1
    assert encoded.candidates == [3, 2]
    assert max(map(len, encoded.input_ids)) == 24
    longest = tokenizer.decode(encoded.input_ids[4], skip_special_tokens=True)
    assert longest.startswith("the plot was bad the plot")
    assert longest.endswith("was the plot good")
    shorter = tokenizer.decode(encoded.input_ids[3], skip_special_tokens=True)
    assert shorter.removesuffix("it good") == longest.removesuffix("the plot good")
    with pytest.raises(UserError, match=r"example 1 of a split needs \d+ tokens even without passage"):
        encode(tokenizer, RECORD, RECORD_ROWS, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_words": ("great", "Great")}, "label words collide"),
        ({"label_words": ("great", "\u00df\u4e2d")}, "is not in this model's vocabulary"),
    ],
)
def test_words_that_cannot_be_told_apart_are_an_error(tokenizer, change: dict, message: str):
    with pytest.raises(UserError, match=message):
        encode_candidates(tokenizer, SST2.model_copy(update=change), [Example(("a film",), 1)], 64)


def test_an_empty_candidate_is_an_error(tokenizer):
    with pytest.raises(UserError, match="candidate 2 of example 1 is empty"):
        encode_candidates(tokenizer, COPA, [Example(("a film", "so"), 0, ("fun", ""))], 64)


def test_an_encoder_is_no_decoder(tiny_model: Path):
    with pytest.raises(UserError, match="causal needs a decoder-only language model"):
        load_model(resolve_model(str(tiny_model)), "causal", 0, None)


def test_batches_for_scoring_count_every_sequence():
    lengths, sequences = [100, 30, 400, 2000], [2, 60, 5, 4]
    batches = scoring_batches(lengths, sequences)
    assert sorted(itertools.chain(*batches)) == [0, 1, 2, 3]
    for rows in batches:
        padded = sum(sequences[row] for row in rows) * max(lengths[row] for row in rows)
        assert padded <= 4096 or len(rows) == 1


STORIES = ("copa", "record", "multirc", "stsb", "rte", "trec", "wsc")


@pytest.mark.parametrize("name", STORIES)
def test_a_real_tokenizer_that_joins_words_keeps_candidates_whole(name: str, data_dir: Path):
    """That of TinyStories has tokens that span words, so some prompts' ends merge with candidates."""
    folder = data_dir.parent / "models" / "tinystories-656k"
    if not folder.is_dir():
        pytest.skip("no tinystories-656k beside the checkout")
    tokenizer, task = AutoTokenizer.from_pretrained(folder), get_task(name)
    rows = load_task_data(task, data_dir).test[:40]
    encoded = encode_candidates(tokenizer, task, rows, 512)
    assert max(map(len, encoded.input_ids)) <= 512
    if encoded.words is not None:  # read at one place, so behind the same tokens
        assert len(encoded.input_ids) == len(rows)
        for k, word in enumerate(encoded.words):
            assert tokenizer.decode([word]).strip() == kinds_words(task, rows[0], k)
        return
    assert encoded.candidates is not None
    assert encoded.targets is not None
    firsts = [0, *itertools.accumulate(encoded.candidates)]
    for example, start, end in zip(rows, firsts, firsts[1:], strict=False):
        contexts = {
            tuple(ids[: -len(t)])
            for ids, t in zip(encoded.input_ids[start:end], encoded.targets[start:end], strict=True)
        }
        assert len(contexts) == 1  # all candidates are read behind the same tokens
        for k, targets in enumerate(encoded.targets[start:end]):
            words = kinds_words(task, example, k)
            assert tokenizer.decode(targets).strip().endswith(words[-3:])


def kinds_words(task: Task, example: Example, k: int) -> str:
    return candidate_texts(task, example)[k].strip()
