"""The type of a text task: a description of one data set and of how a model is asked about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from momentum_bench.tasks.types.base import BaseTask, check_metrics, digest_of
from momentum_bench.tasks.types.sources import AnySource, HubSource, LocalOnly, TextFolders
from momentum_bench.tasks.types.templates import CANDIDATE, MARKED, parse_template

Method = Literal["prompt", "head", "causal"]
"""How a pre-trained model learns a text task."""


class Task(BaseTask):
    """All that a run needs to know of a data set of texts; nothing depends on a model or an optimizer.

    Attributes, next to those of `BaseTask`:
        kind: what a model predicts for a row: one of the `labels`, a number between the two of them, or
            one of several texts that the row itself holds, its candidates.
        source: where the rows come from without `--data-dir`.
        lmbff_source: where they come from under the protocol `lm-bff`, if LM-BFF used another version of the
            data set. None: from `source`.
        folder: their folder under `--data-dir`, if it is not the task's name.
        test: the split that is scored at the end.
        text: the text columns, in reading order. Without `head_text`: one column, or two for pairs.
        marks: pairs of columns: the words of a span, and its position among the words of the first
            text. They give templates one more column, `{marked}`: the first text with the first
            span as `* span *` and the second as `# span #` (as T5 marks WSC, Raffel et al. 2020).
        head_text: the one or two inputs of a head, as templates without a mask. Empty: the texts.
        choices: for multiple choice, the columns that hold one candidate each; or the one column
            that holds a list of candidates, and then the label column lists the right ones.
        cloze: the text column in which a candidate replaces `@placeholder`. Templates get the
            completed text as `{candidate}`; metrics get the candidate alone.
        wordings: other words for values of a text column: column -> stored value -> word.
        groups: text columns. Rows with equal text in the first belong to one passage: train and dev
            each take k whole passages, and share none. Rows with equal text in both are answers to
            one question.
        cut: the text columns that may be cut if an input is too long. Empty: the passage of
            `groups`, or else all text columns.
        labels: stored label value -> name, **in logit order**. For a regression, its two ends.
        balance_at: for a regression, the few-shot split of LM-BFF takes k rows below this number and
            k rows at or above it.
        unlabelled: what to do with rows labelled -1: stop with an error, or drop and count them.
        template: the prompt: `{column}`, `{column|filter}` and exactly one `{mask}`. Empty: the task
            has no prompt.
        label_words: one word for each label, in logit order. Empty: the names of the labels.
        causal_template: the prompt of a decoder. It ends with `{candidate}`, which is a label word or a
            candidate of the row. None: `template` up to its mask, if no field follows the mask.
        max_length: tokens in an encoded example, special tokens included. A decoder reads MeZO's 2,048
            instead.
        first_limit, other_limit: most tokens of the first text field of `template`, and of each other.
        accumulates_shuffles: LM-BFF's script shuffles the one list of CoLA again for every seed. With
            True the canonical seeds do the same under its protocol (see `data.splits.shuffled_rows`).
    """

    kind: Literal["classification", "regression", "multiple_choice"] = "classification"
    source: HubSource | TextFolders | LocalOnly
    lmbff_source: HubSource | None = None
    folder: str | None = None
    test: str
    text: tuple[str, ...] = Field(min_length=1, max_length=4)
    marks: tuple[tuple[str, str], ...] = Field(default=(), max_length=2)
    head_text: tuple[str, ...] = Field(default=(), max_length=2)
    choices: tuple[str, ...] = ()
    cloze: str | None = None
    wordings: dict[str, dict[str, str]] = Field(default={})
    groups: tuple[str, ...] = Field(default=(), max_length=2)
    cut: tuple[str, ...] = ()
    labels: dict[int | str, str] = Field(default={})
    balance_at: float | None = None
    unlabelled: Literal["error", "drop"] = "error"
    template: str = ""
    label_words: tuple[str, ...] = ()
    causal_template: str | None = None
    max_length: int = Field(default=128, ge=8)
    first_limit: int | None = Field(default=None, ge=1)
    other_limit: int | None = Field(default=None, ge=1)
    accumulates_shuffles: bool = False

    @model_validator(mode="before")
    @classmethod
    def _words_from_names(cls, values: Any) -> Any:
        if (
            values.get("template")
            and not values.get("label_words")
            and isinstance(values.get("labels"), dict)
        ):
            return values | {"label_words": tuple(values["labels"].values())}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        prompts = [(self.template, {"mask": 1})] if self.template else []
        prompts += [(text, {}) for text in self.head_text]
        prompts += [(self.causal_template, {CANDIDATE: 1})] if self.causal_template else []
        for template, wanted in prompts:
            _check_template(self, template, wanted)
        if len(self.text) > 2 and not self.head_text:
            raise ValueError(f"{len(self.text)} text columns need a head_text: a head reads one or two texts")
        named = {
            "marks": {span for span, _ in self.marks},
            "wordings": set(self.wordings),
            "groups": set(self.groups),
            "cut": set(self.cut),
            "cloze": {self.cloze} if self.cloze else set(),
        }
        for field, columns in named.items():
            if unknown := sorted(map(str, columns - set(self.text))):
                raise ValueError(f"{field} names {unknown}, but the text columns are {self.text}")
        if self.template or self.label_words:
            if len(self.label_words) != len(self.labels):
                raise ValueError(f"{len(self.label_words)} label words for {len(self.labels)} labels")
            if len(set(self.label_words)) != len(self.label_words):
                raise ValueError(f"two labels share a label word: {self.label_words}")
        if self.kind != "regression":
            _check_spellings(self)
        checks = {"classification": _check_classes, "regression": _check_regression}
        checks.get(self.kind, _check_choices)(self)
        predicted = "numbers" if self.kind == "regression" else "classes"
        predicted = "texts from a list" if len(self.choices) == 1 else predicted
        check_metrics(self, predicted, len(self.labels), len(self.groups))
        return self

    @property
    def label_positions(self) -> dict[int | str, int]:
        """Position in logit order by stored label: its value, the value as text, or its name.

        Copies of one data set write the same label in different ways.
        """
        return {
            spelling: position
            for position, label in enumerate(self.labels.items())
            for spelling in _spellings(*label)
        }

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that templates may name: the text columns, and `marked` if there are marks."""
        return (*self.text, MARKED) if self.marks else self.text

    @property
    def cuttable(self) -> tuple[str, ...]:
        """Those of `fields` that may be cut if an input is too long."""
        return self.cut or self.groups[:1] or self.fields

    @property
    def causal(self) -> str | None:
        """The template of a decoder, up to and with `{candidate}`; None: the task has none."""
        if self.causal_template or not self.template:
            return self.causal_template
        before, after = re.split(r"\{mask\}", self.template)
        return None if "{" in after or not before else f"{before} {{{CANDIDATE}}}"

    def source_for(self, protocol: str | None) -> AnySource:
        """Where the rows come from under a protocol, without `--data-dir`."""
        return (self.lmbff_source if protocol == "lm-bff" else None) or self.source

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that can learn the task."""
        possible = {"prompt": bool(self.template), "head": True, "causal": self.causal is not None}
        return tuple(method for method in get_args(Method) if possible[method])

    @property
    def n_outputs(self) -> int:
        """Outputs of a head: one for each class. A regression has one, and so has each single candidate."""
        return len(self.labels) if self.kind == "classification" else 1

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest label of a regression."""
        low, high = map(float, self.labels)
        return low, high

    @property
    def head_inputs(self) -> tuple[str, ...]:
        """The templates of a head's one or two inputs."""
        columns = (*self.text, CANDIDATE) if self.kind == "multiple_choice" else self.text
        return self.head_text or tuple(f"{{{column}}}" for column in columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns that are read: texts, positions of marks, candidates, and last the label."""
        positions = (position for _, position in self.marks)
        return (*self.text, *positions, *self.choices, self.label)

    @property
    def version(self) -> str:
        """The version for `prompt` and `head`; see `version_for`."""
        return self.version_for("head")

    def version_for(self, method: str) -> str:
        """First 12 hex digits of a SHA-256 of every fact here that can change a result.

        Left out are: words for people; the causal template, for all methods but `causal`; and every field
        that has its default, except `labels`. So a new field for a new kind of task leaves the versions of
        all other tasks as they are. For the same reason a published default never changes.
        """
        people = {"title", "licence", "citation", "learning_rates", "source", "lmbff_source", "folder"}
        others = set() if method == "causal" else {"causal_template"}
        facts = self.model_dump(mode="json", exclude=people | others, exclude_defaults=True)
        facts["labels"] = list(self.labels.items())  # JSON objects would turn the keys to text
        return digest_of(facts)


def _spellings(value: int | str, name: str) -> tuple[int | str, ...]:
    return value, str(value), name


def _check_spellings(task: Task) -> None:
    """Raises: ValueError, when one stored text may mean two labels, which would merge or mix up classes."""
    meanings: dict[int | str, int | str] = {}
    for value, name in task.labels.items():
        for spelling in _spellings(value, name):
            if (other := meanings.setdefault(spelling, value)) != value:
                raise ValueError(
                    f"the label {spelling!r} could be {other!r} ({task.labels[other]!r}) as well as "
                    f"{value!r} ({name!r}): give each label a name that is no name or value of another"
                )


def _check_template(task: Task, template: str, wanted: Mapping[str, int]) -> None:
    """Check one template; `wanted` says how often it must hold `{mask}` or `{candidate}`.

    Raises:
        ValueError: it names a column that the task does not have, or holds a field too often or not at all.
    """
    pieces = parse_template(template)
    choosing = CANDIDATE in wanted or (task.kind == "multiple_choice" and "mask" not in wanted)
    columns = {piece.value for piece in pieces if piece.kind == "field"}
    known = {*task.fields, CANDIDATE} if choosing else set(task.fields)
    if unknown := sorted(columns - known):
        raise ValueError(f"the template names {unknown}, but the text columns are {task.fields}")
    if (masks := sum(piece.kind == "mask" for piece in pieces)) != wanted.get("mask", 0):
        expected = "exactly one" if "mask" in wanted else "none in head_text or causal_template"
        raise ValueError(f"the template holds {{mask}} {masks} times, expected {expected}")
    places = [place for place, piece in enumerate(pieces) if piece[:2] == ("field", CANDIDATE)]
    if CANDIDATE in wanted and places != [len(pieces) - 1]:
        raise ValueError(f"a causal template must end with its only {{{CANDIDATE}}}, found {template!r}")


def _check_classes(task: Task) -> None:
    if len(task.labels) < 2:
        raise ValueError(f"{len(task.labels)} labels: a classification needs at least 2")
    if task.choices or task.cloze:
        raise ValueError('choices and cloze belong to tasks with kind="multiple_choice"')
    if task.balance_at is not None:
        raise ValueError('balance_at belongs to tasks with kind="regression"')


def _check_regression(task: Task) -> None:
    values = list(task.labels)
    if len(values) != 2 or not all(isinstance(value, int) for value in values) or values != sorted(values):
        raise ValueError(f"labels of a regression are its two ends, low before high; found {values}")
    if task.balance_at is None or not task.ends[0] < task.balance_at <= task.ends[1]:
        raise ValueError(f"a regression needs balance_at between its ends {task.ends}")


def _check_choices(task: Task) -> None:
    if task.template or task.label_words:
        raise ValueError("candidates of several tokens do not fit a mask: leave out template and label_words")
    if len(task.choices) > 1 and len(task.choices) != len(task.labels):
        raise ValueError(f"{len(task.choices)} choices for {len(task.labels)} labels")
    if len(task.choices) == 1 and task.labels:
        raise ValueError("candidates from a list have no labels: their label column lists the right ones")
    if not task.choices:
        raise ValueError('kind="multiple_choice" needs choices: the columns of the candidates')
