"""Reading a stranger's folder: bounded, and never outside of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from momentum_bench.harness.errors import first_line
from momentum_bench.harness.records.files import checksum, plain_content
from momentum_bench.harness.records.schema import (
    PROTOCOL_VERSION,
    RunRecord,
    canonical_json,
)
from momentum_bench.harness.records.store import MARKER
from momentum_bench.leaderboards.printable import show

LARGEST_BYTES = 64 * 2**20


REWRITTEN = "is not as it was written"


class Refused(Exception):
    """A file that cannot be read, and why."""


@dataclass(frozen=True)
class Folder:
    """A folder by its resolved path; `refused` are the entries not to be opened, with the reasons."""

    root: Path
    refused: Mapping[str, str]

    def read(self, name: str) -> bytes | None:
        """A file's content; None where it was refused before.

        Raises:
            Refused: it is not there, no plain file, or too large.
        """
        if any(str(part) in self.refused for part in (Path(name), *Path(name).parents)):
            return None
        try:
            return plain_content(self.root / name, LARGEST_BYTES)
        except FileNotFoundError:
            raise Refused("is not there") from None
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error


_TOO_LARGE = f"is larger than {LARGEST_BYTES // 2**20} MiB and was not read"


def folder_of(directory: Path) -> Folder:
    root = directory.resolve()
    return Folder(root, dict(_refusals(root)))


def _refusals(root: Path) -> Iterator[tuple[str, str]]:
    """Entries anywhere below the folder that are not to be opened, and why."""
    for place, folders, files in os.walk(root):
        for entry in sorted(folders + files):
            path = Path(place, entry)
            name = str(path.relative_to(root))
            if path.is_symlink() and not _stays_inside(path, root):
                yield name, "is a symbolic link that leads out of the folder"
            elif entry in files and _size(path) > LARGEST_BYTES:
                yield name, _TOO_LARGE


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link to itself
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # gone, or a broken link; reading it says so


def run_folders(folder: Folder) -> list[str]:
    runs = folder.root / "runs"
    if "runs" in folder.refused or not runs.is_dir():
        return []
    return sorted(path.name for path in runs.iterdir() if path.is_dir())


def marker_departures(folder: Folder) -> list[str]:
    """The marker of a results directory may be left out of a submission; if there, it must be ours."""
    if not os.path.lexists(folder.root / MARKER):
        return []
    try:
        content = folder.read(MARKER)
        version = None if content is None else json.loads(content)["protocol_version"]
    except Refused as error:
        return [f"{MARKER} {error}"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"{MARKER} cannot be understood: expected the protocol version"]
    return [] if content is None or version == PROTOCOL_VERSION else [f"{MARKER}: {_version(version)}"]


def _version(found: object) -> str:
    return f"protocol version {show(found)}, and this is version {PROTOCOL_VERSION}"


def read_checked_record(folder: Folder, file: str, run_id: str) -> tuple[RunRecord | None, list[str]]:
    """The record of a file, and what is wrong with the file; without a record nothing more can be said."""
    try:
        content = folder.read(file)
        return (None, []) if content is None else parsed_record(content, run_id)
    except Refused as error:
        return None, [str(error)]


def parsed_record(content: bytes, run_id: str) -> tuple[RunRecord | None, list[str]]:
    try:
        text = content.decode()
        fields = json.loads(text)
        if not isinstance(fields, dict):
            return None, [f"is no record: expected an object, found {type(fields).__name__}"]
        # a digit too far right to change a number would pass the checksum
        wrong = [] if text == json.dumps(fields) + "\n" else [REWRITTEN]
        if fields.pop("checksum", None) != checksum(fields):
            wrong.append("is not whole: its checksum does not fit")
        spec = fields.get("spec")
        version = spec.get("protocol_version") if isinstance(spec, dict) else None
        if version is not None and version != PROTOCOL_VERSION:
            return None, [*wrong, _version(version)]
        record = RunRecord.model_validate_json(json.dumps(fields), strict=True)
        canonical_json(record.model_dump())  # a whole number may be too large for a float: no infinity here
        if record.spec.run_id != run_id:
            wrong.append(f"its spec is that of run {record.spec.run_id}: it is in another run's folder")
        return record, wrong
    except ValidationError as error:
        named = [
            f"{show('.'.join(map(str, e['loc'])))}: {show(e['msg'])}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        return None, wrong + named
    except ValueError as error:  # no JSON, no UTF-8, or a number that is not finite
        return None, [f"is no record: {show(first_line(error))}"]
    except RecursionError:
        return None, ["is nested too deeply for a record"]
