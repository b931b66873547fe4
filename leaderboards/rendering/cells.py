"""Cells and headers of the page's tables, and how numbers look in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from momentum_bench.leaderboards.rendering.wording import Context
from momentum_bench.leaderboards.rows import Row


@dataclass(frozen=True)
class Head:
    """The header of a column.

    Attributes:
        number: whether the cells are sorted as numbers.
    """

    text: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        sort: what the cell is sorted by; None: its text.
        sub: a second line.
        kind: a CSS class, with which the text becomes a chip.
        link: the id of an element of the page that the text links to.
    """

    text: str
    sort: str | None = None
    sub: str = ""
    kind: str = ""
    link: str = ""


HeadedLines = tuple[list[Head], list[list[Cell]]]
"""A table of the page: its headers, and its lines."""


def task_cell(row: Row, words: Context) -> Cell:
    """The task of a row, and what else tells its setting from others on the page."""
    return Cell(row.columns["task"], sort=row.columns["task"], sub=", ".join(words.of(row)))


def signed(fraction: float, digits: int = 2) -> str:
    """A fraction as points with a sign; what rounds to 0 is +0."""
    return "-" if math.isnan(fraction) else f"{round(100 * fraction, digits) + 0.0:+.{digits}f}"


def signed_range(low: float, high: float, digits: int = 2) -> str:
    """An interval of fractions as points."""
    return "-" if math.isnan(low) else f"{signed(low, digits)} to {signed(high, digits)}"
