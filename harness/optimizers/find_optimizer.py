"""Optimizers that a user adds: from a file, or from an installed package's entry point. No torch here.

In specs and tables such an optimizer is called `NAME@VERSION`. VERSION is the first 12 hex digits of the
file's SHA-256, or the version of the package, because other code is another optimizer.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.user_code import executed, line_of, offered, source_of

ENTRY_POINTS = "momentum_bench.optimizers"
"""The entry point group: each name in it leads to an `OptimizerEntry`."""


Load = Callable[[], object]


def find_optimizer(name: str, optimizer_file: Path | None = None) -> tuple[str, OptimizerEntry]:
    """An optimizer by name: one of ours, the one in the user's file, or one that a package offers.

    Args:
        name: with or without `@VERSION`.
        optimizer_file: a Python file that defines `OPTIMIZER`; its stem is the optimizer's name.

    Returns:
        The full name and the entry.

    Raises:
        UserError: the name is unknown, two optimizers have it, the version is another one than asked
            for, or the entry cannot be loaded.
    """
    plain = name.partition("@")[0]
    offers: dict[str, tuple[str, Load]] = {}
    if plain in OPTIMIZERS:
        offers["momentum-bench itself"] = plain, lambda: OPTIMIZERS[plain]
    offers |= _offers_from_outside(plain, optimizer_file)
    if not offers:
        raise UserError(_unknown(plain, optimizer_file))
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
        line = line_of(error, optimizer_file)
        place = f"line {line}: " if line else ""
        raise UserError(f"{origin} cannot be loaded: {place}{first_line(error)}") from error
    if not isinstance(entry, OptimizerEntry):
        raise UserError(
            f"{origin}: expected OPTIMIZER, a momentum_bench.OptimizerEntry; found {type(entry).__name__}"
        )
    return full_name, entry


@lru_cache
def _offers_from_outside(plain: str, optimizer_file: Path | None) -> dict[str, tuple[str, Load]]:
    """Who offers an optimizer of that name: origin -> its full name, and how to load it.

    This is looked up once in a process, so an optimizer stays the same even if the file changes meanwhile.
    """
    offers: dict[str, tuple[str, Load]] = {}
    if optimizer_file and optimizer_file.stem == plain:
        source = _read(optimizer_file)
        version = hashlib.sha256(source).hexdigest()[:12]
        offers[f"--optimizer-file {optimizer_file}"] = (
            f"{plain}@{version}",
            lambda: getattr(executed(optimizer_file, source), "OPTIMIZER", None),
        )
    for point in (point for point in offered(ENTRY_POINTS) if point.name == plain):
        package, version = (point.dist.name, point.dist.version) if point.dist else (point.value, "unknown")
        offers[f"the package {package}"] = f"{plain}@{version}", point.load
    return offers


def _read(path: Path) -> bytes:
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(
            f"--optimizer-file {path}: the name of the file is the name of the optimizer. It must be a word "
            f"of letters, digits and underscores, and end in .py"
        )
    return source_of(path, "--optimizer-file")


def _unknown(name: str, optimizer_file: Path | None) -> str:
    known = [*OPTIMIZERS, *sorted(point.name for point in offered(ENTRY_POINTS))]
    if optimizer_file:
        known.append(optimizer_file.stem)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"--optimizers: unknown optimizer {name!r}. {hint}Known: {', '.join(known)}"
