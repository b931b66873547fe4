"""A leaderboard as the text of its CSV files."""

from __future__ import annotations

import hashlib
import re

from momentum_bench.harness.reporting import csv_text
from momentum_bench.leaderboards.build import Leaderboard


def tables(board: Leaderboard) -> dict[str, str]:
    """The text of every CSV of a leaderboard, by its place in the output directory."""
    files = {
        "leaderboard.csv": csv_text(row.columns for row in board.rows),
        "comparison.csv": csv_text(comparison.columns for comparison in board.comparisons),
        "pooled.csv": csv_text(line.columns for line in board.pooled),
    }
    for task in sorted({str(row.columns["task"]) for row in board.rows}):
        of_task = (row.columns for row in board.rows if row.columns["task"] == task)
        files[f"tasks/{file_stem(task)}.csv"] = csv_text(of_task)
    return files


def file_stem(name: str) -> str:
    """A file name for a name out of a record, which may be anything: no folder, hidden file or option."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".-")[:80]
    if safe and safe == name:
        return safe
    return f"{safe or 'name'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
