"""From examples to token ids: the prompt with its mask, a head's input, or a decoder's candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from momentum_bench.harness.data.examples import Example
from momentum_bench.harness.data.task_kinds import candidate_texts, references
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.encoding.label_words import Tokenizer, check_words, label_word_ids
from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import Task
from momentum_bench.tasks.types import CANDIDATE, TemplatePiece, filled, filtered, parse_template

CAUSAL_LENGTH = 2048
"""A decoder's input has at most so many tokens, whatever the task, as in MeZO's large-model code."""


def encode_prompts(tokenizer: Tokenizer, task: Task, examples: Sequence[Example], max_length: int) -> Encoded:
    """The filled template of each example; its pieces are tokenised one by one and joined, as in LM-BFF.

    A text field is cut from its end: first to the task's own limit, then the longest field until the
    whole fits. The template's words and the mask are never cut.

    Args:
        max_length: tokens of a sequence at most, special tokens included.

    Raises:
        UserError: there is no mask token, or what may not be cut is longer than `max_length`.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"--method prompt needs a masked language model, and this tokenizer "
            f"({type(tokenizer).__name__}) has no mask token: use --method head or another model"
        )
    words = label_word_ids(tokenizer, task)
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
    return Encoded(
        input_ids=input_ids,
        token_type_ids=None,
        read_at=read_at,
        labels=labels_of(examples),
        references=references(task, examples),
        n_truncated=n_truncated,
        words=words,
    )


def labels_of(examples: Sequence[Example]) -> list[int] | list[float]:
    """The labels of the examples: all classes (or positions of candidates), or all numbers."""
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
    """Token ids of one text field of all examples; a special token's name in a text is plain text."""
    column = task.fields.index(piece.value)
    texts = [example.texts[column] for example in examples]
    for name in piece.filters:
        texts = [filtered(text, name) for text in texts]
    if piece.after_space:
        texts = [f" {text}" for text in texts]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def encode_plain(
    tokenizer: Tokenizer,
    task: Task,
    examples: Sequence[Example],
    max_length: int,
    has_segments: bool = False,
) -> Encoded:
    """The model's own single or pair input; under multiple choice one for each candidate.

    The input is the task's texts, or its `head_text` templates if it has them. If a pair is too long, its
    longer text is cut first; where the task lists the texts that may be cut, only those are.

    Args:
        max_length: tokens of a sequence at most, special tokens included.
        has_segments: whether the model tells the texts of a pair apart by segment ids. Then they are made
            even if the tokenizer leaves them out by default, as ALBERT's does.

    Raises:
        UserError: what may not be cut is longer than `max_length`.
    """
    inputs = [parse_template(text) for text in task.head_inputs]
    choosing = task.kind == "multiple_choice"
    rows = [
        _rows(task, example, candidate_texts(task, example) if choosing else None) for example in examples
    ]
    plain = {"split_special_tokens": True, "verbose": False}
    if has_segments and len(inputs) == 2:
        plain["return_token_type_ids"] = True

    def ids_of(rows: Sequence[Mapping[str, str]], **options: Any) -> Any:
        return tokenizer(*([filled(pieces, row) for row in rows] for pieces in inputs), **plain, **options)

    encoded = ids_of(list(chain(*rows)))
    lengths = iter(map(len, encoded["input_ids"]))
    longest = [max(islice(lengths, len(sequences))) for sequences in rows]
    too_long = [i for i, length in enumerate(longest) if length > max_length]
    if task.cuttable != task.fields:  # else the tokenizer cuts, below
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
        candidates=[len(sequences) for sequences in rows] if choosing else None,
    )


def encode_candidates(
    tokenizer: Tokenizer, task: Task, examples: Sequence[Example], max_length: int, right_only: bool = False
) -> Encoded:
    """The input of a decoder: for each candidate the filled `causal` template.

    The candidate's tokens are those after the prompt's own, as in MeZO's large-model code; the position
    before each of them is read. A tokenizer may join the prompt's end with a candidate. Then all
    candidates of the example are read from the first place where one of them differs from the prompt.
    Candidates are the label words, or those of the example. Label words of one token each need no sequence
    each: see `_at_one_place`.

    Args:
        max_length: tokens of a sequence at most, special tokens included.
        right_only: encode only the right candidate of each example.

    Raises:
        UserError: a candidate is empty, label words cannot be told apart, or what may not be cut is
            longer than `max_length`.
    """
    assert task.causal is not None
    pieces = parse_template(task.causal)
    prefix = _special_ends(tokenizer)[0]
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}

    def ids_of(rows: Sequence[Mapping[str, str]], used: Sequence[TemplatePiece] = pieces) -> list[list[int]]:
        texts = [filled(used, row) for row in rows]
        return [prefix + ids for ids in tokenizer(texts, **plain)["input_ids"]]

    rows = [_rows(task, example, candidate_texts(task, example)) for example in examples]
    flat = iter(ids_of(list(chain(*rows))))
    whole = [list(islice(flat, len(candidates))) for candidates in rows]
    too_long = [i for i, sequences in enumerate(whole) if max(map(len, sequences)) > max_length]
    for i in too_long:
        rows[i] = _fitted(
            tokenizer, task, rows[i], pieces, i, max_length, lambda rows: max(map(len, ids_of(rows)))
        )
        whole[i] = ids_of(rows[i])
    prompts = ids_of([candidates[0] for candidates in rows], pieces[:-1])
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
    encoded = Encoded(
        input_ids=input_ids,
        token_type_ids=None,
        read_at=read_at,
        labels=[0] * len(examples) if right_only else labels_of(examples),
        references=references(task, examples),
        n_truncated=len(too_long),
        targets=targets,
        candidates=counts,
    )
    if task.kind == "multiple_choice":
        return encoded
    check_words(tokenizer, task, targets[: len(task.label_words)])
    return _at_one_place(encoded)


def _at_one_place(encoded: Encoded) -> Encoded:
    """One sequence for each example, if all candidates are the same single tokens behind its prompt.

    Their scores then stand at the prompt's last place, for one forward pass instead of one for each class.
    The log-probabilities of an example's candidates differ from these scores by one number, so the softmax
    over the candidates, its loss and the choice are the same.

    Returns:
        What it was given, if some candidate has several tokens, or joins the prompt's end in some example.
    """
    assert encoded.targets is not None
    of_examples = [[encoded.targets[i] for i in sequences] for sequences in encoded.sequences]
    words = of_examples[0]
    if any(len(word) != 1 for word in words) or any(found != words for found in of_examples):
        return encoded
    prompts = [encoded.input_ids[sequences[0]][:-1] for sequences in encoded.sequences]
    return replace(
        encoded,
        input_ids=prompts,
        read_at=[[len(ids) - 1] for ids in prompts],
        targets=None,
        candidates=None,
        words=[token for (token,) in words],
    )


def _common_start(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from their start on."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _rows(task: Task, example: Example, candidates: Sequence[str] | None) -> list[dict[str, str]]:
    """The values that fill the templates: the example's texts, once for each candidate if there are any."""
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
    """The rows of one example with its texts cut from their ends, the same in all rows, until they fit.

    The longest text that may be cut is cut first. Texts are cut between tokens and tokenised again.

    Args:
        place: the example's position in its part of the split, for the message.
        length: the tokens of the longest of some rows.

    Raises:
        UserError: the rows do not fit even without the texts that may be cut.
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
        # at least one character less, because several tokens may end at the same character
        end = min(ends[longest][keep - 1] if keep > 0 else 0, len(texts[longest]) - 1)
        rows = [row | {longest: texts[longest][:end]} for row in rows]
    return rows


def _special_ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    start = whole.index(bare[0])
    return whole[:start], whole[start + len(bare) :]
