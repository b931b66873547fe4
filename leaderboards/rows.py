"""The rows of a leaderboard: the best-per-optimizer result of each setting."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import Any

from momentum_bench.harness.records.schema import RunRecord, RunSpec, canonical_json
from momentum_bench.harness.records.selection import DevResult, Selection, dev_result, select, select_shared
from momentum_bench.harness.reporting import cell, joined
from momentum_bench.harness.sweeps.protocols import settings_name
from momentum_bench.leaderboards.paired import summary

ARM = ("seed", "optimizer", "hyperparameters", "learning_rate")
"""The fields in which two compared runs may differ; all others must be equal."""

ADDED = ("n_leaked", "unknown_tokens")
"""Columns that came later; they stand in a table only if a record of it has what they show."""

TASK = ("task", "task_version", "data_fingerprint")
"""The fields in which the rows behind a pooled line differ."""


@dataclass(frozen=True)
class Row:
    """The best-per-optimizer result of one setting.

    Attributes:
        setting: what compared rows must share: the spec without the fields of its arm, and the batch layout.
        label: the optimizer; with its hyperparameters if the setting has this optimizer more than once.
        chosen: the selected run of each seed.
        runs: all runs of the row with any status, sorted by seed and learning rate.
        columns: the row of leaderboard.csv.
    """

    setting: dict[str, Any]
    label: str
    chosen: dict[int, RunRecord]
    runs: list[RunRecord]
    columns: dict[str, Any]

    @property
    def setting_key(self) -> str:
        """Only rows with equal keys are compared."""
        return canonical_json(self.setting)

    @property
    def family(self) -> str:
        """The setting without its task. Rows of one family share a pooled line and a table in a paper."""
        return canonical_json({name: value for name, value in self.setting.items() if name not in TASK})

    @property
    def setting_id(self) -> str:
        """A short name of the setting."""
        return _id(_stated(self.setting))[:8]

    @property
    def model_key(self) -> tuple[str, str]:
        """The model's name and revision."""
        return str(self.columns["model"]), str(self.columns["model_revision"])

    @property
    def arm(self) -> tuple[str, str]:
        """The optimizer and its hyperparameters, as they stand in leaderboard.csv."""
        return str(self.columns["optimizer"]), str(self.columns["hyperparameters"])

    @property
    def chosen_ids(self) -> list[str]:
        """Ids of the chosen runs, in the order of their seeds."""
        return [run.spec.run_id for run in self.chosen.values()]

    @property
    def tried(self) -> Counter[int]:
        """The number of learning rates that were tried on each seed, which is its search budget."""
        return Counter(run.spec.seed for run in self.runs)

    @property
    def row_id(self) -> str:
        """The row's id: 16 hexadecimal digits that follow from its setting and its arm."""
        return str(self.columns["row_id"])


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows in groups whose members may be compared, in the order in which they come."""
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings[row.setting_key].append(row)
    return list(settings.values())


def model_names(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """A name for each model of the rows, by `Row.model_key`.

    Two model folders may have one name (`checkpoint-500`). Then each name carries the beginning of the
    model's revision, which is a digest of the folder's content. Other names stay as they are.
    """
    revisions: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        model, revision = row.model_key
        revisions[model].add(revision)
    names = {}
    for model, known in revisions.items():
        n_digits = next(n for n in count(8) if len({revision[:n] for revision in known}) == len(known))
        for revision in known:
            names[model, revision] = f"{model} ({revision[:n_digits]})" if len(known) > 1 else model
    return names


def result_of(run: RunRecord) -> tuple[object, ...]:
    """The results of a run, which two executions of one specification should share; costs are not in it."""
    return run.status, run.evaluations, run.best_step, run.test


def rows_of(records: Iterable[RunRecord]) -> list[Row]:
    """The rows of these records, in the order of a leaderboard. Each run occurs once.

    Raises:
        UserError: a record names a protocol that this version does not know.
    """
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
    return sorted(_without_empty_columns(rows), key=_sort_key)


def _without_empty_columns(rows: list[Row]) -> list[Row]:
    """The rows without columns of `ADDED` that no row has; so boards of older records stay as they are."""
    absent = {name for name in ADDED if all(row.columns[name] is None for row in rows)}
    return [replace(row, columns={n: v for n, v in row.columns.items() if n not in absent}) for row in rows]


def _layouts(runs: Sequence[RunRecord]) -> list[str]:
    """The batch layout of each run of one setting, as canonical JSON.

    Runs of different layouts draw different dropout masks, so they do not share a row. A run that ended
    before its layout could be read back gets the layout that most runs have.
    """
    layouts = [canonical_json(run.read_back.layout) if run.read_back else None for run in runs]
    known = Counter(layout for layout in layouts if layout is not None)
    commonest = min(known, key=lambda layout: (-known[layout], layout), default="{}")
    return [commonest if layout is None else layout for layout in layouts]


def _hyperparameters(spec: RunSpec) -> list[str]:
    return [f"{name}={cell(value)}" for name, value in sorted(spec.hyperparameters.items())]


def _sort_key(row: Row) -> tuple[Any, ...]:
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
    test = summary([test_metric_of(run) for run in best])
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
        # without training there is no grid, so there is no edge
        "on_grid_edge": sum(s.on_edge for s in selections.values()) if spec.max_steps else 0,
        "n_tied": sum(selection.n_tied for selection in selections.values()),
        "clipped_fraction": clipped.mean,
        "optimizer_state_bytes": max(
            (run.read_back.optimizer_state_bytes for run in best if run.read_back), default=None
        ),
        "short_classes": joined(sorted({c for run in best if run.split for c in run.split.short_classes})),
        **_of_data(best),
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


def _of_data(best: Sequence[RunRecord]) -> dict[str, float | None]:
    """What a reader should know of the texts behind a row: the largest values of its chosen runs."""
    splits = [run.split for run in best if run.split]
    return {
        "n_leaked": max((s.n_leaked for s in splits if s.n_leaked is not None), default=None),
        "unknown_tokens": max((s.unknown_share for s in splits if s.unknown_share is not None), default=None),
    }


def _stated(setting: dict[str, Any]) -> dict[str, Any]:
    """The setting without fields that are None. So a new field does not change older ids, as with run ids."""
    return {name: value for name, value in setting.items() if value is not None}


def _id(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def test_metric_of(run: RunRecord) -> float:
    """The test score of a run that is done."""
    assert run.test is not None  # a run that is done was scored on test
    return run.test.metric


def _over_ties(selections: dict[int, Selection], done: dict[str, RunRecord]) -> dict[str, float]:
    """The lowest and the highest test mean that another choice among ties on dev would give.

    They are over all choices of one tied learning rate for each seed. Ties between the checkpoints of one
    run are left out, because the test split is scored at one checkpoint only.
    """
    tied = [[test_metric_of(done[run_id]) for run_id in s.tied] for s in selections.values()]
    return {
        "test_tied_low": summary([min(scores) for scores in tied]).mean,
        "test_tied_high": summary([max(scores) for scores in tied]).mean,
    }


def _shared_rate(results: dict[int, list[DevResult]], done: dict[str, RunRecord]) -> dict[str, float]:
    """The row's test scores if one learning rate is chosen for all seeds."""
    shared = select_shared(results)
    runs = [done[run_id] for run_id in shared.values()] if shared else []
    test = summary([test_metric_of(run) for run in runs])
    return {
        "shared_learning_rate": runs[0].spec.learning_rate if runs else math.nan,
        "shared_test_mean": test.mean,
        "shared_test_std": test.std,
    }
