"""`momentum-bench reproduce`: the sweep behind a row of a leaderboard, printed or run again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from momentum_bench.harness.cli.exits import EXIT_DEPARTURES, plain_errors
from momentum_bench.harness.cli.options import option
from momentum_bench.harness.cli.output import print_board, results_in
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.installed import check_can_run
from momentum_bench.harness.messages import note
from momentum_bench.harness.sweeps.make import make_sweep

if TYPE_CHECKING:
    from momentum_bench.leaderboards.rows import Row

from momentum_bench.harness.cli.run import board_of_sweep, terminal_events
from momentum_bench.harness.records.files import is_litter, write_atomically
from momentum_bench.harness.records.store import Store


def reproduce(
    row_id: Annotated[str, typer.Argument(help="A row_id of leaderboard.csv, or how it begins")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The results directory with its runs")],
    run_into: Annotated[
        Path | None, option("Run the sweep into this new directory, and compare", "--run", metavar="DIR")
    ] = None,
    model: Annotated[Path | None, option("With --run: the folder of the row's model", metavar="DIR")] = None,
    data_dir: Annotated[Path | None, option("With --run: as for `run`", metavar="DIR")] = None,
    task_file: Annotated[Path | None, option("With --run: as for `run`", metavar="FILE")] = None,
    optimizer_file: Annotated[list[Path] | None, option("With --run: as for `run`", metavar="FILE")] = None,
    runs_at_a_time: Annotated[str | None, option("With --run: as for `run`", metavar="N|auto")] = None,
) -> None:
    """Print the sweep behind a row as a file for `run --sweep`, with a note of what it needs.

    With --run, run it and compare each run with the row's. The exit code is 1 where a result differs.
    """
    with plain_errors("nothing was changed except in the directory of --run"):
        from momentum_bench.harness.sweeps.confirming import standings_of
        from momentum_bench.leaderboards.archive import store_of
        from momentum_bench.leaderboards.reproduce import row_of, sweep_text
        from momentum_bench.leaderboards.rows import rows_of

        store = store_of(directory)
        store.check_version()
        records = store.records()
        standings = standings_of(store.designs(), records)
        row = row_of(rows_of(records, mix_environments=True, standings=standings), row_id)
        if run_into is None:
            print(sweep_text(row), end="")
            return
        inputs = {"model": model, "data_dir": data_dir, "runs_at_a_time": runs_at_a_time}
        inputs |= {"task_file": task_file}
        given: dict[str, Any] = {name: str(value) for name, value in inputs.items() if value is not None}
        if optimizer_file:
            given["optimizer_file"] = tuple(map(str, optimizer_file))
        same = _run_again(row, given | {"output_dir": str(run_into)})
    if not same:
        raise typer.Exit(EXIT_DEPARTURES)


def _run_again(row: Row, given: Mapping[str, Any]) -> bool:
    """Run a row's sweep into a new directory, and print each difference; returns whether there is none."""
    check_can_run()
    from momentum_bench.harness.execution.plan_sweep import plan_sweep
    from momentum_bench.harness.execution.run_sweep import run_sweep
    from momentum_bench.leaderboards.rendering.files import write_board
    from momentum_bench.leaderboards.reproduce import check_planned, circumstances, differences, sweep_text

    store, text = Store(Path(given["output_dir"])), sweep_text(row)
    kept = store.output_dir / "sweep.toml"
    begun = kept.is_file() and kept.read_text(encoding="utf-8") == text  # it was interrupted, and goes on
    there = store.output_dir.iterdir() if store.output_dir.exists() else ()
    if not begun and not all(is_litter(path.name) for path in there):
        raise UserError(f"--run {store.output_dir} exists and is not empty: name a new directory")
    name = row.runs[0].spec.model
    if name.startswith("local:") and "model" not in given:
        raise UserError(f"the row's model is a folder named {name.removeprefix('local:')}: add --model PATH")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "sweep.toml")
        file.write_text(text, encoding="utf-8")
        sweep = make_sweep(given, file)
    events = terminal_events()
    planned = plan_sweep(sweep, events)
    check_planned(row, planned.specs)
    store.open()
    with store.alone():
        write_atomically(kept, text)
    outcome = run_sweep(planned, events)
    if outcome.builds_board:  # a run that failed is a difference, named below
        write_board(store)
        print_board(board_of_sweep(outcome), results_in(store.output_dir), quiet=False, as_json=False)
    again = store.records()
    found = differences(row, again)
    for line in found:
        print(line)
    around = circumstances(row, again)
    for line in around:
        note(line)
    if found and around:
        note(
            "Another processor or version rounds differently, which training may amplify: compare the means."
        )
    note(f"row {row.row_id}, {len(row.runs)} runs: {len(found) or 'no'} difference(s)")
    return not found
