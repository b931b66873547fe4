"""Whether the tables of a folder are those that its records give."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.errors import first_line
from momentum_bench.leaderboards.checking.folder import Folder, Refused
from momentum_bench.leaderboards.printable import short_line

REQUIRED = ("leaderboard.csv", "comparison.csv")
"""Tables that must be there; other tables are compared if they are there."""


CLOSE = 1e-8
"""Two numbers whose relative difference is at most this are the same number."""
OF_SCIPY = re.compile(r"(^|_)ci_|^p_|^bootstrap_")
"""Names of the columns that scipy computes, whose last digits depend on its version."""


def who(columns: Mapping[str, Any]) -> str:
    """The task and the optimizers of a table's row, in words."""
    names = ("task", "optimizer", "first", "second", "hyperparameters")
    return " ".join(str(columns[name]) for name in names if columns.get(name))


def all_table_departures(folder: Folder, texts: Mapping[str, str]) -> list[str]:
    """Where the tables of a folder differ from those that the records give, one line for each difference.

    Args:
        texts: the tables that the records give, by path.
    """
    in_tasks = folder.root / "tasks"
    extra = [f"tasks/{path.name}" for path in sorted(in_tasks.glob("*.csv")) if "tasks" not in folder.refused]
    found = []
    for name in dict.fromkeys([*texts, *extra]):
        if name not in REQUIRED and not os.path.lexists(folder.root / name):
            continue
        try:
            content = folder.read(name)
            if content is None:
                continue
            if name not in texts:
                raise Refused("is a table that does not follow from the records")
            found += [f"{name}{wrong}" for wrong in _table_departures(content.decode(), texts[name])]
        except Refused as error:
            found.append(f"{short_line(name)} {error}")
        except (ValueError, csv.Error) as error:
            found.append(f"{short_line(name)} is not a table: {short_line(first_line(error))}")
    return found


def _table_departures(found: str, expected: str) -> list[str]:
    """Where a CSV differs from the expected one, cell by cell."""
    if found == expected:
        return []
    there, given = _parsed_csv(found), _parsed_csv(expected)
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
        return wrong
    pieces = [re.split(r"([,\n])", text) for text in (found, expected)]
    alike = len(pieces[0]) == len(pieces[1]) and all(map(_close, *pieces))
    return [] if alike else [": rows in another order, or other quotes or line ends"]


def _same(name: str, found: str, expected: str) -> bool:
    """Whether two cells of a column say the same."""
    return found == expected or (bool(OF_SCIPY.search(name)) and _close(found, expected))


def _close(found: str, expected: str) -> bool:
    """Whether two texts are equal, or numbers that differ in their last digits alone."""
    try:
        return found == expected or math.isclose(float(found), float(expected), rel_tol=CLOSE)
    except ValueError:
        return False


@dataclass(frozen=True)
class _CsvTable:
    names: list[str]
    rows: list[dict[str, str]]


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
