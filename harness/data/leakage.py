"""Test rows that are training rows too: a score on them measures memory."""

from __future__ import annotations

from collections.abc import Iterable

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.errors import UserError
from momentum_bench.tasks.types import Task

Question = tuple[str | tuple[str, ...], ...]
"""What two examples have in common where they are the same question, whatever their labels."""

MOST_LEAKED = 0.5
"""The share of test rows that may be training rows too. In published data it is up to a fifth (in MPQA, where
the rows are phrases). Above a half, probably the same file was given twice."""


def question(example: Example) -> Question:
    """Everything in an example except the answer."""
    return example.texts, example.candidates


def asked(task: Task, example: Example) -> Question:
    """What train and test should not share: the passage where rows are grouped by it, else the question."""
    if task.groups:
        return (example.texts[task.fields.index(task.groups[0])],)
    return question(example)


def count_leaked(task: Task, seen: Iterable[Example], test: Iterable[Example]) -> int:
    """How many of the test rows ask what one of the seen rows asks."""
    known = {asked(task, example) for example in seen}
    return sum(asked(task, example) in known for example in test)


def leaked_rows(data: TaskData) -> str | None:
    """How many test rows are training rows too, in words; None: there is none, or the task is one of images.

    Raises:
        UserError: most test rows are training rows.
    """
    task = data.task
    if not isinstance(task, Task) or not (n := count_leaked(task, data.train, data.test)):
        return None
    share = f"{n} of {len(data.test)} test rows ({n / len(data.test):.1%})"
    text = f"{share} {'have a passage of training rows' if task.groups else 'are training rows too'}"
    if n > MOST_LEAKED * len(data.test):
        raise UserError(
            f"{task.name}: {text}: the test would measure memory. Give {task.train} and {task.test} files "
            f"that share no rows"
        )
    return text
