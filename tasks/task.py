"""The type of a task: a description of one data set and how it is asked. Data only.

This module needs neither torch nor any other room of the house, so that a task file can be read,
listed and checked in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import string
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILTERS = ("cut_last", "lower_first", "upper_first")


class TemplatePiece(NamedTuple):
    """One piece of a prompt: fixed text, a text field with its filters, or the mask."""

    kind: Literal["text", "field", "mask"]
    value: str  # the fixed text, or the name of the column
    filters: tuple[str, ...] = ()
    after_space: bool = False  # a field that follows a space is tokenised together with it


def filtered(text: str, name: str) -> str:
    """Apply one of `FILTERS` to a text field; empty text stays empty.

    `cut_last` drops the last character whatever it is (LM-BFF's `sent-`), `lower_first` and
    `upper_first` change the case of the first one (`sentl`, `sentu`).
    """
    if name == "cut_last":
        return text[:-1]
    if name == "lower_first":
        return text[:1].lower() + text[1:]
    if name == "upper_first":
        return text[:1].upper() + text[1:]
    raise ValueError(f"unknown filter {name!r}: the filters are {', '.join(FILTERS)}")


def parse_template(template: str) -> tuple[TemplatePiece, ...]:
    """Split `"{premise|cut_last}?{mask}, {hypothesis|lower_first}"` into its pieces.

    Pieces are tokenised one by one, as in LM-BFF, so a space that stands before a field belongs to
    that field's piece: subword tokenizers know a word by the space in front of it.

    Raises:
        ValueError: unbalanced braces or an unknown filter.
    """
    pieces: list[TemplatePiece] = []
    after_space = False
    for literal, field, _, _ in string.Formatter().parse(template):
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


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSource(_Data):
    """A data set of the Hugging Face hub, by its full id.

    `revision` is a branch or a commit; `main` is resolved to a commit when it is first used, and the
    commit is recorded with every run.
    """

    id: str
    config: str | None = None
    revision: str = "main"


class TextFolders(_Data):
    """Text files inside an installed pip package, one folder a label, read without importing it.

    Exact duplicates are dropped (the first by sorted path stays; a text that stands under two labels
    is dropped whole). A text belongs to the test split when its SHA-256 digest, as an integer modulo
    `modulus`, is in `test_residues`; all other texts are the train split.
    """

    distribution: str
    folder: str
    modulus: int
    test_residues: tuple[int, ...]


class Task(_Data):
    """What a run needs to know of a data set, and nothing that depends on a model or an optimizer.

    Attributes:
        name: the value of `--task`, equal to the name of the file.
        title: one line for people.
        source: where the rows come from when no `--data-dir` is given.
        train, test: the splits that play the two roles; dev is always cut from train.
        text: the text columns, in reading order (one, or two for pairs).
        label: the label column.
        labels: stored label value -> name, **in logit order**.
        unlabelled: what to do with rows labelled -1: an error, or drop and count them.
        template: the prompt; `{column}`, `{column|filter}` and exactly one `{mask}`.
        label_words: one word for each label, in logit order.
        max_length: tokens in an encoded example, special ones included.
        first_limit, other_limit: caps in tokens for the first and for any further text field.
        metric: id of the `evaluate` metric that the score equals (always: higher is better).
        learning_rates: the task's own default grid, by method, where the common one is off.
        licence, citation: of the data.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    source: HubSource | TextFolders
    train: str = "train"
    test: str
    text: tuple[str, ...] = Field(min_length=1, max_length=2)
    label: str = "label"
    labels: dict[int | str, str] = Field(min_length=2)
    unlabelled: Literal["error", "drop"] = "error"
    template: str
    label_words: tuple[str, ...]
    max_length: int = Field(default=128, ge=8)
    first_limit: int | None = Field(default=None, ge=1)
    other_limit: int | None = Field(default=None, ge=1)
    metric: Literal["accuracy"] = "accuracy"
    learning_rates: dict[str, tuple[float, ...]] = {}
    licence: str
    citation: str

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        pieces = parse_template(self.template)
        columns = {piece.value for piece in pieces if piece.kind == "field"}
        if unknown := sorted(columns - set(self.text)):
            raise ValueError(f"the template names {unknown}, but the text columns are {self.text}")
        if (masks := sum(piece.kind == "mask" for piece in pieces)) != 1:
            raise ValueError(f"the template holds {masks} times {{mask}}, expected exactly one")
        if len(self.label_words) != len(self.labels):
            raise ValueError(f"{len(self.label_words)} label words for {len(self.labels)} labels")
        if len(set(self.label_words)) != len(self.label_words):
            raise ValueError(f"two labels share a label word: {self.label_words}")
        return self

    @property
    def version(self) -> str:
        """Digest of everything here that can change a result; words for people are left out."""
        people = {"title", "licence", "citation", "learning_rates", "source"}
        facts = self.model_dump(mode="json", exclude=people)
        facts["labels"] = list(self.labels.items())  # JSON objects would turn the keys to text
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]
