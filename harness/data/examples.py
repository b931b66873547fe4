"""Examples of a task, checked, and the digest that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from momentum_bench.harness.records.schema import canonical_json
from momentum_bench.tasks.types import AnyTask


class Example(NamedTuple):
    """One row: its texts in the order of `Task.fields`, and what is right.

    Attributes:
        label: the class as a position in logit order; the number itself of a regression; the
            position of the (first) right one of the candidates.
        candidates: the texts to choose from, under multiple choice.
        answers: the texts that are right, where the candidates come from a list.
    """

    texts: tuple[str, ...]
    label: int | float
    candidates: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskData:
    """The rows of a task in their stored order, checked.

    Attributes:
        origin: the source without any path: hub id and commit, package and version, or `folder`.
        fingerprint: digest of all rows of both roles; other rows, other fingerprint.
        n_unlabelled: rows labelled -1 that the task told us to drop.
        n_empty: rows with an empty text; they are kept.
        left_out: positions of broken rows among the stored training rows; LM-BFF draws from all.
        pixels: of an image task, the images by the positions that stand for them in the rows.
    """

    task: AnyTask
    train: list[Example]
    test: list[Example]
    origin: str
    fingerprint: str
    n_unlabelled: int
    n_empty: int
    left_out: tuple[int, ...] = ()
    pixels: Any = None


def content_hash(parts: Iterable[list[Example]]) -> str:
    """First 16 hex digits of a SHA-256 over the examples of each part, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} examples\n".encode())
        for example in part:
            # what a row has none of is left out, so that the hashes of plain rows stay as they were
            digest.update(canonical_json(example if example.candidates else example[:2]).encode())
    return digest.hexdigest()[:16]
