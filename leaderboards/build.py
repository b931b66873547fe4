"""The leaderboard of a results directory: one row per best-per-optimizer result, and the pairs."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.protocols import settings_name
from harness.records import RunRecord, RunSpec, canonical_json
from harness.store import Store, write_atomically
from leaderboards.paired import PairedDifference, paired_difference, sentence
from leaderboards.selection import DevResult, select

ARM = ("seed", "optimizer", "hyperparameters", "learning_rate")
"""What may differ between two runs that are compared; all else of the spec must be equal."""


@dataclass(frozen=True)
class Row:
    """The best-per-optimizer result of one setting.

    Attributes:
        setting: canonical JSON of all that compared rows must share.
        chosen: the selected run of each seed.
        runs: all runs of the row, whatever their status.
        columns: the row of leaderboard.csv.
    """

    setting: str
    chosen: dict[int, RunRecord]
    runs: list[RunRecord]
    columns: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.columns["optimizer"])


@dataclass(frozen=True)
class Comparison:
    """Two rows of one setting, paired by seed: second minus first."""

    first: Row
    second: Row
    difference: PairedDifference
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        what = f"{self.columns['task']}: "
        return what + sentence(self.first.name.upper(), self.second.name.upper(), self.difference)


@dataclass(frozen=True)
class Leaderboard:
    """Rows and comparisons, sorted, ready to be shown or written."""

    rows: list[Row]
    comparisons: list[Comparison]

    def write(self, output_dir: Path) -> None:
        """Write `leaderboard.csv` and `comparison.csv`; equal records give equal bytes."""
        for name, parts in (("leaderboard", self.rows), ("comparison", self.comparisons)):
            write_atomically(output_dir / f"{name}.csv", _csv([part.columns for part in parts]))


def build(store: Store) -> Leaderboard:
    """Collect a results directory: select by dev, report test, pair the optimizers by seed."""
    groups: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for record in store.records():
        groups[_row_key(record.spec)].append(record)
    rows = sorted((_row(runs) for runs in groups.values()), key=_sort_key)
    comparisons = [
        comparison
        for place, first in enumerate(rows)
        for second in rows[place + 1 :]
        if first.setting == second.setting and (comparison := _compare(first, second))
    ]
    return Leaderboard(rows, comparisons)


def _setting(spec: RunSpec) -> str:
    return canonical_json(spec.model_dump(mode="json", exclude=set(ARM)))


def _row_key(spec: RunSpec) -> tuple[str, ...]:
    return _setting(spec), spec.optimizer, canonical_json(spec.hyperparameters)


def _sort_key(row: Row) -> tuple:
    names = ("task", "model", "method", "k", "protocol", "optimizer", "momentum")
    return (*(row.columns[name] for name in names), row.setting)


def _row(runs: list[RunRecord]) -> Row:
    by_seed: dict[int, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_seed[run.spec.seed].append(run)
    grid = sorted({run.spec.learning_rate for run in runs})
    chosen: dict[int, RunRecord] = {}
    n_tied = n_edges = 0
    for seed, of_seed in sorted(by_seed.items()):
        done = {run.spec.run_id: run for run in of_seed if run.status == "done"}
        if done:
            tried = [run.spec.learning_rate for run in of_seed]
            selection = select([_dev_result(run) for run in done.values()], tried)
            chosen[seed] = done[selection.run_id]
            n_tied += selection.n_tied
            n_edges += selection.on_edge
    spec, best = runs[0].spec, list(chosen.values())
    columns = {
        "task": spec.task,
        "model": spec.model,
        "method": spec.method,
        "k": spec.k,
        "optimizer": spec.optimizer,
        "momentum": spec.hyperparameters.get("momentum", 0.0),
        "seeds": _joined(chosen),
        "learning_rates": _joined(run.spec.learning_rate for run in best),
        "torch_learning_rates": _joined(run.read_back.torch_learning_rate for run in best if run.read_back),
        "grid": _joined(grid),
        "n_seeds": len(chosen),
        "n_runs": len(runs),
        "n_missing": len(grid) * len(by_seed) - len(runs),
        "n_diverged": sum(run.status == "diverged" for run in runs),
        "n_failed": sum(run.status == "failed" for run in runs),
        "metric": runs[0].metric,
        **_mean_and_std("test", [run.test.metric for run in best if run.test]),
        **_mean_and_std("dev", [run.best.dev_metric for run in best if run.best]),
        "on_grid_edge": n_edges,
        "n_tied": n_tied,
        "clipped_fraction": _mean([run.clipped_fraction or 0.0 for run in best]),
        "optimizer_state_bytes": max(
            (run.read_back.optimizer_state_bytes for run in best if run.read_back), default=None
        ),
        "short_classes": _joined(sorted({c for run in best if run.split for c in run.split.short_classes})),
        "train_seconds": math.fsum(run.costs.train_seconds for run in runs if run.costs),
        "peak_memory_bytes": max((run.costs.peak_memory_bytes for run in runs if run.costs), default=None),
        "protocol": settings_name(spec),
        "protocol_version": spec.protocol_version,
        "task_version": spec.task_version,
        "data_fingerprint": spec.data_fingerprint,
        "model_revision": spec.model_revision,
    }
    return Row(_setting(spec), chosen, runs, columns)


def _dev_result(run: RunRecord) -> DevResult:
    assert run.best is not None  # a run that is done has chosen a checkpoint
    return DevResult(run.spec.run_id, run.spec.learning_rate, run.best.dev_metric, run.best.dev_loss)


def _compare(first: Row, second: Row) -> Comparison | None:
    pairs = [
        (first.chosen[seed], second.chosen[seed])
        for seed in sorted(first.chosen.keys() & second.chosen.keys())
        if _same_layout(first.chosen[seed], second.chosen[seed])
    ]
    tests = [(a.test.metric, b.test.metric) for a, b in pairs if a.test and b.test]
    if not tests:
        return None
    difference = paired_difference([b - a for a, b in tests])
    shared = ("task", "model", "method", "k", "metric")
    columns = {name: first.columns[name] for name in shared}
    columns |= {
        "first": first.columns["optimizer"],
        "second": second.columns["optimizer"],
        "first_momentum": first.columns["momentum"],
        "second_momentum": second.columns["momentum"],
        "seeds": _joined(a.spec.seed for a, _ in pairs),
        "n_pairs": difference.n_pairs,
        "mean_difference": difference.mean,
        "std_difference": difference.std,
        "ci_low": difference.ci_low,
        "ci_high": difference.ci_high,
        "protocol": first.columns["protocol"],
        "data_fingerprint": first.columns["data_fingerprint"],
        "model_revision": first.columns["model_revision"],
    }
    return Comparison(first, second, difference, columns)


def _same_layout(a: RunRecord, b: RunRecord) -> bool:
    """Runs of different batch layout draw other dropout masks, so they are no pair."""
    return a.read_back is not None and b.read_back is not None and a.read_back.layout == b.read_back.layout


def _csv(rows: list[dict[str, Any]]) -> str:
    """Comma-separated text; floats with 10 digits, and an empty cell where there is no number."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _joined(values: Iterable[Any]) -> str:
    return ";".join(map(_cell, values))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _mean_and_std(name: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and, over two values or more, standard deviation with ddof 1."""
    mean = _mean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    std = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else math.nan
    return {f"{name}_mean": mean, f"{name}_std": std}
