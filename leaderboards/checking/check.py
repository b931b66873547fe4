"""Does a folder of records hold together with itself and with its tables? Every departure, named.

What is read here may come from anybody: sizes are looked at before contents, links that lead out of
the folder are not followed, and every text is made printable before it is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.records.schema import (
    RunRecord,
)
from momentum_bench.leaderboards.archive import ARCHIVE, archive_of, named_lines
from momentum_bench.leaderboards.build import board_of
from momentum_bench.leaderboards.checking.folder import (
    REWRITTEN,
    Folder,
    folder_of,
    marker_departures,
    parsed_record,
    read_checked_record,
    run_folders,
)
from momentum_bench.leaderboards.checking.record import contradictions, departures_of_record
from momentum_bench.leaderboards.checking.table import all_table_departures, who
from momentum_bench.leaderboards.paired import MARGIN
from momentum_bench.leaderboards.printable import show
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tables import tables

_Read = tuple[str, RunRecord | None, list[str]]
"""The run in whose place a record stands, the record, and what is wrong with its text."""


def departures(directory: Path, margin: float = MARGIN) -> list[str]:
    """All that is wrong with a folder of records and its tables, a line each.

    The records are `runs/<id>/record.json`, or all in one archive. The page, the plots and
    `trials.parquet` are not read: they follow from the same records.

    Args:
        margin: the equivalence margin with which the tables must have been built, a fraction.

    Raises:
        UserError: there is no folder of runs to check, or an archive cannot be read.
    """
    archive = archive_of(directory)
    if archive is None and not (directory / "runs").is_dir():
        raise UserError(
            f"{directory} has no folder runs/ and no {ARCHIVE}: check wants records and tables in one folder"
        )
    folder = folder_of(directory)
    return _departures(folder, _stored(folder) if archive is None else _archived(folder), margin)


def record_departures(directory: Path) -> list[str]:
    """What is wrong with the records of a folder, a line each, before anything is built of them."""
    folder = folder_of(directory)
    return [*_folder_departures(folder), *_checked_records(_stored(folder))[1]]


def _stored(folder: Folder) -> Iterator[_Read]:
    for name in run_folders(folder):
        yield name, *read_checked_record(folder, f"runs/{name}/record.json", name)


def _archived(folder: Folder) -> Iterator[_Read]:
    if ARCHIVE not in folder.refused:
        for name, line in named_lines(folder.root / ARCHIVE):
            yield name, *parsed_record(line, name)


def _departures(folder: Folder, read: Iterable[_Read], margin: float) -> list[str]:
    """All departures of a folder and the records that stand in it or in its archive."""
    records, wrong = _checked_records(read)
    found = [*_folder_departures(folder), *wrong]
    try:
        board = board_of(records, margin=margin)
        texts = tables(board)
    except (ArithmeticError, ValueError, UserError) as error:
        return [*found, f"no leaderboard can be built of these records: {show(first_line(error))}"]
    found += [gap for row in board.rows for gap in _gaps(row)]
    return found + all_table_departures(folder, texts, board)


def _folder_departures(folder: Folder) -> list[str]:
    refused = [f"{show(name)} {reason}" for name, reason in folder.refused.items()]
    return refused + marker_departures(folder)


def _checked_records(read: Iterable[_Read]) -> tuple[list[RunRecord], list[str]]:
    """The records that a leaderboard can be made of, and what is wrong with any, a line each."""
    records, found = [], []
    for name, record, wrong in read:
        file = f"runs/{name}/record.json"
        if record:
            contradicted = contradictions(record)
            if not contradicted and set(wrong) <= {REWRITTEN}:  # what a leaderboard is made of
                records.append(record)
            wrong += contradicted or departures_of_record(record)
        found += [f"{show(file)}: {text}" for text in wrong]
    return records, [*found, *_disagreements(records)]


def _disagreements(records: Iterable[RunRecord]) -> Iterator[str]:
    """Runs whose test rows and labels, or whose few-shot split, differ from those of their fellows."""
    test: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    splits: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    for run in records:
        s = run.spec
        data = (s.task, s.task_version, s.data_fingerprint, s.test_limit)
        if run.test:
            test[data].append((s.run_id, (run.test.rows, run.test.labels)))
        if run.split:
            splits[(*data, s.k, s.seed)].append((s.run_id, run.split.content_hash))
    for groups, what in ((test, "test rows and labels"), (splits, "split.content_hash")):
        for runs in groups.values():
            commonest = Counter(value for _, value in runs).most_common(1)[0][0]
            for run_id, value in runs:
                if value != commonest:
                    yield f"runs/{run_id}/record.json: other {what} than the other runs of the same data"


def _gaps(row: Row) -> Iterator[str]:
    """The cells of a row's grid that have no run."""
    there = {(run.spec.seed, run.spec.learning_rate) for run in row.runs}
    for seed in sorted({seed for seed, _ in there}):
        for rate in sorted({rate for _, rate in there}):
            if (seed, rate) not in there:
                yield f"row {row.row_id} ({show(who(row.columns))}): no run of seed {seed} at rate {rate:g}"
