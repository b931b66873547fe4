"""The command line's `noise-floor`. Starts without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.messages import note
from momentum_bench.harness.records.files import write_record
from momentum_bench.harness.records.noise_floor import NoiseFloor, Spread, path_of
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store


def noise_floor(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A results directory with finished runs")],
    run: Annotated[
        str | None, typer.Option(help="Id of a run, or how it begins [the first done]", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Repetitions in each way")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Repetitions at a time")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Folder of the run's model, where it came from one", show_default=False)
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run's data, where it came from one", show_default=False)
    ] = None,
    optimizer_file: Annotated[
        Path | None, typer.Option(help="The run's optimizer, where it came from a file", show_default=False)
    ] = None,
    task_file: Annotated[
        Path | None, typer.Option(help="The run's task, where it came from a file", show_default=False)
    ] = None,
) -> None:
    """Repeat one run, as it was asked for and with deterministic algorithms, and print what differs.

    A difference between optimizers below the spread of one and the same run says nothing. The result is
    kept in DIR/noise_floor/.
    """
    with plain_errors("nothing was written"):
        store = Store(directory)
        store.check_version()
        record = _chosen(store, run)
        spec = record.spec
        if model is None and spec.model.startswith("local:"):
            raise UserError(f"run {spec.run_id} is of a model in a folder: give it by --model PATH")
        if data_dir is None and record.split and record.split.origin == "folder":
            raise UserError(f"run {spec.run_id} is of data in a folder: give it by --data-dir DIR")
        from momentum_bench.harness.execution.repeats import measure_noise_floor

        note(f"{spec.label}, run {spec.run_id}: {repeats} repetitions in each of two ways")
        inputs = Inputs(model or spec.model, data_dir, optimizer_file, task_file)
        found = measure_noise_floor(spec, inputs, repeats, workers)
        with store.alone():
            write_record(path_of(directory, spec), found)
    for line in lines(found):
        print(line)
    print(path_of(directory, spec))


def _chosen(store: Store, run_id: str | None) -> RunRecord:
    """Raises: UserError, where no run, or more than one, is meant."""
    done = [record for record in store.records() if record.status == "done"]
    if run_id is not None:
        found = [record for record in done if record.spec.run_id.startswith(run_id)]
        if len(found) != 1:
            raise UserError(f"--run {run_id}: {len(found)} of the {len(done)} done runs have such an id")
        return found[0]
    if not done:
        raise UserError(f"{store.output_dir} holds no run that is done")
    return done[0]


def lines(found: NoiseFloor) -> list[str]:
    """What a person reads, in points where the metric is a fraction."""
    return [
        f"{found.metric} on {found.device}, spread (largest minus smallest) over repetitions:",
        f"  as asked:      {_in_words(found.as_asked)}",
        f"  deterministic: {_in_words(found.deterministic)}",
    ]


def _in_words(spread: Spread) -> str:
    if spread.failure:
        return f"cannot run: {spread.failure}"
    diverged = len(spread.statuses) - len(spread.test_metrics)
    return (
        f"dev {100 * spread.dev_range:.2f} points, test {100 * spread.test_range:.2f} points, parameters "
        f"{spread.largest_parameter_difference:.3g} (max abs), {spread.n_distinct} different result(s) of "
        f"{spread.n_repeats}" + (f", {diverged} diverged" if diverged else "")
    )
