"""The token of each label word."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import Task

Tokenizer = Any  # transformers' fast tokenizers share no public base type


def label_word_ids(tokenizer: Tokenizer, task: Task) -> list[int]:
    """The token of each label word, in logit order.

    A space stands before a word, as in LM-BFF, unless the word starts with one of `< [ . ,`.

    Raises:
        UserError: a word is not exactly one token, or two words are the same token.
    """
    ids = []
    for word in task.label_words:
        text = word if word[0] in "<[.," else f" {word}"
        tokens = tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            near = nearest_words(tokenizer, text)
            raise UserError(
                f"{task.name}: the label word {word!r} is {len(tokens)} tokens {pieces} in this "
                f"model's vocabulary, and a prompt needs exactly one known token"
                f"{f' (near it are {near})' if near else ''}. Use another model, other label words in "
                f"the task file, or --method head"
            )
        ids.append(tokens[0])
    if len(set(ids)) != len(ids):
        raise UserError(f"{task.name}: label words collide in this vocabulary: {task.label_words} -> {ids}")
    return ids


SPACES = ("\u0120", "\u2581")
"""How byte-level and sentencepiece vocabularies write the space before a word."""


def nearest_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of one token whose spelling is nearest to a text, three at most.

    If the text starts with a space, only tokens with a space count, and else only tokens without.
    """
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))
    spaced = bool(pieces) and pieces[0][:1] in SPACES
    words = {}
    for token in tokenizer.get_vocab():
        word = token[1:] if spaced else token
        if len(word) > 1 and word.isalpha() and (token[:1] in SPACES) == spaced:
            words[word.lower()] = word
    return [words[word] for word in difflib.get_close_matches(text.strip().lower(), words)]


def check_words(tokenizer: Tokenizer, task: Task, tokens: Sequence[list[int]]) -> None:
    """Raises: UserError, if the vocabulary lacks a label word, or two words have the same tokens."""
    for word, ids in zip(task.label_words, tokens, strict=True):
        if tokenizer.unk_token_id in ids:
            raise UserError(f"{task.name}: the label word {word!r} is not in this model's vocabulary")
    if len({tuple(ids) for ids in tokens}) < len(tokens):
        raise UserError(
            f"{task.name}: label words collide in this vocabulary: {task.label_words} -> {list(tokens)}"
        )
