"""Lines and tables for the person at the terminal, safe to print whatever texts they hold."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def note(text: str) -> None:
    """Print lines for the person at the terminal; stdout is for results."""
    print(printable_lines(text), file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """The text as one line that a terminal shows and does not obey.

    Names come out of other people's records, files and data sets. An escape sequence in one could clear
    the screen, a line break could forge a line of ours, and a bidirectional control character could show
    other words than the text has. Each such character becomes `?`.
    """
    return "".join(letter if letter.isprintable() else _replacement(letter) for letter in str(text))


def printable_lines(text: object) -> str:
    """As `printable`, but line breaks stay: for texts of several lines that we compose ourselves."""
    return "\n".join(map(printable, str(text).split("\n")))


def _replacement(letter: str) -> str:
    return " " if unicodedata.category(letter) == "Zs" else "?"  # spaces of other widths


def print_table(table: Table, console: Console) -> None:
    """Print a table whose cells are `rich.text.Text`.

    Where the terminal is too narrow for it, each row becomes lines of a column's name and its cell: rich
    would cut cells, or leave columns out.
    """
    if _least_width(table, console) <= console.width:
        console.print(table)
        return
    heads = [Text(str(column.header)) for column in table.columns]
    if table.title is not None:
        console.print(table.title, soft_wrap=False)
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for head, cell in zip(heads, cells, strict=True):
            console.print(Text.assemble(head, ": ", Text(str(cell))), overflow="fold")
        console.print()
    if table.caption is not None:
        console.print(table.caption)


def _least_width(table: Table, console: Console) -> int:
    """Columns of the terminal that a table takes when each cell that may wrap is as narrow as it may be."""
    width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    for column in table.columns:
        if not column.no_wrap and column.min_width is not None:
            natural = max(cell_len(str(text)) for text in (column.header, *column.cells))
            width -= max(0, natural - column.min_width)
    return width
