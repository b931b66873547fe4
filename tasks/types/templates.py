"""The language of prompts: text with `{column}`, `{column|filter}` and `{mask}`."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

FILTERS = (
    *("cut_last", "cut_period", "highlights", "lower", "lower_first", "lower_first_word"),
    *("question_mark", "upper_first"),
)
MARKED = "marked"
"""The further column that a template may name if the task has `Task.marks`."""
CANDIDATE = "candidate"
"""The field that stands for the answer in a causal template, and for a choice in a head's input."""
PLACEHOLDER = "@placeholder"
"""The word in the text of `Task.cloze` that a candidate replaces."""


class TemplatePiece(NamedTuple):
    """One piece of a prompt: fixed text, a text field with its filters, or the mask."""

    kind: Literal["text", "field", "mask"]
    value: str  # the fixed text, or the name of the column
    filters: tuple[str, ...] = ()
    after_space: bool = False  # a field after a space is tokenised together with that space


def filtered(text: str, name: str) -> str:
    """Apply one of `FILTERS` to a text field; empty text stays empty.

    * `cut_last` drops the last character, whatever it is (LM-BFF's `sent-`).
    * `cut_period` drops white space and one period at the end.
    * `highlights` writes ReCoRD's `@highlight` lines as a list with dashes.
    * `lower` changes all letters to lower case, `lower_first` the first letter (LM-BFF's `sentl`),
      `lower_first_word` the first word unless it is "I".
    * `question_mark` adds a question mark if the text does not end with one.
    * `upper_first` changes the first letter to upper case (LM-BFF's `sentu`).

    Raises:
        ValueError: there is no such filter.
    """
    if name == "cut_period":
        return text.rstrip().removesuffix(".")
    if name == "highlights":
        return text.replace("@highlight\n", "- ")
    if name == "lower_first_word":
        word, space, rest = text.partition(" ")
        return text if word == "I" else f"{word.lower()}{space}{rest}"
    if name == "cut_last":
        return text[:-1]
    if name == "lower":
        return text.lower()
    if name == "question_mark":
        return f"{text}?" if text and not text.endswith("?") else text
    if name == "lower_first":
        return text[:1].lower() + text[1:]
    if name == "upper_first":
        return text[:1].upper() + text[1:]
    raise ValueError(f"unknown filter {name!r}: the filters are {', '.join(FILTERS)}")


def parse_template(template: str) -> tuple[TemplatePiece, ...]:
    """Split `"{premise|cut_last}?{mask}, {hypothesis|lower_first}"` into its pieces.

    Pieces are tokenised one by one, as in LM-BFF. A space before a field belongs to the piece of that
    field, because subword tokenizers recognise a word by the space in front of it.

    Raises:
        ValueError: unbalanced braces, an unknown filter, or Python's `!r` or `:.10` after a column.
    """
    pieces: list[TemplatePiece] = []
    after_space = False
    for literal, field, format_spec, conversion in string.Formatter().parse(template):
        if format_spec or conversion:
            suffix = f"!{conversion}" if conversion else f":{format_spec}"
            raise ValueError(
                f"the template has {suffix!r} after {field!r}, and Python's formats are not applied here: "
                f"write {{COLUMN}} or {{COLUMN|FILTER}}; the filters are {', '.join(FILTERS)}"
            )
        is_column = field is not None and field != "mask"
        if literal:
            after_space = is_column and literal.endswith(" ")
            text = literal[:-1] if after_space else literal
            if text:
                pieces.append(TemplatePiece("text", text))
        if field == "mask":
            pieces.append(TemplatePiece("mask", ""))
        elif field is not None:
            column, *filters = field.split("|")
            for name in filters:
                filtered("", name)
            pieces.append(TemplatePiece("field", column, tuple(filters), after_space))
        after_space = False
    return tuple(pieces)


def filled(pieces: Sequence[TemplatePiece], texts: Mapping[str, str], mask: str = "") -> str:
    """The template as one text, with the filtered texts in place of the fields and `mask` of the mask."""
    parts = []
    for piece in pieces:
        text = mask if piece.kind == "mask" else piece.value
        if piece.kind == "field":
            text = texts[piece.value]
            for name in piece.filters:
                text = filtered(text, name)
        parts.append(f" {text}" if piece.after_space else text)
    return "".join(parts)
