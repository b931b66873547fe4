"""All records of a leaderboard in one small file, from which the leaderboard can be checked and rebuilt.

An archive may come from a stranger, and a small one may unpack to more than a disk holds. So it is read as a
stream, with bounds on what it unpacks to, and nothing of it is written anywhere.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.files import parsed_record, record_text
from momentum_bench.harness.records.schema import PROTOCOL_VERSION, Plan, RunRecord, RunSpec
from momentum_bench.harness.records.store import DESIGNS, MARKER, Store, designs_in

ARCHIVE = "records.jsonl.xz"
"""The name of the archive. It has one line for each record, equal to the record's file, sorted by run id."""

MOST_LINES = 100_000
LARGEST_LINE = 64 * 2**20
LARGEST_TOTAL = 2**29
"""Bytes of one line and of all lines: 10,000 runs with 1,000 test rows each take about 200 MB."""

MOST_MEMORY = 128 * 2**20
"""Bytes of memory that unpacking may use. The output of `pack` needs 65 MiB; a file can ask for 4 GiB."""

PIECE = 2**16
"""Bytes that are read or unpacked at once."""


def pack(records: Iterable[RunRecord]) -> bytes:
    """The records as an archive. Records share most of their text, so one run takes some hundred bytes.

    Raises:
        UserError: the records are more than an archive may hold, so that `lines` would refuse it.
    """
    texts = {record.spec.run_id: record_text(record).encode() for record in records}
    for what in _crossed(len(texts), max(map(len, texts.values()), default=0), sum(map(len, texts.values()))):
        raise UserError(f"the records do not fit into an archive: {what}. Leave out --archive")
    return lzma.compress(b"".join(texts[run_id] for run_id in sorted(texts)), preset=9)


def archive_of(directory: Path) -> Path | None:
    """The archive that replaces a folder's runs; None if the runs are there, or if there is no archive."""
    path = directory / ARCHIVE
    return path if path.is_file() and not (directory / "runs").is_dir() else None


def lines(archive: Path) -> Iterator[bytes]:
    """The lines of an archive, one after the other. Each is the content of a record's file.

    Raises:
        UserError: the archive cannot be read, or crosses one of the bounds, which the message names. The
            lines before that point were already yielded.
    """
    try:
        with archive.open("rb") as file:
            yield from bounded_lines(archive, unpacked(file))
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, lzma.LZMAError) and reason == "Memory usage limit exceeded":
            reason = f"unpacking it takes more than {MOST_MEMORY / 2**20:g} MiB of memory"
        raise UserError(f"{archive} cannot be read: {reason}. Nothing was written") from error


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """What a file of one xz stream unpacks to, in pieces.

    Raises:
        EOFError: the file ends too early.
        lzma.LZMAError: the file is not one xz stream, or needs too much memory.
    """
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
    while not decompressor.eof:
        packed = file.read(PIECE) if decompressor.needs_input else b""
        if decompressor.needs_input and not packed:
            raise EOFError("it ends in the middle")
        yield decompressor.decompress(packed, max_length=PIECE)
    if decompressor.unused_data or file.read(1):
        raise lzma.LZMAError("something follows its end")


def bounded_lines(archive: Path, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of an archive's pieces.

    Args:
        archive: is named in messages.

    Raises:
        UserError: the pieces cross one of the bounds.
    """
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
    """The bounds of an archive that are crossed, in words."""
    if n_lines > MOST_LINES:
        yield f"it has more than {MOST_LINES:,} records"
    if longest > LARGEST_LINE:
        yield f"a record has more than {LARGEST_LINE / 2**20:g} MiB"
    if total > LARGEST_TOTAL:
        yield f"all records have more than {LARGEST_TOTAL / 2**20:g} MiB"


def named_lines(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of an archive, each with the id of its run; a line that is not a record is named `line-N`.

    No name occurs twice, because a second line of one run is named `line-N` too. `N` counts from 0.
    """
    names = set()
    for number, line in enumerate(lines(archive)):
        name = _run_id(line)
        if name is None or name in names:
            name = f"line-{number}"
        names.add(name)
        yield name, line


def _run_id(line: bytes) -> str | None:
    """The id of the run in a line; None if the line is not a record, which a check then reports."""
    try:
        return RunSpec.model_validate(json.loads(line)["spec"]).run_id
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        return None


class ArchivedStore:
    """The records of an archive, with the reading methods of `Store`. They are read once, into memory.

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
        """Raise a UserError if another protocol version wrote the records. The marker may be missing."""
        if (self.output_dir / MARKER).exists():
            Store(self.output_dir).check_version()
        versions = {record.spec.protocol_version for record in self._records.values()} - {PROTOCOL_VERSION}
        if versions:
            raise UserError(
                f"{self.output_dir / ARCHIVE} holds runs of protocol version {min(versions)}, and this is "
                f"version {PROTOCOL_VERSION}: there the same settings mean other runs. Use the version of "
                f"momentum-bench that wrote them"
            )

    def records(self) -> list[RunRecord]:
        """All whole records, sorted by run id."""
        return [self._records[run_id] for run_id in sorted(self._records)]

    def plans(self) -> list[Plan]:
        """No plans: an archive has none."""
        return []

    def designs(self) -> list[Design]:
        """The designs that lie next to the archive."""
        return designs_in(self.output_dir / DESIGNS)

    def run_folders(self) -> list[str]:
        """The names of all runs and of all lines without a whole record, sorted."""
        return sorted([*self._records, *self._damaged])

    def is_damaged(self, run_id: str) -> bool:
        """Whether the line of this name is not a whole record."""
        return run_id in self._damaged


def store_of(directory: Path) -> Store | ArchivedStore:
    """The source of a folder's records: its runs, or its archive if it has no runs.

    Raises:
        UserError: the archive cannot be read.
    """
    archive = archive_of(directory)
    return Store(directory) if archive is None else ArchivedStore(directory, archive)
