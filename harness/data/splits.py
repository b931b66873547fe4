"""Splits of a task's rows, as pure functions of named seeds. numpy only.

The few-shot split follows LM-BFF's `generate_k_shot_data.py` (Gao et al. 2021). It uses numpy's legacy
generator, whose numbers never change. Nothing here depends on what ran before in the process.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from momentum_bench.harness.data import task_kinds
from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.errors import UserError
from momentum_bench.tasks.types import ImageTask, Task

TEST_SEED = 42
"""MeZO draws its 1,000 test rows with this seed, for every seed of the split."""

CANONICAL_SEEDS = (100, 13, 21, 42, 87)
"""LM-BFF's seeds of the split, in the order of its script."""


class FewShotSplit(NamedTuple):
    """Positions of rows in the training data, grouped by class, in LM-BFF's order."""

    train: list[int]
    dev: list[int]
    short_classes: list[int]


def shuffled_rows(n: int, seed: int, accumulate: bool = False) -> list[int]:
    """Positions of n training rows in the order in which LM-BFF's script draws them.

    Args:
        accumulate: whether the script shuffles the same list again for every seed, as it does for
            CoLA. The order is then the one after all canonical seeds up to this one, no matter which
            seeds are asked for. A seed that is not canonical starts from the stored order.
    """
    seeds = [seed]
    if accumulate and seed in CANONICAL_SEEDS:
        seeds = list(CANONICAL_SEEDS[: CANONICAL_SEEDS.index(seed) + 1])
    rows = np.arange(n)
    for each in seeds:
        rows = rows[np.random.RandomState(each).permutation(n)]
    return rows.tolist()


def few_shot_split(labels: Sequence[int], n_classes: int, k: int, order: Sequence[int]) -> FewShotSplit:
    """Draw k rows of each class for train and the next k for dev, exactly as LM-BFF does.

    Classes come in the order of their first row in the shuffled order. Rows [0:k] of a class are train and
    rows [k:2k] are dev. A class with too few rows gives shorter parts and is listed in `short_classes`.

    Args:
        labels: the class of each training row, 0 .. n_classes - 1.
        order: positions of all training rows, from `shuffled_rows`.

    Raises:
        UserError: a class has no train row, or fewer than two classes have dev rows.
    """
    by_class: dict[int, list[int]] = {}
    for row in order:
        by_class.setdefault(labels[row], []).append(row)
    train = [row for rows in by_class.values() for row in rows[:k]]
    dev = [row for rows in by_class.values() for row in rows[k : 2 * k]]
    sizes = [len(by_class.get(label, ())) for label in range(n_classes)]
    if min(sizes) == 0:
        raise UserError(
            f"the training rows hold no example of class {sizes.index(0)} (in logit order; rows of "
            f"each class: {sizes}): every class needs at least one"
        )
    if sum(size > k for size in sizes) < 2:
        raise UserError(
            f"k = {k} leaves fewer than two classes with dev rows: the classes have {sizes} rows, "
            f"train takes the first {k} of each and dev the next {k}. "
            f"Choose --k below {sorted(sizes)[-2]}"
        )
    return FewShotSplit(train, dev, [c for c, size in enumerate(sizes) if size < 2 * k])


def few_shot_passages(passages: Sequence[int], k: int, seed: int) -> FewShotSplit:
    """Draw the rows of k whole passages for train and of the next k for dev.

    Rows of one passage share most of their text, so no passage is in both parts. Every passage is equally
    likely, no matter how many rows it has, and its rows stay in their stored order. `short_classes` is
    [0] if dev has fewer than k passages.

    Args:
        passages: the passage of each training row, numbered from 0.

    Raises:
        UserError: no passage is left for dev.
    """
    n = max(passages) + 1
    if n <= k:
        raise UserError(
            f"k = {k} passages for train leave none for dev: the training rows are of {n} passages. "
            f"Choose --k below {n}"
        )
    rows: list[list[int]] = [[] for _ in range(n)]
    for row, passage in enumerate(passages):
        rows[passage].append(row)
    order = np.random.RandomState(seed).permutation(n).tolist()
    train, dev = ([row for p in part for row in rows[p]] for part in (order[:k], order[k : 2 * k]))
    return FewShotSplit(train, dev, [0] if n < 2 * k else [])


def held_out_split(labels: Sequence[int], share: float, order: Sequence[int]) -> FewShotSplit:
    """Split all rows: in each class the first `share` of them is dev, at least one, and the rest is train.

    Args:
        labels: the class of each training row.
        order: positions of all training rows, from `shuffled_rows`.

    Raises:
        UserError: a class has fewer than two rows.
    """
    by_class: dict[int, list[int]] = {}
    for row in order:
        by_class.setdefault(labels[row], []).append(row)
    if small := sorted(label for label, rows in by_class.items() if len(rows) < 2):
        raise UserError(f"class {small[0]} has one training row, and train and dev need one each")
    sizes = {label: max(1, round(share * len(rows))) for label, rows in by_class.items()}
    train = [row for label, rows in by_class.items() for row in rows[sizes[label] :]]
    dev = [row for label, rows in by_class.items() for row in rows[: sizes[label]]]
    return FewShotSplit(train, dev, [])


def select_test_rows(n: int, limit: int | None, questions: Sequence[int] | None = None) -> list[int]:
    """Positions of the test rows that are scored: all n, or MeZO's draw of `limit` of them.

    Args:
        questions: the question that each row answers. Then whole questions are drawn until the next
            one would exceed the limit, because an exact match needs all answers to a question.

    Raises:
        UserError: the first question alone has more rows than the limit.
    """
    if limit is None or n <= limit:
        return list(range(n))
    random = np.random.RandomState(TEST_SEED)
    if questions is None:
        drawn: list[int] = random.permutation(n)[:limit].tolist()
        return drawn
    rows: list[list[int]] = [[] for _ in range(max(questions) + 1)]
    for row, question in enumerate(questions):
        rows[question].append(row)
    chosen: list[int] = []
    for question in random.permutation(len(rows)):
        if len(chosen) + len(rows[question]) > limit:
            break
        chosen += rows[question]
    if not chosen:
        raise UserError(f"--test-limit {limit} is less than the answers to one question: raise it")
    return chosen


def draw_split(data: TaskData, k: int, seed: int, protocol: str) -> FewShotSplit:
    """The few-shot split of a task's training rows, in the order that the protocol shuffles.

    Each part has k rows of each class, k rows of each half of a regression's scale, or the rows of k
    passages. For images, k = 0 takes all rows and holds out the task's share of them as dev.

    Raises:
        UserError: too few rows of a class, or too few passages.
    """
    if data.given is not None:
        return _given_split(data, data.given, k, seed)
    if isinstance(data.task, ImageTask):
        labels, order = [int(row.label) for row in data.train], shuffled_rows(len(data.train), seed)
        if k:
            return few_shot_split(labels, data.task.n_classes, k, order)
        return held_out_split(labels, data.task.dev_fraction, order)
    if data.task.groups:
        return few_shot_passages(task_kinds.passages(data.task, data.train), k, seed)
    order = _drawing_order(data.task, data, seed, protocol)
    return few_shot_split(task_kinds.strata(data.task, data.train), len(data.task.labels), k, order)


def _given_split(
    data: TaskData, given: Mapping[int | None, tuple[range, range]], k: int, seed: int
) -> FewShotSplit:
    """The split that others have drawn.

    Raises:
        UserError: there is none for this seed, it is not for this k, or it lacks a class.
    """
    task = data.task
    assert isinstance(task, Task)  # there are none for images
    if (found := given.get(seed, given.get(None))) is None:
        seeds = ",".join(map(str, given))
        raise UserError(
            f"{task.name} has no given split for seed {seed}: the folders are for --seeds {seeds}"
        )
    train, dev = (list(rows) for rows in found)
    classes = task_kinds.passages if task.groups else task_kinds.strata
    counts = [Counter(classes(task, [data.train[row] for row in rows])) for rows in (train, dev)]
    largest = len(counts[0]) if task.groups else max(counts[0].values())
    if largest > k or (largest < k and None in given):
        of = "passages" if task.groups else "rows of a class"
        raise UserError(
            f"--k {k}: the given training rows of {task.name} have {largest} {of}: type --k {largest}"
        )
    if task.groups:
        return FewShotSplit(train, dev, [0] if len(counts[1]) < k else [])
    names = list(task.labels.values())
    if missing := [name for place, name in enumerate(names) if not counts[0][place]]:
        raise UserError(f"the given training rows of {task.name} have no row of {', '.join(missing)}")
    if len(counts[1]) < 2:
        raise UserError(f"the given dev rows of {task.name} are of one class, and a choice needs two")
    return FewShotSplit(train, dev, [c for c in range(len(names)) if min(of[c] for of in counts) < k])


def _drawing_order(task: Task, data: TaskData, seed: int, protocol: str) -> list[int]:
    """Positions of the training examples in the order in which a split draws them.

    LM-BFF shuffles all stored rows, also the broken ones that are left out here.
    """
    accumulate = task.accumulates_shuffles and protocol == "lm-bff"
    stored = shuffled_rows(len(data.train) + len(data.left_out), seed, accumulate)
    if not data.left_out:
        return stored
    left_out = set(data.left_out)
    return [row - bisect(data.left_out, row) for row in stored if row not in left_out]
