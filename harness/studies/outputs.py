"""What the tables and plots of all studies have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.reporting import plot_style

DASHES = ("-", "--", ":", "-.")

SETTING_COLUMNS = ("task", "model", "model_revision", "method", "k", "seed", "batch_size", "learning_rate")
"""The first columns of every study's table."""

_STYLE: dict[str, Any] = {
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}


def setting_columns(spec: RunSpec) -> dict[str, Any]:
    """The columns that say what was trained on what, the same in every study's table."""
    return {name: getattr(spec, name) for name in SETTING_COLUMNS}


@contextmanager
def panels(rows: int, columns: int, title: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of rows x columns plots, in one style. Draw and save it inside the context."""
    with plot_style(_STYLE):
        figure = Figure(figsize=(5.2 * columns, 3.9 * rows + 0.9), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5, or only at 1 over a long range.

    The axis must have data already.
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
