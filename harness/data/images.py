"""Images of a task: where they come from, how they are held, and what of them a network is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.hub import hub_splits
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.tasks import HubSource
from momentum_bench.tasks.image_task import ImageTask

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
CENTRE = 7 / 8
"""Of a resized ImageNet image, the share of each side that dev and test show (256 -> 224)."""


class Pixels(Protocol):
    """Images by position: anything that gives H x W x C arrays of 0 .. 255."""

    def __getitem__(self, position: int) -> np.ndarray: ...


def missing_images(task: ImageTask, data_dir: Path | None) -> str | None:
    """What of the images is not there at all, and what to type next; None: nothing is missing."""
    if data_dir is None:
        return None
    for split in (task.train, task.test):
        if not (data_dir / task.name / split).is_dir():
            return (
                f"no folder {data_dir / task.name / split}: --data-dir needs DIR/{task.name}/{task.train}/ "
                f"and {task.test}/, each with one folder of images a class"
            )
    return None


def load_image_data(task: ImageTask, data_dir: Path | None) -> TaskData:
    """Find the images of both roles; those of a folder or of the hub are decoded one by one, when used.

    Args:
        data_dir: a folder with `<task>/{train,test}/<class>/*.png`; None: the task's own source.

    Raises:
        UserError: no such data, no network, another number of classes than the task has.
    """
    if missing := missing_images(task, data_dir):
        raise UserError(missing)
    if data_dir is not None:
        return _from_folder(task, data_dir / task.name)
    return _from_hub(task, task.source) if isinstance(task.source, HubSource) else _from_sklearn(task)


def _data(
    task: ImageTask, pixels: Pixels, labels: Sequence[int], roles: Sequence[bool], origin: str, facts: str
) -> TaskData:
    """Args: roles: whether each image is of the test split; facts: text that identifies the pixels."""
    unknown = sorted(set(labels) - set(range(task.n_classes)))
    if unknown:
        raise UserError(f"{task.name}: label {unknown[0]} is none of 0 .. {task.n_classes - 1}")
    # an image stands among the rows by its position
    rows = [Example((str(position),), int(label)) for position, label in enumerate(labels)]
    digest = hashlib.sha256(f"{facts}\n{list(labels)}\n{list(map(int, roles))}".encode())
    return TaskData(
        task=task,
        train=[row for row, is_test in zip(rows, roles, strict=True) if not is_test],
        test=[row for row, is_test in zip(rows, roles, strict=True) if is_test],
        origin=origin,
        fingerprint=digest.hexdigest()[:16],
        n_unlabelled=0,
        n_empty=0,
        pixels=pixels,
    )


def _from_sklearn(task: ImageTask) -> TaskData:
    import sklearn
    from sklearn.datasets import load_digits

    assert not isinstance(task.source, HubSource)
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    roles = [row % task.source.test_every == 0 for row in range(len(pixels))]
    facts = hashlib.sha256(pixels.tobytes()).hexdigest()
    return _data(task, pixels, digits.target.tolist(), roles, f"scikit-learn {sklearn.__version__}", facts)


class _Files:
    """Image files, decoded when asked for."""

    def __init__(self, paths: list[Path], channels: int):
        self.paths, self.mode = paths, "L" if channels == 1 else "RGB"

    def __getitem__(self, position: int) -> np.ndarray:
        from PIL import Image

        path = self.paths[position]
        try:
            with Image.open(path) as image:
                return np.atleast_3d(np.asarray(image.convert(self.mode)))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not an image that can be read: {first_line(error)}") from error


def _from_folder(task: ImageTask, folder: Path) -> TaskData:
    """Classes are the folders' names in sorted order, the same in both splits."""
    paths: list[Path] = []
    labels: list[int] = []
    roles: list[bool] = []
    classes: list[str] | None = None
    for split, is_test in ((task.train, False), (task.test, True)):
        found = sorted(path.name for path in (folder / split).iterdir() if path.is_dir())
        if len(found) != task.n_classes or (classes is not None and found != classes):
            raise UserError(
                f"{folder / split}: found the class folders {found[:5]} ({len(found)}), expected "
                f"{task.n_classes} of the same names in {task.train} and {task.test}"
            )
        classes = found
        for label, name in enumerate(found):
            files = sorted(p for p in (folder / split / name).iterdir() if p.suffix.lower() in SUFFIXES)
            if not files:
                raise UserError(f"{folder / split / name} holds no image ({', '.join(SUFFIXES)})")
            paths += files
            labels += [label] * len(files)
            roles += [is_test] * len(files)
    digest = hashlib.sha256()
    for path in paths:  # a class folder, a name and the bytes: a path would differ between machines
        digest.update(f"{path.parent.name}/{path.name}".encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return _data(task, _Files(paths, task.channels), labels, roles, "folder", digest.hexdigest())


class _HubImages:
    """Both splits of a hub copy in one numbering, decoded when asked for."""

    def __init__(self, splits: Sequence[Any], column: str, channels: int):
        self.splits, self.column, self.mode = splits, column, "L" if channels == 1 else "RGB"

    def __getitem__(self, position: int) -> np.ndarray:
        first, second = self.splits
        row = first[position] if position < len(first) else second[position - len(first)]
        return np.atleast_3d(np.asarray(row[self.column].convert(self.mode)))


def _from_hub(task: ImageTask, source: HubSource) -> TaskData:
    local = f"DIR/{task.name}/{task.train}/CLASS/*.png and {task.test}/CLASS/*.png"
    train, test, origin = hub_splits(task.name, source, (task.train, task.test), local)
    for split in (train, test):
        if missing := [name for name in (task.image, task.label) if name not in split.column_names]:
            raise UserError(f"{task.name}: {origin} has no column {missing[0]!r}; found {split.column_names}")
    labels = [*train[task.label], *test[task.label]]
    roles = [False] * len(train) + [True] * len(test)
    # the commit in `origin` identifies the pixels; hashing a million images would take an hour
    return _data(task, _HubImages((train, test), task.image, task.channels), labels, roles, origin, origin)
