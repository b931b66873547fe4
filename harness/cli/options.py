"""The options of commands, made from the settings that a sweep declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from momentum_bench.harness.sweeps.request import SETTINGS
from momentum_bench.harness.sweeps.settings import Setting

OUTPUT = "What is done and printed"
"""Title of the options of a command that are no settings of a sweep."""


def option(help_text: str, *flags: str, group: str | None = None, metavar: str | None = None) -> Any:
    """An option whose help text says its default, where it has one."""
    return typer.Option(*flags, help=help_text, show_default=False, rich_help_panel=group, metavar=metavar)


def option_of(name: str, group: str | None = None) -> Any:
    """The option of `run` for a setting, for another command that has it too."""
    setting = SETTINGS[name]
    return typer.Option(
        setting.flag,
        help=setting.help,
        show_default=False,
        rich_help_panel=group,
        metavar=None if setting.kind is bool else setting.about.metavar,
        autocompletion=_completing(setting) if setting.values else None,
    )


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each setting, in the place of its `**given`.

    An option that was not typed is None, because what holds then is for `make_sweep` to say.
    """
    own = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    made = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[setting.kind] | None if setting.about.repeatable else setting.kind | None,  # type: ignore[name-defined]
                option_of(name, setting.group),
            ],
        )
        for name, setting in SETTINGS.items()
    ]
    command.__signature__ = inspect.Signature([*made, *own])  # type: ignore[attr-defined]
    return command


def _completing(setting: Setting) -> Callable[[str], list[str]]:
    """What a shell offers after the option."""
    return lambda incomplete: [value for value in setting.values if value.startswith(incomplete)]
