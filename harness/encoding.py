"""From examples to token ids: the prompt with its mask, or the plain (pair) input of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from harness.errors import UserError
from harness.sources import Example
from tasks import Task
from tasks.task import TemplatePiece, filled, filtered, parse_template

Tokenizer = Any  # transformers' fast tokenizers share no public base type


@dataclass(frozen=True)
class Encoded:
    """Token ids of the sequences of n examples, each as long as it is (nothing is padded here).

    An example is one sequence, or several consecutive ones: its candidates, scored one by one.

    Attributes:
        input_ids, token_type_ids: a list for each sequence; the second is None where all are 0.
        read_at: for each sequence, the positions whose scores of the vocabulary are read (the mask,
            or those before the tokens of a candidate); None where a head reads the sequence.
        labels: n classes, in logit order.
        n_truncated: examples of which some text was cut.
        targets: for each sequence, the token that stands behind each of its `read_at`; None where
            the scores of other tokens (label words) are read.
        candidates: how many consecutive sequences belong to each example; None: one each.
    """

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None
    read_at: list[list[int]] | None
    labels: list[int]
    n_truncated: int
    targets: list[list[int]] | None = None
    candidates: list[int] | None = None

    def batch(self, rows: Sequence[int], pad_id: int, device: torch.device) -> Batch:
        """The examples at `rows`, padded to the longest sequence of them, on `device`."""
        counts = None if self.candidates is None else [self.candidates[row] for row in rows]
        sequences = list(rows) if counts is None else [i for row in rows for i in self._sequences[row]]

        def padded(of: list[list[int]], value: int) -> torch.Tensor:
            tensors = [torch.tensor(of[i]) for i in sequences]
            stacked = torch.nn.utils.rnn.pad_sequence(tensors, True, value)
            return stacked.to(device, non_blocking=True)

        lengths = torch.tensor([len(self.input_ids[i]) for i in sequences])
        inputs = {
            "input_ids": padded(self.input_ids, pad_id),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long().to(device),
        }
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = padded(self.token_type_ids, 0)
        places = self.read_at
        read_at = None
        if places is not None:
            pairs = [(at, position) for at, i in enumerate(sequences) for position in places[i]]
            at, position = torch.tensor(pairs).to(device).unbind(dim=1)
            read_at = (at, position)
        tokens = self.targets
        return Batch(
            inputs=inputs,
            read_at=read_at,
            targets=None
            if tokens is None
            else torch.tensor([token for i in sequences for token in tokens[i]]).to(device),
            candidates=counts,
            labels=torch.tensor([self.labels[row] for row in rows]).to(device),
        )

    @cached_property
    def _sequences(self) -> list[range]:
        """Of each example, where its sequences are; only with `candidates`."""
        ends = list(accumulate(self.candidates or ()))
        return [range(end - n, end) for end, n in zip(ends, self.candidates or (), strict=True)]


@dataclass(frozen=True)
class Batch:
    """What a model is given for B examples of S sequences, and what is read from it, on one device.

    Attributes:
        inputs: of the model, S x T, padded.
        read_at: the R places that are read, as their sequences (R) and the positions there (R), in
            the order of the sequences; None for a head.
        targets: the token whose score is read at each place (R); None: the label words'.
        candidates: how many consecutive sequences each example has; None: one each.
        labels: B.
    """

    inputs: dict[str, torch.Tensor]
    read_at: tuple[torch.Tensor, torch.Tensor] | None
    targets: torch.Tensor | None
    candidates: list[int] | None
    labels: torch.Tensor


def label_word_ids(tokenizer: Tokenizer, task: Task) -> list[int]:
    """The token of each label word, in logit order.

    A word stands behind a space, as LM-BFF has it, unless it starts with one of `< [ . ,`.

    Raises:
        UserError: a word is not exactly one token, or two words share one.
    """
    ids = []
    for word in task.label_words:
        text = word if word[0] in "<[.," else f" {word}"
        tokens = tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            raise UserError(
                f"{task.name}: the label word {word!r} is {len(tokens)} tokens {pieces} in this "
                f"model's vocabulary, and a prompt needs exactly one known token. Use another model, "
                f"other label words in the task file, or --method head"
            )
        ids.append(tokens[0])
    if len(set(ids)) != len(ids):
        raise UserError(f"{task.name}: label words collide in this vocabulary: {task.label_words} -> {ids}")
    return ids


def encode_prompts(tokenizer: Tokenizer, task: Task, examples: Sequence[Example], max_length: int) -> Encoded:
    """Fill the task's template; the pieces are tokenised one by one and joined, as in LM-BFF.

    A text field is cut from its tail: to the task's own limit first, then the longest field until
    the whole fits. The template's words and the mask are never cut.

    Raises:
        UserError: no mask token, or the template alone is longer than `max_length`.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"--method prompt needs a masked language model, and this tokenizer "
            f"({type(tokenizer).__name__}) has no mask token: use --method head or another model"
        )
    prefix, suffix = _special_ends(tokenizer)
    pieces = parse_template(task.template)
    limits = dict.fromkeys(task.fields, task.other_limit) | {task.text[0]: task.first_limit}
    fixed = {
        place: [tokenizer.mask_token_id]
        if piece.kind == "mask"
        else tokenizer.encode(piece.value, add_special_tokens=False)
        for place, piece in enumerate(pieces)
        if piece.kind != "field"
    }
    room = max_length - len(prefix) - len(suffix) - sum(map(len, fixed.values()))
    if room < 0:
        raise UserError(
            f"{task.name}: the template alone needs {max_length - room} tokens and the limit is "
            f"{max_length}, so the mask would be lost: shorten the template or raise max_length"
        )
    fields = {
        place: _field_ids(tokenizer, task, examples, piece)
        for place, piece in enumerate(pieces)
        if piece.kind == "field"
    }
    input_ids, read_at, n_truncated = [], [], 0
    for row in range(len(examples)):
        parts = fixed | {place: ids[row] for place, ids in fields.items()}
        cut = {place: parts[place][: limits[pieces[place].value]] for place in fields}
        while sum(map(len, cut.values())) > room:
            max(cut.values(), key=len).pop()
        n_truncated += any(len(cut[place]) < len(parts[place]) for place in fields)
        ids = list(prefix)
        for place, piece in enumerate(pieces):
            if piece.kind == "mask":
                read_at.append([len(ids)])
            ids += (parts | cut)[place]
        input_ids.append(ids + suffix)
    labels = [example.label for example in examples]
    return Encoded(input_ids, None, read_at, labels, n_truncated)


def _field_ids(
    tokenizer: Tokenizer, task: Task, examples: Sequence[Example], piece: TemplatePiece
) -> list[list[int]]:
    """Token ids of one text field of all examples; a text that spells a special token is just text."""
    column = task.fields.index(piece.value)
    texts = [example.texts[column] for example in examples]
    for name in piece.filters:
        texts = [filtered(text, name) for text in texts]
    if piece.after_space:
        texts = [f" {text}" for text in texts]
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


def encode_plain(tokenizer: Tokenizer, task: Task, examples: Sequence[Example], max_length: int) -> Encoded:
    """The model's own single or pair input; of too long a pair the longer text is cut first.

    The input is the task's texts, or its `head_text` templates where it has them.
    """
    inputs = [parse_template(text) for text in task.head_inputs]
    rows = [dict(zip(task.fields, example.texts, strict=True)) for example in examples]
    texts = [[filled(pieces, row) for row in rows] for pieces in inputs]
    plain = {"split_special_tokens": True, "verbose": False}
    whole = tokenizer(*texts, **plain)["input_ids"]
    encoded = tokenizer(*texts, truncation="longest_first", max_length=max_length, **plain)
    return Encoded(
        input_ids=encoded["input_ids"],
        token_type_ids=encoded.get("token_type_ids"),
        read_at=None,
        labels=[example.label for example in examples],
        n_truncated=sum(len(a) > len(b) for a, b in zip(whole, encoded["input_ids"], strict=True)),
    )


def _special_ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    start = whole.index(bare[0])
    return whole[:start], whole[start + len(bare) :]
