"""The leaderboard on a terminal."""

from __future__ import annotations

import math
from itertools import groupby

from rich.console import Console
from rich.table import Table

from leaderboards.build import Leaderboard, Row


def show(board: Leaderboard, console: Console) -> None:
    """Print a table for each setting, and below it one sentence for each of its comparisons."""
    for setting, rows in groupby(board.rows, key=lambda row: row.setting):
        console.print(_table(list(rows)))
        for comparison in board.comparisons:
            if comparison.first.setting == setting:
                console.print(comparison.sentence, highlight=False)


def _table(rows: list[Row]) -> Table:
    c = rows[0].columns
    model = c["model"].removeprefix("package:").removeprefix("local:")
    title = f"{c['task']}, {model} by {c['method']}, k = {c['k']}, {c['protocol']}; {c['metric']} in %"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        "Rates are effective ones, chosen by dev for each seed; tied: other rates with the same dev "
        "score; edge: seeds whose rate is the smallest or largest tried; div.: diverged runs"
    )
    table.add_column("optimizer", no_wrap=True)
    for header in ("test (sd)", "dev", "seeds", "chosen rates", "tied", "edge", "div.", "state MB"):
        table.add_column(header, justify="right")
    for row in rows:
        c = row.columns
        state = c["optimizer_state_bytes"]
        table.add_row(
            c["optimizer"],
            f"{_percent(c['test_mean'])} ({_percent(c['test_std'])})",
            _percent(c["dev_mean"]),
            str(c["n_seeds"]),
            c["learning_rates"].replace(";", " "),
            str(c["n_tied"]),
            str(c["on_grid_edge"]),
            str(c["n_diverged"]),
            "-" if state is None else f"{state / 1e6:.1f}",
        )
    return table


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"
