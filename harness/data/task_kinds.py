"""What the kind of a task means for its rows: what a split balances, what belongs together, what
predictions are compared with. By kind, never by task; no torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from momentum_bench.harness.data.examples import Example
from momentum_bench.tasks import Task
from momentum_bench.tasks.task import PLACEHOLDER

Prediction = int | float | str
"""A class, a number, or the text that was chosen."""
Answer = int | float | tuple[str, ...]
"""What a prediction is compared with: a class, a number, or all texts that are right."""
T = TypeVar("T")


@dataclass(frozen=True)
class References:
    """What the predictions of a split are scored against.

    Attributes:
        answers: of each example.
        questions: the number of the question that each example answers; None where each has its own.
        candidates: the texts behind the predicted positions, where texts are scored; else None.
    """

    answers: list[Answer]
    questions: list[int] | None
    candidates: list[tuple[str, ...]] | None

    def stated(self, positions: Sequence[int | float]) -> list[Prediction]:
        """Predictions as they are scored and stored: texts where texts are scored."""
        if self.candidates is None:
            return list(positions)
        return [texts[int(at)] for texts, at in zip(self.candidates, positions, strict=True)]


def references(task: Task, examples: Sequence[Example]) -> References:
    """What predictions of these examples are scored against."""
    of_texts = len(task.choices) == 1
    return References(
        answers=[example.answers if of_texts else example.label for example in examples],
        questions=questions(task, examples),
        candidates=[example.candidates for example in examples] if of_texts else None,
    )


def candidate_texts(task: Task, example: Example) -> Sequence[str]:
    """What `{candidate}` stands for: the label words; else the candidates, or the cloze they complete."""
    if task.kind != "multiple_choice":
        return task.label_words
    if task.cloze is None:
        return example.candidates
    cloze = example.texts[task.text.index(task.cloze)]
    return [cloze.replace(PLACEHOLDER, candidate) for candidate in example.candidates]


def with_one_answer(example: Example) -> Example:
    """The example to train on: without right candidates beside its label, which would count as wrong."""
    right = set(example.answers)
    if len(right & set(example.candidates)) < 2:
        return example
    label = example.candidates[int(example.label)]
    kept = tuple(text for text in example.candidates if text == label or text not in right)
    return example._replace(candidates=kept, label=kept.index(label))


def strata(task: Task, examples: Sequence[Example]) -> list[int]:
    """The class of each row that a few-shot split balances: 0 below `balance_at` and else 1 of a number."""
    if task.balance_at is None:
        return [int(example.label) for example in examples]
    return [int(example.label >= task.balance_at) for example in examples]


def passages(task: Task, examples: Sequence[Example]) -> list[int]:
    """The number of each row's passage, from 0 in the order of their first rows."""
    return _numbered(examples, lambda example: _values(task, example, task.groups[:1]))


def questions(task: Task, examples: Sequence[Example]) -> list[int] | None:
    """The number of the question that each row answers, from 0 in the order of their first rows.

    None where every row is a question of its own.
    """
    if len(task.groups) < 2:
        return None
    return _numbered(examples, lambda example: _values(task, example, task.groups))


def _values(task: Task, example: Example, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(example.texts[task.text.index(column)] for column in columns)


def _numbered(items: Sequence[T], key: Callable[[T], object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(key(item), len(numbers)) for item in items]
