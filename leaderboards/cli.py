"""The command line of the leaderboard: `momentum-bench leaderboard build`. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from harness.errors import UserError
from harness.exits import note, plain_errors

RESULTS = ("leaderboard.csv", "comparison.csv", "index.html")
"""The files that a command names when it is done; others lie beside them."""

app = typer.Typer(no_args_is_help=True, help="Tables, verdicts and a page from finished runs.")


@app.callback()
def _about() -> None:
    """Keep `build` a command of its own name: typer folds a lone command into its parent."""


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


def _build(runs: list[Path], out: Path | None, margin: float, table: str | None) -> None:
    import gc

    from harness.store import Store
    from leaderboards import display, paper
    from leaderboards.build import build as build_board
    from leaderboards.outputs import write

    if not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a fraction between 0 and 1; 0.01 is one point")
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
