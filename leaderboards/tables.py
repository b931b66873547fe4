"""A leaderboard as the text of its CSV files."""

from __future__ import annotations

from momentum_bench.harness.reporting import csv_text
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.printable import file_stem


def csv_tables(board: Leaderboard) -> dict[str, str]:
    """The text of every CSV of a leaderboard, by its path in the output directory."""
    files = {
        "leaderboard.csv": csv_text(row.columns for row in board.rows),
        "comparison.csv": csv_text(comparison.columns for comparison in board.comparisons),
        "pooled.csv": csv_text(line.columns for line in board.pooled),
    }
    for task in sorted({str(row.columns["task"]) for row in board.rows}):
        of_task = (row.columns for row in board.rows if row.columns["task"] == task)
        files[f"tasks/{file_stem(task)}.csv"] = csv_text(of_task)
    return files
