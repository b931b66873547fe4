"""What a study leaves for readers: CSV tables and SVG plots, the same to the byte for the same records."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from harness.records import RunSpec

INK, FAINT = "#222222", "#8a8a8a"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#5b5bd6")
"""After Okabe and Ito's palette, which colour-blind readers can tell apart."""
DASHES = ("-", "--", ":", "-.")

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "momentum-bench",
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the first row's names as columns; floats to 10 digits, None as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def setting_columns(spec: RunSpec) -> dict[str, Any]:
    """The columns that say what was trained on what, the same in every study's table."""
    names = ("task", "model", "model_revision", "method", "k", "seed", "batch_size", "learning_rate")
    return {name: getattr(spec, name) for name in names}


@contextmanager
def panels(rows: int, columns: int, title: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of rows x columns plots, in one style; it must be drawn and saved inside the context."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2 * columns, 3.9 * rows + 0.9), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis that has data logarithmic, with plain numbers at 1, 2, 5, or over long ranges at 1."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def svg_text(figure: Figure) -> str:
    """The figure as SVG without date or version."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()
