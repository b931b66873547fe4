"""Optimizers by name: ours, those that a user adds, and classes by their paths.

A user adds them in files, or by the entry point of an installed package. torch is loaded only for classes,
and for settings that an optimizer itself must check.

In specs and tables such an optimizer is called `NAME@VERSION`. VERSION is the first 12 hex digits of the
file's SHA-256, or the version of the package, because other code is another optimizer. So it is with a
class: `torch.optim.NAdam@2.13.0`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.optimizers import optimizer_class
from momentum_bench.harness.optimizers.arms import ArmText, AxisText, arm_text, parse_arm, parse_axis
from momentum_bench.harness.optimizers.entry import (
    FROM_THE_SWEEP,
    MATRICES,
    Hyperparameters,
    OptimizerEntry,
)
from momentum_bench.harness.optimizers.registry import FROM_LIBRARIES, OPTIMIZERS
from momentum_bench.harness.records.schema import setting_text
from momentum_bench.harness.user_code import executed, line_of, offered, source_of

ENTRY_POINTS = "momentum_bench.optimizers"
"""The entry point group: each name in it leads to an `OptimizerEntry`."""

PARTNER = "adamw"
"""The partner of a class that takes matrices alone, where none was named: everybody runs Muon so."""


Load = Callable[[], object]


def find_optimizer(
    arm: str,
    optimizer_files: Sequence[Path] | None = None,
    hyperparameters: Hyperparameters | None = None,
) -> tuple[str, OptimizerEntry]:
    """An optimizer by name: one of ours, one in a file of the user, one that a package offers, or a class.

    Args:
        arm: `NAME[@VERSION][:SETTING=VALUE...]`, or in place of NAME a class, `PACKAGE.CLASS[+PARTNER]`.
        optimizer_files: Python files that define `OPTIMIZER`; the stem of each is the optimizer's name.
        hyperparameters: those of a run. A class is built with them, because it may need some of them.

    Returns:
        The full name with the settings, and the entry, which has the settings as constants.

    Raises:
        UserError: the name is unknown, two optimizers have it, the version is another one than asked
            for, the entry cannot be loaded, or a setting is none that the optimizer has.
    """
    written = _of_library(parse_arm(arm), _tuple(optimizer_files))
    if written.is_class:
        settings = written.settings if hyperparameters is None else hyperparameters
        return _class(written.name, tuple(sorted(settings.items())), _tuple(optimizer_files))
    if written.partner:
        raise UserError(
            f"--optimizers {arm}: only a class that is named by its path takes a partner, for example "
            f"torch.optim.Muon+adamw"
        )
    full_name, entry = _described(written.name, _tuple(optimizer_files))
    return arm_text(full_name, written.settings), with_settings(full_name, entry, written.settings)


def arms_with(axis: AxisText, arms: Sequence[str], files: Sequence[Path] | None = None) -> list[str]:
    """Those of some arms that have the optimizer of an axis and leave its setting open.

    Args:
        arms: as `find_optimizer` names them.
    """
    wanted = _optimizer_of(axis, files)
    written = {arm: parse_arm(arm) for arm in arms}
    return [
        arm for arm, each in written.items() if each.optimizer == wanted and axis.setting not in each.settings
    ]


def check_axis(text: str, arms: Sequence[str], files: Sequence[Path] | None = None) -> None:
    """Raises: UserError, where no arm has the axis, or an arm does not take one of its values."""
    axis = parse_axis(text)
    found = arms_with(axis, arms, files)
    if not found:
        is_there = _optimizer_of(axis, files) in {parse_arm(arm).optimizer for arm in arms}
        why = "has this setting already in" if is_there else "is not among"
        raise UserError(
            f"--tune {text}: {axis.optimizer} {why} "
            f"--optimizers {','.join(arms)}: name it there without the setting"
        )
    for written in map(parse_arm, found):
        for value in axis.values:
            find_optimizer(arm_text(written.name, {**written.settings, axis.setting: value}), files)


def _optimizer_of(axis: AxisText, files: Sequence[Path] | None) -> str:
    return _of_library(parse_arm(axis.optimizer), _tuple(files)).optimizer


def _of_library(written: ArmText, files: tuple[Path, ...]) -> ArmText:
    """The arm, with the class in place of its short name.

    A file of the user, or an optimizer that a package offers, counts first if it has this name.

    Raises:
        UserError: the package that has the class is not installed.
    """
    name = written.optimizer
    path = FROM_LIBRARIES.get(name)
    if path is None or name in {*names_of_packages(), *(file.stem for file in files)}:
        return written
    package = path.partition(".")[0]
    if find_spec(package) is None:
        raise UserError(
            f"--optimizers {name}: it is {path}, and {package} is not installed: "
            f"pip install 'momentum-bench[optimizers]'"
        )
    return ArmText(path + written.name.removeprefix(name), written.settings)


def _tuple(files: Sequence[Path] | None) -> tuple[Path, ...]:
    return tuple(files or ())


@lru_cache
def _class(
    name: str, settings: tuple[tuple[str, Any], ...], files: tuple[Path, ...]
) -> tuple[str, OptimizerEntry]:
    """A class as an optimizer. It is tried once in a process."""
    used = dict(settings)
    written = ArmText(name, used)
    path, partner = written.optimizer, written.partner
    if partner is None and optimizer_class.needs_partner(path, used):
        partner = PARTNER
    versions = [optimizer_class.package_of(path)[1]]
    other = None
    if partner is not None:
        full, entry = find_optimizer(partner, files)
        partner, _, version = full.partition("@")
        versions += [version] if version else []
        if entry.hyperparameters or entry.closure or entry.by_role:
            raise UserError(
                f"--optimizers {name}: {partner} cannot be a partner, because it needs a momentum, a closure "
                f"or a partner of its own: use adamw"
            )
        other = entry
    full_name = f"{'+'.join([path, partner] if partner else [path])}@{'+'.join(versions)}"
    asked = name.partition("@")[2]
    if asked and asked != full_name.partition("@")[2]:
        raise UserError(
            f"optimizer {name} was asked for, and {full_name} is installed: it changed. Install the version "
            f"that was asked for, or start the sweep again"
        )
    return arm_text(full_name, used), optimizer_class.entry_of_class(path, used, other)


def with_settings(name: str, entry: OptimizerEntry, settings: Hyperparameters) -> OptimizerEntry:
    """The entry with some hyperparameters set.

    Raises:
        UserError: the entry has no such hyperparameter, or the optimizer does not take the value.
    """
    if not settings:
        return entry
    known = (*entry.hyperparameters, *entry.constants)
    for key, value in settings.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            has = f"It has {', '.join(known)}" if known else "It has no settings"
            raise UserError(f"--optimizers {name}: there is no setting {key}. {hint}{has}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"--optimizers {name}:{key}={setting_text(value)}: expected a number")
        if key in FROM_THE_SWEEP and not 0 <= value < 1:
            raise UserError(f"--optimizers {name}:{key}={value}: expected at least 0 and below 1")
    left = tuple(key for key in entry.hyperparameters if key not in settings)
    constants = {**entry.constants, **{key: float(value) for key, value in settings.items()}}
    entry = replace(entry, hyperparameters=left, constants=constants)
    if set(settings) - set(FROM_THE_SWEEP):  # only the optimizer itself knows which values it takes
        _try_to_build(name, entry, entry.all_hyperparameters(momentum=0.5))
    return entry


def _try_to_build(name: str, entry: OptimizerEntry, hyperparameters: Hyperparameters) -> None:
    import torch

    groups: list[dict[str, Any]] = [
        {"params": [torch.nn.Parameter(torch.zeros(2, 2))], "weight_decay": 0.0, "role": MATRICES}
    ]
    try:
        entry.build(groups, entry.torch_rate(hyperparameters), hyperparameters, 0)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--optimizers {name}: it does not take these settings: {first_line(error)}"
        ) from error


def _described(name: str, optimizer_files: tuple[Path, ...]) -> tuple[str, OptimizerEntry]:
    """An optimizer with an entry, by its name with or without version."""
    plain = name.partition("@")[0]
    offers: dict[str, tuple[str, Load]] = {}
    if plain in OPTIMIZERS:
        offers["momentum-bench itself"] = plain, lambda: OPTIMIZERS[plain]
    offers |= _offers_from_outside(plain, optimizer_files)
    if not offers:
        raise UserError(_unknown(plain, optimizer_files))
    if len(offers) > 1:
        raise UserError(
            f"--optimizers {plain}: the name is taken more than once, by {' and by '.join(offers)}. "
            f"Rename the file, or uninstall the package"
        )
    [(origin, (full_name, load))] = offers.items()
    if name not in (plain, full_name):
        raise UserError(
            f"optimizer {name} was asked for, and {origin} now holds {full_name}: it changed. "
            f"Start the sweep again"
        )
    try:
        entry = load()
    except Exception as error:
        lines = [line for file in optimizer_files if (line := line_of(error, file))]
        place = f"line {lines[0]}: " if lines else ""
        raise UserError(f"{origin} cannot be loaded: {place}{first_line(error)}") from error
    if not isinstance(entry, OptimizerEntry):
        raise UserError(
            f"{origin}: expected OPTIMIZER, a momentum_bench.OptimizerEntry; found {type(entry).__name__}"
        )
    return full_name, entry


@lru_cache
def _offers_from_outside(plain: str, optimizer_files: tuple[Path, ...]) -> dict[str, tuple[str, Load]]:
    """Who offers an optimizer of that name: origin -> its full name, and how to load it.

    This is looked up once in a process, so an optimizer stays the same even if the file changes meanwhile.
    """
    offers: dict[str, tuple[str, Load]] = {}
    for file in (file for file in optimizer_files if file.stem == plain):
        source = _read(file)
        version = hashlib.sha256(source).hexdigest()[:12]
        offers[f"--optimizer-file {file}"] = f"{plain}@{version}", partial(_defined, file, source)
    for point in (point for point in offered(ENTRY_POINTS) if point.name == plain):
        package, version = (point.dist.name, point.dist.version) if point.dist else (point.value, "unknown")
        offers[f"the package {package}"] = f"{plain}@{version}", point.load
    return offers


def _defined(file: Path, source: bytes) -> object:
    return getattr(executed(file, source), "OPTIMIZER", None)


def _read(path: Path) -> bytes:
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(
            f"--optimizer-file {path}: the name of the file is the name of the optimizer. It must be a word "
            f"of letters, digits and underscores, and end in .py"
        )
    return source_of(path, "--optimizer-file")


def names_of_packages() -> list[str]:
    """Names of the optimizers that installed packages offer."""
    return sorted({point.name for point in offered(ENTRY_POINTS)})


def _unknown(name: str, optimizer_files: Sequence[Path]) -> str:
    known = [*OPTIMIZERS, *FROM_LIBRARIES, *names_of_packages()]
    known += [file.stem for file in optimizer_files]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return (
        f"--optimizers: unknown optimizer {name!r}. {hint}Known: {', '.join(known)}; and any class by its "
        f"path, for example torch.optim.NAdam"
    )
