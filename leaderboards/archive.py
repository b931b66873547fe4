"""All records of a leaderboard in one small file, from which it can be checked and built again.

An archive may come from anybody, and a small one may stand for a full disk. So it is read as a stream, with
bounds on all that it may unpack to, and nothing of it is written anywhere.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.files import parsed_record, record_text
from momentum_bench.harness.records.schema import PROTOCOL_VERSION, RunRecord, RunSpec
from momentum_bench.harness.records.store import MARKER, Store

ARCHIVE = "records.jsonl.xz"
"""A line for each record, as its file holds it, by run id."""

MOST_LINES = 100_000
LARGEST_LINE = 64 * 2**20
LARGEST_TOTAL = 2**29
"""Bytes of a line, and of all lines: 10,000 runs with 1,000 test rows each have some 200 MB."""

MOST_MEMORY = 128 * 2**20
"""Bytes that unpacking may take up. What `pack` writes takes 65 MiB; a file can ask for 4 GiB."""

PIECE = 2**16
"""Bytes that are read and unpacked at a time."""


def pack(records: Iterable[RunRecord]) -> bytes:
    """The records as an archive: records share most of their text, so that a run takes some hundred bytes.

    Raises:
        UserError: they are more than an archive may hold; `lines` would refuse it.
    """
    texts = {record.spec.run_id: record_text(record).encode() for record in records}
    for what in _crossed(len(texts), max(map(len, texts.values()), default=0), sum(map(len, texts.values()))):
        raise UserError(f"the records do not fit into an archive: {what}. Leave out --archive")
    return lzma.compress(b"".join(texts[run_id] for run_id in sorted(texts)), preset=9)


def archive_of(directory: Path) -> Path | None:
    """The archive that stands for a folder's runs; None where the runs are there, or there is none."""
    path = directory / ARCHIVE
    return path if path.is_file() and not (directory / "runs").is_dir() else None


def lines(archive: Path) -> Iterator[bytes]:
    """The lines of an archive, one after the other: each is what a record's file holds.

    Raises:
        UserError: it cannot be read, or crosses one of the bounds, which is named. Lines before that one
            have been given out by then.
    """
    try:
        with archive.open("rb") as file:
            yield from _bounded_lines(archive, _unpacked(file))
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, lzma.LZMAError) and reason == "Memory usage limit exceeded":
            reason = f"unpacking it takes more than {MOST_MEMORY / 2**20:g} MiB of memory"
        raise UserError(f"{archive} cannot be read: {reason}. Nothing was written") from error


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """What a file of one xz stream unpacks to, in pieces."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
    while not decompressor.eof:
        packed = file.read(PIECE) if decompressor.needs_input else b""
        if decompressor.needs_input and not packed:
            raise EOFError("it ends in the middle")
        yield decompressor.decompress(packed, max_length=PIECE)
    if decompressor.unused_data or file.read(1):
        raise lzma.LZMAError("something follows its end")


def _bounded_lines(archive: Path, pieces: Iterable[bytes]) -> Iterator[bytes]:
    n_lines = total = 0
    line = bytearray()
    for piece in pieces:
        total += len(piece)
        *ends, rest = piece.split(b"\n")
        for part in (*(end + b"\n" for end in ends), rest):
            line += part
            for what in _crossed(n_lines + bool(line), len(line), total):
                raise UserError(f"{archive} was not read to its end: {what}. Nothing was written")
            if line.endswith(b"\n"):
                yield bytes(line)
                n_lines += 1
                line.clear()
    if line:
        yield bytes(line)


def _crossed(n_lines: int, longest: int, total: int) -> Iterator[str]:
    """Which bounds of an archive are crossed."""
    if n_lines > MOST_LINES:
        yield f"it has more than {MOST_LINES:,} records"
    if longest > LARGEST_LINE:
        yield f"a record has more than {LARGEST_LINE / 2**20:g} MiB"
    if total > LARGEST_TOTAL:
        yield f"all records have more than {LARGEST_TOTAL / 2**20:g} MiB"


def named_lines(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of an archive, each with the run that it says it is of; where it is no record, `line-N`.

    No name comes twice: a second line of one run is `line-N`, too. `N` counts from 0.
    """
    names = set()
    for number, line in enumerate(lines(archive)):
        name = _run_id(line)
        if name is None or name in names:
            name = f"line-{number}"
        names.add(name)
        yield name, line


def _run_id(line: bytes) -> str | None:
    """The run that a line says it is of; None where it is no record, which a check then names."""
    try:
        return RunSpec.model_validate(json.loads(line)["spec"]).run_id
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        return None


class ArchivedStore:
    """The records of an archive, for whoever reads those of a `Store`. They are read once, into memory.

    Raises:
        UserError: see `lines`.
    """

    def __init__(self, directory: Path, archive: Path):
        self.output_dir = directory
        self._records: dict[str, RunRecord] = {}
        self._damaged: set[str] = set()
        for name, line in named_lines(archive):
            record = parsed_record(line, RunRecord)
            if record is not None and record.spec.run_id == name:
                self._records[name] = record
            else:
                self._damaged.add(name)

    def check_version(self) -> None:
        """Raises: UserError, when another protocol version wrote it. A marker may be left out."""
        if (self.output_dir / MARKER).exists():
            Store(self.output_dir).check_version()
        versions = {record.spec.protocol_version for record in self._records.values()} - {PROTOCOL_VERSION}
        if versions:
            raise UserError(
                f"{self.output_dir / ARCHIVE} holds runs of protocol version {min(versions)}, and this is "
                f"version {PROTOCOL_VERSION}: the same words mean other runs there"
            )

    def records(self) -> list[RunRecord]:
        """All whole records, sorted by run id."""
        return [self._records[run_id] for run_id in sorted(self._records)]

    def run_folders(self) -> list[str]:
        """Names of all runs, sorted, and of all lines that hold no whole record."""
        return sorted([*self._records, *self._damaged])

    def is_damaged(self, run_id: str) -> bool:
        """Whether what stands in a record's place is none."""
        return run_id in self._damaged


def store_of(directory: Path) -> Store | ArchivedStore:
    """What gives a folder's records: its runs, or where there are none, its archive.

    Raises:
        UserError: the archive cannot be read.
    """
    archive = archive_of(directory)
    return Store(directory) if archive is None else ArchivedStore(directory, archive)
