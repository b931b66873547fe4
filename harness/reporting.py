"""How leaderboards and studies write numbers and plots. The same values always give the same bytes."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAPER, INK, FAINT = "#ffffff", "#222222", "#8a8a8a"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#5b5bd6")
"""After Okabe and Ito's palette, which colour-blind readers can tell apart."""

STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "momentum-bench",
    "svg.fonttype": "none",  # text stays text: files are small, and a page uses its own font
    "text.parse_math": False,  # names from records are no formulas
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
"""Most dots along the longer side; a longer figure gets fewer dots per inch."""


def cell(value: Any) -> str:
    """A value as text: a float with 10 digits, and an empty text for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def joined(values: Iterable[Any]) -> str:
    """Several values as one cell, with semicolons between them."""
    return ";".join(map(cell, values))


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Comma-separated text. It has a header even if there are no rows, because its readers need one.

    A text cell that a spreadsheet would read as a formula starts with an apostrophe.

    Args:
        columns: the header; each row has these names, in this order.

    Raises:
        ValueError: a row has other names.
    """
    lines = [csv_line(columns)]
    for row in rows:
        if tuple(row) != tuple(columns):
            raise ValueError(f"a row has the columns {list(row)}, its table has {list(columns)}")
        lines.append(csv_line(_harmless(cell(v)) if isinstance(v, str) else cell(v) for v in row.values()))
    return "".join(lines)


def csv_line(cells: Iterable[str]) -> str:
    """One line of a CSV, with its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # quotes cells with either line end
    return line.getvalue().removesuffix("\r\n") + "\n"


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


@contextmanager
def plot_style(further: Mapping[str, Any]) -> Iterator[None]:
    """Draw and save in one style, without the settings of a matplotlibrc.

    Args:
        further: matplotlib settings, next to those that all plots share.
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
    """The figure as PNG with 200 dots per inch, without date or version."""
    dots = min(PNG_DOTS_PER_INCH, MOST_PNG_DOTS / max(figure.get_size_inches()))
    return _saved(figure, format="png", metadata={"Software": None}, dpi=dots)


def _saved(figure: Figure, **options: Any) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        # matplotlib's font lacks some letters, but an SVG holds text, which the reader's font draws
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(content, **options)
    return content.getvalue()
