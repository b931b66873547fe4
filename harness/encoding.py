"""From examples to token ids: the prompt with its mask, or the plain (pair) input of a head."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, islice
from typing import Any

import torch

from harness.errors import UserError
from harness.kinds import References, candidate_texts, references
from harness.packing import Packing, packed_inputs
from harness.sources import Example
from tasks import Task
from tasks.task import CANDIDATE, TemplatePiece, filled, filtered, parse_template

CAUSAL_LENGTH = 2048
"""Tokens of a decoder's input at most, as in MeZO's large-model code, whatever the task."""

Tokenizer = Any  # transformers' fast tokenizers share no public base type


@dataclass(frozen=True)
class Encoded:
    """Token ids of the sequences of n examples, each as long as it is (nothing is padded here).

    An example is one sequence, or several consecutive ones: its candidates, scored one by one.

    Attributes:
        input_ids, token_type_ids: a list for each sequence; the second is None where all are 0.
        read_at: for each sequence, the positions whose scores of the vocabulary are read (the mask,
            or those before the tokens of a candidate); None where a head reads the sequence.
        labels: n classes in logit order, numbers of a regression, or positions of right candidates.
        references: what predictions of the n examples are scored against.
        n_truncated: examples of which some text was cut.
        targets: for each sequence, the token that stands behind each of its `read_at`; None where
            the scores of other tokens (label words) are read.
        candidates: how many consecutive sequences belong to each example; None: one each.
    """

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None
    read_at: list[list[int]] | None
    labels: list[int] | list[float]
    references: References
    n_truncated: int
    targets: list[list[int]] | None = None
    candidates: list[int] | None = None

    def batch(
        self, rows: Sequence[int], pad_id: int, device: torch.device, packing: Packing | None = None
    ) -> Batch:
        """The examples at `rows` on `device`: packed into one row, or padded to the longest sequence."""
        counts = None if self.candidates is None else [self.candidates[row] for row in rows]
        sequences = list(rows) if counts is None else [i for row in rows for i in self._sequences[row]]

        def padded(of: list[list[int]], value: int) -> torch.Tensor:
            tensors = [torch.tensor(of[i]) for i in sequences]
            stacked = torch.nn.utils.rnn.pad_sequence(tensors, True, value)
            return stacked.to(device, non_blocking=True)

        types, places = self.token_type_ids, self.read_at
        if packing is not None:
            inputs = packed_inputs(
                [self.input_ids[i] for i in sequences],
                None if types is None else [types[i] for i in sequences],
                None if places is None else [places[i] for i in sequences],
                packing,
                device,
            )
        else:
            lengths = torch.tensor([len(self.input_ids[i]) for i in sequences])
            inputs = {
                "input_ids": padded(self.input_ids, pad_id),
                "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long().to(device),
            }
            if types is not None:
                inputs["token_type_ids"] = padded(types, 0)
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
    def lengths(self) -> list[int]:
        """Tokens of each example's longest sequence."""
        if self.candidates is None:
            return [len(ids) for ids in self.input_ids]
        return [max(len(self.input_ids[i]) for i in sequences) for sequences in self._sequences]

    @cached_property
    def _sequences(self) -> list[range]:
        """Of each example, where its sequences are; only with `candidates`."""
        ends = list(accumulate(self.candidates or ()))
        return [range(end - n, end) for end, n in zip(ends, self.candidates or (), strict=True)]


@dataclass(frozen=True)
class Batch:
    """What a model is given for B examples of S sequences, and what is read from it, on one device.

    Attributes:
        inputs: of the model: S x T, padded, or 1 x N with the `segments` of the row.
        read_at: the R places that are read, as their sequences (R) and the positions there (R), in
            the order of the sequences; None for a head.
        targets: the token whose score is read at each place (R); None: the label words'.
        candidates: how many consecutive sequences each example has; None: one each.
        labels: B.
    """

    inputs: dict[str, Any]
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
    """The words of one token that are spelled most like a text, three at most.

    Only tokens that start a word like the text does count: behind a space, where it has one.
    """
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))
    spaced = bool(pieces) and pieces[0][:1] in SPACES
    words = {}
    for token in tokenizer.get_vocab():
        word = token[1:] if spaced else token
        if len(word) > 1 and word.isalpha() and (token[:1] in SPACES) == spaced:
            words[word.lower()] = word
    return [words[word] for word in difflib.get_close_matches(text.strip().lower(), words)]


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
    cuttable = task.cuttable
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
        may_go = [ids for place, ids in cut.items() if pieces[place].value in cuttable]
        while (over := sum(map(len, cut.values())) - room) > 0:
            longest = max(may_go, key=len, default=[])
            if not longest:
                raise UserError(_too_long(task, row, max_length + over, max_length))
            longest.pop()
        n_truncated += any(len(cut[place]) < len(parts[place]) for place in fields)
        ids = list(prefix)
        for place, piece in enumerate(pieces):
            if piece.kind == "mask":
                read_at.append([len(ids)])
            ids += (parts | cut)[place]
        input_ids.append(ids + suffix)
    return Encoded(input_ids, None, read_at, labels_of(examples), references(task, examples), n_truncated)


def labels_of(examples: Sequence[Example]) -> list[int] | list[float]:
    """The labels of examples, which are all of one type."""
    return [example.label for example in examples]


def _too_long(task: Task, row: int, needed: int, max_length: int) -> str:
    return (
        f"{task.name}: example {row + 1} of a split needs {needed} tokens even without "
        f"{' and '.join(task.cuttable)}, and {max_length} is the limit; nothing else may be cut: "
        f"raise the task's max_length, or use a model that reads more"
    )


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
    """The model's own single or pair input, one for each candidate under multiple choice.

    The input is the task's texts, or its `head_text` templates where it has them. Of too long a pair
    the longer text is cut first, or those texts alone that the task lets be cut.

    Raises:
        UserError: what may not be cut is longer than `max_length`.
    """
    inputs = [parse_template(text) for text in task.head_inputs]
    choosing = task.kind == "multiple_choice"
    rows = [
        _rows(task, example, candidate_texts(task, example) if choosing else None) for example in examples
    ]
    plain = {"split_special_tokens": True, "verbose": False}

    def ids_of(rows: Sequence[Mapping[str, str]], **options: Any) -> Any:
        return tokenizer(*([filled(pieces, row) for row in rows] for pieces in inputs), **plain, **options)

    encoded = ids_of(list(chain(*rows)))
    lengths = iter(map(len, encoded["input_ids"]))
    longest = [max(islice(lengths, len(of_example))) for of_example in rows]
    too_long = [i for i, length in enumerate(longest) if length > max_length]
    if task.cuttable != task.fields:  # else the tokenizer cuts
        for i in too_long:
            rows[i] = _fitted(
                tokenizer,
                task,
                rows[i],
                list(chain(*inputs)),
                i,
                max_length,
                lambda rows: max(map(len, ids_of(rows)["input_ids"])),
            )
    if too_long:
        encoded = ids_of(list(chain(*rows)), truncation="longest_first", max_length=max_length)
    return Encoded(
        input_ids=encoded["input_ids"],
        token_type_ids=encoded.get("token_type_ids"),
        read_at=None,
        labels=labels_of(examples),
        references=references(task, examples),
        n_truncated=len(too_long),
        candidates=[len(of_example) for of_example in rows] if choosing else None,
    )


def encode_candidates(
    tokenizer: Tokenizer, task: Task, examples: Sequence[Example], max_length: int, right_only: bool = False
) -> Encoded:
    """The input of a decoder: for each candidate the filled `causal` template.

    The candidate's tokens are those behind the prompt's own, as in MeZO's large-model code; the
    position before each of them is read. Where a tokenizer joins the prompt's end with a candidate,
    all candidates of the example are read from where the first of them departs from the prompt.
    Candidates are the label words, or those of the example.

    Args:
        right_only: encode the right candidate of each example alone, as its only one.

    Raises:
        UserError: a candidate is empty, label words cannot be told apart, or what may not be cut is
            longer than `max_length`.
    """
    assert task.causal is not None
    pieces = parse_template(task.causal)
    prefix = _special_ends(tokenizer)[0]
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}

    def ids_of(rows: Sequence[Mapping[str, str]], of: Sequence[TemplatePiece] = pieces) -> list[list[int]]:
        return [prefix + ids for ids in tokenizer([filled(of, row) for row in rows], **plain)["input_ids"]]

    rows = [_rows(task, example, candidate_texts(task, example)) for example in examples]
    flat = iter(ids_of(list(chain(*rows))))
    whole = [list(islice(flat, len(of_example))) for of_example in rows]
    too_long = [i for i, sequences in enumerate(whole) if max(map(len, sequences)) > max_length]
    for i in too_long:
        rows[i] = _fitted(
            tokenizer, task, rows[i], pieces, i, max_length, lambda rows: max(map(len, ids_of(rows)))
        )
        whole[i] = ids_of(rows[i])
    prompts = ids_of([of_example[0] for of_example in rows], pieces[:-1])
    input_ids, read_at, targets, counts = [], [], [], []
    for i, sequences in enumerate(whole):
        start = min(_common_start(prompts[i], ids) for ids in sequences)
        chosen = [int(examples[i].label)] if right_only else range(len(sequences))
        counts.append(len(chosen))
        for candidate in chosen:
            ids = sequences[candidate]
            if not 0 < start < len(ids):
                raise UserError(
                    f"{task.name}: candidate {candidate + 1} of example {i + 1} is empty, or nothing stands "
                    f"before it: found {filled(pieces, rows[i][candidate])[-60:]!r}"
                )
            input_ids.append(ids)
            read_at.append(list(range(start - 1, len(ids) - 1)))
            targets.append(ids[start:])
    if task.kind != "multiple_choice":
        _check_words(tokenizer, task, targets[: len(task.label_words)])
    return Encoded(
        input_ids=input_ids,
        token_type_ids=None,
        read_at=read_at,
        labels=[0] * len(examples) if right_only else labels_of(examples),
        references=references(task, examples),
        n_truncated=len(too_long),
        targets=targets,
        candidates=counts,
    )


def _common_start(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _rows(task: Task, example: Example, candidates: Sequence[str] | None) -> list[dict[str, str]]:
    """What templates are filled with: the example's texts, once for each candidate if there are any."""
    texts = dict(zip(task.fields, example.texts, strict=True))
    return [texts] if candidates is None else [texts | {CANDIDATE: text} for text in candidates]


def _fitted(
    tokenizer: Tokenizer,
    task: Task,
    rows: list[dict[str, str]],
    pieces: Sequence[TemplatePiece],
    place: int,
    max_length: int,
    length: Callable[[list[dict[str, str]]], int],
) -> list[dict[str, str]]:
    """The rows of one example with its texts cut from their tails, in all rows alike, until they fit.

    The longest text that may be cut goes first. Texts are cut between tokens and tokenised anew.
    """
    shown = {piece.value for piece in pieces if piece.kind == "field"}
    columns = [column for column in task.cuttable if column in shown]
    while (needed := length(rows)) > max_length:
        texts = rows[0]
        ends = {
            column: [
                end
                for _, end in tokenizer(
                    texts[column], add_special_tokens=False, return_offsets_mapping=True, verbose=False
                )["offset_mapping"]
            ]
            for column in columns
        }
        by_length = sorted(columns, key=lambda column: len(ends[column]))
        longest = by_length[-1] if by_length else None
        if longest is None or not texts[longest]:
            raise UserError(_too_long(task, place, needed, max_length))
        second = len(ends[by_length[-2]]) if len(by_length) > 1 else 0
        n_tokens = len(ends[longest])
        keep = n_tokens - max(1, min(needed - max_length, n_tokens - second))
        # one character less at least: several tokens may end at one
        end = min(ends[longest][keep - 1] if keep > 0 else 0, len(texts[longest]) - 1)
        rows = [row | {longest: texts[longest][:end]} for row in rows]
    return rows


def _check_words(tokenizer: Tokenizer, task: Task, tokens: Sequence[list[int]]) -> None:
    """Raises: UserError, where label words are unknown to the vocabulary or read the same."""
    for word, ids in zip(task.label_words, tokens, strict=True):
        if tokenizer.unk_token_id in ids:
            raise UserError(f"{task.name}: the label word {word!r} is not in this model's vocabulary")
    if len({tuple(ids) for ids in tokens}) < len(tokens):
        raise UserError(
            f"{task.name}: label words collide in this vocabulary: {task.label_words} -> {list(tokens)}"
        )


def _special_ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    start = whole.index(bare[0])
    return whole[:start], whole[start + len(bare) :]
