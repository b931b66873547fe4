"""How an arm of a comparison is written: an optimizer's name, and the settings that it has in this arm.

`sgdm:momentum=0.99` is one arm and `sgdm` another. `torch.optim.AdamW:betas=0.9/0.95:amsgrad=true` names a
class by its path. `torch.optim.Muon+adamw` gives the hidden matrices to the first and the rest to the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import on_axis, setting_text

WORDS = {"true": True, "false": False, "none": None}
"""Values that are words of their own; every other value is a number or a text."""

FROM_OPTIONS = {"lr": "--learning-rates", "weight_decay": "--weight-decay"}
"""Settings that the whole sweep shares, and the option that has each of them."""

HOW_TO_TUNE = "write --tune NAME:SETTING=VALUE,VALUE, for example --tune adamw:beta1=0,0.9"

HOW = "write NAME:SETTING=VALUE:SETTING=VALUE, for example torch.optim.AdamW:betas=0.9/0.95"


@dataclass(frozen=True)
class ArmText:
    """An arm as it was written.

    Attributes:
        name: the optimizer, with its partner (`+`) and its version (`@`), if these were given.
        settings: the values after the colons, by name.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def optimizer(self) -> str:
        """The name without version and partner."""
        return re.split(r"[@+]", self.name)[0]

    @property
    def partner(self) -> str | None:
        """The optimizer that gets what the first one does not take, if one was named."""
        return self.name.partition("@")[0].partition("+")[2] or None

    @property
    def is_class(self) -> bool:
        """Whether the optimizer is named as a class, by its path."""
        return "." in self.optimizer


def parse_arm(text: str) -> ArmText:
    """The parts of an arm.

    Raises:
        UserError: the text is not a name and settings.
    """
    name, *pairs = text.split(":")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not (key.isidentifier() and equals and value.strip()):
            raise UserError(f"--optimizers {text}: {pair!r} is no setting: {HOW}")
        if key in settings:
            raise UserError(f"--optimizers {text}: {key} is given more than once")
        if key in FROM_OPTIONS:
            raise UserError(f"--optimizers {text}: {key} is shared by all arms: give {FROM_OPTIONS[key]}")
        settings[key] = _value(value.strip())
    return ArmText(name.strip(), settings)


@dataclass(frozen=True)
class AxisText:
    """A list of values of an optimizer's setting, as it was written.

    Attributes:
        optimizer: its name or the path of its class; all arms of this optimizer are meant.
        values: ascending, of one kind.
    """

    optimizer: str
    setting: str
    values: tuple[Any, ...]


def parse_axis(text: str) -> AxisText:
    """The parts of `NAME:SETTING=VALUE,VALUE`.

    Raises:
        UserError: the text is not that, or its values cannot be one axis.
    """
    name, colon, pair = text.partition(":")
    setting, equals, values = (part.strip() for part in pair.partition("="))
    if not (name.strip() and colon and setting.isidentifier() and equals):
        raise UserError(f"--tune {text}: expected an optimizer, a setting and its values: {HOW_TO_TUNE}")
    if setting in FROM_OPTIONS:
        raise UserError(f"--tune {text}: {setting} is shared by all arms: give {FROM_OPTIONS[setting]}")
    if not all(words := [word.strip() for word in values.split(",")]):
        raise UserError(f"--tune {text}: a value is empty: {HOW_TO_TUNE}")
    found = [
        on_axis(setting, value) if _kind(value := _value(word)) == "a number" else value for word in words
    ]
    if twice := [word for word, value in zip(words, found, strict=True) if found.count(value) > 1]:
        raise UserError(f"--tune {text}: {twice[0]} is given more than once")
    if len(found) == 1:
        raise UserError(f"--tune {text}: one value tunes nothing: write {name}:{pair} in --optimizers")
    if len(kinds := sorted(set(map(_kind, found)))) > 1:
        raise UserError(f"--tune {text}: the values are of several kinds: {', '.join(kinds)}")
    return AxisText(name.strip(), setting, tuple(sorted(found)))


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a list of {len(value)}: {', '.join(map(_kind, value))}"
    if value is None or isinstance(value, bool):
        return "none" if value is None else "a truth value"
    return "a text" if isinstance(value, str) else "a number"


def _value(text: str) -> Any:
    """A setting's value: a truth value, none, a number, several of these with `/` between them, or a text."""
    if "/" in text:
        return tuple(_value(part) for part in text.split("/"))
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # JSON has no such numbers, so a record could not hold them
        if value in (float("inf"), float("-inf")) or value != value:
            raise UserError(f"--optimizers: the setting {text} is not a finite number")
        return value
    return text


def arm_text(name: str, settings: Mapping[str, Any]) -> str:
    """The one text of an arm: its settings stand in the order of their names."""
    return ":".join([name, *(f"{key}={setting_text(settings[key])}" for key in sorted(settings))])


def spec_name(arm: str) -> str:
    """The optimizer of an arm as specs and tables call it: without settings, which are hyperparameters."""
    return arm.partition(":")[0]
