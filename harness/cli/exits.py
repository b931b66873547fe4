"""How a command ends: its exit code, and a user's mistake or Ctrl-C as one message."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

import typer

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note

EXIT_NOT_WHOLE, EXIT_DEPARTURES, EXIT_USAGE, EXIT_INTERRUPTED = 1, 1, 2, 130

REFUSED = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
"""Numbers of the errors by which a disk refuses a file."""


@contextmanager
def plain_errors(interrupted: str) -> Iterator[None]:
    """A user's mistake ends in one message and exit code 2, Ctrl-C in one message and exit code 130.

    A file that the disk refuses is a mistake too: the user can mend it.

    Args:
        interrupted: what to say on Ctrl-C.
    """
    try:
        yield
    except UserError as error:
        note(f"error: {error}")
        raise typer.Exit(EXIT_USAGE) from None
    except OSError as error:
        # an error of stdout has no file's name, see `writable_stdout`
        if error.filename is None or error.errno not in REFUSED:
            raise
        note(f"error: {error.filename}: {error.strerror}")
        raise typer.Exit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        note(f"interrupted: {interrupted}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def writable_stdout() -> Iterator[None]:
    """Print what stdout cannot take as escapes, and end with one message if stdout has no room.

    A terminal may know ASCII alone, and a text may hold half of a surrogate pair: such characters become
    `\\u2248`. On a full disk Python would show a traceback, or end with 0 after an error at its very end.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # an error of a file has the file's name
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest at its end
        with suppress(OSError):
            note(f"error: stdout cannot be written: {error.strerror}. Make room, or print to another place")
        sys.exit(EXIT_USAGE)
