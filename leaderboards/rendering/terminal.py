"""The leaderboard on a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from momentum_bench.harness.messages import print_table, printable
from momentum_bench.harness.records.schema import drawn
from momentum_bench.harness.verdicts.paired import in_points
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparison import Comparison
from momentum_bench.leaderboards.over_tasks import over_tasks
from momentum_bench.leaderboards.rows import Row, by_setting, by_table, model_names, point_text

MOST_SENTENCES = 3
"""If a setting has more comparisons, they are shown as a table."""


def print_board(board: Leaderboard, console: Console) -> None:
    """Print each table of rows, and then its comparisons as sentences or, if they are many, as a table.

    Of one setting, confirming seeds come last, because their comparison is the result.
    """
    titles = _short_names(board.rows)
    for rows in (table for of_setting in by_setting(board.rows) for table in _tables(of_setting)):
        print_table(_row_table(rows, titles[rows[0].model_key], console), console)
        for row in rows:
            if row.axes and row.chosen and row.role == "tuned":
                console.print(_line(_chosen_points(row)))
            if row.columns["n_tied"]:
                console.print(_line(_ties(row)))
        key = rows[0].table_key
        # a note says why a pair is refused
        pairs = [c for c in board.comparisons if c.first.table_key == key and not c.refused]
        if len(pairs) > MOST_SENTENCES:
            print_table(_comparison_table(pairs, board.margin), console)
        else:
            for pair in pairs:
                console.print(_line(pair.sentence))
    over = [line.sentence for line in over_tasks(board.comparisons)]
    for text in over + [line.sentence for line in board.pooled] + board.notes:
        console.print(_line(text))


def _tables(of_setting: Sequence[Row]) -> list[list[Row]]:
    return sorted(by_table(of_setting), key=lambda rows: ("tuned", "own", "matched").index(rows[0].role))


def _line(text: str) -> Text:
    """A text that rich prints as it is: no markup, no emoji, no escape sequence of its own."""
    return Text(printable(text))


def _short_names(rows: Sequence[Row]) -> Mapping[tuple[str, str], str]:
    """The models' names without `package:` and `local:`, unless two of them would then be equal."""
    names = model_names(rows)
    short = {key: name.removeprefix("package:").removeprefix("local:") for key, name in names.items()}
    counts = Counter(short.values())
    return {key: short[key] if counts[short[key]] == 1 else name for key, name in names.items()}


def _ties(row: Row) -> str:
    c = row.columns
    span = percent_range(c["test_tied_low"], c["test_tied_high"])
    return f"{c['task']}: {row.name} had ties on dev; over all tied choices its test mean is {span}."


def _comparison_table(comparisons: Sequence[Comparison], margin: float) -> Table:
    table = Table(caption_justify="left", box=box.SIMPLE)
    table.padding = (0, 1, 0, 0)
    table.caption = Text(
        f"Points of test score, paired by seed, with a 95 % interval; equivalent: within "
        f"{in_points(margin)}. Seeds: how many would probably decide, if there is no difference / if it is "
        f"as observed"
    )
    table.add_column("second minus first", overflow="fold", min_width=18)
    for header in ("points", "95 % interval", "pairs", "verdict", "seeds"):
        table.add_column(header, justify="left" if header == "verdict" else "right", no_wrap=True)
    for comparison in comparisons:
        d, advised = comparison.difference, comparison.advice
        table.add_row(
            _line(f"{comparison.second.label} minus {comparison.first.label}"),
            _signed(d.mean),
            f"{_signed(d.ci_low)} to {_signed(d.ci_high)}",
            str(d.n_pairs),
            _line(comparison.verdict),
            "" if advised is None else f"{_number(advised.if_equal)} / {_number(advised.as_observed)}",
        )
    return table


def _number(n: int | None) -> str:
    return "many" if n is None else str(n)


def _signed(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:+.1f}"


def _row_table(rows: list[Row], model: str, console: Console) -> Table:
    c = rows[0].columns
    title = f"{c['task']}, {model} by {c['method']}, {drawn(c['k'])}, {c['protocol']}; {c['metric']} in %"
    title += {"tuned": "", "matched": "; confirming seeds", "own": "; confirming seeds, own rates"}[
        rows[0].role
    ]
    table = Table(title=_line(title), title_justify="left", caption_justify="left", box=box.SIMPLE)
    table.padding = (0, 1, 0, 0)
    chosen = {
        "tuned": "chosen by dev for each seed",
        "matched": "one for all, chosen by dev on the tuning seeds",
        "own": "chosen by dev on the tuning seeds",
    }
    table.caption = Text(
        f"n: seeds; worst: the seed with the lowest test score. Rates are effective rates, "
        f"{chosen[rows[0].role]}; edge: seeds whose rate is the smallest or largest tried; div.: diverged "
        f"runs"
    )
    # of a long name and the other cells, the name wraps first
    table.add_column("optimizer", overflow="fold", min_width=11)
    interval = "+-95 %" if console.options.ascii_only else "±95 %"
    headers = ("test (sd)", interval, "worst", "dev", "n", "chosen rates", "edge", "div.", "state MB")
    for header in headers:
        rates = header == "chosen rates"
        table.add_column(header, justify="right", no_wrap=not rates, min_width=6 if rates else None)
    for row in rows:
        c = row.columns
        state = c["optimizer_state_bytes"]
        table.add_row(
            _line(row.label),
            f"{percent(c['test_mean'])} ({percent(c['test_std'])})",
            percent(c["test_ci_high"] - c["test_mean"]),
            percent(c["test_worst"]),
            percent(c["dev_mean"]),
            str(c["n_seeds"]),
            c["learning_rates"].replace(";", " ") if row.role == "tuned" else c["grid"],
            str(c["on_grid_edge"]),
            str(c["n_diverged"]),
            "-" if state is None else f"{state / 1e6:.1f}",
        )
    return table


def _chosen_points(row: Row) -> str:
    """What dev chose on each seed, and how many seeds chose an end of an axis, of a row with further axes."""
    c = row.columns
    chosen = "; ".join(f"{point_text(run.spec.point)} on seed {seed}" for seed, run in row.chosen.items())
    return (
        f"{c['task']}: {row.name} was tuned over {c['axes']} too. Dev chose rate {chosen}. Seeds that chose "
        f"an end of an axis: {c['ends'].replace(' ', ', ')}; edge counts the axes with three or more values."
    )


def percent(fraction: float) -> str:
    """A fraction in per cent with one digit, or a dash for NaN."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def percent_range(low: float, high: float) -> str:
    """Two fractions in per cent, or a dash for NaN."""
    return "-" if math.isnan(low) else f"{percent(low)} to {percent(high)}"
