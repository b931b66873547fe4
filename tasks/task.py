"""The type of a task: a description of one data set and how it is asked. Data only.

This module needs neither torch nor any other room of the house, so that a task file can be read,
listed and checked in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILTERS = (
    *("cut_last", "cut_period", "highlights", "lower", "lower_first", "lower_first_word"),
    *("question_mark", "upper_first"),
)
MARKED = "marked"
"""The column that a template may name beside the text columns where `Task.marks` is given."""
CANDIDATE = "candidate"
"""What stands for the answer in a causal template, and for a choice in the head's input."""
PLACEHOLDER = "@placeholder"
"""What a candidate replaces in the text of `Task.cloze`."""
Method = Literal["prompt", "head", "causal"]


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
    `lower_first_word` lowers the first word unless it is "I"; `cut_period` drops white space and one
    period at the end; `question_mark` adds the mark where the text does not end with one;
    `highlights` writes ReCoRD's `@highlight` lines as a list with dashes.
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


MetricName = Literal[
    "accuracy",
    "f1",
    "macro_f1",
    "matthews_correlation",
    "pearsonr",
    "spearmanr",
    "pearson_spearman",
    "f1_a",
    "f1_m",
    "question_exact_match",
    "answer_f1",
    "answer_exact_match",
]
OfAnyTask = Annotated[str, Field(pattern=r"^evaluate:[\w./-]+(:\w+)?$")]
"""Any metric that `evaluate` loads, by its id there: `evaluate:NAME` or `evaluate:NAME:SCORE`."""


class Task(_Data):
    """What a run needs to know of a data set, and nothing that depends on a model or an optimizer.

    Attributes:
        name: the value of `--task`, equal to the name of the file.
        title: one line for people.
        kind: what is predicted of a row: one of its `labels`; a number between the two of them; or
            one of several texts that the row brings along, its candidates.
        source: where the rows come from when no `--data-dir` is given.
        folder: their folder under `--data-dir`, where it is not the task's name.
        train, test: the splits that play the two roles; dev is always cut from train.
        text: the text columns, in reading order; without `head_text` one, or two for pairs.
        marks: pairs of columns, the words of a span and its position among the words of the first
            text. They give templates one more column, `{marked}`: the first text with the first
            span as `* span *` and the second as `# span #` (as T5 marks WSC, Raffel et al. 2020).
        head_text: the one or two inputs of a head as templates without a mask; none: the texts.
        choices: under multiple choice, the columns that hold a candidate each, or the one column
            that holds a list of them; the label column of the latter lists the right ones.
        cloze: the text column in which a candidate replaces `@placeholder`: templates are given the
            text so completed as `{candidate}`, metrics the candidate alone.
        wordings: other words for values of a text column: column -> stored value -> word.
        groups: text columns. Rows equal in the first are of one passage: train and dev take k
            passages each, whole, and share none. Rows equal in the second too are answers to one
            question.
        cut: the text columns that may be cut where an input is too long; none: the passage of
            `groups`, or else all of them.
        label: the label column.
        labels: stored label value -> name, **in logit order**; of a regression, its two ends.
        balance_at: under regression, LM-BFF's few-shot split takes k rows below it and k at or
            above it.
        unlabelled: what to do with rows labelled -1: an error, or drop and count them.
        template: the prompt; `{column}`, `{column|filter}` and exactly one `{mask}`. Empty: the task
            cannot be prompted.
        label_words: one word for each label, in logit order; none: the labels' names.
        causal_template: the prompt of a decoder, which ends with `{candidate}`: a label word, or a
            candidate of the row. None: `template` up to its mask, where no text follows that.
        max_length: tokens in an encoded example, special ones included; a decoder reads MeZO's 2,048.
        first_limit, other_limit: caps in tokens for the first and for any further text field of
            `template`.
        metric: id of the `evaluate` metric that the score equals (always: higher is better). It
            chooses checkpoints and learning rates. Those of two metrics in one, or of a benchmark's
            own, are explained in `harness/metrics.py`; `evaluate:NAME` is any other that it loads.
        further_metrics: ids of others that the test predictions are scored by, for the record.
        accumulates_shuffles: LM-BFF's script shuffles CoLA's one list again for every seed; under
            its protocol the canonical seeds do so here too (see `sampling.shuffled_rows`).
        learning_rates: the task's own default grid, by method, where the common one is off.
        licence: of the data.
        citation: of the data, and who wrote the prompts: `prompt: ...; causal: ...`.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    kind: Literal["classification", "regression", "multiple_choice"] = "classification"
    source: HubSource | TextFolders | LocalOnly
    folder: str | None = None
    train: str = "train"
    test: str
    text: tuple[str, ...] = Field(min_length=1, max_length=4)
    marks: tuple[tuple[str, str], ...] = Field(default=(), max_length=2)
    head_text: tuple[str, ...] = Field(default=(), max_length=2)
    choices: tuple[str, ...] = ()
    cloze: str | None = None
    wordings: dict[str, dict[str, str]] = {}
    groups: tuple[str, ...] = Field(default=(), max_length=2)
    cut: tuple[str, ...] = ()
    label: str = "label"
    labels: dict[int | str, str] = {}
    balance_at: float | None = None
    unlabelled: Literal["error", "drop"] = "error"
    template: str = ""
    label_words: tuple[str, ...] = ()
    causal_template: str | None = None
    max_length: int = Field(default=128, ge=8)
    first_limit: int | None = Field(default=None, ge=1)
    other_limit: int | None = Field(default=None, ge=1)
    metric: MetricName | OfAnyTask = "accuracy"
    further_metrics: tuple[MetricName | OfAnyTask, ...] = ()
    accumulates_shuffles: bool = False
    learning_rates: dict[str, tuple[float, ...]] = {}
    licence: str
    citation: str

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
        checks = {"classification": _check_classes, "regression": _check_regression}
        checks.get(self.kind, _check_choices)(self)
        _check_metrics(self)
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """What templates may name: the text columns, and `marked` where there are marks."""
        return (*self.text, MARKED) if self.marks else self.text

    @property
    def cuttable(self) -> tuple[str, ...]:
        """What may be cut where an input is too long, out of `fields`."""
        return self.cut or self.groups[:1] or self.fields

    @property
    def causal(self) -> str | None:
        """The template of a decoder, up to and with `{candidate}`; None where there is none."""
        if self.causal_template or not self.template:
            return self.causal_template
        before, after = re.split(r"\{mask\}", self.template)
        return None if "{" in after or not before else f"{before} {{{CANDIDATE}}}"

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that the task can be learned by."""
        possible = {"prompt": bool(self.template), "head": True, "causal": self.causal is not None}
        return tuple(method for method in get_args(Method) if possible[method])

    @property
    def n_outputs(self) -> int:
        """Outputs of a head: one a class; a regression, and each candidate by itself, have one."""
        return len(self.labels) if self.kind == "classification" else 1

    @property
    def ends(self) -> tuple[float, float]:
        """Of a regression: the labels' lowest and highest value."""
        low, high = map(float, self.labels)
        return low, high

    @property
    def head_inputs(self) -> tuple[str, ...]:
        """The templates of a head's one or two inputs."""
        columns = (*self.text, CANDIDATE) if self.kind == "multiple_choice" else self.text
        return self.head_text or tuple(f"{{{column}}}" for column in columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns that are read: texts, positions of marks, label."""
        positions = (position for _, position in self.marks)
        return (*self.text, *positions, *self.choices, self.label)

    @property
    def version(self) -> str:
        """The version for `prompt` and `head`; see `version_for`."""
        return self.version_for("head")

    def version_for(self, method: str) -> str:
        """Digest of everything here that can change a result; words for people are left out.

        So is what stands at its default (`labels` is always there): a field that a new kind of task
        needs makes no new version of the others. A default that was published never changes. Nor
        does a causal template change the results of the other methods.
        """
        people = {"title", "licence", "citation", "learning_rates", "source", "folder"}
        others = set() if method == "causal" else {"causal_template"}
        facts = self.model_dump(mode="json", exclude=people | others, exclude_defaults=True)
        facts["labels"] = list(self.labels.items())  # JSON objects would turn the keys to text
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _check_template(task: Task, template: str, wanted: Mapping[str, int]) -> None:
    """Raises: ValueError, where a template names what is not there, or not as often as `wanted`."""
    pieces = parse_template(template)
    choosing = CANDIDATE in wanted or (task.kind == "multiple_choice" and "mask" not in wanted)
    columns = {piece.value for piece in pieces if piece.kind == "field"}
    known = {*task.fields, CANDIDATE} if choosing else set(task.fields)
    if unknown := sorted(columns - known):
        raise ValueError(f"the template names {unknown}, but the text columns are {task.fields}")
    if (masks := sum(piece.kind == "mask" for piece in pieces)) != wanted.get("mask", 0):
        expected = "exactly one" if "mask" in wanted else "none in head_text or causal_template"
        raise ValueError(f"the template holds {masks} times {{mask}}, expected {expected}")
    places = [place for place, piece in enumerate(pieces) if piece[:2] == ("field", CANDIDATE)]
    if CANDIDATE in wanted and places != [len(pieces) - 1]:
        raise ValueError(f"a causal template ends with {{{CANDIDATE}}} and has it once, found {template!r}")


def _check_classes(task: Task) -> None:
    if len(task.labels) < 2:
        raise ValueError(f"{len(task.labels)} labels: a classification needs at least 2")
    if task.choices or task.cloze:
        raise ValueError('choices and cloze are of tasks with kind="multiple_choice"')
    if task.balance_at is not None:
        raise ValueError('balance_at is of tasks with kind="regression"')


def _check_regression(task: Task) -> None:
    values = list(task.labels)
    if len(values) != 2 or not all(isinstance(value, int) for value in values) or values != sorted(values):
        raise ValueError(f"labels of a regression are its two ends, low before high, found {values}")
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


def _check_metrics(task: Task) -> None:
    """Raises: ValueError, for metrics of other predictions than the task's."""
    of = dict.fromkeys(("pearsonr", "spearmanr", "pearson_spearman"), "numbers")
    of |= dict.fromkeys(("answer_f1", "answer_exact_match"), "texts from a list")
    plain = {"regression": "numbers", "classification": "classes", "multiple_choice": "classes"}[task.kind]
    predicted = "texts from a list" if len(task.choices) == 1 else plain
    for metric in (task.metric, *task.further_metrics):
        if metric.startswith("evaluate:"):
            continue
        if of.get(metric, "classes") != predicted:
            raise ValueError(
                f"metric {metric!r} is of {of.get(metric, 'classes')}, and the task predicts {predicted}"
            )
        if metric in ("f1", "f1_a", "f1_m", "question_exact_match") and len(task.labels) != 2:
            raise ValueError(f"{metric} is of two classes (the second is the positive one): use macro_f1")
        if metric in ("f1_m", "question_exact_match") and len(task.groups) != 2:
            raise ValueError(f"{metric} is of answers to questions: groups=(PASSAGE, QUESTION) names them")
