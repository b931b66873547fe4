"""The type of a task: a description of one data set and how it is asked. Data only.

This module needs neither torch nor any other room of the house, so that a task file can be read,
listed and checked in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILTERS = ("cut_last", "lower", "lower_first", "question_mark", "upper_first")
MARKED = "marked"
"""The column that a template may name beside the text columns where `Task.marks` is given."""


class TemplatePiece(NamedTuple):
    """One piece of a prompt: fixed text, a text field with its filters, or the mask."""

    kind: Literal["text", "field", "mask"]
    value: str  # the fixed text, or the name of the column
    filters: tuple[str, ...] = ()
    after_space: bool = False  # a field that follows a space is tokenised together with it


def filtered(text: str, name: str) -> str:
    """Apply one of `FILTERS` to a text field; empty text stays empty.

    `cut_last` drops the last character whatever it is (LM-BFF's `sent-`), `lower_first` and
    `upper_first` change the case of the first one (`sentl`, `sentu`), `lower` of all;
    `question_mark` adds the mark where the text does not end with one.
    """
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


def filled(pieces: Sequence[TemplatePiece], texts: Mapping[str, str], mask: str = "") -> str:
    """The template as one text: fields replaced by their filtered texts, the mask by `mask`."""
    parts = []
    for piece in pieces:
        text = mask if piece.kind == "mask" else piece.value
        if piece.kind == "field":
            text = texts[piece.value]
            for name in piece.filters:
                text = filtered(text, name)
        parts.append(f" {text}" if piece.after_space else text)
    return "".join(parts)


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSource(_Data):
    """A data set of the Hugging Face hub, by its full id.

    `revision` is a branch or a commit; `main` is resolved to a commit when it is first used, and the
    commit is recorded with every run. `label` is the label column of this copy, where it is not the
    task's: one that holds the labels' names, when its numbers differ from the task's.
    """

    id: str
    config: str | None = None
    revision: str = "main"
    label: str | None = None


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


class LocalOnly(_Data):
    """No known copy to download: the rows come from `--data-dir` alone, and `reason` says why."""

    reason: str


MetricName = Literal["accuracy", "f1", "macro_f1", "matthews_correlation"]


class Task(_Data):
    """What a run needs to know of a data set, and nothing that depends on a model or an optimizer.

    Attributes:
        name: the value of `--task`, equal to the name of the file.
        title: one line for people.
        source: where the rows come from when no `--data-dir` is given.
        folder: their folder under `--data-dir`, where it is not the task's name.
        train, test: the splits that play the two roles; dev is always cut from train.
        text: the text columns, in reading order; without `head_text` one, or two for pairs.
        marks: pairs of columns, the words of a span and its position among the words of the first
            text. They give templates one more column, `{marked}`: the first text with the first
            span as `* span *` and the second as `# span #` (as T5 marks WSC, Raffel et al. 2020).
        head_text: the one or two inputs of a head as templates without a mask; none: the texts.
        label: the label column.
        labels: stored label value -> name, **in logit order**.
        unlabelled: what to do with rows labelled -1: an error, or drop and count them.
        template: the prompt; `{column}`, `{column|filter}` and exactly one `{mask}`.
        label_words: one word for each label, in logit order.
        max_length: tokens in an encoded example, special ones included.
        first_limit, other_limit: caps in tokens for the first and for any further text field.
        metric: id of the `evaluate` metric that the score equals (always: higher is better). It
            chooses checkpoints and learning rates. `macro_f1` is `f1` with `average="macro"`.
        further_metrics: ids of others that the test predictions are scored by, for the record.
        accumulates_shuffles: LM-BFF's script shuffles CoLA's one list again for every seed; under
            its protocol the canonical seeds do so here too (see `sampling.shuffled_rows`).
        learning_rates: the task's own default grid, by method, where the common one is off.
        licence, citation: of the data.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    source: HubSource | TextFolders | LocalOnly
    folder: str | None = None
    train: str = "train"
    test: str
    text: tuple[str, ...] = Field(min_length=1, max_length=4)
    marks: tuple[tuple[str, str], ...] = Field(default=(), max_length=2)
    head_text: tuple[str, ...] = Field(default=(), max_length=2)
    label: str = "label"
    labels: dict[int | str, str] = Field(min_length=2)
    unlabelled: Literal["error", "drop"] = "error"
    template: str
    label_words: tuple[str, ...]
    max_length: int = Field(default=128, ge=8)
    first_limit: int | None = Field(default=None, ge=1)
    other_limit: int | None = Field(default=None, ge=1)
    metric: MetricName = "accuracy"
    further_metrics: tuple[MetricName, ...] = ()
    accumulates_shuffles: bool = False
    learning_rates: dict[str, tuple[float, ...]] = {}
    licence: str
    citation: str

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        for template, wanted in [(self.template, 1), *((text, 0) for text in self.head_text)]:
            pieces = parse_template(template)
            columns = {piece.value for piece in pieces if piece.kind == "field"}
            if unknown := sorted(columns - set(self.fields)):
                raise ValueError(f"the template names {unknown}, but the text columns are {self.fields}")
            if (masks := sum(piece.kind == "mask" for piece in pieces)) != wanted:
                expected = "exactly one" if wanted else "none in head_text"
                raise ValueError(f"the template holds {masks} times {{mask}}, expected {expected}")
        if len(self.text) > 2 and not self.head_text:
            raise ValueError(f"{len(self.text)} text columns need a head_text: a head reads one or two texts")
        if unmarked := sorted({span for span, _ in self.marks} - set(self.text)):
            raise ValueError(f"marks names {unmarked}, but the text columns are {self.text}")
        if "f1" in (self.metric, *self.further_metrics) and len(self.labels) != 2:
            raise ValueError("f1 is of two classes (the second is the positive one): use macro_f1")
        if len(self.label_words) != len(self.labels):
            raise ValueError(f"{len(self.label_words)} label words for {len(self.labels)} labels")
        if len(set(self.label_words)) != len(self.label_words):
            raise ValueError(f"two labels share a label word: {self.label_words}")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """What templates may name: the text columns, and `marked` where there are marks."""
        return (*self.text, MARKED) if self.marks else self.text

    @property
    def head_inputs(self) -> tuple[str, ...]:
        """The templates of a head's one or two inputs."""
        return self.head_text or tuple(f"{{{column}}}" for column in self.text)

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns that are read: texts, positions of marks, label."""
        return (*self.text, *(position for _, position in self.marks), self.label)

    @property
    def version(self) -> str:
        """Digest of everything here that can change a result; words for people are left out.

        So is what stands at its default (`labels` is always there): a field that a new kind of task
        needs makes no new version of the others. A default that was published never changes.
        """
        people = {"title", "licence", "citation", "learning_rates", "source", "folder"}
        facts = self.model_dump(mode="json", exclude=people, exclude_defaults=True)
        facts["labels"] = list(self.labels.items())  # JSON objects would turn the keys to text
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]
