"""The checked examples of a task, and the digest that identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from momentum_bench.harness.records.schema import canonical_json
from momentum_bench.tasks.types import AnyTask


class Example(NamedTuple):
    """One row: its texts in the order of `Task.fields`, and its right answer.

    Attributes:
        label: the class, as a position in logit order; for a regression the number itself; for multiple
            choice the position of the (first) right candidate.
        candidates: the texts to choose from, for multiple choice.
        answers: the texts that are right, if the candidates come from a list.
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
        fingerprint: digest of all rows of train and test; other rows give another fingerprint.
        n_unlabelled: number of rows labelled -1, which the task told us to drop.
        n_empty: number of rows with an empty text; they are kept.
        left_out: positions of broken rows among the stored training rows; LM-BFF shuffles them too.
        pixels: the images of an image task, by the positions that the rows hold as their texts.
        given: of splits that are not drawn, the rows of train and of dev among `train`, by seed; the seed is
            None where all seeds share one split. None: splits are drawn.
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
    given: Mapping[int | None, tuple[range, range]] | None = None

    @property
    def called(self) -> str:
        """What `train` holds."""
        return "train rows" if self.given is None else "train and dev rows of all given splits"


def content_hash(parts: Iterable[list[Example]]) -> str:
    """First 16 hex digits of a SHA-256 over the examples of each part, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} examples\n".encode())
        for example in part:
            # rows without candidates leave out the last two fields, so that their hashes never change
            digest.update(canonical_json(example if example.candidates else example[:2]).encode())
    return digest.hexdigest()[:16]
