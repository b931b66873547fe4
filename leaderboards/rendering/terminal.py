"""The leaderboard on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from momentum_bench.harness.records.schema import drawn
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparisons import Comparison
from momentum_bench.leaderboards.paired import in_points
from momentum_bench.leaderboards.rows import Row, by_setting

MOST_SENTENCES = 3
"""More comparisons of one setting make a table."""


def show(board: Leaderboard, console: Console) -> None:
    """Print a table for each setting, and below it its comparisons: a sentence each, or many as a table."""
    for rows in by_setting(board.rows):
        console.print(_table(rows))
        for row in rows:
            if row.columns["n_tied"]:
                console.print(_ties(row), highlight=False, markup=False)
        pairs = [c for c in board.comparisons if c.first.setting_key == rows[0].setting_key]
        if len(pairs) > MOST_SENTENCES:
            console.print(_pairs(pairs, board.margin))
        else:
            for pair in pairs:
                console.print(pair.sentence, highlight=False, markup=False)
    for text in [line.sentence for line in board.pooled] + board.notes:
        console.print(text, highlight=False, markup=False)


def _ties(row: Row) -> str:
    c = row.columns
    span = percent_range(c["test_tied_low"], c["test_tied_high"])
    return f"{c['task']}: {row.label.upper()} had ties on dev; over all tied choices its test mean is {span}."


def _pairs(comparisons: Sequence[Comparison], margin: float) -> Table:
    table = Table(caption_justify="left", box=box.SIMPLE)
    table.padding = (0, 1, 0, 0)
    table.caption = (
        f"Points of test score, paired by seed, with a 95 % interval; equivalent: within "
        f"{in_points(margin)}. Last: about how many seeds would decide"
    )
    table.add_column("second minus first", overflow="fold", min_width=18)
    for header in ("points", "95 % interval", "pairs", "verdict", "seeds"):
        table.add_column(header, justify="left" if header == "verdict" else "right", no_wrap=True)
    for comparison in comparisons:
        d = comparison.difference
        table.add_row(
            escape(f"{comparison.second.label} minus {comparison.first.label}"),
            _signed(d.mean),
            f"{_signed(d.ci_low)} to {_signed(d.ci_high)}",
            str(d.n_pairs),
            escape(comparison.verdict),
            "" if d.n_seeds_to_decide is None else str(d.n_seeds_to_decide),
        )
    return table


def _signed(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:+.1f}"


def _table(rows: list[Row]) -> Table:
    c = rows[0].columns
    model = c["model"].removeprefix("package:").removeprefix("local:")
    title = f"{c['task']}, {model} by {c['method']}, {drawn(c['k'])}, {c['protocol']}; {c['metric']} in %"
    table = Table(title=escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE)
    table.padding = (0, 1, 0, 0)
    table.caption = (
        "n: seeds. Rates are effective ones, chosen by dev for each seed; tied: other rates with the same "
        "dev score; edge: seeds whose rate is the smallest or largest tried; div.: diverged runs"
    )
    table.add_column(
        "optimizer", overflow="fold", min_width=9
    )  # on a narrow terminal a long name gives way first
    headers = ("test (sd)", "±95 %", "dev", "n", "chosen rates", "tied", "edge", "div.")
    for header in (*headers, "state MB"):
        rates = header == "chosen rates"
        table.add_column(header, justify="right", no_wrap=not rates, min_width=6 if rates else None)
    for row in rows:
        c = row.columns
        state = c["optimizer_state_bytes"]
        table.add_row(
            escape(row.label),
            f"{percent(c['test_mean'])} ({percent(c['test_std'])})",
            percent(c["test_ci_high"] - c["test_mean"]),
            percent(c["dev_mean"]),
            str(c["n_seeds"]),
            c["learning_rates"].replace(";", " "),
            str(c["n_tied"]),
            str(c["on_grid_edge"]),
            str(c["n_diverged"]),
            "-" if state is None else f"{state / 1e6:.1f}",
        )
    return table


def percent(fraction: float) -> str:
    """A fraction in per cent with one digit, or a dash."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def percent_range(low: float, high: float) -> str:
    """Two fractions in per cent, or a dash."""
    return "-" if math.isnan(low) else f"{percent(low)} to {percent(high)}"
