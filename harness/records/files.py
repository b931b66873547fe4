"""Files that are either whole or missing: atomic writes, checksums, and errors of the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import Stored, canonical_json

LARGEST_BYTES = 2**29
"""A record of a million test rows has about 20 MB; a larger file than this is no record."""

WRITING = "checkpoint.writing"
"""A folder next to a run's checkpoint. It holds nothing but a checkpoint that is being written."""

LEFT_BY_US = re.compile(r"\.momentum-bench\.[a-z0-9_]{8}\.tmp")
"""A temporary file of `replacing`. It stays if its process is killed. Nobody else uses such a name."""

LEFT_BY_SAFETENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")
"""safetensors' own temporary file. Others use such names too, so it is removed in `WRITING` alone."""

LITTER = re.compile(
    r"\..*|@.*|#recycle|.*~|~\$.*|__MACOSX|System Volume Information|(thumbs\.db|desktop\.ini)(:.*)?|icon\r"
    r"|.*(conflicted copy|case conflict|\.sync-conflict-|\.conflict-|_conflict-|conflict copy).*",
    re.IGNORECASE,
)
"""Names that synchronisers, file managers, notebooks and editors give to files and folders of their own.

Among them are `.DS_Store`, `._record.json`, `.ipynb_checkpoints`, `.stfolder`, `@eaDir`, `Thumbs.db` and the
conflict copies of Dropbox, Nextcloud, ownCloud and Syncthing.
"""

GO_ON = "Finished runs are kept: type the same command to go on"

Record = TypeVar("Record", bound=Stored)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name lies somewhere because another program left it there.

    All commands ignore such names alike where they list a folder. We and our formats never use one.
    """
    return LITTER.fullmatch(name) is not None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees either the old content or the new content, never a part."""
    with replacing(path) as name, name.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_no_links(root: Path, names: Iterable[str]) -> None:
    """Check that files will be written below a folder, and not where a link inside it leads.

    Somebody else may have made such a link. `root` itself may be a link, because the user named it.

    Args:
        names: paths of the files, relative to `root`.

    Raises:
        UserError: a folder between `root` and one of the files is a symbolic link.
    """
    for folder in dict.fromkeys(folder for name in names for folder in list(Path(name).parents)[:-1]):
        if (root / folder).is_symlink():
            raise UserError(
                f"{root / folder} is a symbolic link, and files would be written where it leads, in "
                f"{(root / folder).resolve()}: remove the link, or name another folder"
            )


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Give the name of a temporary file; at the end of the `with` block it replaces `path` in one step.

    The caller writes and closes the file inside the block. It is flushed to the disk before it replaces
    `path`, and it is removed if anything goes wrong. In a results directory the caller must hold the lock
    of the directory or of the run: under that lock, `Store` removes files with such names, because a
    killed process left them.

    Args:
        folder: a folder on the same disk for the temporary file; None: next to `path`.
    """
    number, name = tempfile.mkstemp(dir=folder or path.parent, prefix=".momentum-bench.", suffix=".tmp")
    try:
        os.close(number)
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())
        with open(name, "rb") as written:
            os.fsync(written.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def replacing_checkpoint(path: Path) -> Iterator[Path]:
    """Like `replacing`, for a file that safetensors writes; it lies in the folder `WRITING`.

    safetensors writes to a temporary file of its own next to the given one. If it is killed, that file stays
    under a name that is not ours, so only its folder can tell that it is ours.
    """
    folder = path.with_name(WRITING)
    folder.mkdir(exist_ok=True)
    try:
        with replacing(path, folder) as name:
            yield name
    finally:
        clear_checkpoint(folder)


def clear_checkpoint(folder: Path) -> None:
    """Remove the folder `WRITING` of a run; it stays if it holds a file that we did not write."""
    clear(folder, LEFT_BY_US, LEFT_BY_SAFETENSORS)
    with suppress(OSError):
        folder.rmdir()


def clear(folder: Path, *names: re.Pattern[str]) -> None:
    """Remove plain files with exactly these names; links are neither followed nor removed.

    The caller must hold the lock under which such files are written, so that no live process writes them.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if any(name.fullmatch(entry.name) for name in names) and entry.is_file(follow_symlinks=False):
                Path(entry).unlink(missing_ok=True)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn an error of the disk under `place` into a message.

    Raises:
        UserError: the disk is full, read-only or gone.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:  # memory, not the disk
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(f"no room is left under {place}: make some. {GO_ON}") from error
        what = f"{place} cannot be written" if error.filename is None else str(error.filename)
        raise UserError(f"{what}: {error.strerror or error}. {GO_ON}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_record(path: Path, record: Stored) -> None:
    """Write a record with its checksum, atomically; its folder is created if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record_text(record))


def record_text(record: Stored) -> str:
    """The content of a record's file: one line of JSON, with the checksum."""
    content = record.model_dump(mode="json")
    content["checksum"] = checksum(content)
    return json.dumps(content, allow_nan=False) + "\n"


def plain_content(path: Path, most: int) -> bytes:
    """The content of a plain file of at most `most` bytes.

    A results directory may come from a stranger: reading a FIFO would wait forever, and a device may
    have no end.

    Raises:
        OSError: the file is not there, cannot be read, is not a plain file, or is larger.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened, because opening a device may act on it
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    # the file may have been replaced by a FIFO since, and opening a FIFO would wait for a writer
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        if len(content := file.read(most + 1)) > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record in a file; None: there is no file, or it holds no whole record of this kind."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return None
        return parsed_record(plain_content(path, LARGEST_BYTES), kind)
    except OSError:
        return None


def parsed_record(text: bytes, kind: type[Record]) -> Record | None:
    """The record in the content of a file; None: the content is no whole record of this kind."""
    try:
        content = json.loads(text.decode())
        if b"\\u" in text:  # the escape may be half of a surrogate pair, which no file can be written with
            json.dumps(content, ensure_ascii=False).encode()
        if content.pop("checksum") != checksum(content):
            return None
        return kind.model_validate(content)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError, RecursionError):
        return None


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of a record's canonical JSON; the record's file holds it next to the fields."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
