"""`momentum-bench noise-floor`: how far repetitions of one run differ. Starts without torch."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.cli.options import option
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import AS_IT_IS, Inputs, at_revision, recorded_reading
from momentum_bench.harness.installed import check_can_run
from momentum_bench.harness.messages import note
from momentum_bench.harness.records.files import disk_errors, write_record
from momentum_bench.harness.records.noise_floor import NoiseFloor, Spread, path_of
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store


def noise_floor(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A results directory with finished runs")],
    run: Annotated[
        str | None, option("Id of a run, or how it begins (default: the first that is done)", metavar="ID")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=2, help="Repetitions as it was asked for, and again with fixed algorithms")
    ] = 5,
    runs_at_a_time: Annotated[int, typer.Option(min=1, help="Repetitions at a time")] = 1,
    model: Annotated[str | None, option("The run's model, if from a folder", metavar="DIR")] = None,
    data_dir: Annotated[Path | None, option("The run's data, if from a folder", metavar="DIR")] = None,
    optimizer_file: Annotated[
        list[Path] | None, option("The run's optimizer, if from a file", metavar="FILE")
    ] = None,
    task_file: Annotated[Path | None, option("The run's task, if from a file", metavar="FILE")] = None,
) -> None:
    """Repeat one run, as it was asked for and with deterministic algorithms, and print what differs.

    A difference between optimizers that is below the spread of a single run says nothing. The result is
    kept in DIR/noise_floor/.
    """
    with plain_errors("nothing was written"):
        check_can_run()
        store = Store(directory)
        store.check_version()
        record = _chosen(store, run)
        spec = record.spec
        if model is None and spec.model.startswith("local:"):
            raise UserError(f"run {spec.run_id} used a model in a folder: add --model DIR")
        if data_dir is None and record.split and record.split.origin.startswith("folder"):
            raise UserError(f"run {spec.run_id} used data in a folder: add --data-dir DIR")
        with disk_errors(directory), store.alone():  # now, because the repetitions may take hours
            tempfile.TemporaryFile(dir=directory).close()

        from momentum_bench.harness.execution.repeats import measure_noise_floor

        note(f"{spec.label}, run {spec.run_id}: {repeats} repetitions in each of two ways")
        asked = model or at_revision(spec.model, spec.model_revision)
        reading = recorded_reading(record.split.origin) if record.split else AS_IT_IS
        files = tuple(optimizer_file or ()) or None
        reading = replace(reading, protocol=spec.protocol, given_k=spec.k if spec.splits else None)
        inputs = Inputs(asked, data_dir, files, task_file, reading=reading)
        found = measure_noise_floor(spec, inputs, repeats, runs_at_a_time)
        with disk_errors(directory), store.alone():
            write_record(path_of(directory, spec), found)
        print(*lines(found), path_of(directory, spec), sep="\n")


def _chosen(store: Store, run_id: str | None) -> RunRecord:
    """The run that is meant. Raises: UserError, where that is no run, or more than one."""
    done = [record for record in store.records() if record.status == "done"]
    if run_id is not None:
        found = [record for record in done if record.spec.run_id.startswith(run_id)]
        if len(found) != 1:
            raise UserError(
                f"--run {run_id}: {len(found)} of the {len(done)} done runs have an id that begins so"
            )
        return found[0]
    if not done:
        raise UserError(f"{store.output_dir} holds no run that is done")
    return done[0]


def lines(found: NoiseFloor) -> list[str]:
    """The result as lines of text, in points (hundredths) of the metric."""
    return [
        f"{found.metric} on {found.device}, spread (largest minus smallest) over repetitions:",
        f"  as asked:      {_spread_text(found.as_asked)}",
        f"  deterministic: {_spread_text(found.deterministic)}",
    ]


def _spread_text(spread: Spread) -> str:
    if spread.failure:
        return f"cannot run: {spread.failure}"
    diverged = len(spread.statuses) - len(spread.test_metrics)
    return (
        f"dev {100 * spread.dev_range:.2f} points, test {100 * spread.test_range:.2f} points, parameters "
        f"{spread.largest_parameter_difference:.3g} (max abs), {spread.n_distinct} different result(s) of "
        f"{spread.n_repeats}" + (f", {diverged} diverged" if diverged else "")
    )
