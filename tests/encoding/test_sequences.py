"""Counts of tokens, and sequences that a model cannot read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.encoding.sequences import count_tokens, unreadable
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.models.pretrained import load_tokenizer


def encoded(*sequences: list[int], candidates: list[int] | None = None) -> Encoded:
    n = len(candidates or sequences)
    return Encoded(list(sequences), None, None, [0] * n, References([0] * n, None, None), 0, None, candidates)


def test_unknown_tokens_and_texts_without_words_are_counted(tiny_model: Path):
    tokenizer = load_tokenizer(resolve_model(str(tiny_model)))
    texts = ["the film was great", "\u96fb\u5f71 was great", "", "\u96fb\u5f71"]
    counts = count_tokens(encoded(*tokenizer(texts)["input_ids"]), tokenizer)
    # the two characters are two words for this tokenizer
    assert (counts.n_tokens, counts.n_unknown) == (4 + 4 + 0 + 2, 0 + 2 + 0 + 2)
    assert (counts.n_without_words, counts.n_sequences) == (1, 4)
    tokenizer.unk_token = "[SEP]"  # as in GPT-2, where the end of a text is called the unknown token too
    assert count_tokens(encoded(*tokenizer(texts[:1])["input_ids"]), tokenizer).n_unknown == 0


def test_a_word_that_the_model_has_no_embedding_of_cannot_be_read():
    found = unreadable(replace(encoded([1, 2]), words=[3, 10]), longest=3, n_embedded=10)
    assert found is not None
    assert "token 10, and the model has embeddings of 10 tokens" in found[1]


@pytest.mark.parametrize(
    ("sequences", "candidates", "expected"),
    [
        (([1, 2], [9, 0]), None, None),
        (([1, 2], []), None, (1, "0 tokens, and the model reads 1 to 3")),
        (([1] * 4,), None, (0, "4 tokens")),
        (([1], [2], [10]), [2, 1], (1, "token 10, and the model has embeddings of 10 tokens")),
    ],
)
def test_what_a_model_cannot_read(
    sequences: tuple[list[int], ...], candidates: list[int] | None, expected: tuple[int, str] | None
):
    found = unreadable(encoded(*sequences, candidates=candidates), longest=3, n_embedded=10)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == expected[0]
        assert expected[1] in found[1]
