"""The leaderboard on a terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leaderboards.build import Leaderboard, Row, by_setting


def show(board: Leaderboard, console: Console) -> None:
    """Print a table for each setting, and below it one sentence for each of its comparisons."""
    for rows in by_setting(board.rows):
        console.print(_table(rows))
        for comparison in board.comparisons:
            if comparison.first.setting_key == rows[0].setting_key:
                console.print(comparison.sentence, highlight=False, markup=False)
    for text in [line.sentence for line in board.pooled] + board.notes:
        console.print(text, highlight=False, markup=False)


def _table(rows: list[Row]) -> Table:
    c = rows[0].columns
    model = c["model"].removeprefix("package:").removeprefix("local:")
    title = f"{c['task']}, {model} by {c['method']}, k = {c['k']}, {c['protocol']}; {c['metric']} in %"
    table = Table(title=escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE)
    table.caption = "effective learning rates, chosen by dev for each seed; over ties: test over tied choices"
    table.add_column("optimizer", no_wrap=True)
    for header in ("test", "±95 %", "std", "dev", "seeds"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("rates")
    for header in ("tied", "over ties", "edge", "div.", "state MB"):
        table.add_column(header, justify="right", no_wrap=header != "over ties")
    for row in rows:
        c = row.columns
        state = c["optimizer_state_bytes"]
        table.add_row(
            escape(row.label),
            percent(c["test_mean"]),
            percent(c["test_ci_high"] - c["test_mean"]),
            percent(c["test_std"]),
            percent(c["dev_mean"]),
            str(c["n_seeds"]),
            c["learning_rates"].replace(";", " "),
            str(c["n_tied"]),
            percent_range(c["test_tied_low"], c["test_tied_high"]) if c["n_tied"] else "-",
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
