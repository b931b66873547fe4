"""The records of a sweep, or of a results directory, in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.api.frames import frame
from momentum_bench.harness.api.leaderboard import Leaderboard, leaderboard_of
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store, SweepStore
from momentum_bench.leaderboards.archive import ArchivedStore, store_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Results:
    """Finished runs: those of one sweep, or all of a results directory or an archive.

    Attributes:
        records: one `RunRecord` for each run; from `mb.run` in the order of the plan.
        store: where they come from.
    """

    records: list[RunRecord]
    store: Store | ArchivedStore = field(compare=False)

    @property
    def directory(self) -> Path:
        """The results directory, or the folder of the archive."""
        return self.store.output_dir

    @property
    def failed(self) -> list[RunRecord]:
        """The runs that ended in an error; `record.failure` says why."""
        return [record for record in self.records if record.status == "failed"]

    def leaderboard(self, *, margin: float | None = None, mix_environments: bool = False) -> Leaderboard:
        """The leaderboard of these runs; its notes name the runs of the sweep that are missing.

        Args:
            margin: half the width of the band of equivalence, a fraction (0.01 is one point); None:
                that of the designs, or one point.
            mix_environments: allow rows and pairs whose runs differ in device, torch or precision.

        Raises:
            UserError: there is no run, or the margin is out of range.
        """
        return leaderboard_of([self.store], margin, mix_environments)

    def to_pandas(self) -> pd.DataFrame:
        """One row for each run: its id, its spec, its status, its scores and its costs.

        The columns have the names of trials.parquet. `dev_metric` and `dev_loss` are those of the chosen
        checkpoint, scores are fractions, costs are seconds and bytes. What a run does not have is NaN or NA.
        """
        return frame(map(_columns, self.records))

    def __repr__(self) -> str:
        counts = Counter(record.status for record in self.records)
        states = ", ".join(
            f"{counts[state]} {state}" for state in ("done", "diverged", "failed") if counts[state]
        )
        n_runs = len(self.records)
        return f"Results: {n_runs} run{'' if n_runs == 1 else 's'} in {self.directory} ({states or 'none'})"


Source = str | PathLike[str] | Results
"""A results directory, an archive, or results that are there already."""


def load_results(source: str | PathLike[str]) -> Results:
    """All finished runs of a results directory, or of an archive (`records.jsonl.xz`).

    Raises:
        UserError: it holds no results, it cannot be read, or another version wrote it.
    """
    if not isinstance(source, str | PathLike):
        raise UserError(
            f"expected a results directory or an archive, found a {type(source).__name__}; "
            f"of several, mb.leaderboard(*DIRECTORIES) makes one leaderboard"
        )
    path = Path(source)
    store = ArchivedStore(path.parent, path) if path.is_file() else store_of(path)
    store.check_version()
    return Results(store.records(), store)


def leaderboard(*sources: Source, margin: float | None = None, mix_environments: bool = False) -> Leaderboard:
    """The leaderboard of results: select by dev, report test, pair the optimizers by seed.

    Args:
        sources: results directories, archives (`records.jsonl.xz`) or `Results`.
        margin: half the width of the band of equivalence, a fraction (0.01 is one point); None:
                that of the designs, or one point.
        mix_environments: allow rows and pairs whose runs differ in device, torch or precision.

    Raises:
        UserError: there is no finished run, a source cannot be read, or the margin is out of range.
    """
    if not sources:
        raise UserError("no results are given: name a results directory, an archive or a Results")
    found = _merged(s if isinstance(s, Results) else load_results(s) for s in sources)
    return leaderboard_of([results.store for results in found], margin, mix_environments)


def _merged(found: Iterable[Results]) -> list[Results]:
    """Results of one place as one, so that no run and no note of that place counts twice."""
    of_place: dict[Path, Results] = {}
    for results in found:
        place = results.directory.resolve()
        known = of_place.setdefault(place, results)
        if known is results:
            continue
        if isinstance(known.store, SweepStore) and isinstance(results.store, SweepStore):
            planned = {spec.run_id: spec for spec in (*known.store.specs, *results.store.specs)}
            designs = {each.design_id: each for each in (*known.store.designs(), *results.store.designs())}
            records = (*known.records, *results.records)
            both = SweepStore(known.directory, planned.values(), records, designs.values())
            of_place[place] = Results(both.records(), both)
        elif isinstance(known.store, SweepStore):
            of_place[place] = results  # the whole place holds the sweep's runs
    return list(of_place.values())


def _columns(record: RunRecord) -> dict[str, Any]:
    """What `Results.to_pandas` says about a run."""
    best, test, costs, live = record.best, record.test, record.costs, record.read_back
    return {
        "run_id": record.spec.run_id,
        **record.spec.model_dump(),
        "status": record.status,
        "failure": record.failure,
        "metric": record.metric,
        "best_step": record.best_step,
        "dev_metric": best.dev_metric if best else None,
        "dev_loss": best.dev_loss if best else None,
        "test_metric": test.metric if test else None,
        "test_loss": test.loss if test else None,
        "clipped_fraction": record.clipped_fraction,
        "torch_learning_rate": live.torch_learning_rate if live else None,
        "optimizer_state_bytes": live.optimizer_state_bytes if live else None,
        "train_seconds": costs.train_seconds if costs else None,
        "dev_seconds": costs.dev_seconds if costs else None,
        "test_seconds": costs.test_seconds if costs else None,
        "peak_memory_bytes": costs.peak_memory_bytes if costs else None,
    }
