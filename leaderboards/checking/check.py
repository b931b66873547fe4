"""Whether a folder of records agrees with itself and with its tables: the list of all departures.

The folder may come from a stranger. Sizes are checked before contents are read, links that lead out of the
folder are not followed, and every text is made printable before it is shown.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.leaderboards.archive import ARCHIVE, archive_of, named_lines
from momentum_bench.leaderboards.build import board_of
from momentum_bench.leaderboards.checking.designs import design_gaps
from momentum_bench.leaderboards.checking.folder import (
    Folder,
    Refused,
    checked_designs,
    folder_of,
    marker_departures,
    run_folders,
)
from momentum_bench.leaderboards.checking.record import (
    REWRITTEN,
    checked_record,
    contradictions,
    departures_of_record,
)
from momentum_bench.leaderboards.checking.table import all_table_departures, who
from momentum_bench.leaderboards.printable import short_line
from momentum_bench.leaderboards.rows import Row, point_text
from momentum_bench.leaderboards.tables import csv_tables

_ReadRecord = tuple[str, RunRecord | None, list[str]]
"""The id of the run in whose place a record is, the record, and what is wrong with its text."""


@dataclass(frozen=True)
class Checked:
    """What a check has found.

    Attributes:
        departures: everything that is wrong, one line each.
        notes: what the check could not hold against anything: a design that is not finished, and tables of an
            earlier form.
    """

    departures: list[str]
    notes: list[str]


def departures(directory: Path, margin: float | None = None, mix_environments: bool = False) -> list[str]:
    """Everything that is wrong with a folder of records and its tables; see `check`."""
    return check(directory, margin, mix_environments).departures


def check(directory: Path, margin: float | None = None, mix_environments: bool = False) -> Checked:
    """Hold the tables of a folder against its records, and its records against themselves and its designs.

    The records are files `runs/<id>/record.json`, or all in one archive. The page, the plots and
    `trials.parquet` are not read, because they follow from the same records.

    Args:
        margin: the equivalence margin with which the tables must have been built, a fraction; None: that of
            the designs, or one point.
        mix_environments: the tables must have been built with this setting of `build`.

    Raises:
        UserError: there is no folder of runs to check, or an archive cannot be read.
    """
    archive = archive_of(directory)
    if archive is None and not (directory / "runs").is_dir():
        raise UserError(
            f"{directory} has no folder runs/ and no {ARCHIVE}: name a folder that has records and tables"
        )
    folder = folder_of(directory)
    read = _stored(folder) if archive is None else _archived(folder)
    return _checked(folder, read, margin, mix_environments)


def record_departures(directory: Path) -> list[str]:
    """What is wrong with a folder's records, one line for each departure; nothing is built from them."""
    folder = folder_of(directory)
    return [*_folder_departures(folder), *_checked_records(_stored(folder))[1], *checked_designs(folder)[1]]


def checked_runs(directory: Path) -> dict[str, RunRecord]:
    """The records of a results directory or of a board with an archive, by run id, if they pass the check.

    Runs that have not ended are left out: the directory may be one that was interrupted, or that is growing.

    Raises:
        UserError: there is no folder of runs and no archive, it cannot be read, or a record is wrong.
    """
    archive = archive_of(directory)
    if archive is None and not (directory / "runs").is_dir():
        raise UserError(f"{directory} has no folder runs/ and no {ARCHIVE}: name one that has finished runs")
    folder = folder_of(directory)
    read = _ended(folder) if archive is None else _archived(folder)
    records, found = _checked_records(read)
    if found := [*_folder_departures(folder), *found]:
        raise UserError(f"{directory} does not pass the check, so nothing is taken from it: {found[0]}")
    return {record.spec.run_id: record for record in records}


def _stored(folder: Folder) -> Iterator[_ReadRecord]:
    for name in run_folders(folder):
        yield name, *_read(folder, f"runs/{name}/record.json", name)


def _ended(folder: Folder) -> Iterator[_ReadRecord]:
    """Those of the runs in a folder that have a record."""
    for name in run_folders(folder):
        file = f"runs/{name}/record.json"
        if os.path.lexists(folder.root / file):
            yield name, *_read(folder, file, name)


def _read(folder: Folder, file: str, run_id: str) -> tuple[RunRecord | None, list[str]]:
    try:
        content = folder.read(file)
        return (None, []) if content is None else checked_record(content, run_id)
    except Refused as error:
        return None, [str(error)]


def _archived(folder: Folder) -> Iterator[_ReadRecord]:
    if ARCHIVE not in folder.refused:
        for name, line in named_lines(folder.root / ARCHIVE):
            yield name, *checked_record(line, name)


def _checked(
    folder: Folder, read: Iterable[_ReadRecord], margin: float | None, mix_environments: bool
) -> Checked:
    """All that is found in a folder and in the records in it or in its archive."""
    records, wrong = _checked_records(read)
    designs, wrong_designs = checked_designs(folder)
    found = [*_folder_departures(folder), *wrong, *wrong_designs]
    try:
        board = board_of(records, margin, mix_environments, designs=designs)
        texts = csv_tables(board)
    except (ArithmeticError, ValueError, UserError) as error:
        reason = short_line(first_line(error))
        return Checked([*found, f"no leaderboard can be built from these records: {reason}"], [])
    found += [gap for row in board.rows for gap in _gaps(row)]
    unplanned, unfinished = design_gaps(designs, records)
    wrong_tables, notes = all_table_departures(folder, texts, bool(designs))
    return Checked([*found, *unplanned, *wrong_tables], [*unfinished, *notes])


def _folder_departures(folder: Folder) -> list[str]:
    refused = [f"{short_line(name)} {reason}" for name, reason in folder.refused.items()]
    return refused + marker_departures(folder)


def _checked_records(read: Iterable[_ReadRecord]) -> tuple[list[RunRecord], list[str]]:
    """The records that a leaderboard can be built from, and what is wrong with all records."""
    records, found = [], []
    for name, record, wrong in read:
        file = f"runs/{name}/record.json"
        if record:
            contradicted = contradictions(record)
            if not contradicted and set(wrong) <= {REWRITTEN}:
                records.append(record)
            wrong += contradicted or departures_of_record(record)
        found += [f"{short_line(file)}: {text}" for text in wrong]
    return records, [*found, *_disagreements(records)]


def _disagreements(records: Iterable[RunRecord]) -> Iterator[str]:
    """Runs whose test rows, labels or few-shot split differ from those of other runs on the same data."""
    dev: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    test: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    splits: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    for run in records:
        s = run.spec
        data = (s.task, s.task_version, s.data_fingerprint, s.test_limit)
        if run.test:
            test[data].append((s.run_id, (run.test.rows, run.test.labels)))
        if run.split:
            splits[(*data, s.k, s.seed)].append((s.run_id, run.split.content_hash))
            if run.dev:  # the same split has the same dev rows
                dev[run.split.content_hash].append((s.run_id, run.dev.labels))
    groups_of = ((test, "test rows and labels"), (dev, "dev labels"), (splits, "split.content_hash"))
    for groups, what in groups_of:
        for runs in groups.values():
            commonest = Counter(value for _, value in runs).most_common(1)[0][0]
            for run_id, value in runs:
                if value != commonest:
                    yield f"runs/{run_id}/record.json: other {what} than the other runs on the same data"


def _gaps(row: Row) -> Iterator[str]:
    """A line for each cell of a row's grid that has no run."""
    who_it_is = short_line(who(row.columns))
    for seed, point in row.left_out["missing"]:
        yield f"row {row.row_id} ({who_it_is}): no run of seed {seed} at rate {point_text(point)}"
