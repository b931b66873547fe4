"""All options of all commands. `python -m tests.helpers.options` writes them into the golden file."""

from __future__ import annotations

import json
from typing import Any

from typer.main import get_command

from momentum_bench.harness.cli.main import app
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "options.json"


def all_commands() -> dict[str, Any]:
    """Each command and group, by the words that call it; "" is the program itself."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = command
        for name, below in getattr(command, "commands", {}).items():
            walk(below, (*words, name))

    walk(get_command(app), ())
    return found


def all_options() -> dict[str, list[str]]:
    """What each command takes: its options by their flags, and its arguments by their names."""
    return {
        name: sorted(flag for parameter in command.params for flag in parameter.opts)
        for name, command in sorted(all_commands().items())
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(all_options(), indent=2) + "\n")
