"""Git commands on a repository that a stranger may have made: its objects are data, and nothing in it is run.

The folder may have hooks, programs in its configuration, and symbolic links. So each command runs without
hooks, without a file system monitor and without a network. What is committed is read from git's objects only,
never from files of the working tree.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from momentum_bench.harness.errors import UserError
from momentum_bench.leaderboards.printable import short_line

FOREIGN = (
    "GIT_DIR",
    "GIT_COMMON_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
)
"""Variables of a git hook, which would make git use another repository than the one that was named."""

OFFLINE = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
"""Without these, a partial clone would fetch a missing object with a program from its configuration."""

SETTINGS = (
    "core.fsmonitor=false",  # it may be a program, which git starts when it reads an index
    f"core.hooksPath={os.devnull}",
    "core.splitIndex=false",  # otherwise our temporary index would leave a part in the repository
    "i18n.commitEncoding=UTF-8",
)
"""These settings override the repository's own configuration."""

WRITTEN = ("refs", "logs", "reftable")
"""Folders of a repository in which git writes when a branch moves, in addition to its objects."""

TREE_BYTES = 64 * 2**20
"""The bound on a tree; one with half a million entries is smaller."""

FILE, FOLDER = "a file", "a folder"

_WHOLE = "A clone that was made with --filter has not all objects: make a whole clone and publish into that"


def git(
    folder: Path, *words: str, stdin: bytes = b"", index: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a git command in a folder.

    Args:
        words: the command and its arguments.
        stdin: the input. Long lists go here, because the length of a command line is limited.
        index: a temporary index that is used instead of the repository's own.
        check: whether a failure is an error.

    Raises:
        UserError: git cannot be started, or the command fails and `check` is true.
    """
    try:
        done = subprocess.run(
            _command(folder, *words), input=stdin, capture_output=True, env=_environment(index), check=False
        )
    except OSError as error:
        raise UserError(f"git cannot be started: {error.strerror}") from error
    if check and done.returncode:
        said = text(done.stderr) or text(done.stdout) or f"exit code {done.returncode}"
        raise UserError(f"git {words[0]} in {folder}: {said}")
    return done


def text(output: bytes) -> str:
    """What git printed, as text without spaces and line ends around it."""
    return output.decode(errors="replace").strip()


def _command(folder: Path, *words: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    # otherwise git would read replacements of the committed objects
    return ["git", "--no-pager", "--no-replace-objects", "-C", str(folder), *settings, *words]


def _environment(index: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return kept | OFFLINE | ({} if index is None else {"GIT_INDEX_FILE": str(index)})


def check_no_links(target: Path) -> None:
    """Check that git would write inside the repository, and not where a link in it leads.

    Args:
        target: a clone, or a folder in one.

    Raises:
        UserError: there is a symbolic link where git writes, or on the path from a clone to `target`.
    """
    target = target.absolute()
    for place, clone in enumerate(target.parents):
        if os.path.lexists(clone / ".git"):
            for folder in (target, *target.parents[:place]):
                if folder.is_symlink():
                    raise UserError(
                        f"{folder} is a symbolic link in the clone {clone}: nothing was published. If you "
                        f"mean the folder that it leads to, give that: --to {target.resolve()}"
                    )
    common = target / os.fsdecode(git(target, "rev-parse", "--git-common-dir").stdout.removesuffix(b"\n"))
    objects = common / "objects"
    places = [common, *(common / name for name in WRITTEN), objects, *objects.glob("*")]
    for name in WRITTEN:
        for place_of, folders, files in os.walk(common / name):
            places += [Path(place_of, entry) for entry in (*folders, *files)]
    for path in places:
        if path.is_symlink():
            raise UserError(
                f"{short_line(path)} is a symbolic link, through which git would write elsewhere: nothing "
                f"was published. Make a clone of this clone and publish into that: "
                f"git clone {target} NEW_FOLDER"
            )


@dataclass(frozen=True)
class Entry:
    """An entry of a git tree: its mode in octal digits, and its object's id in hexadecimal digits."""

    mode: str
    object_id: str

    @property
    def kind(self) -> str:
        """What the entry is, in words."""
        if self.mode.startswith("100"):  # 100644, or 100755 if it can be run
            return FILE
        kinds = {"40000": FOLDER, "120000": "a symbolic link", "160000": "a submodule"}
        return kinds.get(self.mode, f"an entry of mode {short_line(self.mode)}")


class Objects:
    """The objects of a repository as they are stored, without filters. One process reads all of them."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], errors: IO[bytes]):
        self._folder = folder
        self._process = process
        self._errors = errors

    def blob(self, object_id: str, most: int) -> bytes:
        """A file's content.

        Args:
            most: bytes; a larger file is not read.

        Raises:
            UserError: the object is not there, is not a file, or is too large.
        """
        return self._read(object_id, "blob", most)[1]

    def tree(self, name: str) -> dict[str, Entry]:
        """The entries of a folder by name. A name may be any text without a zero byte.

        Args:
            name: the id of a tree, or `COMMIT^{tree}`.

        Raises:
            UserError: the object is not there, is not a folder, or is too large.
        """
        tree_id, content = self._read(name, "tree", TREE_BYTES)
        n_bytes = len(tree_id) // 2
        entries, start = {}, 0
        while start < len(content):  # an entry is: mode, space, name, zero byte, id as bytes
            end = content.index(b"\0", start)
            mode, _, entry = content[start:end].partition(b" ")
            start = end + 1 + n_bytes
            entries[os.fsdecode(entry)] = Entry(text(mode), content[end + 1 : start].hex())
        return entries

    def _read(self, name: str, kind: str, most: int) -> tuple[str, bytes]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(name.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        header = text(self._process.stdout.readline()).split()
        if not header:
            raise self._ended()
        if len(header) != 3:
            raise UserError(f"{self._folder} does not have the object {name}. {_WHOLE}")
        object_id, found, size = header[0], header[1], int(header[2])
        if found != kind or size > most:
            raise UserError(
                f"object {name} in {self._folder} is a {found} of {size} bytes, expected a {kind} of at most "
                f"{most}"
            )
        return object_id, self._process.stdout.read(size + 1)[:-1]

    def _ended(self) -> UserError:
        self._process.wait()
        self._errors.seek(0)
        said = text(self._errors.read()) or "it ended early"
        return UserError(f"git cat-file in {self._folder}: {said}. {_WHOLE}")


@contextmanager
def objects_of(folder: Path) -> Iterator[Objects]:
    """The objects of the repository of a folder."""
    with TemporaryFile() as errors:
        process = subprocess.Popen(
            _command(folder, "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(None),
        )
        try:
            yield Objects(folder, process, errors)
        finally:
            process.kill()  # because it may be writing an object that was too large
            process.communicate()


class CommittedFolder:
    """A folder in a commit. It is not on the disk, so no link in it can lead anywhere.

    Args:
        commit: the commit's id.
        place: the folder's path in the repository, which is empty or ends with a slash.
        where: the repository's path, for messages.
    """

    def __init__(self, objects: Objects, commit: str, place: str, where: Path):
        self._objects = objects
        self._what = f"commit {commit[:12]} of {where}"
        self._place = place
        self._trees = {"": objects.tree(f"{commit}^{{tree}}")}

    def entries(self, name: str) -> Mapping[str, Entry]:
        """The entries of a folder below this one; empty if there is no such folder.

        Raises:
            UserError: the entry of that name is not a folder.
        """
        return self._entries(f"{self._place}{name}")

    def file(self, name: str) -> Entry | None:
        """The file at a path below this folder, or None if there is none.

        Raises:
            UserError: the entry is a link, a folder or a submodule, or an entry on the path is not a folder.
        """
        folder, _, last = f"{self._place}{name}".rpartition("/")
        entry = self._entries(folder).get(last)
        if entry and entry.kind != FILE:
            raise self.refused(name, entry, FILE)
        return entry

    def content(self, name: str, most: int) -> bytes | None:
        """The content of a file of at most `most` bytes, or None if there is none; see `file`."""
        entry = self.file(name)
        return self._objects.blob(entry.object_id, most) if entry else None

    def refused(self, name: str, entry: Entry, expected: str) -> UserError:
        """The error that an entry is not what a leaderboard has at that path."""
        return self._refused(f"{self._place}{name}", entry, expected)

    def _entries(self, path: str) -> Mapping[str, Entry]:
        path = path.rstrip("/")
        if path not in self._trees:
            folder, _, last = path.rpartition("/")
            entry = self._entries(folder).get(last)
            if entry and entry.kind != FOLDER:
                raise self._refused(path, entry, FOLDER)
            self._trees[path] = self._objects.tree(entry.object_id) if entry else {}
        return self._trees[path]

    def _refused(self, path: str, entry: Entry, expected: str) -> UserError:
        return UserError(
            f"{short_line(path)} is {entry.kind} in {self._what}, and a leaderboard has {expected} there: "
            f"nothing was published. If it does not belong there, remove it (git rm), commit, publish again"
        )
