"""The leaderboard of results directories: one row per best-per-optimizer result, and the pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

from momentum_bench.harness.records.noise_floor import noise_floors, noise_sentence
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.archive import ArchivedStore
from momentum_bench.leaderboards.comparisons import (
    Comparison,
    Pooled,
    add_holm,
    budgets_apart,
    compare,
    pooled_over_tasks,
)
from momentum_bench.leaderboards.paired import (
    MARGIN,
)
from momentum_bench.leaderboards.rows import Row, by_setting, result_of, rows_of


@dataclass(frozen=True)
class Leaderboard:
    """Rows, comparisons and pooled lines, sorted; notes say in words what was not done, and why."""

    rows: list[Row]
    comparisons: list[Comparison]
    pooled: list[Pooled]
    notes: list[str]
    margin: float


def build(*stores: Store | ArchivedStore, margin: float = MARGIN) -> Leaderboard:
    """Collect results directories: select by dev, report test, pair the optimizers by seed.

    Args:
        margin: half width of the band of equivalence, a fraction (0.01 is one point).
    """
    records, notes = _collect(stores)
    notes = [*notes, *(noise_sentence(each) for store in stores for each in noise_floors(store.output_dir))]
    return board_of(records, notes, margin)


def board_of(records: Sequence[RunRecord], notes: Iterable[str] = (), margin: float = MARGIN) -> Leaderboard:
    """The leaderboard of these records, each run once.

    Args:
        notes: what to say before the leaderboard's own notes.
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
    """The records of all directories by run id; of a run found twice, the first that did not fail."""
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
                f"version), the first that of run {damaged[0]}"
            )
        for record in found:
            run_id = record.spec.run_id
            known = records.setdefault(run_id, record)
            if known is record:
                continue
            # the specs are equal: a store gives out no record whose spec has another id than its folder
            if result_of(known) != result_of(record):
                notes.append(
                    f"run {run_id} ({record.spec.label}) is there more than once, with different "
                    f"results; the first that did not fail counts"
                )
            if known.status == "failed":
                records[run_id] = record
    if n_unfinished:
        notes.append(f"{n_unfinished} run folder(s) hold no whole record and were left out")
    return [records[run_id] for run_id in sorted(records)], notes


def _settings_apart(rows: Iterable[Row]) -> list[str]:
    """For each task with rows of several settings: in which fields they differ."""
    notes = []
    for task, of_task in groupby(rows, key=lambda row: str(row.columns["task"])):
        settings = [part[0].setting for part in by_setting(of_task)]
        if len(settings) < 2:
            continue
        fields = [
            f"{name} ({', '.join(values)})"
            for name in settings[0]
            if len(values := sorted({_in_words(setting[name]) for setting in settings})) > 1
        ]
        notes.append(
            f"{task}: rows of {len(settings)} settings are not compared with one another; they differ "
            f"in {', '.join(fields)}."
        )
    return notes


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in sorted(value.items()))
    return "none" if value is None else str(value)
