"""Few-shot splits that somebody else has drawn: `--splits given`.

They lie in `DIR/TASK/K-SEED/`, a folder for each seed, as LM-BFF's script and `tasks split` write them; or in
`DIR/TASK/` itself, as FewGLUE and FewCLUE have them, and then all seeds share one split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from momentum_bench.harness.data import lmbff
from momentum_bench.harness.data.examples import Example, TaskData, content_hash
from momentum_bench.harness.data.leakage import MOST_LEAKED, count_leaked
from momentum_bench.harness.data.nested_rows import flat_rows
from momentum_bench.harness.data.row_files import SUFFIXES, read_files, split_files
from momentum_bench.harness.data.text_rows import checked_examples
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Reading
from momentum_bench.tasks.types import Task

Place = tuple[int | None, Path]
"""A seed and the folder with its rows; the seed is None where all seeds share the folder."""


def load_given_data(task: Task, data_dir: Path | None, k: int, reading: Reading) -> TaskData:
    """The checked rows of all splits for this k, and which of them are train and dev of each seed.

    All splits are read, whatever seeds are asked for, so that the fingerprint depends on the files alone.

    Raises:
        UserError: there is no such split, a file of it is missing or there twice, a row cannot be read, the
            seeds have different test rows, or most dev rows of a seed are its training rows.
    """
    places = _places(task, data_dir, k)
    pooled: list[Example] = []
    parts: list[list[Example]] = []
    given: dict[int | None, tuple[range, range]] = {}
    test, n_dropped = _test_of(task, places, reading)
    for seed, folder in places:
        ranges = []
        for split, path in (("train", _file(folder, ["train"])), ("dev", _file(folder, _dev_names(task)))):
            examples, dropped = _examples(task, path, f"{folder.name}, {split}", reading)
            ranges.append(range(len(pooled), len(pooled) + len(examples)))
            pooled += examples
            parts.append(examples)
            n_dropped += dropped
        train, dev = parts[-2:]
        if (n_shared := count_leaked(task, train, dev)) > MOST_LEAKED * len(dev):
            raise UserError(
                f"{folder}: {n_shared} of {len(dev)} dev rows are training rows too, so dev would measure "
                f"memory: give train and dev files that share no rows"
            )
        given[seed] = ranges[0], ranges[1]
    chosen = f", --tsv {reading.tsv}" if reading.tsv else ""
    return TaskData(
        task=task,
        train=pooled,
        test=test,
        origin=f"folder, given splits{chosen}",
        fingerprint=content_hash([*parts, test]),
        n_unlabelled=n_dropped,
        n_empty=sum(not all(text.strip() for text in example.texts) for example in pooled + test),
        given=given,
    )


def _places(task: Task, data_dir: Path | None, k: int) -> list[Place]:
    """The folders with the splits, by seed."""
    if data_dir is None:
        raise UserError("--splits given reads the splits of a folder: add --data-dir DIR")
    folders = [data_dir / name for name in _folder_names(task) if (data_dir / name).is_dir()]
    if not folders:
        names = " or ".join(f"{name}/" for name in _folder_names(task))
        raise UserError(
            f"no folder {names} in {data_dir}: --splits given reads the splits of {task.name} there"
        )
    if len(folders) > 1:
        raise UserError(
            f"the splits of {task.name} may be in {folders[0]} and in {folders[1].name}: keep one of them"
        )
    [folder] = folders
    found = sorted(
        (int(match[2]), int(match[1]), path)
        for path in folder.iterdir()
        if path.is_dir() and (match := re.fullmatch(r"(\d+)-(\d+)", path.name))
    )
    if not found:
        return [(None, folder)]
    places: list[Place] = [(seed, path) for seed, of_k, path in found if of_k == k]
    if not places:
        others = ", ".join(map(str, sorted({of_k for _, of_k, _ in found})))
        raise UserError(
            f"{folder} has no folder {k}-SEED: its splits are for k = {others}. Give one of them as --k"
        )
    return places


def _folder_names(task: Task) -> list[str]:
    layout = lmbff.LAYOUTS.get(task.name)
    names = [task.folder or task.name, *([layout.folder] if layout else [])]
    return list(dict.fromkeys(names))


def _dev_names(task: Task) -> list[str]:
    """What a dev file may be called. GLUE's `validation` is the test split of few-shot work."""
    is_test = task.test.startswith("validation")
    return ["dev", "val", "valid", "dev_matched", *([] if is_test else ["validation"])]


def _test_names(task: Task) -> list[str]:
    ending = "_mismatched" if task.test.endswith("_mismatched") else "_matched"
    return list(dict.fromkeys(["test", f"test{ending}", task.test]))


def _file(folder: Path, names: Sequence[str]) -> Path:
    """The one file of a split.

    Raises:
        UserError: there is none, or more than one.
    """
    found = _files(folder, names)
    if not found:
        raise UserError(
            f"{folder} has no {names[0]} file: --splits given reads train, dev and test files "
            f"(.{', .'.join(SUFFIXES)}) there, and draws nothing"
        )
    if len(found) > 1:
        raise UserError(f"{folder} has several {names[0]} files, keep one: {[path.name for path in found]}")
    return found[0]


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    return list(dict.fromkeys(path for name in names for path in split_files(folder, name)))


def _test_of(task: Task, places: Sequence[Place], reading: Reading) -> tuple[list[Example], int]:
    """The test rows, and how many unlabelled ones were dropped.

    Raises:
        UserError: there are none, or two seeds have different ones.
    """
    folders = [folder for _, folder in places]
    if not _files(folders[0], _test_names(task)) and places[0][0] is not None:
        folders = [folders[0].parent]  # one file for all seeds, next to their folders
    paths = [_file(folder, _test_names(task)) for folder in folders]
    first, *others = [_examples(task, path, f"{path.parent.name}, test", reading) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise UserError(
                f"{paths[0]} and {path} differ: all seeds are scored on the same rows. Put one test file "
                f"into {folders[0].parent}, and remove those of the seeds"
            )
    return first


def _examples(task: Task, path: Path, split: str, reading: Reading) -> tuple[list[Example], int]:
    """The checked examples of a file, and how many unlabelled rows were dropped."""
    layout = lmbff.LAYOUTS.get(task.name)
    rows: Iterable[dict[str, Any]]
    if layout and path.suffix == f".{layout.suffix}" and not lmbff.names_columns(path, task):
        rows = lmbff.read_rows(task, layout, path).rows
    else:
        [read] = read_files([path], reading.tsv)
        rows = flat_rows(task, read, split)
    return checked_examples(task, rows, split, task.label)
