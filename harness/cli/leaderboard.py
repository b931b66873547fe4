"""The command line of the leaderboard: `momentum-bench leaderboard build`, `check`, `publish`. No torch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer
from rich.console import Console

from momentum_bench.harness.cli.exits import EXIT_DEPARTURES, plain_errors
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note

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
        Literal["latex", "markdown", "model-index"] | None,
        typer.Option("--format", help="Print the rows for a paper or a model card", show_default=False),
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Plots as PNG files too, beside SVG")] = False,
    archive: Annotated[
        bool, typer.Option("--archive", help="All records beside the tables, in one small file")
    ] = False,
) -> None:
    """Build the leaderboard of finished runs, and show it."""
    with plain_errors("no file was written half"):
        _build(runs, out, margin, table, png, archive)


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
        from momentum_bench.leaderboards.checking.check import departures

        _check_margin(margin)
        found = departures(directory, margin)
    for line in found:
        print(line)
    note(f"{directory}: {len(found) or 'no'} departure(s) found")
    if found:
        raise typer.Exit(EXIT_DEPARTURES)


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A results directory without gaps")],
    to: Annotated[str, typer.Option(help="hf://datasets/USER/NAME, or a folder in a git clone")],
    branch: Annotated[str, typer.Option(help="In a git clone: the branch of the commit")] = "leaderboard",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace published runs of the same id whose result differs")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and stop")] = False,
) -> None:
    """Add runs to a published leaderboard, and build its tables and page anew, in one commit.

    Nobody's run is removed, and a commit that another publisher makes meanwhile is built upon. What does
    not pass `leaderboard check` is not published. The hub's token comes from HF_TOKEN or `hf auth login`.
    """
    with plain_errors("nothing was published"):
        _publish(directory, to, branch, replace, dry_run)


def _publish(directory: Path, to: str, branch: str, replace: bool, dry_run: bool) -> None:
    from momentum_bench.leaderboards.publishing.merge import check_own

    check_own(directory)
    if on_hub := to.startswith("hf:"):
        from momentum_bench.leaderboards.publishing.hub_target import publish_to_hub, repository

        changes = publish_to_hub(directory, repository(to), replace, dry_run)
    else:
        from momentum_bench.leaderboards.publishing.git_target import publish_to_git

        changes = publish_to_git(directory, Path(to), branch, replace, dry_run)
    for line in changes.rows:
        print(line)
    if not (changes.added or changes.replaced):
        note(f"{to}: all runs are there already; nothing changes")
    elif dry_run:
        note(f"{to}: {len(changes.added)} run(s) would be added, {len(changes.replaced)} replaced")
    else:
        note(f"{to}: {len(changes.added)} run(s) added, {len(changes.replaced)} replaced")
        if not on_hub:
            words = f"git -C {quote(to)} push origin {quote(branch)}"
            note(f"on branch {branch}; {words}, then open a pull request")


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a fraction between 0 and 1; 0.01 is one point")


def _build(
    runs: list[Path], out: Path | None, margin: float, table: str | None, png: bool, archive: bool
) -> None:
    import gc

    from momentum_bench.harness.records.files import disk_errors
    from momentum_bench.harness.records.store import Store
    from momentum_bench.leaderboards.archive import store_of
    from momentum_bench.leaderboards.build import build as build_board
    from momentum_bench.leaderboards.rendering import model_card, paper_table, terminal
    from momentum_bench.leaderboards.rendering.files import write

    _check_margin(margin)
    gc.disable()  # all records live until the end; walking 10,000 of them again and again takes seconds
    stores = [store_of(folder) for folder in dict.fromkeys(folder.resolve() for folder in runs)]
    for store in stores:
        store.check_version()
    board = build_board(*stores, margin=margin)
    if not board.rows:
        raise UserError(f"no finished run in {', '.join(map(str, runs))}: let a sweep end first")
    if out is not None:
        there = Store(out)
        # a sweep of that directory that ends meanwhile writes the same files
        with disk_errors(out), there.alone() if there.exists else nullcontext():
            write(board, out, png, archive)
        note("wrote " + ", ".join(str(out / name) for name in RESULTS))
    if table:
        formats = {
            "latex": paper_table.latex,
            "markdown": paper_table.markdown,
            "model-index": model_card.model_index,
        }
        print(formats[table](board), end="")
    else:
        terminal.print_board(board, Console())
