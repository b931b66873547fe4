"""The leaderboard's plots, as SVG text or PNG: the same records give the same bytes.

Colours are a closed list, so that a page can put its own light and dark ones in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.reporting import COLOURS, FAINT, INK, PAPER, plot_style
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparisons import Comparison, Pooled
from momentum_bench.leaderboards.rendering.wording import context
from momentum_bench.leaderboards.rows import Row, by_setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Rendered = TypeVar("Rendered")

BAND = "#d7e8d4"

VERDICT_MARKS = {"equivalent": "s", "a better": "<", "b better": ">", "inconclusive": "o", "": "x"}

STYLE = {"figure.facecolor": PAPER, "axes.facecolor": "none"}


def board_plots(board: Leaderboard, render: Callable[[Figure], Rendered]) -> dict[str, Rendered]:
    """The plots by name: `forest`, if anything is compared, and `curves-...` of each setting that trains.

    Args:
        render: what becomes of a figure: `svg_text` or `png_bytes` of `harness.reporting`.
    """
    plots = {}
    with plot_style(STYLE):
        if board.comparisons:
            plots["forest"] = render(forest(board))
        figure = None
        for rows in by_setting(board.rows):
            if rows[0].setting["max_steps"] and any(row.chosen for row in rows):
                figure = curves(rows, figure)
                plots[curves_name(rows[0])] = render(figure)
    return plots


def curves_name(row: Row) -> str:
    """The name of the plot of a row's setting."""
    return f"curves-{row.columns['task']}-{row.setting_id}"


def curves(rows: Sequence[Row], figure: Figure | None = None) -> Figure:
    """Test score against effective learning rate, all arms of one setting on one axis.

    Thin lines are seeds, the thick one is their mean at rates where every seed finished; a ring is
    the rate that dev chose for a seed; a cross at the bottom is a rate that diverged, with the count.

    Args:
        figure: one of another setting, to be drawn anew: making axes takes longer than filling them.
    """
    from matplotlib.figure import Figure

    if figure is None:
        figure = Figure(figsize=(5, 3.1))
        figure.add_axes((0.12, 0.17, 0.86, 0.72))
    (axes,) = figure.axes
    _empty(axes)
    rates = sorted({run.spec.learning_rate for row in rows for run in row.runs})
    for place, row in enumerate(rows):
        _arm(axes, row, place)
    axes.set_xticks([math.log10(rate) for rate in rates], [f"{rate:g}" for rate in rates])
    crowded = len(rates) > 8
    axes.tick_params(axis="x", labelrotation=45 if crowded else 0, labelsize=8 if crowded else "medium")
    axes.set_xlim(math.log10(rates[0]) - 0.15, math.log10(rates[-1]) + 0.15)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    if any(run.status == "diverged" for row in rows for run in row.runs):
        low, high = axes.get_ylim()  # room below the curves for the counts
        axes.set_ylim(low - 0.08 * len(rows) * (high - low), high)
    axes.set_xlabel("effective learning rate")
    axes.set_ylabel(f"test {plain(rows[0].columns['metric'])} in %")
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(4, len(rows)), frameon=False, fontsize=9
    )
    return figure


def _empty(axes: Axes) -> None:
    """Remove what was drawn, and the limits that came of it."""
    for artist in (*axes.lines, *axes.texts):
        artist.remove()
    axes.relim()
    axes.autoscale()


def _arm(axes: Axes, row: Row, place: int) -> None:
    colour = COLOURS[place % len(COLOURS)]
    by_rate: dict[float, list[float]] = {}
    seeds = {run.spec.seed for run in row.runs}
    thin: list[tuple[float, float]] = []
    for _, runs in groupby(row.runs, key=lambda run: run.spec.seed):
        points = [_point(run) for run in runs if run.test]
        for x, score in points:
            by_rate.setdefault(x, []).append(score)
        thin += [*points, (math.nan, math.nan)]  # NaN lifts the pen between seeds
    axes.plot(*_columns(thin), color=colour, linewidth=0.7, alpha=0.45)
    means = [(x, math.fsum(s) / len(s)) for x, s in sorted(by_rate.items()) if len(s) == len(seeds)]
    dashes = ("-", "--", "-.", ":")[place % 4]
    axes.plot(*_columns(means), color=colour, linewidth=2, linestyle=dashes, label=plain(row.label))
    rings = [_point(run) for run in row.chosen.values()]
    axes.plot(*_columns(rings), "o", color=colour, markerfacecolor="none", markersize=7)
    diverged = [run.spec.learning_rate for run in row.runs if run.status == "diverged"]
    for rate in sorted(set(diverged)):
        axes.annotate(
            f"x{diverged.count(rate)}",
            xy=(math.log10(rate), 0.03 + 0.07 * place),
            xycoords=("data", "axes fraction"),
            color=colour,
            ha="center",
            va="center",
            fontsize=9,
        )


def _point(run: RunRecord) -> tuple[float, float]:
    """Where a finished run lies: decimal logarithm of its effective rate, test score in per cent."""
    return math.log10(run.spec.learning_rate), 100 * run.test.metric if run.test else math.nan


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def forest(board: Leaderboard) -> Figure:
    """All paired differences with their 95 % t intervals over the band of equivalence, in points.

    Squares: equivalent; triangles point to the better arm; open circles: inconclusive; crosses: no
    verdict. Diamonds are means over tasks, with an interval over tasks.
    """
    from matplotlib.figure import Figure

    entries = _entries(board)
    limit = 105 * max(_reach(board), 2 * board.margin)
    names = forest_labels(board)
    label_width, height = 0.2 + 0.075 * max(map(len, names)), 0.75 + 0.27 * len(entries)  # a letter: 0.075 in
    width = label_width + 3.2  # in which the axis label fits
    figure = Figure(figsize=(width, height))
    left = label_width / width
    axes = figure.add_axes((left, 0.55 / height, 0.97 - left, 1 - 0.65 / height))
    axes.axvspan(-100 * board.margin, 100 * board.margin, color=BAND, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    by_look: dict[tuple[str, str, str], list[int]] = {}
    for place, entry in enumerate(entries):
        by_look.setdefault(_look(entry), []).append(place)
    for look, places in by_look.items():
        _intervals(axes, look, [(place, entries[place]) for place in places], limit)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_yticks(range(len(entries)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("difference in points (second minus first)")
    return figure


def _entries(board: Leaderboard) -> list[Comparison | Pooled]:
    return [*board.comparisons, *board.pooled]


def _reach(board: Leaderboard) -> float:
    """How far the axis must go: to all means, and to the intervals of all pairs with a verdict."""
    ends = [abs(entry.columns["mean_difference"]) for entry in _entries(board)]
    for comparison in board.comparisons:
        if comparison.difference.verdict:
            ends += [abs(comparison.difference.ci_low), abs(comparison.difference.ci_high)]
    return max(ends)


def _look(entry: Comparison | Pooled) -> tuple[str, str, str]:
    """Mark, colour and inner colour of a line of the forest plot."""
    if isinstance(entry, Pooled):
        return "D", INK, INK
    verdict = entry.columns["verdict"]
    colours = {"equivalent": COLOURS[2], "a better": COLOURS[0], "b better": COLOURS[1]}
    colour = colours.get(verdict, FAINT)
    return VERDICT_MARKS[verdict], colour, PAPER if verdict == "inconclusive" else colour


def _intervals(
    axes: Axes, look: tuple[str, str, str], entries: Sequence[tuple[int, Comparison | Pooled]], limit: float
) -> None:
    """Intervals and means of one look, each with its line of the plot."""
    mark, colour, face = look
    means, bars, below, above = [], [], [], []
    for place, entry in entries:
        mean, low, high = (100 * entry.columns[name] for name in ("mean_difference", "ci_low", "ci_high"))
        means.append((mean, place))
        if not math.isnan(low):
            bars += [(max(low, -limit), place), (min(high, limit), place), (math.nan, math.nan)]
        below += [(-limit, place)] if low < -limit else []
        above += [(limit, place)] if high > limit else []
    axes.plot(*_columns(bars), color=colour, linewidth=1.6)
    for cut, arrow in ((below, "3"), (above, "4")):  # the interval goes on beyond the axis
        if cut:
            axes.plot(*_columns(cut), arrow, color=colour, markersize=8, clip_on=False)
    axes.plot(*_columns(means), mark, color=colour, markerfacecolor=face, markersize=6.5, zorder=3)


def forest_labels(board: Leaderboard) -> list[str]:
    """A short name for each line of the forest plot: the task, and whatever else varies on the board."""
    pairs = {(c.first.label, c.second.label) for c in board.comparisons}
    context_of = context(board.rows)
    labels = []
    for entry in _entries(board):
        one = entry if isinstance(entry, Comparison) else entry.comparisons[0]
        words = [one.columns["task"] if isinstance(entry, Comparison) else f"{len(entry.comparisons)} tasks"]
        words += context_of.short(one.first)
        words += [f"{one.second.label} - {one.first.label}"] if len(pairs) > 1 else []
        labels.append(plain(", ".join(words)))
    return labels


def plain(text: str) -> str:
    """Printable text of at most 30 characters for a plot."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= 30 else text[:29] + "…"
