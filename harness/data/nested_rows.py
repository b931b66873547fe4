"""Rows that hold other rows, as the official files of SuperGLUE and FewGLUE have them, made flat.

WSC keeps the columns of its spans in an object of their own. MultiRC keeps all questions of a passage, with
their answers, in one row, and ReCoRD all its queries. The hub's copies are flat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import Task


def flat_rows(task: Task, rows: Iterable[dict[str, Any]], split: str) -> Iterator[dict[str, Any]]:
    """The rows with our column names; rows that are flat stay as they are.

    Raises:
        UserError: a nested row lacks a part.
    """
    for number, row in enumerate(rows, 1):
        try:
            yield from _flat(task, row)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{task.name}, {split}, row {number}: a nested row, as SuperGLUE's files have them, lacks "
                f"{error} in it, or has it in another form"
            ) from None


def _flat(task: Task, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(target := row.get("target"), Mapping) and "target" not in task.columns:
        yield {**row, **target}
    elif not isinstance(passage := row.get("passage"), Mapping):
        yield row
    elif task.cloze and len(task.choices) == 1:
        yield from _queries(task, passage, row)
    elif len(task.groups) == 2 and len(task.text) == 3:
        yield from _answers(task, passage)
    else:
        yield row


def _answers(task: Task, passage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each answer to each question about a passage."""
    for question in passage["questions"]:
        for answer in question["answers"]:
            texts = (passage["text"], question["question"], answer["text"])
            yield {**dict(zip(task.text, texts, strict=True)), task.label: answer["label"]}


def _queries(task: Task, passage: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each query about a passage; an entity is given by its first and its last character."""
    text = passage["text"]
    entities = [text[entity["start"] : entity["end"] + 1] for entity in passage["entities"]]
    for query in row["qas"]:
        texts = dict(zip(task.text, (text, query["query"]), strict=True))
        answers = [answer["text"] for answer in query["answers"]]
        yield {**texts, task.choices[0]: list(dict.fromkeys(entities)), task.label: answers}
