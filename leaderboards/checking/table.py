"""Whether published tables are those of their records."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.errors import first_line
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.checking.folder import Folder, Refused
from momentum_bench.leaderboards.printable import show

REQUIRED = ("leaderboard.csv", "comparison.csv")
"""Tables that must be there; others are compared where they are."""


def who(columns: Mapping[str, Any]) -> str:
    """Whose row of a table it is, in words."""
    names = ("task", "optimizer", "first", "second", "hyperparameters")
    return " ".join(str(columns[name]) for name in names if columns.get(name))


def all_table_departures(folder: Folder, texts: Mapping[str, str], board: Leaderboard) -> list[str]:
    """The tables in the folder against those that the records give."""
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
                raise Refused("is a table that the records do not give")
            found += [f"{name}{wrong}" for wrong in _table_departures(content.decode(), texts[name])]
        except Refused as error:
            found.append(f"{show(name)} {error}")
        except (ValueError, csv.Error) as error:
            found.append(f"{show(name)} is no table: {show(first_line(error))}")
    return found


def _table_departures(found: str, expected: str) -> list[str]:
    """Where a CSV differs from the one it should be, cell by cell."""
    if found == expected:
        return []
    there, given = _table(found), _table(expected)
    wrong = []
    if there.names != given.names:
        missing = [name for name in given.names if name not in there.names]
        added = [name for name in there.names if name not in given.names]
        wrong += [f": column {name} is missing" for name in missing]
        wrong += [f": column {show(name)} is none of a leaderboard's" for name in added]
        wrong += [] if missing or added else [": its columns are in another order"]
    for place, row, rebuilt in _paired(there.rows, given.rows):
        if rebuilt is None:
            wrong.append(f", row {place}: no such row follows from the records")
        elif row is None:
            wrong.append(f": the row of {show(who(rebuilt))} is missing")
        else:
            wrong += [
                f", row {place} ({show(who(rebuilt))}), column {name}: {show(row[name])!r}, "
                f"the records give {show(value)!r}"
                for name, value in rebuilt.items()
                if name in row and row[name] != value
            ]
    return wrong or [": rows in another order, or other quotes or line ends"]


@dataclass(frozen=True)
class _Table:
    names: list[str]
    rows: list[dict[str, str]]


def _table(text: str) -> _Table:
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not lines:
        return _Table([], [])
    names, *rows = lines
    for place, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"row {place} has {len(row)} cells for {len(names)} columns")
    return _Table(names, [dict(zip(names, row, strict=True)) for row in rows])


def _paired(
    found: Sequence[dict[str, str]], expected: Sequence[dict[str, str]]
) -> list[tuple[int, dict[str, str] | None, dict[str, str] | None]]:
    """Rows found with the rows they should be, by id, then those left over in their order.

    Returns:
        Place of the found row from 1 (0: there is none), the row, what it should be.
    """
    left = list(enumerate(found, 1))
    pairs: list[tuple[int, dict[str, str] | None, dict[str, str] | None]] = []
    unpaired = []
    by_key: dict[tuple, list[tuple[int, dict[str, str]]]] = defaultdict(list)
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
