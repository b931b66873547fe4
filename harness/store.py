"""The directory of records: one folder a run, named by its id; atomic writes, no shared file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from harness.errors import UserError
from harness.records import PROTOCOL_VERSION, Evaluation, RunRecord, RunSpec, Stored, canonical_json

MARKER = "momentum-bench.json"

Record = TypeVar("Record", bound=Stored)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_record(path: Path, record: Stored) -> None:
    """Write a record with its checksum, atomically; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record_text(record))


def record_text(record: Stored) -> str:
    """What a record's file holds: one line of JSON, with its checksum."""
    content = record.model_dump(mode="json")
    content["checksum"] = checksum(content)
    return json.dumps(content, allow_nan=False) + "\n"


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record in a file, or None where there is none, or none that is whole and of this kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("checksum") != checksum(content):
            return None
        return kind.model_validate(content)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ValidationError, RecursionError):
        return None


class Journal:
    """Where one run in progress notes its evaluations, a line each, as they happen."""

    def __init__(self, path: Path):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")  # an interrupted run starts over

    def append(self, evaluation: Evaluation) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(evaluation.model_dump_json() + "\n")


class Store:
    """Records of runs under `<output-dir>/runs/<run id>/record.json`.

    A run is finished when its folder holds a record that is whole (its checksum fits) and of its
    own id. Anything else counts as not there.
    """

    def __init__(self, output_dir: Path):
        self.output_dir = output_dir
        self._runs = output_dir / "runs"

    @property
    def exists(self) -> bool:
        """Whether a sweep of some version has begun here."""
        return (self.output_dir / MARKER).exists()

    def open(self) -> None:
        """Create the directory, or check that an existing one is ours and of this version.

        Raises:
            UserError: it cannot be written, or another protocol version wrote it.
        """
        marker = self.output_dir / MARKER
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_atomically(marker, canonical_json({"protocol_version": PROTOCOL_VERSION}) + "\n")
            tempfile.TemporaryFile(dir=self._runs).close()
        except OSError as error:
            raise UserError(
                f"--output-dir {self.output_dir} cannot be written: {error.strerror or error}"
            ) from error
        self.check_version()

    def check_version(self) -> None:
        """Raises: UserError, when another protocol version (or no momentum-bench) wrote it."""
        marker = self.output_dir / MARKER
        try:
            version = json.loads(marker.read_text())["protocol_version"]
        except FileNotFoundError:
            raise UserError(f"{self.output_dir} holds no momentum-bench results") from None
        except (OSError, ValueError, KeyError, TypeError):
            version = "unreadable"
        if version != PROTOCOL_VERSION:
            raise UserError(
                f"{self.output_dir} was written by protocol version {version}, and this is version "
                f"{PROTOCOL_VERSION}: the same words mean other runs there. Choose another --output-dir"
            )

    @contextmanager
    def claim(self, spec: RunSpec) -> Iterator[bool]:
        """Hold a run against all other processes on this directory; gives False where one holds it.

        The operating system frees the claim of a process that dies, so no claim is ever stale.
        """
        folder = self._runs / spec.run_id
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def journal(self, spec: RunSpec) -> Journal:
        """A fresh list of evaluations for a run that starts now."""
        return Journal(self._runs / spec.run_id / "evaluations.jsonl")

    def write(self, record: RunRecord) -> None:
        """Store a finished run; from here on it is never run again."""
        write_record(self._runs / record.spec.run_id / "record.json", record)

    def set_aside_damaged(self, run_id: str) -> Path | None:
        """Rename a record that is there but not whole; its new path, or None where there is none."""
        path = self._runs / run_id / "record.json"
        if not path.exists() or self.read(run_id) is not None:
            return None
        aside = path.with_name("record.damaged.json")
        os.replace(path, aside)
        return aside

    def read(self, run_id: str) -> RunRecord | None:
        """The record of a run, or None where there is no whole one."""
        record = read_record(self._runs / run_id / "record.json", RunRecord)
        return record if record is not None and record.spec.run_id == run_id else None

    def finished(self, specs: Iterable[RunSpec]) -> dict[str, RunRecord]:
        """The records of those specs that have one, by run id."""
        records = ((spec.run_id, self.read(spec.run_id)) for spec in specs)
        return {run_id: record for run_id, record in records if record is not None}

    def records(self) -> list[RunRecord]:
        """All whole records of the directory, sorted by run id."""
        return [record for name in self.run_folders() if (record := self.read(name)) is not None]

    def run_folders(self) -> list[str]:
        """Names of all folders of runs, finished or not, sorted."""
        if not self._runs.is_dir():
            return []
        return sorted(path.name for path in self._runs.iterdir() if path.is_dir())


def checksum(content: dict) -> str:
    """SHA-256 of a record's canonical JSON; it stands in the record's file beside the fields."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
