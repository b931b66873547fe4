"""TODO: what this file holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from momentum_bench.harness import __version__

if TYPE_CHECKING:
    pass


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    app(words)
    sys.exit(0)


def _with_dashes(word: str) -> str:
    """`--learning_rates=1` as `--learning-rates=1`: both spellings are in use in this field."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
