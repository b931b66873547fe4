"""The command line: all commands, and how the program starts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from momentum_bench.harness import __version__
from momentum_bench.harness.cli import tasks
from momentum_bench.harness.cli.exits import writable_stdout
from momentum_bench.harness.cli.leaderboard import app as leaderboard_app
from momentum_bench.harness.cli.noise_floor import noise_floor
from momentum_bench.harness.cli.reproduce import reproduce
from momentum_bench.harness.cli.run import run
from momentum_bench.harness.cli.status import status
from momentum_bench.harness.cli.study import app as study_app

if TYPE_CHECKING:
    pass


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
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


@app.callback()
def _about() -> None:
    """Does momentum help when a pre-trained language model is fine-tuned on few examples?"""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line: exit code 0 when done, 1 when a run failed, 2 on wrong usage."""
    words = [_with_dashes(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    with writable_stdout():
        app(words)
    sys.exit(0)


def _with_dashes(word: str) -> str:
    """`--learning_rates=1` as `--learning-rates=1`: both spellings are in use in this field."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
