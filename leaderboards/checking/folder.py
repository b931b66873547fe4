"""Reading a stranger's folder: with bounds on size, and never outside the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.files import is_litter, parsed_record, plain_content
from momentum_bench.harness.records.schema import PROTOCOL_VERSION, RUN_ID
from momentum_bench.harness.records.store import DESIGNS, MARKER
from momentum_bench.leaderboards.checking.record import other_version
from momentum_bench.leaderboards.printable import short_line

LARGEST_BYTES = 64 * 2**20
"""A larger file is not read."""


class Refused(Exception):
    """A file that cannot be read. The message follows the file's name: `is not there`."""


@dataclass(frozen=True)
class Folder:
    """A folder from a stranger.

    Attributes:
        root: its resolved path.
        refused: the entries that must not be opened, by their paths in the folder, with the reasons.
    """

    root: Path
    refused: Mapping[str, str]

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if the file, or a folder that it is in, is among the refused.

        Raises:
            Refused: the file is not there, is not a plain file, or is too large.
        """
        if any(str(part) in self.refused for part in (Path(name), *Path(name).parents)):
            return None
        try:
            return plain_content(self.root / name, LARGEST_BYTES)
        except FileNotFoundError:
            raise Refused("is not there") from None
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error


def folder_of(directory: Path) -> Folder:
    """The folder at a path, with the entries in it that must not be opened."""
    root = directory.resolve()
    return Folder(root, dict(_refusals(root)))


def _refusals(root: Path) -> Iterator[tuple[str, str]]:
    """The entries anywhere below a folder that must not be opened, and the reasons.

    What other programs left there is not listed, because nothing of it is ever opened.
    """
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_litter(name)]  # os.walk goes into what is left
        for entry in sorted(name for name in folders + files if not is_litter(name)):
            path = Path(place, entry)
            name = str(path.relative_to(root))
            if path.is_symlink() and not _stays_inside(path, root):
                yield name, "is a symbolic link that leads out of the folder"
            elif entry in files and _size(path) > LARGEST_BYTES:
                yield name, f"is larger than {LARGEST_BYTES // 2**20} MiB and was not read"


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link to itself
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the file is gone or is a broken link; reading it reports that


def run_folders(folder: Folder) -> list[str]:
    """The names of the runs' folders, sorted. A folder in `runs` with another name is no run."""
    runs = folder.root / "runs"
    if "runs" in folder.refused or not runs.is_dir():
        return []
    return sorted(path.name for path in runs.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir())


def marker_departures(folder: Folder) -> list[str]:
    """What is wrong with the marker of a results directory, which a submission may leave out."""
    if not os.path.lexists(folder.root / MARKER):
        return []
    try:
        content = folder.read(MARKER)
        version = None if content is None else json.loads(content)["protocol_version"]
    except Refused as error:
        return [f"{MARKER} {error}"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"{MARKER} cannot be understood: expected the protocol version"]
    return [] if content is None or version == PROTOCOL_VERSION else [f"{MARKER}: {other_version(version)}"]


def checked_designs(folder: Folder) -> tuple[list[Design], list[str]]:
    """The designs of a folder, and what is wrong with their files."""
    place = folder.root / DESIGNS
    if DESIGNS in folder.refused or not place.is_dir():
        return [], []
    designs, wrong = [], []
    for path in sorted(path for path in place.iterdir() if not is_litter(path.name)):
        name = f"{DESIGNS}/{path.name}"
        try:
            content = folder.read(name)
        except Refused as error:
            wrong.append(f"{short_line(name)} {error}")
            continue
        if content is None:
            continue
        design = parsed_record(content, Design)
        if design is None:
            wrong.append(f"{short_line(name)} is not a whole design")
        elif path.name != f"{design.design_id}.json":
            wrong.append(f"{short_line(name)} is the design {design.design_id}: it was changed, or renamed")
        else:
            designs.append(design)
    return designs, wrong
