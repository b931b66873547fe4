"""What the kind of a task means for its rows. No torch here.

It decides what a split balances, which rows belong together, and what predictions are compared with. The
functions ask for the kind of a task, never for its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from momentum_bench.harness.data.examples import Example
from momentum_bench.tasks.types import PLACEHOLDER, AnyTask, ImageTask, Task

Prediction = int | float | str
"""A class, a number, or the text that was chosen."""
Answer = int | float | tuple[str, ...]
"""What is right for a prediction: a class, a number, or several texts."""
T = TypeVar("T")


@dataclass(frozen=True)
class References:
    """What the predictions of a split are compared with.

    Attributes:
        answers: one for each example.
        questions: the number of the question that each example answers; None: each example is its own.
        candidates: the texts behind the predicted positions, if texts are scored; else None.
    """

    answers: list[Answer]
    questions: list[int] | None
    candidates: list[tuple[str, ...]] | None

    def stated(self, positions: Sequence[int | float]) -> list[Prediction]:
        """Predictions as they are scored and stored: as texts, if texts are scored."""
        if self.candidates is None:
            return list(positions)
        pairs = zip(self.candidates, positions, strict=True)
        return [texts[int(position)] for texts, position in pairs]


def references(task: Task, examples: Sequence[Example]) -> References:
    """What predictions of these examples are compared with."""
    scores_texts = len(task.choices) == 1
    return References(
        answers=[example.answers if scores_texts else example.label for example in examples],
        questions=questions(task, examples),
        candidates=[example.candidates for example in examples] if scores_texts else None,
    )


def candidate_texts(task: Task, example: Example) -> Sequence[str]:
    """The texts for `{candidate}`: the label words, or for multiple choice the row's candidates.

    With `Task.cloze`, each candidate comes inside the text that it completes.
    """
    if task.kind != "multiple_choice":
        return task.label_words
    if task.cloze is None:
        return example.candidates
    cloze = example.texts[task.text.index(task.cloze)]
    return [cloze.replace(PLACEHOLDER, candidate) for candidate in example.candidates]


def with_one_answer(example: Example) -> Example:
    """The example to train on: of several right candidates only its label stays.

    In training every candidate but the label counts as wrong, and the other right ones are not wrong.
    """
    right = set(example.answers)
    if len(right & set(example.candidates)) < 2:
        return example
    label = example.candidates[int(example.label)]
    kept = tuple(text for text in example.candidates if text == label or text not in right)
    return example._replace(candidates=kept, label=kept.index(label))


def strata(task: Task, examples: Sequence[Example]) -> list[int]:
    """The stratum of each row; a few-shot split draws the same number of rows from each stratum.

    Strata are the classes. For a regression there are two: 0 below `balance_at`, 1 at or above it.
    """
    if task.balance_at is None:
        return [int(example.label) for example in examples]
    return [int(example.label >= task.balance_at) for example in examples]


def stratum_names(task: AnyTask) -> list[str]:
    """Names of what a few-shot split balances, in the order of `FewShotSplit.short_classes`."""
    if isinstance(task, Task) and task.groups:
        return ["passages"]
    return list(task.labels.values())


def passages(task: Task, examples: Sequence[Example]) -> list[int]:
    """The number of each row's passage, from 0 in the order of their first rows."""
    return _numbered(examples, lambda example: _values(task, example, task.groups[:1]))


def questions(task: AnyTask, examples: Sequence[Example]) -> list[int] | None:
    """The number of the question that each row answers, from 0 in the order of their first rows.

    None: every row is a question of its own, as every image is.
    """
    if isinstance(task, ImageTask) or len(task.groups) < 2:
        return None
    return _numbered(examples, lambda example: _values(task, example, task.groups))


def _values(task: Task, example: Example, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(example.texts[task.text.index(column)] for column in columns)


def _numbered(items: Sequence[T], key: Callable[[T], object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(key(item), len(numbers)) for item in items]
