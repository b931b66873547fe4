"""Whether the tables of a folder are those that its records give."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.errors import first_line
from momentum_bench.harness.records.files import is_litter
from momentum_bench.harness.reporting import csv_line
from momentum_bench.harness.verdicts.paired import FEWEST_PAIRS, LEVEL
from momentum_bench.leaderboards.checking.folder import Folder, Refused
from momentum_bench.leaderboards.environments import FACTS
from momentum_bench.leaderboards.printable import short_line

REQUIRED = ("leaderboard.csv", "comparison.csv")
"""Tables that must be there; other tables are compared if they are there."""


LATER = frozenset(
    (
        *(*FACTS, "mixed", "left_out", "role", "design", "test_worst", "n_leaked", "majority"),
        *("accumulated_rate", "unknown_tokens", "axes", "chosen_settings", "ends", "gradient_evaluations"),
        *("question", "first_learning_rate", "second_learning_rate", "spread_floor", "worst_difference"),
        *("choice", "plain_mean_difference", "plain_std_difference", "test_bagged_mean"),
        *("p_first_better", "p_within_margin", "p_second_better"),
        *("ci90_low", "ci90_high", "look", "looks", "n_seeds_if_equal", "n_seeds_as_observed"),
        *("level_difference", "level_equivalence", "first_hyperparameters", "second_hyperparameters"),
    )
)
"""Columns that tables did not have at first; a table without one of them was published before."""

WITH_DESIGNS = frozenset(("question", "role", "design", "look", "looks"))
"""Columns that the tables of any version have where there are designs: there they must not be missing."""

GONE = frozenset(
    (
        *("shared_learning_rate", "shared_test_mean", "shared_test_std"),
        *("bootstrap_low", "bootstrap_high", "n_seeds_to_decide"),
    )
)
"""Columns of earlier tables that this version does not compute: not checked."""

OTHERWISE = frozenset(("p_difference_holm", "p_equivalence_holm", "no_verdict"))
"""Columns that mean something else in tables that were published without `question`: not checked there."""

ADVISED_OTHERWISE = frozenset(("n_seeds_if_equal", "n_seeds_as_observed"))
"""Not checked in tables that were published without `level_difference`: they were for a level of 0.05."""

OVER_TASKS = "over_tasks.csv"

OVER_TASKS_OTHERWISE = frozenset(
    (
        "ci_low",
        "ci_high",
        "p_difference",
        "p_difference_holm",
        "p_equivalence",
        "p_equivalence_holm",
        "verdict",
    )
)
"""Not checked in an `over_tasks.csv` without `p_difference_holm`: its pairs were not adjusted together."""

SAME = 1e-8
"""Numbers that scipy computes are equal if they differ by a smaller share: its versions round otherwise."""

BY_SCIPY = ("p_", "ci", "test_ci_")
"""How the names of such columns begin."""


def who(columns: Mapping[str, Any]) -> str:
    """The task and the optimizers of a table's row, in words."""
    names = ("task", "optimizer", "first", "second", "hyperparameters")
    return " ".join(str(columns[name]) for name in names if columns.get(name))


def all_table_departures(
    folder: Folder, texts: Mapping[str, str], has_designs: bool
) -> tuple[list[str], list[str]]:
    """Where the tables of a folder differ from those that the records give, one line for each difference.

    Args:
        texts: the tables that the records give, by path.
        has_designs: whether the folder has designs.

    Returns:
        The departures, and lines that name the tables of an earlier form, and what of them was not checked.
    """
    in_tasks = folder.root / "tasks"
    tables = [] if "tasks" in folder.refused else sorted(in_tasks.glob("*.csv"))
    extra = [f"tasks/{path.name}" for path in tables if not is_litter(path.name)]
    found = []
    earlier: dict[frozenset[str], list[str]] = defaultdict(list)
    for name in dict.fromkeys([*texts, *extra]):
        if name not in REQUIRED and not os.path.lexists(folder.root / name):
            continue
        try:
            content = folder.read(name)
            if content is None:
                continue
            if name not in texts:
                raise Refused("is a table that does not follow from the records")
            wrong, skipped = _table_departures(name, content.decode(), texts[name], has_designs)
            found += [f"{name}{line}" for line in wrong]
            if skipped:
                earlier[skipped].append(name)
        except Refused as error:
            found.append(f"{short_line(name)} {error}")
        except (ValueError, csv.Error) as error:
            found.append(f"{short_line(name)} is not a table: {short_line(first_line(error))}")
    return found, [
        f"of an earlier form: {', '.join(names)}; not checked there: {', '.join(sorted(skipped))}"
        for skipped, names in earlier.items()
    ]


def _table_departures(
    table: str, found: str, expected: str, has_designs: bool
) -> tuple[list[str], frozenset[str]]:
    """Where a CSV differs from the expected one, cell by cell, and the columns that could not be compared."""
    if found == expected:
        return [], frozenset()
    if not found and expected.count("\n") == 1:  # earlier tables without rows had no header
        return [], frozenset()
    read, rebuilt_table = _parsed_csv(found), _parsed_csv(expected)
    skipped = _skipped(table, read, rebuilt_table, has_designs)
    there, given = _comparable(read, rebuilt_table, skipped)
    wrong = []
    if there.names != given.names:
        missing = [name for name in given.names if name not in there.names]
        added = [name for name in there.names if name not in given.names]
        wrong += [f": column {name} is missing" for name in missing]
        wrong += [f": column {short_line(name)} is not a leaderboard's" for name in added]
        wrong += [] if missing or added else [": its columns are in another order"]
    for place, row, rebuilt in _paired(there.rows, given.rows):
        if rebuilt is None:
            wrong.append(f", row {place}: no such row follows from the records")
        elif row is None:
            wrong.append(f": the row of {short_line(who(rebuilt))} is missing")
        else:
            wrong += [
                f", row {place} ({short_line(who(rebuilt))}), column {name}: {short_line(row[name])!r}, "
                f"the records give {short_line(value)!r}"
                for name, value in rebuilt.items()
                if name in row and not _same(name, row[name], value)
            ]
    if wrong:
        return wrong, skipped
    in_order = list(map(_key, there.rows)) == list(map(_key, given.rows))
    as_written = "".join(map(csv_line, [read.names, *(row.values() for row in read.rows)]))
    in_form = in_order and found == as_written
    return [] if in_form else [": rows in another order, or other quotes or line ends"], skipped


def _same(column: str, found: str, expected: str) -> bool:
    """Whether two cells are equal, but for how scipy has rounded."""
    if found == expected or not column.startswith(BY_SCIPY):
        return found == expected
    try:
        return math.isclose(float(found), float(expected), rel_tol=SAME, abs_tol=1e-12)
    except ValueError:
        return False


def _skipped(table: str, there: _CsvTable, given: _CsvTable, has_designs: bool) -> frozenset[str]:
    """The columns that the version which wrote a table does not have, or filled otherwise."""
    later = LATER - WITH_DESIGNS if has_designs else LATER
    if table == OVER_TASKS and "p_difference_holm" not in there.names:
        return OVER_TASKS_OTHERWISE
    skipped = (later & set(given.names)) - set(there.names)
    skipped |= (GONE & set(there.names)) - set(given.names)
    if "verdict" in given.names:
        skipped |= OTHERWISE if "question" in skipped else frozenset()
        skipped |= ADVISED_OTHERWISE if "level_difference" in skipped else frozenset()
    return skipped


def _comparable(there: _CsvTable, given: _CsvTable, skipped: frozenset[str]) -> tuple[_CsvTable, _CsvTable]:
    """A table that was read and the one that was built, without what only one of their versions has."""
    if "question" in skipped and "verdict" in given.names:
        given = _CsvTable(given.names, [row | {"verdict": _verdict_before(row)} for row in given.rows])
    return there.without(skipped), given.without(skipped)


def _verdict_before(row: Mapping[str, str]) -> str:
    """The verdict that tables without `question` state: by the unadjusted p-values, each at 0.05."""
    if int(row["n_pairs"] or 0) < FEWEST_PAIRS or float(row["std_difference"]) == 0:
        return ""
    if float(row["p_equivalence"]) < LEVEL:
        return "equivalent"
    if float(row["p_difference"]) < LEVEL:
        return "b better" if float(row["mean_difference"]) > 0 else "a better"
    return "inconclusive"


@dataclass(frozen=True)
class _CsvTable:
    names: list[str]
    rows: list[dict[str, str]]

    def without(self, names: Collection[str]) -> _CsvTable:
        """The table without some of its columns."""
        return _CsvTable(
            [name for name in self.names if name not in names],
            [{name: value for name, value in row.items() if name not in names} for row in self.rows],
        )


def _parsed_csv(text: str) -> _CsvTable:
    """Raises: ValueError or csv.Error, if the text is not a table."""
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not lines:
        return _CsvTable([], [])
    names, *rows = lines
    for place, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"row {place} has {len(row)} cells for {len(names)} columns")
    return _CsvTable(names, [dict(zip(names, row, strict=True)) for row in rows])


def _paired(
    found: Sequence[dict[str, str]], expected: Sequence[dict[str, str]]
) -> list[tuple[int, dict[str, str] | None, dict[str, str] | None]]:
    """The rows of a table with the rows that they should be: paired by id, then the others in their order.

    Returns:
        The place of the found row, counted from 1 (0: there is no row), the row, and what it should be.
    """
    left = list(enumerate(found, 1))
    pairs: list[tuple[int, dict[str, str] | None, dict[str, str] | None]] = []
    unpaired = []
    by_key: dict[tuple[str, ...], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for place, row in left:
        by_key[_key(row)].append((place, row))
    for rebuilt in expected:
        same = by_key[_key(rebuilt)]
        if same and _key(rebuilt):
            pairs.append((*same.pop(0), rebuilt))
        else:
            unpaired.append(rebuilt)
    taken = {place for place, _, _ in pairs}
    left = [(place, row) for place, row in left if place not in taken]
    for (place, row), rebuilt in zip(left, unpaired, strict=False):
        pairs.append((place, row, rebuilt))
    pairs += [(place, row, None) for place, row in left[len(unpaired) :]]
    pairs += [(0, None, rebuilt) for rebuilt in unpaired[len(left) :]]
    return pairs


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("row_id", "first_row_id", "second_row_id") if name in row)
