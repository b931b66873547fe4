"""The leaderboard of results directories: the best result of each optimizer, and the compared pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

from momentum_bench.harness.records.noise_floor import noise_floors, noise_sentence
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.verdicts.paired import MARGIN
from momentum_bench.leaderboards.archive import ArchivedStore
from momentum_bench.leaderboards.comparisons import (
    Comparison,
    Pooled,
    add_holm,
    budgets_apart,
    compare,
    pooled_over_tasks,
)
from momentum_bench.leaderboards.rows import Row, by_setting, result_of, rows_of


@dataclass(frozen=True)
class Leaderboard:
    """The rows, comparisons and pooled lines of some records, sorted.

    Attributes:
        notes: sentences that say what was left out or not compared, and why; and noise floors.
        margin: half width of the band of equivalence, a fraction.
    """

    rows: list[Row]
    comparisons: list[Comparison]
    pooled: list[Pooled]
    notes: list[str]
    margin: float


def build(*stores: Store | ArchivedStore, margin: float = MARGIN) -> Leaderboard:
    """The leaderboard of results directories: dev selects, test is reported, optimizers are paired by seed.

    Args:
        margin: half width of the band of equivalence, a fraction (0.01 is one point).

    Raises:
        UserError: a record names a protocol that this version does not know.
    """
    records, notes = _collect(stores)
    notes = [*notes, *(noise_sentence(each) for store in stores for each in noise_floors(store.output_dir))]
    return board_of(records, notes, margin)


def board_of(records: Sequence[RunRecord], notes: Iterable[str] = (), margin: float = MARGIN) -> Leaderboard:
    """The leaderboard of these records, in which each run occurs once.

    Args:
        notes: sentences that come before the leaderboard's own notes.
        margin: half width of the band of equivalence, a fraction.
    """
    notes = list(notes)
    rows = rows_of(records)
    comparisons = []
    for setting in by_setting(rows):
        for first, second in combinations(setting, 2):
            comparison, note = compare(first, second, margin)
            comparisons += [comparison] if comparison else []
            notes += [note] if note else []
        notes += budgets_apart(setting)
    add_holm(comparisons)
    notes += _settings_apart(rows)
    return Leaderboard(rows, comparisons, pooled_over_tasks(comparisons), notes, margin)


def _collect(stores: Sequence[Store | ArchivedStore]) -> tuple[list[RunRecord], list[str]]:
    """The records of all directories, sorted by run id, and notes on what was left out.

    Where a run is found twice, the first record that did not fail counts.
    """
    records: dict[str, RunRecord] = {}
    notes = []
    n_unfinished = 0
    for store in stores:
        found = store.records()
        without = set(store.run_folders()) - {record.spec.run_id for record in found}
        n_unfinished += len(without)
        if damaged := sorted(name for name in without if store.is_damaged(name)):
            notes.append(
                f"{len(damaged)} record(s) cannot be read and do not count (torn, changed, or of a newer "
                f"version); the first is run {damaged[0]}"
            )
        for record in found:
            run_id = record.spec.run_id
            known = records.setdefault(run_id, record)
            if known is record:
                continue
            # the specs are equal, because a store gives no record whose id is not its folder's name
            if result_of(known) != result_of(record):
                notes.append(
                    f"run {run_id} ({record.spec.label}) was found more than once, with different "
                    f"results; the first record that did not fail counts"
                )
            if known.status == "failed":
                records[run_id] = record
    if n_unfinished:
        notes.append(f"{n_unfinished} run folder(s) have no whole record and were left out")
    return [records[run_id] for run_id in sorted(records)], notes


def _settings_apart(rows: Iterable[Row]) -> list[str]:
    """For each task whose rows have several settings, a sentence that names the fields that differ."""
    notes = []
    for task, of_task in groupby(rows, key=lambda row: str(row.columns["task"])):
        settings = [part[0].setting for part in by_setting(of_task)]
        if len(settings) < 2:
            continue
        fields = [
            f"{name} ({', '.join(values)})"
            for name in settings[0]
            if len(values := sorted({_value_text(setting[name]) for setting in settings})) > 1
        ]
        notes.append(
            f"{task}: rows of {len(settings)} different settings are not compared with each other; they "
            f"differ in {', '.join(fields)}."
        )
    return notes


def _value_text(value: Any) -> str:
    """A setting's value in words."""
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in sorted(value.items()))
    return "none" if value is None else str(value)
