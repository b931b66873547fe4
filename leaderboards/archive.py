"""All records of a leaderboard in one small file, from which it can be checked and built anew."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from harness.errors import UserError, first_line
from harness.records import RunRecord, RunSpec
from harness.store import Store, record_text

ARCHIVE = "records.jsonl.xz"
"""A line for each record, as its file holds it, by run id."""

LARGEST_LINE = 64 * 2**20
LARGEST_TOTAL = 2**31
"""Bytes unpacked: a small archive from a stranger may stand for a full disk."""


def pack(records: Iterable[RunRecord]) -> bytes:
    """The records as an archive: records share most of their text, so that a run takes some hundred bytes."""
    texts = {record.spec.run_id: record_text(record) for record in records}
    return lzma.compress("".join(texts[run_id] for run_id in sorted(texts)).encode(), preset=9)


@contextmanager
def unpacked(directory: Path) -> Iterator[Path]:
    """A results directory with a folder's records: the folder itself, or made from its archive meanwhile.

    Raises:
        UserError: the archive cannot be read.
    """
    if (directory / "runs").is_dir() or not (directory / ARCHIVE).is_file():
        yield directory
        return
    with TemporaryDirectory(prefix="momentum-bench-") as scratch:
        Store(Path(scratch)).open()
        try:
            _unpack(directory / ARCHIVE, Path(scratch, "runs"))
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"{directory / ARCHIVE} cannot be read: {first_line(error)}") from error
        yield Path(scratch)


def _unpack(archive: Path, runs: Path) -> None:
    left = LARGEST_TOTAL
    with lzma.open(archive) as file:
        for number, line in enumerate(iter(lambda: file.readline(LARGEST_LINE + 1), b"")):
            left -= len(line)
            if len(line) > LARGEST_LINE or left < 0:
                raise UserError(f"{archive} is larger than records are, and was not unpacked")
            folder = runs / (_run_id(line) or f"line-{number}")
            if folder.exists():
                folder = runs / f"line-{number}"
            folder.mkdir()
            (folder / "record.json").write_bytes(line)


def _run_id(line: bytes) -> str | None:
    """The run that a line says it is of; None where it is no record, which a check then names."""
    try:
        return RunSpec.model_validate(json.loads(line)["spec"]).run_id
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        return None
