"""The leaderboard as a table for a paper, in LaTeX or Markdown: optimizers are lines, tasks are columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from momentum_bench.harness.records.schema import drawn
from momentum_bench.harness.verdicts.paired import in_points
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparisons import best_of_task, equivalent_to
from momentum_bench.leaderboards.printable import latex_text, markdown_text
from momentum_bench.leaderboards.rows import Row, model_names

TaskKey = tuple[str, str, str]


@dataclass(frozen=True)
class PaperTable:
    """One family of rows, in which everything but task and optimizer is equal.

    Attributes:
        caption: what the numbers are.
        header: the tasks.
        lines: for each optimizer its name and its row of each task; None if it has no row of that task.
        best: ids of the rows with the highest test mean of their task, if it can be known.
        equivalent: ids of the rows that are equivalent to the best row of their task.
    """

    caption: str
    header: list[str]
    lines: list[tuple[str, list[Row | None]]]
    best: set[str]
    equivalent: set[str]


def paper_tables(board: Leaderboard) -> list[PaperTable]:
    """The leaderboard's rows as tables, one for each family and role of seeds, in the leaderboard's order."""
    families: dict[tuple[str, str, str], list[Row]] = {}
    for row in board.rows:
        families.setdefault((row.family, row.role, str(row.columns["design"])), []).append(row)
    models = model_names(board.rows)
    return [_paper_table(rows, board, models[rows[0].model_key]) for rows in families.values()]


def _paper_table(rows: list[Row], board: Leaderboard, model: str) -> PaperTable:
    tasks: dict[TaskKey, list[Row]] = {}
    arms: dict[tuple[str, str], str] = {}
    for row in rows:
        tasks.setdefault(_task_key(row), []).append(row)
        arms[row.arm] = row.label
    names = [task for task, _, _ in tasks]
    header = [f"{key[0]} ({key[1]}, {key[2]})" if names.count(key[0]) > 1 else key[0] for key in tasks]
    winners = [best_of_task(of_task, board.comparisons) for of_task in tasks.values()]
    best = [row for of_task in winners for row in of_task]
    lines = [
        (label, [next((row for row in of_task if row.arm == arm), None) for of_task in tasks.values()])
        for arm, label in arms.items()
    ]
    left_out = [each.sentence for each in board.left_out if each.task is None or each.task in names]
    caption = [f"{model}, {_caption(rows)}", _legend(winners, board.margin), *left_out]
    return PaperTable(
        " ".join(caption),
        header,
        lines,
        {row.row_id for row in best},
        equivalent_to(best, board.comparisons),
    )


def _task_key(row: Row) -> TaskKey:
    c = row.columns
    return c["task"], c["task_version"], c["data_fingerprint"]


def _caption(rows: list[Row]) -> str:
    """What the numbers of a family are, after the model's name."""
    c = rows[0].columns
    metrics = " / ".join(sorted({row.columns["metric"] for row in rows}))
    seeds = sorted({row.columns["n_seeds"] for row in rows})
    if seeds == [1]:
        over = "of one seed"
    elif len(seeds) == 1:
        over = f"mean (standard deviation) over {seeds[0]} seeds"
    else:
        over = f"mean (standard deviation) over {seeds[0]} to {seeds[-1]} seeds"
    chosen = {
        "tuned": "learning rate chosen by dev for each seed",
        "matched": "one effective learning rate for all optimizers, chosen by dev on other seeds",
        "own": "one learning rate for each optimizer, chosen by dev on other seeds",
    }
    return (
        f"{c['method']}, {drawn(c['k'])}, {c['protocol']}: test {metrics} in %, {over}; "
        f"{chosen[rows[0].role]}."
    )


def _legend(winners: list[list[Row]], margin: float) -> str:
    """What the marks of a table mean; `winners` has the best rows of each task."""
    if not any(winners):
        return "No mean is bold, because one seed cannot show which optimizer is better."
    where = "" if all(winners) else " of a task whose optimizers all have two or more seeds"
    return (
        f"Bold: highest mean{where}. Marked: equivalent to it within {in_points(margin)} (paired TOST at "
        f"0.05)."
    )


def latex(board: Leaderboard) -> str:
    r"""Tables in LaTeX with booktabs rules (`\usepackage{booktabs}`)."""
    tables = []
    for table in paper_tables(board):
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'c' * len(table.header)}}}",
            r"\toprule",
            " & ".join(["optimizer", *map(latex_text, table.header)]) + r" \\",
            r"\midrule",
        ]
        for label, rows in table.lines:
            cells = [_score(row, table, r"\textbf{{{}}}".format, r"$^{\approx}$") for row in rows]
            lines.append(" & ".join([latex_text(label), *cells]) + r" \\")
        tables.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(tables) + "\n"


def markdown(board: Leaderboard) -> str:
    """Tables in GitHub's Markdown."""
    tables = []
    for table in paper_tables(board):
        lines = [
            f"{markdown_text(table.caption)}\n",
            _markdown_line(["optimizer", *map(markdown_text, table.header)]),
            _markdown_line(["---", *("---:" for _ in table.header)]),
        ]
        for label, rows in table.lines:
            cells = [_score(row, table, "**{}**".format, " ≈") for row in rows]
            lines.append(_markdown_line([markdown_text(label), *cells]))
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def _score(row: Row | None, table: PaperTable, bold: Callable[[str], str], mark: str) -> str:
    """A row's test mean and standard deviation in per cent, with the marks of its table."""
    if row is None or math.isnan(row.columns["test_mean"]):
        return "-"
    c = row.columns
    std = "" if math.isnan(c["test_std"]) else f" ({100 * c['test_std']:.1f})"
    text = f"{100 * c['test_mean']:.1f}{std}"
    text = bold(text) if row.row_id in table.best else text
    return text + (mark if row.row_id in table.equivalent else "")


def _markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
