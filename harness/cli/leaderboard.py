"""`momentum-bench leaderboard build`, `check` and `publish`. No torch here."""

from __future__ import annotations

import gc
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from momentum_bench.harness.cli.exits import EXIT_DEPARTURES, EXIT_NOT_WHOLE, plain_errors
from momentum_bench.harness.cli.options import option
from momentum_bench.harness.cli.output import (
    json_option,
    print_board,
    quiet_option,
    results_in,
    say_left_out,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note

if TYPE_CHECKING:
    from momentum_bench.leaderboards.build import Leaderboard

Mixing = Annotated[
    bool,
    option(
        "Allow rows and pairs whose runs differ in device, torch, precision or version",
        "--mix-environments",
    ),
]

app = typer.Typer(no_args_is_help=True, help="Tables, verdicts and a page from finished runs.")


@app.command("build")
def build_leaderboard(
    directories: Annotated[
        list[Path], typer.Argument(metavar="RUNS", help="Results directories of one or more sweeps")
    ],
    out: Annotated[
        Path | None, option("Folder for tables, page and plots (default: nothing is written)", metavar="DIR")
    ] = None,
    margin: Annotated[
        float | None,
        option(
            "Another margin of equivalence than the sweep's: 0.01 is one point; each verdict then says so",
            metavar="X",
        ),
    ] = None,
    mix_environments: Mixing = False,
    table: Annotated[
        Literal["latex", "markdown", "model-index"] | None,
        option(
            "Print the rows for a paper or a model card: latex, markdown or model-index",
            "--format",
            metavar="NAME",
        ),
    ] = None,
    png: Annotated[bool, option("With --out: write the plots as PNG files too", "--png")] = False,
    archive: Annotated[
        bool,
        option(
            "With --out: write all records next to the tables, in one small file "
            "(done anyway where DIR has no runs)",
            "--archive",
        ),
    ] = False,
    quiet: Annotated[bool, quiet_option("the paths of the files of --out")] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Build the leaderboard of finished runs, and show it.

    The exit code is 1 where the board is not whole: a run failed or is missing, or seeds, rows or pairs do
    not count. The notes below the tables name them.
    """
    with plain_errors("no file was half written"):
        from momentum_bench.leaderboards.archive import store_of
        from momentum_bench.leaderboards.build import build
        from momentum_bench.leaderboards.rendering.files import save

        _check_margin(margin)
        if table and as_json:
            raise UserError(
                f"--format {table} does not go with --json: both say how rows are printed. "
                f"Leave out one of them."
            )
        if out is None and (png or archive):
            flag = "--png" if png else "--archive"
            raise UserError(f"{flag} writes files: add --out DIR, or leave {flag} out")
        gc.disable()  # all records live until the end; walking 10,000 of them again and again takes seconds
        stores = [store_of(folder) for folder in dict.fromkeys(folder.resolve() for folder in directories)]
        for store in stores:
            store.check_version()
        board = build(*stores, margin=margin, mix_environments=mix_environments)
        if not board.rows:
            names = ", ".join(map(str, directories))
            raise UserError(f"no finished run in {names}: let a sweep end first")
        if out is not None:
            save(board, out, png, archive)
        files = [] if out is None else results_in(out)
        if table:
            if files and not quiet:
                note("wrote " + ", ".join(map(str, files)))
            print(_formatted(board, table), end="")
        else:
            print_board(board, files, quiet, as_json)
    say_left_out(board)
    if board.left_out:
        raise typer.Exit(EXIT_NOT_WHOLE)


@app.command("check")
def check_leaderboard(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that holds runs/ and the tables built from it")
    ],
    margin: Annotated[
        float | None,
        option("Margin of equivalence of the tables, where it is not the sweep's", metavar="X"),
    ] = None,
    mix_environments: Annotated[
        bool, option("The tables were built with --mix-environments", "--mix-environments")
    ] = False,
) -> None:
    """Compute a leaderboard again from its records, and name all that does not fit.

    Each record is checked by itself: it is whole and in its own folder, its metric and its chosen
    checkpoint are right, and what ran is what was asked for. Then the grids, the designs and every cell of
    the tables are checked. The exit code is 1 where anything is found. A line that begins with "note" is no
    departure: it names a design that is not finished, or a table of an earlier form.
    """
    with plain_errors("nothing was changed"):
        from momentum_bench.leaderboards.checking.check import check

        _check_margin(margin)
        checked = check(directory, margin, mix_environments)
        for line in checked.departures:
            print(line)
        for line in checked.notes:
            note(f"note: {line}")
        note(f"{directory}: {len(checked.departures) or 'no'} departure(s) found")
    if checked.departures:
        raise typer.Exit(EXIT_DEPARTURES)


@app.command("publish")
def publish_leaderboard(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A results directory without gaps")],
    to: Annotated[str, typer.Option(help="hf://datasets/USER/NAME, or a folder in a git clone")],
    branch: Annotated[str, typer.Option(help="In a git clone: the branch of the commit")] = "leaderboard",
    replace: Annotated[
        bool,
        option("Replace published runs that have the same id but another result", "--replace"),
    ] = False,
    dry_run: Annotated[bool, option("Say what would change, and stop", "--dry-run")] = False,
) -> None:
    """Add runs to a published leaderboard, and build its tables and page again, in one commit.

    Nobody's run is removed. If another publisher makes a commit meanwhile, this one is built on it. Runs
    that do not pass `leaderboard check` are not published. The hub's token comes from HF_TOKEN or from
    `hf auth login`.
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


def _check_margin(margin: float | None) -> None:
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a fraction between 0 and 1; 0.01 is one point")


def _formatted(board: Leaderboard, table: str) -> str:
    """The rows as text for a paper or a model card."""
    from momentum_bench.leaderboards.rendering import model_card, paper_table

    formats = {
        "latex": paper_table.latex,
        "markdown": paper_table.markdown,
        "model-index": model_card.model_index,
    }
    return formats[table](board)
