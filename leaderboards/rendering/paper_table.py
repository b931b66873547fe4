"""The leaderboard as a table for a paper: optimizers down, tasks across, in LaTeX or Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from momentum_bench.harness.records.schema import drawn
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.paired import in_points
from momentum_bench.leaderboards.rows import Row

TaskKey = tuple[str, str, str]


@dataclass(frozen=True)
class PaperTable:
    """One family of rows: everything but task and optimizer is equal.

    Attributes:
        caption: what the numbers are.
        header: the tasks.
        lines: for each optimizer its name and a row for each task, None where there is none.
        best: ids of the rows with the highest test mean of their task.
        equivalent: ids of rows that are equivalent to the best of their task.
    """

    caption: str
    header: list[str]
    lines: list[tuple[str, list[Row | None]]]
    best: set[str]
    equivalent: set[str]


def paper_tables(board: Leaderboard) -> list[PaperTable]:
    """The leaderboard's rows as tables, one for each family, in the leaderboard's order."""
    families: dict[str, list[Row]] = {}
    for row in board.rows:
        families.setdefault(row.family, []).append(row)
    equal = {
        frozenset((c.first.row_id, c.second.row_id))
        for c in board.comparisons
        if c.difference.verdict == "equivalent"
    }
    return [_table(rows, equal, board.margin) for rows in families.values()]


def _table(rows: list[Row], equal: set[frozenset[str]], margin: float) -> PaperTable:
    tasks: dict[TaskKey, list[Row]] = {}
    arms: dict[tuple[str, str], str] = {}
    for row in rows:
        tasks.setdefault(_task_key(row), []).append(row)
        arms[row.arm] = row.label
    names = [task for task, _, _ in tasks]
    header = [f"{key[0]} ({key[1]}, {key[2]})" if names.count(key[0]) > 1 else key[0] for key in tasks]
    best, equivalent = set(), set()
    for of_task in tasks.values():
        scored = [row for row in of_task if not math.isnan(row.columns["test_mean"])]
        if not scored:
            continue
        top = max(row.columns["test_mean"] for row in scored)
        winners = [row for row in scored if row.columns["test_mean"] == top]
        best |= {row.row_id for row in winners}
        equivalent |= {
            row.row_id
            for row in scored
            for winner in winners
            if frozenset((row.row_id, winner.row_id)) in equal and row is not winner
        }
    lines = [
        (label, [next((row for row in of_task if row.arm == arm), None) for of_task in tasks.values()])
        for arm, label in arms.items()
    ]
    c = rows[0].columns
    seeds = sorted({row.columns["n_seeds"] for row in rows})
    over = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    metrics = " / ".join(sorted({row.columns["metric"] for row in rows}))
    caption = (
        f"{c['model']}, {c['method']}, {drawn(c['k'])}, {c['protocol']}: test {metrics} in %, mean "
        f"(standard deviation) over {over}; learning rate chosen by dev for each seed. Bold: highest "
        f"mean. Marked: equivalent to it within {in_points(margin)} (paired TOST at 0.05)."
    )
    return PaperTable(caption, header, lines, best, equivalent)


def _task_key(row: Row) -> TaskKey:
    c = row.columns
    return c["task"], c["task_version"], c["data_fingerprint"]


def latex(board: Leaderboard) -> str:
    r"""Tables in LaTeX with booktabs rules (`\usepackage{booktabs}`)."""
    tables = []
    for table in paper_tables(board):
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'c' * len(table.header)}}}",
            r"\toprule",
            " & ".join(["optimizer", *map(_latex_text, table.header)]) + r" \\",
            r"\midrule",
        ]
        for label, rows in table.lines:
            cells = [_cell(row, table, r"\textbf{{{}}}".format, r"$^{\approx}$") for row in rows]
            lines.append(" & ".join([_latex_text(label), *cells]) + r" \\")
        tables.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(tables) + "\n"


def markdown(board: Leaderboard) -> str:
    """Tables in GitHub's Markdown."""
    tables = []
    for table in paper_tables(board):
        lines = [
            f"{_markdown_text(table.caption)}\n",
            _markdown_line(["optimizer", *map(_markdown_text, table.header)]),
            _markdown_line(["---", *("---:" for _ in table.header)]),
        ]
        for label, rows in table.lines:
            cells = [_cell(row, table, "**{}**".format, " ≈") for row in rows]
            lines.append(_markdown_line([_markdown_text(label), *cells]))
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def _cell(row: Row | None, table: PaperTable, bold: Callable[[str], str], mark: str) -> str:
    if row is None or math.isnan(row.columns["test_mean"]):
        return "-"
    c = row.columns
    std = "" if math.isnan(c["test_std"]) else f" ({100 * c['test_std']:.1f})"
    text = f"{100 * c['test_mean']:.1f}{std}"
    text = bold(text) if row.row_id in table.best else text
    return text + (mark if row.row_id in table.equivalent else "")


def _markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text).replace("\n", " ")


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text).replace("\n", " ")
