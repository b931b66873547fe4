"""The command line of the leaderboard: `momentum-bench leaderboard build` and `check`. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from harness.errors import UserError
from harness.exits import EXIT_DEPARTURES, note, plain_errors

RESULTS = ("leaderboard.csv", "comparison.csv", "index.html")
"""The files that a command names when it is done; others lie beside them."""

app = typer.Typer(no_args_is_help=True, help="Tables, verdicts and a page from finished runs.")


@app.command()
def build(
    runs: Annotated[list[Path], typer.Argument(help="Results directories of one or more sweeps")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where tables, page and plots go [nothing is written]", show_default=False),
    ] = None,
    margin: Annotated[float, typer.Option(help="Equivalence margin, a fraction: 0.01 is a point")] = 0.01,
    table: Annotated[
        Literal["latex", "markdown"] | None,
        typer.Option("--format", help="Print the rows as a table for a paper", show_default=False),
    ] = None,
) -> None:
    """Build the leaderboard of finished runs, and show it."""
    with plain_errors("no file was written half"):
        _build(runs, out, margin, table)


@app.command()
def check(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that holds runs/ and the tables built from it")
    ],
    margin: Annotated[float, typer.Option(help="Equivalence margin the tables were built with")] = 0.01,
) -> None:
    """Compute a leaderboard anew from its records and name all that does not fit.

    Each record is checked by itself (whole, in its own folder, metric, choice of the checkpoint, what ran
    against what was asked), then grids, then every cell of the tables. Exit code 1 where anything is
    found.
    """
    with plain_errors("nothing was changed"):
        from leaderboards.checking import departures

        _check_margin(margin)
        found = departures(directory, margin)
    for line in found:
        print(line)
    note(f"{directory}: {len(found) or 'no'} departure(s) found")
    if found:
        raise typer.Exit(EXIT_DEPARTURES)


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a fraction between 0 and 1; 0.01 is one point")


def _build(runs: list[Path], out: Path | None, margin: float, table: str | None) -> None:
    import gc

    from harness.store import Store
    from leaderboards import display, paper
    from leaderboards.build import build as build_board
    from leaderboards.outputs import write

    _check_margin(margin)
    stores = [Store(folder) for folder in dict.fromkeys(folder.resolve() for folder in runs)]
    for store in stores:
        store.check_version()
    gc.disable()  # all records live until the end; walking 10,000 of them again and again takes seconds
    board = build_board(*stores, margin=margin)
    if not board.rows:
        raise UserError(f"no finished run in {', '.join(map(str, runs))}: let a sweep end first")
    if out is not None:
        write(board, out)
        note("wrote " + ", ".join(str(out / name) for name in RESULTS))
    if table:
        print({"latex": paper.latex, "markdown": paper.markdown}[table](board), end="")
    else:
        display.show(board, Console())
