"""Text of strangers, made safe for a terminal."""

from __future__ import annotations


def show(text: object) -> str:
    """A text that came from elsewhere, on one line of at most 160 printable characters."""
    line = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return line if len(line) <= 160 else line[:157] + "..."
