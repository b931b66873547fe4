"""What makes a study, and the one runner of all studies: from settings to records, tables and a plot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.prepare import prepare
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.machine import usable_cores
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.records.files import read_record, write_atomically, write_record
from momentum_bench.harness.records.schema import RUN_AXES, RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.reporting import csv_text
from momentum_bench.harness.studies.cells import CellRecord, CellSpec
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import image_tasks, make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.request import Sweep, flag_of, listed
from momentum_bench.harness.training.session import Session

Cell = TypeVar("Cell", bound=CellSpec)
Record = TypeVar("Record", bound=CellRecord)


class Table(NamedTuple):
    """A table of a study. It has its columns even if no cell gave it a row."""

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]


Tables = Mapping[str, Table]
"""The tables, by the end of its file's name: of the study `noise`, "" is noise.csv and
"_degrees" is noise_degrees.csv."""

Tell = Callable[[str], object]
"""Is given one line at a time about a study that runs: its data, its model, its size, each finished cell."""

FIXED: dict[str, Any] = {
    "optimizers": ("sgd",),
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "dropout": 0.0,
    "precision": "fp32",
}
"""The models that a study couples differ in their optimizer alone; `closeness.py` says why. fp32, because
the rounding of bf16 would be a part of every distance."""


@dataclass(frozen=True)
class PlannedStudy:
    """A study's checked settings, and the runs of plain SGD that its cells are made from.

    Attributes:
        settings: a preset's, with what the user gave in their place.
        models_at_a_time: how many models may compute at the same time; None: as many as there are cores.
    """

    settings: Mapping[str, Any]
    sweep: Sweep
    data: TaskData
    specs: Sequence[RunSpec]
    models_at_a_time: int | None

    @property
    def momentum(self) -> float:
        """beta of SGDM; `study_sweep` refuses several values."""
        assert isinstance(self.sweep.momentum, float)
        return self.sweep.momentum


@dataclass(frozen=True)
class StudyOutcome(Generic[Record]):
    """What is there when `run_study` returns.

    Attributes:
        records: of all cells, in their order.
        report: the lines to read: the numbers, what they show, and what the theory expects.
        files: the tables and the plot that were written.
    """

    records: Sequence[Record]
    report: Sequence[str]
    files: Sequence[Path]


@dataclass(frozen=True)
class Study(Generic[Cell, Record]):
    """All that makes one study different from the others.

    Attributes:
        name: of its folder and its files.
        presets: its settings, by the preset's name. `rates` are the effective rates for each method.
        readers: turn a setting that may be typed as words ("0,0.5,0.9") into its values. They raise
            UserError.
        make_cells: raises UserError where the settings do not go together.
        run_cell: gets a cell, the session, and how many models may compute at the same time.
        record: the type that `run_cell` returns.
        tables: from the records of all cells.
        plot: the SVG text of a figure, from the records of all cells.
        report: the lines to read, from the records of all cells.
    """

    name: str
    presets: Mapping[str, Mapping[str, Any]]
    readers: Mapping[str, Callable[[Any], Any]]
    make_cells: Callable[[PlannedStudy], Sequence[Cell]]
    run_cell: Callable[[Cell, Session, int], Record]
    record: type[Record]
    tables: Callable[[Sequence[Record]], Tables]
    plot: Callable[[Sequence[Record]], str]
    report: Callable[[Sequence[Record]], Sequence[str]]

    def settings(self, preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """A preset's settings with what was given in their place. A task file replaces the preset's task.

        Raises:
            UserError: there is no such preset, or a setting cannot be read.
        """
        if preset not in self.presets:
            raise UserError(f"--preset {preset}: expected {' or '.join(self.presets)}")
        settings = {**self.presets[preset], **given}
        if "task_file" in given and "task" not in given:
            settings.pop("task", None)
        read = {name: reader(settings[name]) for name, reader in self.readers.items() if name in settings}
        return settings | read


def run_study(
    study: Study[Cell, Record], settings: Mapping[str, Any], tell: Tell = lambda line: None
) -> StudyOutcome[Record]:
    """Run the cells that have no record yet, and write the tables and the plot of all cells.

    Args:
        settings: as `study.settings` returns them.

    Raises:
        UserError: the settings, the data or the model cannot be used, or the results directory cannot be
            written. Finished cells are kept.
    """
    planned = _planned(settings, tell)
    cells = study.make_cells(planned)
    records = finish_cells(study, cells, planned, tell)
    files = write_results(study.name, planned.sweep.output_dir, study.tables(records), study.plot(records))
    return StudyOutcome(records, study.report(records), files)


def _planned(settings: Mapping[str, Any], tell: Tell) -> PlannedStudy:
    """The runs of plain SGD that follow from the settings. Nothing is written."""
    models_at_a_time = settings.get("runs_at_a_time")
    sweep = study_sweep({name: value for name, value in settings.items() if name != "runs_at_a_time"})
    data = load_task_data(find_task(sweep.task[0], sweep.task_file), sweep.data_dir, reading=sweep.reading)
    tell(f"{data.task.name}: {len(data.train)} train rows, {data.origin}")
    source = resolve_model(sweep.model, sweep.task_file)
    tell(f"{source.name}: revision {source.revision}")
    specs = plan(sweep, [data], source.name, source.revision)
    return PlannedStudy(settings, sweep, data, specs, models_at_a_time)


def study_sweep(settings: Mapping[str, Any]) -> Sweep:
    """The runs of plain SGD that a study couples others to, as a sweep.

    Raises:
        UserError: a setting that no sweep accepts, several tasks, or several ranks.
    """
    flags = {name: value for name, value in settings.items() if name in Sweep.model_fields} | FIXED
    flags |= {"max_steps": settings["steps"], "eval_every": 1}
    for name in (*RUN_AXES, "momentum"):
        values = listed(settings.get(name)) or ()
        if len(values) > 1:
            given = ",".join(map(str, values))
            raise UserError(f"{flag_of(name)} {given}: a study tunes nothing, so give one value")
    if images := image_tasks(settings):
        raise UserError(f"--task {images[0].name}: this is a task of images, and studies take tasks of text")
    method = make_sweep(flags, None).method
    if method not in settings["rates"]:
        raise UserError(f"--method {method}: a study trains its models by {' or '.join(settings['rates'])}")
    sweep = make_sweep({"learning_rates": settings["rates"][method]} | flags, None)
    if len(sweep.task) > 1:
        raise UserError(f"--task {','.join(sweep.task)}: a study takes one task at a time")
    check_launcher(sweep)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a study couples its models in one process: start it without a launcher")
    return sweep


def finish_cells(
    study: Study[Cell, Record], cells: Sequence[Cell], planned: PlannedStudy, tell: Tell
) -> list[Record]:
    """The records of all cells. Cells that have none yet are run, and their records are written."""
    sweep = planned.sweep
    store = Store(sweep.output_dir)
    store.open()
    paths = {
        cell.cell_id: _folder(sweep.output_dir) / study.name / cell.cell_id / "record.json" for cell in cells
    }

    def stored(cell: Cell) -> Record | None:
        record = read_record(paths[cell.cell_id], study.record)
        return record if record is not None and record.spec == cell else None

    done = {cell.cell_id: record for cell in cells if (record := stored(cell)) is not None}
    todo = [cell for cell in cells if cell.cell_id not in done]
    tell(f"{len(cells)} cells, {len(done)} of them already there")
    if todo:
        inputs = Inputs(sweep.model, sweep.data_dir, task_file=sweep.task_file, reading=sweep.reading)
        session = prepare(
            [cell.sgd for cell in todo],
            inputs,
            sweep.precision,
            allow_unknown=bool(sweep.allow_unknown_tokens),
        )
        on_cpu = session.accelerator.device.type == "cpu"
        by_hardware = max(1, usable_cores() // sweep.threads_per_run) if on_cpu else 1
        for number, cell in enumerate(todo, 1):
            record = study.run_cell(cell, session, planned.models_at_a_time or by_hardware)
            with store.alone():
                write_record(paths[cell.cell_id], record)
            done[cell.cell_id] = record
            tell(f"[{number}/{len(todo)}] {cell.label}: {record.failure or f'{record.run_seconds:.1f} s'}")
    return [done[cell.cell_id] for cell in cells]


def write_results(name: str, output_dir: Path, tables: Tables, svg: str) -> list[Path]:
    """Write a study's tables and its plot into DIR/studies, and return their paths."""
    contents = {
        f"{name}{suffix}.csv": csv_text(table.rows, table.columns) for suffix, table in tables.items()
    }
    contents[f"{name}.svg"] = svg
    paths = [_folder(output_dir) / file for file in contents]
    # A sweep of the same directory removes what killed processes left half written: it must not do so now.
    with Store(output_dir).alone():
        for path, text in zip(paths, contents.values(), strict=True):
            write_atomically(path, text)
    return paths


def _folder(output_dir: Path) -> Path:
    return output_dir / "studies"
