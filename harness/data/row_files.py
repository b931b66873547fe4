"""Rows from files: JSON lines, CSV, TSV, Parquet, and the folders of text of a pip package."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import Task, TextFolders

SUFFIXES = ("jsonl", "jsonl.gz", "csv", "tsv", "parquet")


def split_files(folder: Path, split: str) -> list[Path]:
    # GLUE's `validation_matched` may be stored as plain `validation`
    stems = dict.fromkeys((split, split.removesuffix("_matched")))
    paths = [folder / f"{stem}.{suffix}" for stem in stems for suffix in SUFFIXES]
    return [path for path in paths if path.is_file()]


def read_folder(task: Task, data_dir: Path) -> list[Iterator[dict[str, Any]]]:
    folder = data_dir / (task.folder or task.name)
    parts = []
    for split in (task.train, task.test):
        found = split_files(folder, split)
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


def read_package(task: Task, source: TextFolders) -> tuple[list[dict], list[dict], str]:
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
