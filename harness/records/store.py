"""The directory of records: one folder for each run, named by its id; atomic writes, no shared file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.files import (
    LARGEST_BYTES,
    LEFT_BY_US,
    WRITING,
    clear,
    clear_checkpoint,
    is_litter,
    plain_content,
    read_record,
    write_atomically,
    write_record,
)
from momentum_bench.harness.records.locks import check_locks, system_lock, waited_for
from momentum_bench.harness.records.schema import (
    PROTOCOL_VERSION,
    RUN_ID,
    Evaluation,
    Plan,
    RunRecord,
    RunSpec,
    Stored,
    canonical_json,
    content_id,
)

MARKER, LOCK = "momentum-bench.json", "momentum-bench.lock"

DESIGNS = "designs"
"""The folder of the sweeps' designs, one file for each."""

ATTEMPT, JOURNAL, CHECKPOINT = "attempt.json", "evaluations.jsonl", "checkpoint.safetensors"
"""The files in the folder of a run in progress."""

MOST_DEATHS = 3
"""A run is recorded as failed when this many processes were killed while they did it."""

WRITTEN_TO = ("plans", "designs", "plots", "tasks", "studies", "noise_floor")
"""Folders of a results directory, next to `runs`, in which files are replaced."""

WRITTEN_OVER = (
    *("leaderboard.csv", "comparison.csv", "pooled.csv", "trials.parquet", "index.html"),
    *("tasks/*.csv", "plots/*.svg", "studies/*.csv", "studies/*.svg"),
)
"""Files of a results directory that a sweep or study overwrites; a user may have files with these names."""


def designs_in(folder: Path) -> list[Design]:
    """The designs in a folder, sorted by their ids: files that are whole, and whose name is the id."""
    paths = [path for path in sorted(folder.glob("*.json")) if RUN_ID.fullmatch(path.stem)]
    designs = [(path.stem, read_record(path, Design)) for path in paths]
    return [design for name, design in designs if design is not None and design.design_id == name]


class Attempt(Stored):
    """Lies in the folder of a run while a process does it whose death nobody else would see.

    Attributes:
        deaths: how many processes were killed before it, one after the other, without getting farther.
        steps: the largest number of steps that one of them has evaluated.
    """

    deaths: int
    steps: int


class Journal:
    """What one run in progress keeps on disk until its record is there.

    It keeps its evaluations, one line for each, from which `status` tells how far the run is; and its last
    checkpoint, from which the run goes on after an interruption.

    Args:
        path: the file of the evaluations; the checkpoint lies next to it.
        checkpoint_every: steps from one checkpoint to the next; None: no checkpoint is written or read.
    """

    def __init__(self, path: Path, checkpoint_every: int | None = None):
        self._path = path
        self.checkpoint = path.with_name(CHECKPOINT)
        self.checkpoint_every = checkpoint_every
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")  # a resumed run writes all its evaluations again

    def append(self, evaluation: Evaluation) -> None:
        """Add one evaluation."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(evaluation.model_dump_json() + "\n")


class Store:
    """Records of runs under `<output-dir>/runs/<run id>/record.json`.

    A run is finished if its folder holds a whole record (its checksum fits) with the id of the folder.
    Anything else counts as missing.
    """

    def __init__(self, output_dir: Path):
        self.output_dir = output_dir
        self._runs = output_dir / "runs"
        self._plans = output_dir / "plans"
        self._designs = output_dir / DESIGNS

    @property
    def exists(self) -> bool:
        """Whether some version has started a sweep here."""
        return (self.output_dir / MARKER).exists()

    def open(self) -> None:
        """Create the directory, or check that an existing one is ours and of this version.

        Raises:
            UserError: it cannot be written, another protocol version wrote it, or it is no results
                directory and holds files that would be overwritten.
        """
        marker = self.output_dir / MARKER
        try:
            if not marker.exists():
                self._check_nothing_is_lost()
            self._runs.mkdir(parents=True, exist_ok=True)
            check_locks(self._runs)
            with self.alone():
                if not marker.exists():
                    write_atomically(marker, canonical_json({"protocol_version": PROTOCOL_VERSION}) + "\n")
            tempfile.TemporaryFile(dir=self._runs).close()
        except OSError as error:
            raise UserError(
                f"--output-dir {self.output_dir} cannot be written: {error.strerror or error}"
            ) from error
        self.check_version()

    def _check_nothing_is_lost(self) -> None:
        paths = (path for pattern in WRITTEN_OVER for path in self.output_dir.glob(pattern))
        if path := next((path for path in paths if not is_litter(path.name)), None):
            raise UserError(
                f"--output-dir {self.output_dir} holds no momentum-bench results, and its "
                f"{path.relative_to(self.output_dir)} would be overwritten: choose another --output-dir"
            )

    def check_version(self) -> None:
        """Raises: UserError, when another protocol version wrote the directory, or not momentum-bench."""
        marker = self.output_dir / MARKER
        try:
            version = json.loads(plain_content(marker, LARGEST_BYTES))["protocol_version"]
        except FileNotFoundError:
            raise UserError(f"{self.output_dir} holds no momentum-bench results") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            version = "unreadable"
        if version != PROTOCOL_VERSION:
            raise UserError(
                f"{self.output_dir} was written by protocol version {version}, and this is version "
                f"{PROTOCOL_VERSION}: the same settings mean other runs there. Choose another --output-dir"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the directory (runs have their own), and remove what a killed process left."""
        with waited_for(self.output_dir / LOCK, f"the tables and plans of {self.output_dir}"):
            root = self.output_dir.resolve()
            for folder in (root, *(root / name for name in WRITTEN_TO)):
                clear(folder, LEFT_BY_US)
            yield

    def check_space(self, needed: int) -> None:
        """Raises: UserError, when the disk has fewer free bytes than `needed`, which the sweep will write."""
        free = shutil.disk_usage(self.output_dir).free
        if free < needed:
            raise UserError(
                f"--output-dir {self.output_dir}: its disk has {free / 1e6:,.1f} MB free, and this sweep "
                f"needs about {needed / 1e6:,.1f} MB: make room, or choose another --output-dir"
            )

    @contextmanager
    def claim(self, spec: RunSpec) -> Iterator[bool]:
        """Claim a run against all other processes on this directory; gives False if one of them holds it.

        The operating system frees the claim of a process that dies, so no claim is ever stale. Files that
        such a process left half-written are removed.
        """
        folder = self._runs / spec.run_id
        folder.mkdir(parents=True, exist_ok=True)
        lock = system_lock(folder / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            clear(folder, LEFT_BY_US)
            clear_checkpoint(folder / WRITING)
            yield True
        finally:
            lock.release()

    def is_claimed(self, run_id: str) -> bool:
        """Whether a live process holds the claim of the run now; nothing is written."""
        path = self._runs / run_id / "lock"
        if not path.exists():
            return False
        try:
            with system_lock(path).acquire(blocking=False):
                return False
        except Timeout:
            return True

    @contextmanager
    def attempt(self, spec: RunSpec) -> Iterator[int]:
        """Keep a note in the run's folder while this process does the run, whose claim it holds.

        A process that is killed has no time to take the note away, so the next one finds it.

        Gives the number of processes that were killed while they did the run, one after the other. It starts
        over where one of them got farther than those before it, as under a scheduler that ends jobs.
        """
        path = self._runs / spec.run_id / ATTEMPT
        before = read_record(path, Attempt)
        now = Attempt(deaths=0, steps=0)
        if before is not None:
            steps = self.steps_done(spec.run_id) or 0
            deaths = 1 if steps > before.steps else before.deaths + 1
            now = Attempt(deaths=deaths, steps=max(steps, before.steps))
        write_record(path, now)
        try:
            yield now.deaths
        finally:
            path.unlink(missing_ok=True)

    def journal(self, spec: RunSpec, checkpoint_every: int | None = None) -> Journal:
        """The journal of a run that starts or goes on now."""
        return Journal(self._runs / spec.run_id / JOURNAL, checkpoint_every)

    def steps_done(self, run_id: str) -> int | None:
        """Steps of a run in progress at its last evaluation; None: the run has not started."""
        try:
            content = plain_content(self._runs / run_id / JOURNAL, LARGEST_BYTES)
            lines = content.decode().splitlines()
            return Evaluation.model_validate_json(lines[-1]).step if lines else 0
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # somebody else's file, or the last line is being written
            return 0

    def write(self, record: RunRecord) -> None:
        """Store a finished run, which never runs again, and remove the files that it needed in progress."""
        folder = self._runs / record.spec.run_id
        write_record(folder / "record.json", record)
        for name in (ATTEMPT, JOURNAL, CHECKPOINT):
            (folder / name).unlink(missing_ok=True)
        clear_checkpoint(folder / WRITING)

    def clear_finished(self) -> None:
        """Remove files of runs in progress next to their records, after a process was killed in between."""
        for name in self.run_folders():
            if self.steps_done(name) is None or (record := self.read(name)) is None:
                continue
            with self.claim(record.spec) as claimed:
                if claimed:
                    self.write(record)

    def keep_plan(self, plan: Plan) -> None:
        """Store which runs a sweep will do, for `status`: one file for each plan, which never changes."""
        path = self._plans / f"{content_id(plan)}.json"
        if read_record(path, Plan) is None:
            with self.alone():
                write_record(path, plan)

    def plans(self) -> list[Plan]:
        """All plans of the directory, sorted by their ids."""
        paths = [path for path in sorted(self._plans.glob("*.json")) if RUN_ID.fullmatch(path.stem)]
        plans = [read_record(path, Plan) for path in paths]
        return [plan for plan in plans if plan is not None]

    def keep_design(self, design: Design) -> None:
        """Store what a sweep plans, before its first run: one file for each design, which never changes."""
        path = self._designs / f"{design.design_id}.json"
        if read_record(path, Design) is None:
            with self.alone():
                write_record(path, design)

    def designs(self) -> list[Design]:
        """All designs of the directory, sorted by their ids. A file whose name does not fit is none."""
        return designs_in(self._designs)

    def is_damaged(self, run_id: str) -> bool:
        """Whether the file of a record holds none: it is cut, changed, or of a newer version."""
        return (self._runs / run_id / "record.json").exists() and self.read(run_id) is None

    def set_aside_damaged(self, run_id: str) -> Path | None:
        """Rename a damaged record; returns its new path, or None if the run has no damaged record."""
        if not self.is_damaged(run_id):
            return None
        path = self._runs / run_id / "record.json"
        aside = path.with_name("record.damaged.json")
        os.replace(path, aside)
        return aside

    def read(self, run_id: str) -> RunRecord | None:
        """The record of a run; None: there is no whole record."""
        record = read_record(self._runs / run_id / "record.json", RunRecord)
        return record if record is not None and record.spec.run_id == run_id else None

    def finished(self, specs: Iterable[RunSpec]) -> dict[str, RunRecord]:
        """The records of those specs that have one, by run id."""
        records = ((spec.run_id, self.read(spec.run_id)) for spec in specs)
        return {run_id: record for run_id, record in records if record is not None}

    def records(self) -> list[RunRecord]:
        """All whole records of the directory, sorted by run id."""
        return [record for name in self.run_folders() if (record := self.read(name)) is not None]

    def run_folders(self) -> list[str]:
        """Names of all folders of runs, finished or not, sorted. A folder with another name is no run."""
        if not self._runs.is_dir():
            return []
        return sorted(p.name for p in self._runs.iterdir() if RUN_ID.fullmatch(p.name) and p.is_dir())


class SweepStore(Store):
    """A results directory of which only the runs of some sweeps are seen.

    Args:
        specs: the runs of these sweeps.
        records: the records of those that are finished, which are not read again.
        designs: what these sweeps planned.
    """

    def __init__(
        self,
        output_dir: Path,
        specs: Iterable[RunSpec],
        records: Iterable[RunRecord],
        designs: Iterable[Design] = (),
    ):
        super().__init__(output_dir)
        self._of_sweeps = list(designs)
        self.specs = tuple(specs)
        self._records = {record.spec.run_id: record for record in records}

    @property
    def n_others(self) -> int:
        """The number of runs in the directory that belong to other sweeps."""
        return len(set(super().run_folders()) - {spec.run_id for spec in self.specs})

    def records(self) -> list[RunRecord]:
        return [self._records[run_id] for run_id in sorted(self._records)]

    def run_folders(self) -> list[str]:
        return sorted(self._records)

    def designs(self) -> list[Design]:
        return self._of_sweeps

    def plans(self) -> list[Plan]:
        return [Plan(specs=self.specs, work=(1.0,) * len(self.specs))]
