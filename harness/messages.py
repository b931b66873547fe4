"""Lines for the person at the terminal."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Print a line for the person at the terminal to stderr, because stdout is for results."""
    print(text, file=sys.stderr, flush=True)
