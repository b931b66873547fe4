"""How numbers and plots are written, for leaderboards and studies alike: the same values, the same bytes."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAPER, INK, FAINT = "#ffffff", "#222222", "#8a8a8a"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#5b5bd6")
"""After Okabe and Ito's palette, which colour-blind readers can tell apart."""

STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "momentum-bench",
    "svg.fonttype": "none",  # text stays text: small files, and a page's own font
    "text.parse_math": False,  # names out of records are no formulas
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
PNG_DOTS_PER_INCH = 200
MOST_PNG_DOTS = 2**15
"""Along the longer side; a taller figure gets fewer dots an inch."""


def cell(value: Any) -> str:
    """A value as text: floats with 10 digits, and nothing where there is no number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def joined(values: Iterable[Any]) -> str:
    """Several values as one cell."""
    return ";".join(map(cell, values))


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Comma-separated text with the first row's names as header; nothing at all where there are no rows.

    A text cell that a spreadsheet would read as a formula gets an apostrophe in front.
    """
    lines = []
    for number, row in enumerate(rows):
        if number == 0:
            lines.append(_csv_line(row))
        lines.append(_csv_line(_harmless(cell(v)) if isinstance(v, str) else cell(v) for v in row.values()))
    return "".join(lines)


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # quotes cells with either line end
    return line.getvalue().removesuffix("\r\n") + "\n"


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


@contextmanager
def plot_style(further: Mapping[str, Any]) -> Iterator[None]:
    """Draw and save in one style, whatever the reader's own matplotlibrc says.

    Args:
        further: settings of matplotlib beside those that all plots share.
    """
    from matplotlib import style

    with style.context(["default", {**STYLE, **further}]):
        yield


def svg_text(figure: Figure) -> str:
    """The figure as SVG, without date or version."""
    return _saved(
        figure, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    ).decode()


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG at 200 dots an inch, without date or version."""
    dots = min(PNG_DOTS_PER_INCH, MOST_PNG_DOTS / max(figure.get_size_inches()))
    return _saved(figure, format="png", metadata={"Software": None}, dpi=dots)


def _saved(figure: Figure, **how: Any) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        # letters that matplotlib's own font lacks: an SVG holds them as text, the reader's font draws them
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(content, **how)
    return content.getvalue()
