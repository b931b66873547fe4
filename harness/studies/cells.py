"""What the cells of all studies have in common: specs, records, and running those that are missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from momentum_bench.harness.execution.capacity import usable_cores
from momentum_bench.harness.execution.prepare import prepare
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.messages import note
from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.files import read_record, write_atomically, write_record
from momentum_bench.harness.records.schema import RunSpec, Split, Stored, content_id
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.reporting import csv_text
from momentum_bench.harness.studies.arms import Arm, ArmFacts
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.harness.training.session import EncodedSplit, Session


class CellSpec(Stored):
    """One cell of a study: models that train side by side.

    Attributes:
        sgd: the SGD arm, as a run.
    """

    sgd: RunSpec

    @property
    def cell_id(self) -> str:
        """The name of its folder, which follows every field."""
        return content_id(self)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.sgd.label


class CellRecord(Stored):
    """A finished cell. `diverged`: a loss was not finite, and what was measured ends before that step."""

    spec: CellSpec
    status: Literal["done", "diverged"]
    failure: str | None
    arms: tuple[ArmFacts, ...]
    split: Split
    run_seconds: float
    environment: dict[str, str]


Record = TypeVar("Record", bound=CellRecord)


def even_steps(n_steps: int, n_times: int) -> tuple[int, ...]:
    """`n_times` steps (from 1), evenly spaced, the last of them `n_steps`."""
    return tuple(round(i * n_steps / n_times) for i in range(1, n_times + 1))


def outcome(
    arms: Sequence[Arm], split: EncodedSplit, failures: Sequence[str], started: float
) -> dict[str, Any]:
    """The fields of a `CellRecord`, of a cell that began at `started` by `time.perf_counter`."""
    return {
        "status": "diverged" if failures else "done",
        "failure": "; ".join(failures) or None,
        "arms": tuple(arm.facts() for arm in arms),
        "split": split.facts,
        "run_seconds": time.perf_counter() - started,
        "environment": environment(),
    }


def finish_cells(
    name: str,
    cells: Sequence[Any],
    kind: type[Record],
    run: Callable[[Any, Session, int], Record],
    sweep: Sweep,
) -> list[Record]:
    """The records of all cells of the study `name`; those that are not there yet are run and written.

    Raises:
        UserError: the results directory cannot be used, or a cell cannot be built.
    """
    store = Store(sweep.output_dir)
    store.open()
    folder = _folder(sweep) / name

    def stored(cell: Any) -> Any:
        record = read_record(folder / cell.cell_id / "record.json", kind)
        return record if record is not None and record.spec == cell else None

    todo = [cell for cell in cells if stored(cell) is None]
    note(f"{len(cells)} cells, {len(cells) - len(todo)} of them already there")
    if todo:
        inputs = Inputs(sweep.model, sweep.data_dir, task_file=sweep.task_file)
        session = prepare([cell.sgd for cell in todo], inputs, sweep.precision)
        on_cpu = session.accelerator.device.type == "cpu"
        workers = max(1, usable_cores() // sweep.threads_per_run) if on_cpu else 1
        if isinstance(sweep.runs_at_a_time, int):
            workers = sweep.runs_at_a_time
        for number, cell in enumerate(todo, 1):
            record = run(cell, session, workers)
            with store.alone():
                write_record(folder / cell.cell_id / "record.json", record)
            note(f"[{number}/{len(todo)}] {cell.label}: {record.failure or f'{record.run_seconds:.1f} s'}")
    return [stored(cell) for cell in cells]


def write_results(
    name: str, sweep: Sweep, tables: Mapping[str, Sequence[Mapping[str, Any]]], svg: str
) -> str:
    """Write a study's tables, as `nameSUFFIX.csv` by their suffixes, and its plot; returns their paths."""
    contents = {f"{name}{suffix}.csv": csv_text(rows) for suffix, rows in tables.items()}
    contents |= {f"{name}.svg": svg}
    paths = [_folder(sweep) / file for file in contents]
    with Store(sweep.output_dir).alone():
        for path, text in zip(paths, contents.values(), strict=True):
            write_atomically(path, text)
    return ", ".join(map(str, paths))


def _folder(sweep: Sweep) -> Path:
    return sweep.output_dir / "studies"
