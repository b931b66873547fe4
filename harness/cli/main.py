"""The command line: all commands, and how the program starts."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from momentum_bench.harness import __version__
from momentum_bench.harness.cli import tasks
from momentum_bench.harness.cli.exits import EXIT_USAGE, writable_stdout
from momentum_bench.harness.cli.leaderboard import app as leaderboard_app
from momentum_bench.harness.cli.noise_floor import noise_floor
from momentum_bench.harness.cli.reproduce import reproduce
from momentum_bench.harness.cli.run import run
from momentum_bench.harness.cli.status import status
from momentum_bench.harness.cli.study import app as study_app
from momentum_bench.harness.messages import note
from momentum_bench.harness.sweeps.request import called_elsewhere, renamed

ORDER_OF_USE = ("run", "status", "leaderboard", "reproduce", "tasks", "study", "noise-floor")
"""The order of the commands in the help."""


class _InOrderOfUse(TyperGroup):
    """Typer lists groups of commands before single commands; here it is the order of use."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return sorted(self.commands, key=ORDER_OF_USE.index)


app = typer.Typer(
    cls=_InOrderOfUse,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(status)
app.add_typer(leaderboard_app, name="leaderboard")
app.command()(reproduce)
app.add_typer(tasks.app, name="tasks")
app.add_typer(study_app, name="study")
app.command("noise-floor")(noise_floor)


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version, and stop", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Does momentum help when a pre-trained language model is fine-tuned on few examples?"""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line.

    Exit codes: 0 when all is done, 1 when a run failed or something differs, 2 on wrong usage, 130 on Ctrl-C.
    """
    words = [_with_dashes(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    for word in words:
        if now := renamed(_name_of(word), as_typed=True):
            note(f"error: {now}")
            sys.exit(EXIT_USAGE)
        if words[0] == "run" and (ours := called_elsewhere(_name_of(word))):
            note(f"error: {ours}")
            sys.exit(EXIT_USAGE)
    with writable_stdout():
        app(words, prog_name="momentum-bench")
    sys.exit(0)


def _with_dashes(word: str) -> str:
    """`--learning_rates=1` as `--learning-rates=1`: both spellings are in use in this field."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _name_of(word: str) -> str:
    """The setting that an option is of; empty where the word is no option."""
    return word.partition("=")[0][2:].replace("-", "_") if word.startswith("--") else ""
