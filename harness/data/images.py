"""The images of a task: where they come from, and how they are held."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.hub import hub_splits, source_of
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.inputs import AS_IT_IS, Reading
from momentum_bench.harness.records.files import is_litter
from momentum_bench.tasks.types import HubSource, ImageTask, LocalOnly, SklearnDigits

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
CENTRE = 7 / 8
"""The share of each side of a scaled ImageNet image that dev and test show (224 of 256 pixels)."""


class Pixels(Protocol):
    """Images by position: anything that gives H x W x C arrays of 0 .. 255."""

    def __getitem__(self, position: int) -> np.ndarray: ...


def missing_images(task: ImageTask, data_dir: Path | None) -> str | None:
    """Which images are missing, and what to type next; see `load.missing_data`."""
    needed = f"DIR/{task.name}/{task.train}/ and {task.test}/, each with one folder of images for each class"
    if data_dir is None:
        if not isinstance(task.source, LocalOnly):
            return None
        return (
            f"{task.name} cannot be downloaded: {task.source.reason}. Give a local copy: --data-dir DIR, "
            f"with {needed}"
        )
    for split in (task.train, task.test):
        if not (data_dir / task.name / split).is_dir():
            return f"no folder {data_dir / task.name / split}: --data-dir needs {needed}"
    return None


def load_image_data(task: ImageTask, data_dir: Path | None, reading: Reading = AS_IT_IS) -> TaskData:
    """Find the images of both roles; see `load.load_task_data`.

    Images of a folder or of the hub are decoded one by one, when they are used.
    """
    if missing := missing_images(task, data_dir):
        raise UserError(missing)
    if data_dir is not None:
        return _from_folder(task, data_dir / task.name)
    source = source_of(task, reading)
    if isinstance(source, HubSource):
        return _from_hub(task, source)
    assert isinstance(source, SklearnDigits)  # the data of LocalOnly is missing
    return _from_sklearn(task, source)


def _data(
    task: ImageTask, pixels: Pixels, labels: Sequence[int], roles: Sequence[bool], origin: str, facts: str
) -> TaskData:
    """The images as the rows of a task.

    Args:
        labels: the class of each image.
        roles: whether each image is in the test split.
        facts: text that identifies the pixels.

    Raises:
        UserError: a label is none of the task's classes.
    """
    unknown = sorted(set(labels) - set(range(task.n_classes)))
    if unknown:
        raise UserError(f"{task.name}: label {unknown[0]} is none of 0 .. {task.n_classes - 1}")
    # the text of a row is the position of its image among the pixels
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


def _from_sklearn(task: ImageTask, source: SklearnDigits) -> TaskData:
    import sklearn
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    roles = [row % source.test_every == 0 for row in range(len(pixels))]
    facts = hashlib.sha256(pixels.tobytes()).hexdigest()
    return _data(task, pixels, digits.target.tolist(), roles, f"scikit-learn {sklearn.__version__}", facts)


class _Files:
    """Image files, each decoded when it is used."""

    def __init__(self, paths: list[Path], channels: int):
        self.paths, self.mode = paths, "L" if channels == 1 else "RGB"

    def __getitem__(self, position: int) -> np.ndarray:
        from PIL import Image

        path = self.paths[position]
        try:
            with Image.open(path) as image:
                return np.atleast_3d(np.asarray(image.convert(self.mode)))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable image: {first_line(error)}") from error


def _from_folder(task: ImageTask, folder: Path) -> TaskData:
    """Images by class: the classes are the sorted names of the folders, the same in both splits."""
    paths: list[Path] = []
    labels: list[int] = []
    roles: list[bool] = []
    classes: list[str] | None = None
    for split, is_test in ((task.train, False), (task.test, True)):
        names = sorted(p.name for p in (folder / split).iterdir() if p.is_dir() and not is_litter(p.name))
        if len(names) != task.n_classes or (classes is not None and names != classes):
            raise UserError(
                f"{folder / split}: found the class folders {names[:5]} ({len(names)}), expected "
                f"{task.n_classes} with the same names in {task.train} and {task.test}"
            )
        classes = names
        for label, name in enumerate(names):
            inside = (p for p in (folder / split / name).iterdir() if not is_litter(p.name))
            files = sorted(p for p in inside if p.suffix.lower() in SUFFIXES)
            if not files:
                raise UserError(f"{folder / split / name} holds no image ({', '.join(SUFFIXES)})")
            paths += files
            labels += [label] * len(files)
            roles += [is_test] * len(files)
    digest = hashlib.sha256()
    for path in paths:  # class folder, name and bytes, but not the whole path, which differs between machines
        digest.update(f"{path.parent.name}/{path.name}".encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return _data(task, _Files(paths, task.channels), labels, roles, "folder", digest.hexdigest())


class _HubImages:
    """Both splits of a hub copy, with one numbering, each image decoded when it is used."""

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
    # the commit in `origin` identifies the pixels: to hash a million images would take an hour
    return _data(task, _HubImages((train, test), task.image, task.channels), labels, roles, origin, origin)
