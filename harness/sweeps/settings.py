"""What a setting is: one declaration, from which option, help and default are made. No torch here.

`Sweep` declares every setting of `run` once, as a field whose type, default and `About` say all there
is to say. `SETTINGS` in `harness.sweeps.request` lists them for the command line and for the manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from momentum_bench.harness.records.schema import RunSpec

WHAT = "What is compared"
METHOD = "Model and method"
GRID = "Learning rates"
VERDICT = "Tuning, confirming and verdict"
TRAINING = "Training (image tasks bring their own defaults)"
HARDWARE = "Hardware"
FILES = "Files"
GROUPS = (WHAT, METHOD, GRID, VERDICT, TRAINING, HARDWARE, FILES)
"""Titles under which settings stand in the help, in this order."""


@dataclass(frozen=True)
class About:
    """What a field's type and default do not say.

    Attributes:
        help: one sentence without a full stop and without the default.
        group: one of `GROUPS`.
        by_protocol: the default of each protocol; None: the field's own default.
        default_text: the default in words, where it is not one value.
        metavar: what stands for the value in the help; None: the type does.
        flag: how it is typed; None: as the name, with dashes.
        repeatable: whether the option may be typed several times, once for each value.
    """

    help: str
    group: str
    by_protocol: Mapping[str, Any] | None = None
    default_text: str | None = None
    metavar: str | None = None
    flag: str | None = None
    repeatable: bool = False


@dataclass(frozen=True)
class Setting:
    """One setting of a sweep.

    Attributes:
        name: of the field of `Sweep`, and the key in a sweep file.
        flag: as it is typed on the command line.
        kind: of the value on the command line; `bool` is a flag without a value, and what is no number
            and no path is text that the sweep reads.
        values: all values, where there is a short list of them.
        default: the value where nothing was asked for; None where it depends on the protocol.
        about: the rest of its declaration.
    """

    name: str
    flag: str
    kind: type[Any]
    values: tuple[str, ...]
    default: Any
    about: About

    @property
    def group(self) -> str:
        """The title under which it stands in the help."""
        return self.about.group

    @property
    def is_of_a_run(self) -> bool:
        """Whether it may change a run's result, and so is part of the run's id."""
        further = {"seeds", "optimizers", "learning_rates", "momentum", "tune", "batch_size_keeps"}
        return self.name in {*RunSpec.model_fields, *further}

    @property
    def default_text(self) -> str:
        """The default in words; empty where nothing is done unless it is asked for."""
        if self.about.default_text is not None:
            return self.about.default_text
        if (defaults := self.about.by_protocol) is not None:
            different = {text_of(value) for value in defaults.values()}
            if len(different) == 1:
                return different.pop()
            return ", ".join(f"{protocol}: {text_of(value)}" for protocol, value in defaults.items())
        return "" if self.default is None else text_of(self.default)

    @property
    def help(self) -> str:
        """One line for the person who types it, with the default."""
        return f"{self.about.help} (default: {self.default_text})" if self.default_text else self.about.help


def text_of(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    """The settings that a model's fields declare, by name: group by group, in the order of the fields."""
    settings = [_setting(name, field) for name, field in model.model_fields.items()]
    settings.sort(key=lambda setting: GROUPS.index(setting.group))
    return {setting.name: setting for setting in settings}


def _setting(name: str, field: FieldInfo) -> Setting:
    [about] = [each for each in field.metadata if isinstance(each, About)]
    flag = about.flag or "--" + name.replace("_", "-")
    default = None if field.is_required() else field.default
    reads_words = any(isinstance(each, BeforeValidator) for each in field.metadata)
    types = _members(field.annotation)
    values = tuple(v for kind in types if get_origin(kind) is Literal for v in get_args(kind))
    kind: type[Any] = str
    if values == (True,):
        kind, values = bool, ()
    elif about.flag:
        kind = bool
    elif not reads_words and len(types) == 1 and types[0] in (int, float, Path):
        kind = types[0]
    return Setting(name, flag, kind, tuple(map(str, values)), default, about)


def _members(annotation: Any) -> list[Any]:
    """The types that a value may have, but for None."""
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [kind for kind in get_args(annotation) if kind is not NoneType]
