"""A leaderboard as tables: their columns, their rows, and the text of its CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from momentum_bench.harness.reporting import csv_text
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.columns import PAIR_COLUMNS
from momentum_bench.leaderboards.over_tasks import over_tasks
from momentum_bench.leaderboards.printable import file_stem
from momentum_bench.leaderboards.rate_curve import MATCHED_COLUMNS, matched_lines
from momentum_bench.leaderboards.regret import REGRET_COLUMNS, regret_lines
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tuning import (
    BUDGET_COLUMNS,
    SENSITIVITY_COLUMNS,
    budget_lines,
    sensitivity_lines,
)

ROW_COLUMNS = (
    *("task", "model", "method", "k", "optimizer", "momentum", "hyperparameters", "role"),
    *("seeds", "learning_rates", "torch_learning_rates", "grid", "axes", "chosen_settings"),
    *("n_seeds", "n_runs", "gradient_evaluations"),
    *("n_missing", "n_diverged", "n_failed", "metric", "test_mean", "test_std", "test_ci_low"),
    *(
        "test_ci_high",
        "test_tied_low",
        "test_tied_high",
        "test_bagged_mean",
        "test_worst",
        "majority",
        "dev_mean",
    ),
    *("dev_std", "accumulated_rate", "on_grid_edge", "ends", "n_tied", "clipped_fraction"),
    *(
        "optimizer_state_bytes",
        "short_classes",
        "n_leaked",
        "unknown_tokens",
        "train_seconds",
        "search_seconds",
    ),
    *("peak_memory_bytes", "device", "torch", "effective_precision", "matmul_precision"),
    *("momentum_bench", "left_out", "protocol", "protocol_version", "task_version"),
    *("data_fingerprint", "model_revision", "design", "row_id", "chosen_runs"),
)
"""The columns of leaderboard.csv."""

COMPARISON_COLUMNS = (
    *("task", "model", "method", "k", "metric", "question", *PAIR_COLUMNS),
    *("first_learning_rate", "second_learning_rate", "seeds", "n_pairs"),
    *("choice", "plain_mean_difference", "plain_std_difference"),
    *("mean_difference", "std_difference", "spread_floor", "worst_difference", "ci_low"),
    *("ci_high", "ci90_low", "ci90_high", "p_sign_flip", "p_difference", "p_difference_holm"),
    *("p_equivalence", "p_equivalence_holm", "level_difference", "level_equivalence"),
    *("p_first_better", "p_within_margin"),
    *("p_second_better", "margin", "look", "looks", "verdict", "no_verdict"),
    *("n_seeds_if_equal", "n_seeds_as_observed", "mixed", "left_out", "protocol"),
    *("data_fingerprint", "model_revision", "design", "first_row_id", "second_row_id"),
)
"""The columns of comparison.csv."""

POOLED_COLUMNS = (
    *("model", "method", "k", "question", *PAIR_COLUMNS),
    *("tasks", "n_tasks", "mean_difference", "std_over_tasks", "ci_low", "ci_high", "protocol"),
    *("model_revision",),
)
"""The columns of pooled.csv."""

OVER_TASKS_COLUMNS = (
    *("model", "method", "k", "question", *PAIR_COLUMNS),
    *("tasks", "n_tasks", "seeds", "n_pairs", "mean_difference", "std_difference", "ci_low"),
    *("ci_high", "p_difference", "p_difference_holm", "p_equivalence", "p_equivalence_holm"),
    *("margin", "verdict", "no_verdict", "protocol", "model_revision", "design"),
)
"""The columns of over_tasks.csv."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "leaderboard": ROW_COLUMNS,
    "comparison": COMPARISON_COLUMNS,
    "pooled": POOLED_COLUMNS,
    "over_tasks": OVER_TASKS_COLUMNS,
    "tuning_budget": BUDGET_COLUMNS,
    "sensitivity": SENSITIVITY_COLUMNS,
    "matched_differences": MATCHED_COLUMNS,
    "regret": REGRET_COLUMNS,
}
"""The columns of each table, by the name of its CSV file without `.csv`."""

Lines = Sequence[Mapping[str, Any]]
"""The rows of a table, each with all of its columns."""


def tables_of(board: Leaderboard) -> dict[str, Lines]:
    """The rows of every table of a leaderboard, by the names in `COLUMNS`."""
    pairs = tuned_pairs(board)
    return {
        "leaderboard": [row.columns for row in board.rows],
        "comparison": [comparison.columns for comparison in board.comparisons],
        "pooled": [line.columns for line in board.pooled],
        "over_tasks": [line.columns for line in over_tasks(board.comparisons)],
        "tuning_budget": list(budget_lines(pairs)),
        "sensitivity": list(sensitivity_lines(tuned_rows(board))),
        "matched_differences": list(matched_lines(pairs)),
        "regret": list(regret_lines(board.comparisons)),
    }


def tuned_rows(board: Leaderboard) -> list[Row]:
    """The rows of seeds on which a whole grid ran."""
    return [row for row in board.rows if row.role == "tuned"]


def tuned_pairs(board: Leaderboard) -> list[tuple[Row, Row]]:
    """The pairs of such rows that are compared."""
    return [
        (pair.first, pair.second)
        for pair in board.comparisons
        if pair.question == "tuned" and not pair.refused
    ]


def csv_tables(board: Leaderboard) -> dict[str, str]:
    """The text of every CSV of a leaderboard, by its path in the output directory."""
    files = {f"{name}.csv": csv_text(lines, COLUMNS[name]) for name, lines in tables_of(board).items()}
    for task in sorted({str(row.columns["task"]) for row in board.rows}):
        of_task = [row.columns for row in board.rows if row.columns["task"] == task]
        files[f"tasks/{file_stem(task)}.csv"] = csv_text(of_task, ROW_COLUMNS)
    return files
