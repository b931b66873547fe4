"""The leaderboard's plots, as SVG text or PNG. The same records give the same bytes.

The list of colours is closed, so that a page can replace each by its own light and dark ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from momentum_bench.harness.messages import printable
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.selection import by_choice, dev_result
from momentum_bench.harness.reporting import COLOURS, FAINT, INK, PAPER, plot_style
from momentum_bench.harness.verdicts.paired import FEWEST_PAIRS
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparison import Comparison
from momentum_bench.leaderboards.comparisons import Pooled
from momentum_bench.leaderboards.rate_curve import RatePoint, matched_curve
from momentum_bench.leaderboards.rendering.wording import context
from momentum_bench.leaderboards.rows import Row, by_setting
from momentum_bench.leaderboards.tables import tuned_pairs, tuned_rows
from momentum_bench.leaderboards.tuning import budget_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Rendered = TypeVar("Rendered")

BAND = "#d7e8d4"

LONGEST_TEXT, LONGEST_LABEL = 30, 60
"""Characters of a line's name in a legend, and of a label of the forest plot."""

FAR = 8
"""An interval that ends at more than so many times the median end runs off the axis of the forest plot."""

VERDICT_MARKS = {
    "equivalent": "s",
    "a better": "<",
    "b better": ">",
    "inconclusive": "o",
    "not learned": "*",
    "": "x",
}

STYLE = {"figure.facecolor": PAPER, "axes.facecolor": "none"}


def board_plots(board: Leaderboard, render: Callable[[Figure], Rendered]) -> dict[str, Rendered]:
    """The plots by name.

    They are `forest` if rows are compared, and for each setting that trains `curves-...`, `budget-...` if
    several rates were tried, and `matched-...` if two optimizers ran at the same rates.

    Args:
        render: makes the result from a figure: `svg_text` or `png_bytes` of `harness.reporting`.
    """
    plots = {}
    with plot_style(STYLE):
        if _entries(board):
            plots["forest"] = render(forest(board))
        figure = of_budget = of_pairs = None
        pairs = tuned_pairs(board)
        for rows in by_setting(tuned_rows(board)):
            if rows[0].setting["max_steps"] and any(row.chosen for row in rows):
                figure = curves(rows, figure)
                plots[curves_name(rows[0])] = render(figure)
                if any(len(row.grid) > 1 and budget_curves(row) for row in rows):
                    of_budget = budget(rows, of_budget)
                    plots[budget_name(rows[0])] = render(of_budget)
                ids = {row.row_id for row in rows}
                found = [pair for pair in pairs if pair[0].row_id in ids and matched_curve(*pair)]
                if found:
                    of_pairs = matched(found, board.margin, of_pairs)
                    plots[matched_name(rows[0])] = render(of_pairs)
    return plots


def curves_name(row: Row) -> str:
    """The name of the plot of a row's setting: test score against learning rate."""
    return f"curves-{row.columns['task']}-{row.setting_id}"


def budget_name(row: Row) -> str:
    """The name of the plot of a row's setting: test score against the number of rates that are tried."""
    return f"budget-{row.columns['task']}-{row.setting_id}"


def matched_name(row: Row) -> str:
    """The name of the plot of a row's setting: matched differences against learning rate."""
    return f"matched-{row.columns['task']}-{row.setting_id}"


def curves(rows: Sequence[Row], figure: Figure | None = None) -> Figure:
    """Test score against effective learning rate, with all arms of one setting on one axis.

    Where further axes are tuned, a rate stands at the best of their values by dev, for each seed.
    A thin line is a seed. The thick line is the mean over seeds, at rates where every seed finished. A ring
    is the rate that dev chose for a seed. `x2` at the bottom: two seeds diverged at this rate.

    Args:
        figure: the figure of another setting, to be used again, because making axes takes longer than
            filling them.
    """
    figure, axes = _small(figure)
    rates = sorted({run.spec.learning_rate for row in rows for run in row.runs})
    for place, row in enumerate(rows):
        _draw_arm(axes, row, place)
    _rate_axis(axes, rates)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    if any(run.status == "diverged" for row in rows for run in row.runs):
        low, high = axes.get_ylim()  # room below the curves for the counts
        axes.set_ylim(low - 0.08 * len(rows) * (high - low), high)
    axes.set_ylabel(f"test {plot_text(rows[0].columns['metric'])} in %")
    _legend(axes, len(rows))
    return figure


def budget(rows: Sequence[Row], figure: Figure | None = None) -> Figure:
    """Expected test score of the dev choice against the number of rates that are tried.

    A thin line is a seed, the thick line the mean over seeds.

    Args:
        figure: the figure of another setting, to be used again.
    """
    figure, axes = _small(figure)
    sizes = {len(row.grid) for row in rows}
    for place, row in enumerate(rows):
        colour, dashes = _look_of_arm(place)
        thin: list[tuple[float, float]] = []
        of_seeds = list(budget_curves(row).values())
        for curve in of_seeds:
            thin += [*((n, 100 * score) for n, score in enumerate(curve, 1)), (math.nan, math.nan)]
        axes.plot(*_columns(thin), color=colour, linewidth=0.7, alpha=0.45)
        means = [(n, 100 * math.fsum(s) / len(s)) for n, s in enumerate(zip(*of_seeds, strict=True), 1)]
        label = plot_text(row.label)
        axes.plot(*_columns(means), color=colour, linewidth=2, linestyle=dashes, label=label)
    numbers = range(1, max(sizes) + 1)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    _crowd(axes, len(numbers))
    axes.set_xlim(0.8, max(sizes) + 0.2)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlabel("number of learning rates tried")
    axes.set_ylabel(f"test {plot_text(rows[0].columns['metric'])} in %")
    _legend(axes, len(rows))
    return figure


def matched(pairs: Sequence[tuple[Row, Row]], margin: float, figure: Figure | None = None) -> Figure:
    """Differences at the same effective rate, with intervals that hold at all rates together, in points.

    The band is the band of equivalence. An arrow at the end: the interval goes on beyond the axis.

    Args:
        margin: half width of the band, a fraction; the same for all settings of a leaderboard.
        figure: the figure of another setting, to be used again.
    """
    if figure is None:
        figure, axes = _small(None)
        axes.axhspan(-100 * margin, 100 * margin, color=BAND, linewidth=0)
    figure, axes = _small(figure)
    drawn = [[p for p in matched_curve(*pair) if p.difference.n] for pair in pairs]
    bottom, top = _reach_of([point for points in drawn for point in points], margin)
    rates = sorted({point.rate for points in drawn for point in points})
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for place, (points, (first, second)) in enumerate(zip(drawn, pairs, strict=True)):
        colour, dashes = _look_of_arm(place)
        shift = 0.03 * (place - (len(pairs) - 1) / 2)  # so that intervals of several pairs are seen
        means, bars = [], []
        for point in points:
            x, low, high = math.log10(point.rate) + shift, 100 * point.low, 100 * point.high
            means.append((x, 100 * point.difference.mean))
            if not math.isnan(low):
                bars += [(x, max(low, bottom)), (x, min(high, top)), (math.nan, math.nan)]
            for beyond, mark, end in ((low < bottom, "1", bottom), (high > top, "2", top)):
                if beyond:
                    axes.plot([x], [end], mark, color=colour, markersize=8, clip_on=False)
        axes.plot(*_columns(bars), color=colour, linewidth=1.6)
        label = plot_text(f"{second.label} - {first.label}")
        axes.plot(*_columns(means), marker="o", color=colour, linewidth=0.8, linestyle=dashes, label=label)
    _rate_axis(axes, rates)
    axes.set_ylim(bottom, top)
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("difference in points")
    _legend(axes, len(pairs))
    return figure


def _reach_of(points: Sequence[RatePoint], margin: float) -> tuple[float, float]:
    """The ends of the axis in points: around all means, intervals of three or more seeds, and the band."""
    ends = [point.difference.mean for point in points]
    ends += [end for p in points if p.difference.n >= FEWEST_PAIRS for end in (p.low, p.high)]
    low, high = min(*ends, -2 * margin), max(*ends, 2 * margin)
    room = 0.05 * (high - low)
    return 100 * (low - room), 100 * (high + room)


def _small(figure: Figure | None) -> tuple[Figure, Axes]:
    """A small figure and its axes: a new one, or a used one without its lines and texts."""
    from matplotlib.figure import Figure

    if figure is None:
        figure = Figure(figsize=(5, 3.1))
        figure.add_axes((0.13, 0.17, 0.85, 0.72))
    (axes,) = figure.axes
    _clear(axes)
    return figure, axes


def _rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """A logarithmic axis whose ticks are the rates."""
    axes.set_xticks([math.log10(rate) for rate in rates], [f"{rate:g}" for rate in rates])
    _crowd(axes, len(rates))
    axes.set_xlim(math.log10(rates[0]) - 0.15, math.log10(rates[-1]) + 0.15)
    axes.set_xlabel("effective learning rate")


def _crowd(axes: Axes, n_ticks: int) -> None:
    """Smaller, slanted numbers where there are many."""
    crowded = n_ticks > 8
    axes.tick_params(axis="x", labelrotation=45 if crowded else 0, labelsize=8 if crowded else "medium")


def _legend(axes: Axes, n_entries: int) -> None:
    columns = min(4, n_entries)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=9)


def _look_of_arm(place: int) -> tuple[str, str]:
    """The colour and the dashes of the arm at a place among those of one plot."""
    return COLOURS[place % len(COLOURS)], ("-", "--", "-.", ":")[place % 4]


def _clear(axes: Axes) -> None:
    """Remove what was drawn, and the limits that came from it."""
    for artist in (*axes.lines, *axes.texts):
        artist.remove()
    axes.relim()
    axes.autoscale()


def _draw_arm(axes: Axes, row: Row, place: int) -> None:
    colour, dashes = _look_of_arm(place)
    by_rate: dict[float, list[float]] = {}
    seeds = {run.spec.seed for run in row.runs}
    thin: list[tuple[float, float]] = []
    for _, runs in groupby(row.runs, key=lambda run: run.spec.seed):
        points = [_point(run) for run in _best_at_each_rate(runs)]
        for x, score in points:
            by_rate.setdefault(x, []).append(score)
        thin += [*points, (math.nan, math.nan)]  # NaN ends the line of a seed
    axes.plot(*_columns(thin), color=colour, linewidth=0.7, alpha=0.45)
    means = [(x, math.fsum(s) / len(s)) for x, s in sorted(by_rate.items()) if len(s) == len(seeds)]
    axes.plot(*_columns(means), color=colour, linewidth=2, linestyle=dashes, label=plot_text(row.label))
    rings = [_point(run) for run in row.chosen.values()]
    axes.plot(*_columns(rings), "o", color=colour, markerfacecolor="none", markersize=7)
    finished = {(run.spec.seed, run.spec.learning_rate) for run in row.runs if run.test}
    cells = {(run.spec.seed, run.spec.learning_rate) for run in row.runs if run.status == "diverged"}
    diverged = [rate for _, rate in sorted(cells - finished)]
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


def _best_at_each_rate(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The finished run of each rate that dev prefers, by ascending rate; there are several with more axes."""
    done = [run for run in runs if run.test]
    best = {run.spec.learning_rate: run for run in sorted(done, key=_by_choice, reverse=True)}
    return [best[rate] for rate in sorted(best)]


def _by_choice(run: RunRecord) -> tuple[object, ...]:
    return by_choice(dev_result(run))


def _point(run: RunRecord) -> tuple[float, float]:
    """The point of a finished run: the decimal logarithm of its effective rate, and its test score in %."""
    return math.log10(run.spec.learning_rate), 100 * run.test.metric if run.test else math.nan


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def forest(board: Leaderboard, names: Sequence[str] | None = None) -> Figure:
    """All paired differences with their 95 % t intervals and the band of equivalence, in points.

    Args:
        names: of the lines, from top to bottom; None: `forest_labels`.

    A square is equivalent, a triangle points to the better arm, an open circle is inconclusive, an open
    star was not learned, and a cross has no verdict. A diamond is a mean over tasks, and its interval is
    over tasks.
    """
    from matplotlib.figure import Figure

    entries = _entries(board)
    limit = 105 * max(_reach(board), 2 * board.margin)
    names = forest_labels(board) if names is None else names
    label_width, height = 0.2 + 0.08 * max(map(len, names)), 0.75 + 0.27 * len(entries)  # a letter: 0.08 in
    width = label_width + 3.2  # room for the axis label
    figure = Figure(figsize=(width, height))
    left = label_width / width
    axes = figure.add_axes((left, 0.55 / height, 0.97 - left, 1 - 0.65 / height))
    axes.axvspan(-100 * board.margin, 100 * board.margin, color=BAND, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    by_look: dict[tuple[str, str, str], list[int]] = {}
    for place, entry in enumerate(entries):
        by_look.setdefault(_look(entry), []).append(place)
    for look, places in by_look.items():
        _draw_intervals(axes, look, [(place, entries[place]) for place in places], limit)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_yticks(range(len(entries)), names)
    axes.tick_params(axis="y", length=0)
    firsts = {pair.first.label for pair in board.comparisons}
    subtracted = f"minus {plot_text(firsts.pop())}" if len(firsts) == 1 else "second minus first"
    axes.set_xlabel(f"difference in points ({subtracted})")
    return figure


def _entries(board: Leaderboard) -> list[Comparison | Pooled]:
    return [*(pair for pair in board.comparisons if not pair.refused), *board.pooled]


def _reach(board: Leaderboard) -> float:
    """The reach of the axis, a fraction: to all means, and to the intervals of pairs with a verdict.

    An interval that is far longer than most is cut off, or no other one could be read.
    """
    means: list[float] = [abs(entry.columns["mean_difference"]) for entry in _entries(board)]
    decided = [pair.difference for pair in board.comparisons if pair.difference.verdict]
    ends = [max(abs(d.ci_low), abs(d.ci_high)) for d in decided]
    longest = FAR * median(ends) if ends else 0.0
    return max(*means, *(end for end in ends if end <= longest), 0.0)


def _look(entry: Comparison | Pooled) -> tuple[str, str, str]:
    """The mark, colour and inner colour of a line of the forest plot."""
    if isinstance(entry, Pooled):
        return "D", INK, INK
    verdict = entry.columns["verdict"]
    colours = {"equivalent": COLOURS[2], "a better": COLOURS[0], "b better": COLOURS[1]}
    colour = colours.get(verdict, FAINT)
    return VERDICT_MARKS[verdict], colour, PAPER if verdict in ("inconclusive", "not learned") else colour


def _draw_intervals(
    axes: Axes, look: tuple[str, str, str], entries: Sequence[tuple[int, Comparison | Pooled]], limit: float
) -> None:
    """Draw the intervals and means that share a look; `place` is the line of the plot."""
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
    """A short name for each line of the forest plot: the task, and what else varies on the board."""
    pairs = {(c.first.label, c.second.label) for c in board.comparisons}
    firsts = {first for first, _ in pairs}
    questions = {c.question for c in board.comparisons}
    context_of = context(board.rows)
    labels = []
    for entry in _entries(board):
        one = entry if isinstance(entry, Comparison) else entry.comparisons[0]
        words = [one.columns["task"] if isinstance(entry, Comparison) else f"{len(entry.comparisons)} tasks"]
        words += context_of.short(one.first)
        if len(firsts) > 1:
            words.append(f"{one.second.label} - {one.first.label}")
        elif len(pairs) > 1:
            words.append(one.second.label)
        words += [one.question] if len(questions) > 1 else []
        labels.append(", ".join(words))
    short = {label: plot_text(label, LONGEST_LABEL) for label in labels}
    cut = Counter(short.values())
    # what tells two long labels apart may be at their ends
    return [short[label] if cut[short[label]] == 1 else _ends(label, LONGEST_LABEL) for label in labels]


def _ends(text: str, most: int) -> str:
    """The first and the last printable characters of a text."""
    text = printable(text)
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"


def plot_text(text: str, most: int = LONGEST_TEXT) -> str:
    """The beginning of a text, at most so many printable characters, for a plot."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"
