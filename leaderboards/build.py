"""The leaderboard of results directories: one row per best-per-optimizer result, and the pairs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

from harness.noise_floor import noise_floors, noise_sentence
from harness.protocols import settings_name
from harness.records import RunRecord, RunSpec, canonical_json
from harness.reporting import cell, joined
from harness.store import Store
from leaderboards.archive import ArchivedStore
from leaderboards.paired import MARGIN, PairedDifference, holm, paired_difference, sentence, summary
from leaderboards.selection import DevResult, Selection, select, select_shared

ARM = ("seed", "optimizer", "hyperparameters", "learning_rate")
"""What may differ between two runs that are compared; all else must be equal."""

TASK = ("task", "task_version", "data_fingerprint")
"""What a pooled line averages over."""

FEWEST_TASKS = 3


@dataclass(frozen=True)
class Row:
    """The best-per-optimizer result of one setting.

    Attributes:
        setting: all that compared rows must share: the spec without its arm, and the batch layout.
        label: the optimizer, with its hyperparameters where the setting has it more than once.
        chosen: the selected run of each seed.
        runs: all runs of the row, whatever their status, by seed and learning rate.
        columns: the row of leaderboard.csv.
    """

    setting: dict[str, Any]
    label: str
    chosen: dict[int, RunRecord]
    runs: list[RunRecord]
    columns: dict[str, Any]

    @property
    def setting_key(self) -> str:
        """Rows are compared only where this text is equal."""
        return canonical_json(self.setting)

    @property
    def family(self) -> str:
        """The setting without its task: what a pooled line or a paper's table has in common."""
        return canonical_json({name: value for name, value in self.setting.items() if name not in TASK})

    @property
    def setting_id(self) -> str:
        """A short name of the setting."""
        return _id(_stated(self.setting))[:8]

    @property
    def arm(self) -> tuple[str, str]:
        return str(self.columns["optimizer"]), str(self.columns["hyperparameters"])

    @property
    def chosen_ids(self) -> list[str]:
        """Ids of the chosen runs, in the order of their seeds."""
        return [run.spec.run_id for run in self.chosen.values()]

    @property
    def tried(self) -> Counter[int]:
        """How many learning rates were tried on each seed: the budget of its search."""
        return Counter(run.spec.seed for run in self.runs)

    @property
    def row_id(self) -> str:
        return str(self.columns["row_id"])


@dataclass(frozen=True)
class Comparison:
    """Two rows of one setting, paired by seed: second minus first. `columns` as in comparison.csv."""

    first: Row
    second: Row
    difference: PairedDifference
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        what = f"{self.columns['task']}: "
        return what + sentence(self.first.label.upper(), self.second.label.upper(), self.difference)

    @property
    def verdict(self) -> str:
        """The verdict with an optimizer's name in place of a or b."""
        words = {"a better": f"{self.first.label} better", "b better": f"{self.second.label} better"}
        return words.get(verdict, verdict) if (verdict := self.difference.verdict) else "no verdict"


@dataclass(frozen=True)
class Pooled:
    """A pair of optimizers over the tasks of one family: the plain mean of the tasks' mean differences.

    Its t interval is over tasks: it speaks of tasks like these, not of further seeds, and weighs each
    task the same however noisy. It carries no verdict. `columns` as in pooled.csv.
    """

    comparisons: list[Comparison]
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The pooled line in words."""
        c, one = self.columns, self.comparisons[0]
        return (
            f"mean over {c['n_tasks']} tasks: {one.second.label.upper()} minus {one.first.label.upper()}: "
            f"{100 * c['mean_difference']:+.1f} points, 95 % interval over tasks "
            f"{100 * c['ci_low']:+.1f} to {100 * c['ci_high']:+.1f}."
        )


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
            comparison, note = _compare(first, second, margin)
            comparisons += [comparison] if comparison else []
            notes += [note] if note else []
        notes += _budgets_apart(setting)
    _add_holm(comparisons)
    notes += _settings_apart(rows)
    return Leaderboard(rows, comparisons, _pooled(comparisons), notes, margin)


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows in groups that may be compared, in the order given."""
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings[row.setting_key].append(row)
    return list(settings.values())


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


def result_of(run: RunRecord) -> tuple:
    """What two executions of one specification may differ in, if they differ in more than cost."""
    return run.status, run.evaluations, run.best_step, run.test


def rows_of(records: Iterable[RunRecord]) -> list[Row]:
    """The rows of these records, each run once, in the order of a leaderboard."""
    settings: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        settings[canonical_json(record.spec.model_dump(mode="json", exclude=set(ARM)))].append(record)
    arms: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for setting, of_setting in settings.items():
        for run, layout in zip(of_setting, _layouts(of_setting), strict=True):
            hyperparameters = canonical_json(run.spec.hyperparameters)
            arms[setting, layout, run.spec.optimizer, hyperparameters].append(run)
    often = Counter(key[:3] for key in arms)
    rows = []
    for key, runs in arms.items():
        spec = runs[0].spec
        name = spec.optimizer if spec.max_steps else "zero-shot"
        words = [name, *(_hyperparameters(spec) if often[key[:3]] > 1 else [])]
        rows.append(_row(runs, json.loads(key[1]), " ".join(words)))
    return sorted(rows, key=_sort_key)


def _layouts(runs: Sequence[RunRecord]) -> list[str]:
    """The batch layout of each run of one setting, as canonical JSON.

    Runs of different layout draw other dropout masks, so they share no row. A run that ended before
    its layout could be read back goes with the commonest one.
    """
    layouts = [canonical_json(run.read_back.layout) if run.read_back else None for run in runs]
    known = Counter(layout for layout in layouts if layout is not None)
    commonest = min(known, key=lambda layout: (-known[layout], layout), default="{}")
    return [commonest if layout is None else layout for layout in layouts]


def _hyperparameters(spec: RunSpec) -> list[str]:
    return [f"{name}={cell(value)}" for name, value in sorted(spec.hyperparameters.items())]


def _sort_key(row: Row) -> tuple:
    setting, arm = ("task", "model", "method", "k"), ("optimizer", "momentum", "hyperparameters")
    # numbers as numbers: batch size 16 before 256 before 1024
    protocol = [
        int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", row.columns["protocol"])
    ]
    return (*(row.columns[n] for n in setting), protocol, row.setting_key, *(row.columns[n] for n in arm))


def _row(runs: list[RunRecord], layout: dict[str, int | str], label: str) -> Row:
    runs = sorted(runs, key=lambda run: (run.spec.seed, run.spec.learning_rate))
    by_seed = {seed: list(part) for seed, part in groupby(runs, key=lambda run: run.spec.seed)}
    grid = sorted({run.spec.learning_rate for run in runs})
    done = {run.spec.run_id: run for run in runs if run.status == "done"}
    results = {
        seed: found
        for seed, part in by_seed.items()
        if (found := [dev_result(run) for run in part if run.status == "done"])
    }
    selections = {
        seed: select(found, [run.spec.learning_rate for run in by_seed[seed]])
        for seed, found in results.items()
    }
    chosen = {seed: done[selection.run_id] for seed, selection in selections.items()}
    best = list(chosen.values())
    spec = runs[0].spec
    setting = spec.model_dump(mode="json", exclude=set(ARM)) | {"layout": layout}
    hyperparameters = ";".join(_hyperparameters(spec))
    costs = [run.costs for run in runs if run.costs]
    test = summary([_test_metric(run) for run in best])
    dev = summary([run.best.dev_metric for run in best if run.best])
    clipped = summary([run.clipped_fraction or 0.0 for run in best])
    columns = {
        "task": spec.task,
        "model": spec.model,
        "method": spec.method,
        "k": spec.k,
        "optimizer": spec.optimizer,
        "momentum": spec.hyperparameters.get("momentum", 0.0),
        "hyperparameters": hyperparameters,
        "seeds": joined(chosen),
        "learning_rates": joined(run.spec.learning_rate for run in best),
        "torch_learning_rates": joined(run.read_back.torch_learning_rate for run in best if run.read_back),
        "grid": joined(grid),
        "n_seeds": len(chosen),
        "n_runs": len(runs),
        "n_missing": len(grid) * len(by_seed) - len(runs),
        "n_diverged": sum(run.status == "diverged" for run in runs),
        "n_failed": sum(run.status == "failed" for run in runs),
        "metric": runs[0].metric,
        "test_mean": test.mean,
        "test_std": test.std,
        "test_ci_low": test.ci_low,
        "test_ci_high": test.ci_high,
        **_over_ties(selections, done),
        **_shared_rate(results, done),
        "dev_mean": dev.mean,
        "dev_std": dev.std,
        # without training there is no grid to be on the edge of
        "on_grid_edge": sum(s.on_edge for s in selections.values()) if spec.max_steps else 0,
        "n_tied": sum(selection.n_tied for selection in selections.values()),
        "clipped_fraction": clipped.mean,
        "optimizer_state_bytes": max(
            (run.read_back.optimizer_state_bytes for run in best if run.read_back), default=None
        ),
        "short_classes": joined(sorted({c for run in best if run.split for c in run.split.short_classes})),
        "train_seconds": math.fsum(cost.train_seconds for cost in costs),
        "search_seconds": math.fsum(c.train_seconds + c.dev_seconds + c.test_seconds for c in costs),
        "peak_memory_bytes": max((cost.peak_memory_bytes for cost in costs), default=None),
        "protocol": settings_name(spec),
        "protocol_version": spec.protocol_version,
        "task_version": spec.task_version,
        "data_fingerprint": spec.data_fingerprint,
        "model_revision": spec.model_revision,
        "row_id": _id([_stated(setting), spec.optimizer, spec.hyperparameters]),
        "chosen_runs": joined(run.spec.run_id for run in best),
    }
    return Row(setting, label, chosen, runs, columns)


def _stated(setting: dict[str, Any]) -> dict[str, Any]:
    """A setting without what is None: as in run ids, a field that comes later leaves earlier ids alone."""
    return {name: value for name, value in setting.items() if value is not None}


def _id(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def dev_result(run: RunRecord) -> DevResult:
    """What a choice may see of a run that is done."""
    assert run.best is not None  # a run that is done has chosen a checkpoint
    return DevResult(run.spec.run_id, run.spec.learning_rate, run.best.dev_metric, run.best.dev_loss)


def _test_metric(run: RunRecord) -> float:
    assert run.test is not None  # a run that is done was scored on test
    return run.test.metric


def _over_ties(selections: dict[int, Selection], done: dict[str, RunRecord]) -> dict[str, float]:
    """How far the test mean could move had ties on dev been broken otherwise.

    The lowest and highest mean over all choices of one tied learning rate a seed. Ties between the
    checkpoints of one run are not in it: test is scored at one checkpoint only.
    """
    tied = [[_test_metric(done[run_id]) for run_id in s.tied] for s in selections.values()]
    return {
        "test_tied_low": summary([min(scores) for scores in tied]).mean,
        "test_tied_high": summary([max(scores) for scores in tied]).mean,
    }


def _shared_rate(results: dict[int, list[DevResult]], done: dict[str, RunRecord]) -> dict[str, float]:
    """The row's test scores had one learning rate been chosen for all seeds."""
    shared = select_shared(results)
    runs = [done[run_id] for run_id in shared.values()] if shared else []
    test = summary([_test_metric(run) for run in runs])
    return {
        "shared_learning_rate": runs[0].spec.learning_rate if runs else math.nan,
        "shared_test_mean": test.mean,
        "shared_test_std": test.std,
    }


def _budgets_apart(setting: Sequence[Row]) -> list[str]:
    """Which rows of one setting are not compared because no seed of theirs had equal search budgets."""
    budgets = {row.row_id: row.tried for row in setting}
    apart = set()
    for pair in combinations([row for row in setting if row.chosen], 2):
        first, second = pair
        common = first.chosen.keys() & second.chosen.keys()
        if common and all(budgets[first.row_id][seed] != budgets[second.row_id][seed] for seed in common):
            apart |= {row.row_id for row in pair}
    groups: dict[str, list[str]] = defaultdict(list)
    for row in setting:
        if row.row_id in apart:
            groups[_budget(budgets[row.row_id])].append(row.label)
    if not groups:
        return []
    parts = [f"{budget} for {', '.join(labels)}" for budget, labels in sorted(groups.items())]
    return [
        f"{setting[0].columns['task']}: optimizers whose search budgets differ are not compared "
        f"({'; '.join(parts)})."
    ]


def _budget(tried: Counter[int]) -> str:
    """How many rates were tried on each seed."""
    if len(numbers := set(tried.values())) == 1:
        return f"{numbers.pop()} rates"
    return "rates: " + ", ".join(f"{n} on seed {seed}" for seed, n in sorted(tried.items()))


def _compare(first: Row, second: Row, margin: float) -> tuple[Comparison | None, str]:
    """The comparison of two rows of one setting, and a note on what was left out of it, or why.

    A seed counts where both arms tried equally many learning rates on it: a larger search is a
    larger budget.
    """
    pair = f"{first.columns['task']}: {first.label} and {second.label}"
    common = sorted(first.chosen.keys() & second.chosen.keys())
    if not common:
        without = [row.label for row in (first, second) if not row.chosen]
        why = f"{' and '.join(without)} finished no run" if without else "they share no seed"
        return None, f"{pair} are not compared: {why}."
    tried = first.tried, second.tried
    seeds = [seed for seed in common if tried[0][seed] == tried[1][seed]]
    unequal = [f"seed {s} ({tried[0][s]} rates against {tried[1][s]})" for s in common if s not in seeds]
    note = f"their search budgets differ on {', '.join(unequal)}." if unequal else ""
    if not seeds:
        return None, ""  # `_budgets_apart` says so, once for all pairs
    differences = [_test_metric(second.chosen[s]) - _test_metric(first.chosen[s]) for s in seeds]
    difference = paired_difference(differences, margin)
    shared = ("task", "model", "method", "k", "metric")
    columns = {name: first.columns[name] for name in shared}
    columns |= {
        "first": first.columns["optimizer"],
        "second": second.columns["optimizer"],
        "first_momentum": first.columns["momentum"],
        "second_momentum": second.columns["momentum"],
        "seeds": joined(seeds),
        "n_pairs": difference.n_pairs,
        "mean_difference": difference.mean,
        "std_difference": difference.std,
        "ci_low": difference.ci_low,
        "ci_high": difference.ci_high,
        "bootstrap_low": difference.bootstrap_low,
        "bootstrap_high": difference.bootstrap_high,
        "p_sign_flip": difference.p_sign_flip,
        "p_difference": difference.p_difference,
        "p_difference_holm": math.nan,
        "p_equivalence": difference.p_equivalence,
        "p_equivalence_holm": math.nan,
        "margin": difference.margin,
        "verdict": difference.verdict or "",
        "no_verdict": difference.no_verdict,
        "n_seeds_to_decide": difference.n_seeds_to_decide,
        "protocol": first.columns["protocol"],
        "data_fingerprint": first.columns["data_fingerprint"],
        "model_revision": first.columns["model_revision"],
        "first_row_id": first.row_id,
        "second_row_id": second.row_id,
    }
    note = f"{pair} are compared on {len(seeds)} of {len(common)} seeds: {note}" if note else ""
    return Comparison(first, second, difference, columns), note


def _add_holm(comparisons: Sequence[Comparison]) -> None:
    """Adjust the p-values of all comparisons of the build that have a verdict, as one family."""
    family = [comparison.columns for comparison in comparisons if comparison.difference.verdict]
    for name in ("p_difference", "p_equivalence"):
        for columns, adjusted in zip(family, holm([c[name] for c in family]), strict=True):
            columns[f"{name}_holm"] = adjusted


def _pooled(comparisons: Iterable[Comparison]) -> list[Pooled]:
    """One line for each pair of optimizers with three tasks or more of one family.

    A task that is there in two versions would count twice, so such a family has no line.
    """
    families: dict[tuple, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        first, second = comparison.first, comparison.second
        families[first.family, first.arm, second.arm].append(comparison)
    lines = []
    for part in families.values():
        tasks = [comparison.columns["task"] for comparison in part]
        if len(set(tasks)) < max(FEWEST_TASKS, len(tasks)):
            continue
        over_tasks = summary([comparison.difference.mean for comparison in part])
        names = ("model", "method", "k", "first", "second", "first_momentum", "second_momentum")
        columns = {name: part[0].columns[name] for name in names}
        columns |= {
            "tasks": joined(tasks),
            "n_tasks": over_tasks.n,
            "mean_difference": over_tasks.mean,
            "std_over_tasks": over_tasks.std,
            "ci_low": over_tasks.ci_low,
            "ci_high": over_tasks.ci_high,
            "protocol": part[0].columns["protocol"],
            "model_revision": part[0].columns["model_revision"],
        }
        lines.append(Pooled(part, columns))
    return lines


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
