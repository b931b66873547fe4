"""The page's tables of what the whole grid says: tuning budget, sensitivity, matched differences, regret."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from momentum_bench.harness.records.labels import without_common
from momentum_bench.harness.reporting import cell
from momentum_bench.harness.verdicts.paired import in_points
from momentum_bench.leaderboards.regret import THRESHOLDS
from momentum_bench.leaderboards.rendering.cells import (
    Cell,
    Head,
    HeadedLines,
    signed,
    signed_range,
    task_cell,
)
from momentum_bench.leaderboards.rendering.terminal import percent
from momentum_bench.leaderboards.rendering.wording import Context
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tables import Lines

MOST_BUDGETS = 8
"""Larger numbers of rates have no column of their own, only the whole grid has."""

Rows = Mapping[str, Row]
"""The rows of a leaderboard by their ids."""


def budget_table(lines: Lines, rows: Rows, words: Context) -> HeadedLines:
    """A line for each pair: the expected difference by the number of rates that are tried."""
    sizes = {line["grid_size"] for line in lines}
    budgets = sorted({n for n in range(1, MOST_BUDGETS + 1) if n <= max(sizes, default=0)} | sizes)
    heads = [Head("Task"), Head("Second minus first"), Head("Pairs", number=True)]
    heads += [Head("1 rate" if n == 1 else f"{n} rates", number=True) for n in budgets]
    table = []
    for ids, part in groupby(lines, key=_pair_ids):
        of_budget = {line["n_rates"]: line for line in part}
        first, second = (rows[row_id] for row_id in ids)
        n_pairs = str(of_budget[1]["n_pairs"])
        table.append(
            [
                task_cell(first, words),
                Cell(f"{second.label} - {first.label}"),
                Cell(n_pairs),
                *(_difference(of_budget[n]) if n in of_budget else Cell("") for n in budgets),
            ]
        )
    return heads, table


def _pair_ids(line: Mapping[str, Any]) -> tuple[str, str]:
    return line["first_row_id"], line["second_row_id"]


def _difference(line: Mapping[str, Any]) -> Cell:
    mean = line["mean_difference"]
    interval = signed_range(line["ci_low"], line["ci_high"], digits=1)
    return Cell(signed(mean, digits=1), cell(mean), sub="" if interval == "-" else interval)


def sensitivity_table(lines: Lines, rows: Rows, words: Context) -> HeadedLines:
    """A line for each row: its best rate, how wide the good rates are, and what the next rates cost."""
    heads = [
        Head("Task"),
        Head("Optimizer"),
        Head("Best rate", number=True),
        Head("Test there, %", number=True),
        Head("Decades near the best", number=True),
        Head("95 % interval", number=True),
        Head("One step too high, points", number=True),
        Head("One step too low, points", number=True),
        Head("Seeds", number=True),
    ]
    table = []
    for line in lines:
        row = rows[line["row_id"]]
        low, high = line["decades_low"], line["decades_high"]
        table.append(
            [
                task_cell(row, words),
                Cell(row.label),
                Cell(f"{line['best_learning_rate']:g}"),
                Cell(percent(line["best_test_mean"]), cell(line["best_test_mean"])),
                Cell(f"{line['decades']:.2f}"),
                Cell("-" if math.isnan(low) else f"{low:.2f} to {high:.2f}", cell(low)),
                step_cost(line["cost_step_up"]),
                step_cost(line["cost_step_down"]),
                Cell(str(line["n_seeds"])),
            ]
        )
    return heads, table


def step_cost(fraction: float) -> Cell:
    """What a step costs; a run that diverged sorts above all numbers, and an unknown cost below."""
    if math.isnan(fraction):
        return Cell("edge of the grid", "")
    if math.isinf(fraction):
        return Cell("diverges", "1e9")
    return Cell(f"{100 * fraction:.1f}", cell(fraction))


def matched_table(lines: Lines, rows: Rows, words: Context) -> HeadedLines:
    """A line for each pair and rate: the matched difference, and its two intervals."""
    heads = [
        Head("Task"),
        Head("Second minus first"),
        Head("Rate of both", number=True),
        Head("Difference, points", number=True),
        Head("95 % interval", number=True),
        Head("Holds at all rates", number=True),
        Head("First, %", number=True),
        Head("Second, %", number=True),
        Head("Pairs", number=True),
        Head("Remarks"),
    ]
    table = []
    for line in lines:
        first, second = (rows[row_id] for row_id in _pair_ids(line))
        low, high = line["ci_simultaneous_low"], line["ci_simultaneous_high"]
        diverged = [
            f"{line[f'{side}_n_diverged']} of {row.label} diverged"
            for side, row in (("first", first), ("second", second))
            if line[f"{side}_n_diverged"]
        ]
        table.append(
            [
                task_cell(first, words),
                Cell(f"{second.label} - {first.label}"),
                Cell(f"{line['learning_rate']:g}"),
                Cell(signed(line["mean_difference"]), cell(line["mean_difference"])),
                Cell(signed_range(line["ci_low"], line["ci_high"]), cell(line["ci_low"])),
                Cell(signed_range(low, high), cell(low)),
                Cell(percent(line["first_test_mean"]), cell(line["first_test_mean"])),
                Cell(percent(line["second_test_mean"]), cell(line["second_test_mean"])),
                Cell(str(line["n_pairs"])),
                Cell(", ".join(diverged)),
            ]
        )
    return heads, table


def regret_table(lines: Lines) -> HeadedLines:
    """Two lines for each pair of arms: one optimizer in the place of the other, and how often that costs."""
    heads = [Head("Choice"), Head("Question"), Head("Tasks"), Head("Task and seed pairs", number=True)]
    heads += [Head(_over(threshold), number=True) for threshold in THRESHOLDS]
    settings = {_setting(line) for line in lines}
    table = []
    for start in range(0, len(lines), len(THRESHOLDS)):
        profile: Sequence[Mapping[str, Any]] = lines[start : start + len(THRESHOLDS)]
        one = profile[0]
        names = _arms(one)
        setting = _setting(one) if len(settings) > 1 else ""
        for chosen, other, column in (
            (names[0], names[1], "first_costs_more"),
            (names[1], names[0], "second_costs_more"),
        ):
            table.append(
                [
                    Cell(f"{chosen} instead of {other}", sub=setting),
                    Cell(one["question"]),
                    Cell(one["tasks"].replace(";", ", ")),
                    Cell(str(one["n_pairs"])),
                    *(Cell(f"{100 * line[column]:.0f} %", cell(line[column])) for line in profile),
                ]
            )
    return heads, table


def _setting(line: Mapping[str, Any]) -> str:
    return f"{line['model']}, {line['method']}, {line['protocol']}"


def _over(threshold: float) -> str:
    return f"Over {in_points(threshold)}" if threshold else "Costs anything"


def _arms(line: Mapping[str, Any]) -> list[str]:
    """The two optimizers; where both have one name, with the settings that differ."""
    names = [str(line["first"]), str(line["second"])]
    if names[0] != names[1]:
        return names
    settings = [
        [word for word in line[f"{side}_hyperparameters"].split(";") if word] for side in ("first", "second")
    ]
    return [" ".join([names[0], *words]) for words in without_common(settings)]
