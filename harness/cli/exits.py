"""How a command ends: its exit code, and a user's mistake or Ctrl-C as one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note

EXIT_SOME_FAILED, EXIT_DEPARTURES, EXIT_USAGE, EXIT_INTERRUPTED = 1, 1, 2, 130


@contextmanager
def plain_errors(interrupted: str) -> Iterator[None]:
    """A user's mistake ends in one message and exit code 2, Ctrl-C in one message and exit code 130.

    Args:
        interrupted: what to say on Ctrl-C.
    """
    try:
        yield
    except UserError as error:
        note(f"error: {error}")
        raise typer.Exit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        note(f"interrupted: {interrupted}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
