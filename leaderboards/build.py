"""The leaderboard of results directories: the best result of each optimizer, and the compared pairs."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from shlex import quote
from typing import Any

from momentum_bench.harness.optimizers.accumulated import NOT_FAR_ENOUGH
from momentum_bench.harness.records.design import Design, arm_of, setting_of
from momentum_bench.harness.records.noise_floor import noise_floors, noise_sentence
from momentum_bench.harness.records.schema import RESULTS, RunRecord, RunSpec, canonical_json
from momentum_bench.harness.records.store import Store, SweepStore
from momentum_bench.harness.sweeps.confirming import standings_of
from momentum_bench.harness.verdicts.paired import MARGIN
from momentum_bench.leaderboards.archive import ArchivedStore
from momentum_bench.leaderboards.comparison import Comparison
from momentum_bench.leaderboards.comparisons import (
    MIX,
    Pooled,
    budgets_apart,
    compare,
    confirmed,
    pooled_over_tasks,
    with_verdicts,
)
from momentum_bench.leaderboards.environments import mixed
from momentum_bench.leaderboards.rows import (
    Cell,
    Row,
    Standings,
    by_setting,
    by_table,
    cells_in_words,
    result_of,
    rows_of,
)


@dataclass(frozen=True)
class LeftOut:
    """Something that a leaderboard leaves out although it was asked for.

    Attributes:
        task: the task that it belongs to; None: not known.
        sentence: what is left out, and why.
    """

    task: str | None
    sentence: str


@dataclass(frozen=True)
class Leaderboard:
    """The rows, comparisons and pooled lines of some records, sorted.

    Attributes:
        notes: sentences that say what was left out or not compared, and why; and noise floors.
        left_out: those of the notes after which the board is not whole: cells without a result, seeds that
            do not count because of them, and runs of mixed environments.
        margin: half width of the band of equivalence, a fraction; of several designs the smallest.
        designs: what the sweeps had planned, sorted by id.
    """

    rows: list[Row]
    comparisons: list[Comparison]
    pooled: list[Pooled]
    notes: list[str]
    left_out: list[LeftOut]
    margin: float
    designs: tuple[Design, ...] = ()


def build(
    *stores: Store | ArchivedStore, margin: float | None = None, mix_environments: bool = False
) -> Leaderboard:
    """The leaderboard of results directories: dev selects, test is reported, optimizers are paired by seed.

    The order of the directories changes nothing.

    Args:
        margin: half width of the band of equivalence, a fraction (0.01 is one point); None: that of the
            designs, or one point for runs without a design. Another margin is named in each verdict.
        mix_environments: give scores to rows, and compare rows, whose runs differ in device, torch's minor
            version, precision in effect or the version of this package.

    Raises:
        UserError: a record names a protocol that this version does not know.
    """
    stores = tuple(_by_content(stores))
    records, notes, left_out = _collect(stores)
    notes += [noise_sentence(each) for store in stores for each in noise_floors(store.output_dir)]
    there = {record.spec.run_id for record in records}
    planned = [spec for store in stores for plan in store.plans() for spec in plan.specs]
    missing = {spec.run_id: spec for spec in planned if spec.run_id not in there}
    designs = {design.design_id: design for store in stores for design in store.designs()}
    board = board_of(records, margin, mix_environments, missing.values(), designs.values())
    return replace(
        board,
        notes=[*notes, *(each.sentence for each in left_out), *board.notes],
        left_out=[*left_out, *board.left_out],
    )


def board_of(
    records: Sequence[RunRecord],
    margin: float | None = None,
    mix_environments: bool = False,
    missing: Iterable[RunSpec] = (),
    designs: Iterable[Design] = (),
) -> Leaderboard:
    """The leaderboard of these records, in which each run occurs once.

    Args:
        margin, mix_environments: as for `build`.
        missing: runs that were planned and have no record.
        designs: what the sweeps had planned.
    """
    designs = sorted(designs, key=lambda design: design.design_id)
    standings = standings_of(designs, records)
    rows = rows_of(records, mix_environments, standings)
    pairs, notes, left_out = _tuned_comparisons(rows, designs, margin, mix_environments)
    comparisons = [*pairs, *_confirmed_comparisons(rows, standings, margin, mix_environments)]
    comparisons = with_verdicts(sorted(comparisons, key=_order_of(rows)))
    left_out += [*_mixed_rows(rows), *_left_out_cells(rows, missing)]
    notes += [each.sentence for each in left_out]
    notes += [*_settings_apart(rows), *_grids_apart(rows), *_commits(records), *_unfinished(standings)]
    notes += [*_several_designs(designs), *_short_of_momentum(rows)]
    if mix_environments and (facts := mixed(*(row.facts for row in rows))):
        notes.append(f"This leaderboard mixes {facts}, because --mix-environments allows it.")
    margins = {design.margin for design in designs} or {MARGIN}
    return Leaderboard(
        rows,
        comparisons,
        pooled_over_tasks(comparisons),
        notes,
        left_out,
        min(margins) if margin is None else margin,
        tuple(designs),
    )


def _tuned_comparisons(
    rows: Sequence[Row], designs: Sequence[Design], margin: float | None, mix_environments: bool
) -> tuple[list[Comparison], list[str], list[LeftOut]]:
    """The comparisons of tuned rows, without verdicts; notes; and what was left out."""
    comparisons, notes, left_out = [], [], []
    for table in by_table(row for row in rows if row.role == "tuned"):
        task = str(table[0].columns["task"])
        covering = _covering(table[0], designs)
        planned = min((design.margin for design in covering), default=MARGIN)
        used = planned if margin is None else margin
        other = planned if covering and used != planned else None
        for first, second in _pairs(table, covering):
            comparison, note = compare(first, second, used, mix_environments, other)
            comparisons += [comparison] if comparison else []
            if note and comparison:
                left_out.append(LeftOut(task, note))
            elif note:
                notes.append(note)
        sentence, has_gaps = budgets_apart(table)
        if sentence and has_gaps:
            left_out.append(LeftOut(task, sentence))
        elif sentence:
            notes.append(sentence)
    return comparisons, notes, left_out


def _covering(row: Row, designs: Sequence[Design]) -> list[Design]:
    """The designs that have the setting of a row."""
    setting = {name: value for name, value in row.setting.items() if name != "layout"}
    return [design for design in designs if any(design.setting(task) == setting for task in design.tasks)]


def _pairs(table: Sequence[Row], covering: Sequence[Design]) -> list[tuple[Row, Row]]:
    """The pairs of rows that are compared: those of the designs, or all pairs where there is no design."""
    if not covering:
        return [(a, b) for a, b in combinations(table, 2) if a.arm_key != b.arm_key]
    of_arm: dict[str, list[Row]] = defaultdict(list)
    for row in table:
        of_arm[row.arm_key].append(row)
    wanted = dict.fromkeys(
        (design.arms[first].key, design.arms[second].key)
        for design in covering
        for first, second in design.pairs
    )
    return [(a, b) for first, second in wanted for a in of_arm[first] for b in of_arm[second]]


def _confirmed_comparisons(
    rows: Sequence[Row], standings: Standings, margin: float | None, mix_environments: bool
) -> list[Comparison]:
    """The comparisons of confirming seeds, each as it stood at its last look."""
    of_arm: dict[tuple[str, str, str, str], Row] = {
        (row.design.design_id, row.role, str(row.columns["task"]), row.arm_key): row
        for row in rows
        if row.design is not None
    }
    found = []
    for design, now in standings:
        for question, look in now.replayed.pairs.items():
            keys = [
                (design.design_id, question.confirm, question.task, design.arms[place].key)
                for place in question.pair
            ]
            if all(key in of_arm for key in keys):
                first, second = (of_arm[key] for key in keys)
                used = None if margin in (None, design.margin) else margin
                found.append(confirmed(first, second, question, look, mix_environments, used))
    return found


def _order_of(rows: Sequence[Row]) -> Callable[[Comparison], tuple[int, int, int, int]]:
    """Sorts comparisons by setting, the primary question first, and then by the places of their rows."""
    places = {row.row_id: place for place, row in enumerate(rows)}
    settings: dict[str, int] = {}
    for row in rows:
        settings.setdefault(row.setting_key, len(settings))

    def order(comparison: Comparison) -> tuple[int, int, int, int]:
        first, second = comparison.first, comparison.second
        question = ("matched", "own", "tuned").index(comparison.question)
        return settings[first.setting_key], question, places[first.row_id], places[second.row_id]

    return order


def _unfinished(standings: Standings) -> list[str]:
    """A sentence on each design whose confirming seeds are not finished."""
    notes = []
    for design, now in standings:
        tasks = ", ".join(task.task for task in design.tasks)
        if not design.confirm_seeds:
            continue
        if not now.is_tuned:
            n_missing = sum(len(of_task.missing) for of_task in now.tuned.values())
            notes.append(
                f"{tasks}: {n_missing} run(s) of the tuning seeds are missing, so no learning rate is chosen "
                f"for the confirming seeds yet."
            )
        elif (look := now.replayed.next_look) is not None:
            notes.append(
                f"{tasks}: the look at {look} confirming seeds waits for runs: type the same command again."
            )
    return notes


def _several_designs(designs: Sequence[Design]) -> list[str]:
    """A sentence where several designs confirm runs of one setting, because one may follow results."""
    of_setting: dict[str, list[str]] = defaultdict(list)
    names = {}
    for design in designs:
        for task in design.tasks if design.confirm_seeds else ():
            key = canonical_json(design.setting(task))
            of_setting[key].append(design.design_id)
            names[key] = task.task
    return [
        f"{names[key]}: {len(ids)} designs share runs ({', '.join(ids)}). Only the one that was written "
        f"before the first run did not know its results."
        for key, ids in of_setting.items()
        if len(ids) > 1
    ]


def _grids_apart(rows: Iterable[Row]) -> list[str]:
    """A sentence on each arm whose seeds ran over different learning rates."""
    of_arm: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.role == "tuned":
            of_arm[row.setting_key, row.arm_key].append(row)
    return [
        f"{of_this[0].columns['task']}: {of_this[0].label} has {len(of_this)} rows, because its seeds ran "
        f"over different learning rates: "
        + "; ".join(
            f"{_counted(row.budget, 'seed')} over {_counted(row.grid, 'point' if row.axes else 'rate')}"
            for row in of_this
        )
        + "."
        for of_this in of_arm.values()
        if len(of_this) > 1
    ]


def _counted(values: Collection[object], noun: str) -> str:
    return f"{len(values)} {noun}{'' if len(values) == 1 else 's'}"


def _short_of_momentum(rows: Iterable[Row]) -> list[str]:
    """A sentence on optimizers that move less than SGD at the same effective rate, because runs are short."""
    short: dict[tuple[str, float], None] = {}
    for row in rows:
        ratio = row.columns["accumulated_rate"]
        if ratio is not None and ratio < NOT_FAR_ENOUGH and row.columns["optimizer"] != "sgd_matched":
            short[row.label, round(ratio, 2)] = None
    if not short:
        return []
    parts = ", ".join(f"{label} moves {ratio:.2f} times" for label, ratio in short)
    return [
        f"Equal effective rates are not equal training in runs as short as these. Over all steps {parts} as "
        f"far as SGD, because the momentum buffer starts empty. The arm sgd_matched is SGD that moves as far "
        f"as SGDM."
    ]


def _by_content(stores: Sequence[Store | ArchivedStore]) -> list[Store | ArchivedStore]:
    """The stores in an order that does not depend on the order in which they were named.

    The one with the most results comes first, so that the runs of one row come from one place where possible.
    """
    if len(stores) == 1:
        return list(stores)

    def order(store: Store | ArchivedStore) -> tuple[int, str, str]:
        records = store.records()
        digest = hashlib.sha256()
        for record in records:
            digest.update(record.model_dump_json().encode())
        n_results = sum(record.status in RESULTS for record in records)
        return -n_results, digest.hexdigest(), str(store.output_dir)

    return sorted(stores, key=order)


def _collect(
    stores: Sequence[Store | ArchivedStore],
) -> tuple[list[RunRecord], list[str], list[LeftOut]]:
    """The records of all directories, sorted by run id, notes, and what was left out.

    Where a run is found twice, the first record that did not fail counts.
    """
    records: dict[str, tuple[RunRecord, Store | ArchivedStore]] = {}
    notes, left_out = [], []
    names = _place_names(stores)
    n_unfinished = 0
    clashes: dict[tuple[str, str], list[RunSpec]] = defaultdict(list)
    for store in stores:
        if isinstance(store, SweepStore) and (n := store.n_others):
            notes.append(
                f"{store.output_dir} holds {n} run(s) of other sweeps, which are not in this table: "
                f"`momentum-bench leaderboard build {quote(str(store.output_dir))}` shows all"
            )
        found = store.records()
        without = set(store.run_folders()) - {record.spec.run_id for record in found}
        n_unfinished += len(without)
        if damaged := sorted(folder for folder in without if store.is_damaged(folder)):
            notes.append(
                f"{len(damaged)} record(s) cannot be read and do not count (torn, changed, or of a newer "
                f"version); the first is run {damaged[0]}"
            )
        for record in found:
            run_id = record.spec.run_id
            known, place = records.setdefault(run_id, (record, store))
            if known is record:
                continue
            counts, other = place, store
            if known.status == "failed" != record.status:
                records[run_id] = record, store
                counts, other = store, place
            # the specs are equal, because a store gives no record whose id is not its folder's name
            if result_of(known) != result_of(record):
                pair = names[stores.index(counts)], names[stores.index(other)]
                clashes[pair].append(record.spec)
    for (counts_name, other_name), specs in sorted(clashes.items()):
        one = min(specs, key=lambda spec: spec.run_id)
        notes.append(
            f"{len(specs)} run(s) have different results in {counts_name} and in {other_name}, the first: "
            f"{one.run_id} ({one.label}); those in {counts_name} count, because a failed run gives way, and "
            f"else the directory with more results goes first"
        )
    if n_unfinished:
        sentence = f"{n_unfinished} run folder(s) have no whole record and were left out"
        left_out.append(LeftOut(None, sentence))
    return [records[run_id][0] for run_id in sorted(records)], notes, left_out


def _place_names(stores: Sequence[Store | ArchivedStore]) -> list[str]:
    """The last parts of each directory's path, as many as tell the directories apart."""
    paths = [store.output_dir.resolve().parts for store in stores]
    n = next((n for n in range(1, max(map(len, paths), default=1)) if _differ(paths, n)), None)
    return ["/".join(parts[-n:] if n else parts) for parts in paths]


def _differ(paths: Sequence[tuple[str, ...]], n: int) -> bool:
    return len({parts[-n:] for parts in paths}) == len(paths)


def _mixed_rows(rows: Iterable[Row]) -> list[LeftOut]:
    return [
        LeftOut(
            str(row.columns["task"]),
            f"{row.columns['task']}: {row.label} has no score: its runs mix {row.mixed}; {MIX}.",
        )
        for row in rows
        if row.mixed
    ]


def _left_out_cells(rows: Sequence[Row], missing: Iterable[RunSpec]) -> list[LeftOut]:
    """For each row a sentence that names its cells without a result, and so for planned runs without a row.

    Args:
        missing: runs that were planned and have no record.
    """
    planned: dict[str, list[RunSpec]] = defaultdict(list)
    for spec in missing:
        planned[_arm(spec)].append(spec)
    several = Counter(str(setting[0].columns["task"]) for setting in by_setting(rows))
    found = []
    for row in rows:
        task = str(row.columns["task"])
        cells = {state: set(of_state) for state, of_state in row.left_out.items()}
        cells["missing"] |= _cells(planned.pop(_arm(row.runs[0].spec), []))
        which = f" ({row.columns['protocol']})" if several[task] > 1 else ""
        found += _sentences(f"{task}: {row.label}{which}", task, cells)
    for _, specs in sorted(planned.items()):
        task = specs[0].task
        found += _sentences(f"{task}: {specs[0].optimizer}", task, {"missing": _cells(specs)})
    return found


def _arm(spec: RunSpec) -> str:
    """What the runs of one row share, except for the layout of their batches."""
    return canonical_json([setting_of(spec), arm_of(spec)])


def _cells(specs: Iterable[RunSpec]) -> set[Cell]:
    return {(spec.seed, spec.point) for spec in specs}


def _sentences(who: str, task: str, cells: Mapping[str, set[Cell]]) -> list[LeftOut]:
    return [
        LeftOut(task, f"{who} has no result at {cells_in_words(of_state)} ({state}).")
        for state, of_state in cells.items()
        if of_state
    ]


def _commits(records: Iterable[RunRecord]) -> list[str]:
    """A sentence where runs of one version of this package come from several commits."""
    commits: dict[str, set[str]] = defaultdict(set)
    for run in records:
        about = run.environment
        if run.status in RESULTS and "momentum_bench" in about and "git_commit" in about:
            commits[about["momentum_bench"]].add(about["git_commit"])
    return [
        f"The runs come from {len(of_version)} commits of momentum-bench {version}: "
        f"{', '.join(sorted(of_version))}."
        for version, of_version in sorted(commits.items())
        if len(of_version) > 1
    ]


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
