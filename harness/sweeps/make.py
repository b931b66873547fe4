"""A sweep made of flags, a sweep file and defaults."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from momentum_bench.harness.data.find_task import task_of
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.sweeps import image_defaults
from momentum_bench.harness.sweeps.defaults import DEFAULTS, EMBEDDED_TASK, QUICK_START
from momentum_bench.harness.sweeps.grids import check_entry
from momentum_bench.harness.sweeps.protocols import PROTOCOLS
from momentum_bench.harness.sweeps.request import Sweep, listed
from momentum_bench.tasks import get_task, task_names
from momentum_bench.tasks.image_task import ImageTask


def make_sweep(flags: Mapping[str, Any], sweep_file: Path | None) -> Sweep:
    """Settings in force: flags over the sweep file over the quick start over the protocol.

    Args:
        flags: those that were given on the command line.

    Raises:
        UserError: an unknown name, a value out of range, or values that contradict each other.
    """
    _check_names(flags, "")
    asked = (_read_file(sweep_file) if sweep_file else {}) | dict(flags)
    protocol = asked.get("protocol", DEFAULTS["protocol"])
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol {protocol}: expected {' or '.join(PROTOCOLS)}")
    images = image_tasks(asked)
    if protocol == "from-scratch" and not images:
        raise UserError("--protocol from-scratch is that of image tasks (see `tasks list`): name one")
    if isinstance(file := asked.get("task_file"), str | Path) and "task" not in asked:
        asked["task"] = (task_of(Path(file)).name,)
    embedded = listed(asked.get("task", EMBEDDED_TASK)) == [EMBEDDED_TASK]
    settings = DEFAULTS | PROTOCOLS[protocol] | (QUICK_START if embedded else {}) | asked
    if images:
        if len(listed(asked["task"])) > 1:
            raise UserError(
                f"--task: {images[0].name} has a network and steps of its own: give it a sweep to itself"
            )
        own = image_defaults.settings(images[0], asked)
        for name in ("method", "model"):
            if asked.get(name, own[name]) != own[name]:
                raise UserError(
                    f"{images[0].name} is learnt from scratch by a network of its own: "
                    f"leave out --{name} {asked[name]}"
                )
        settings |= own | asked
    try:
        sweep = Sweep.model_validate(settings)
    except ValidationError as error:
        raise UserError("\n".join(map(_in_words, error.errors()))) from None
    for name in sweep.optimizers:
        check_entry(sweep, name)
    return sweep


def image_tasks(asked: Mapping[str, Any]) -> list[ImageTask]:
    """Those of the tasks that are asked for which are of images."""
    names = [name for name in listed(asked.get("task")) or () if name in task_names()]
    return [task for name in names if isinstance(task := get_task(name), ImageTask)]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--sweep {path}: {error}") from error
    content = {key.replace("-", "_"): value for key, value in content.items()}
    _check_names(content, f"--sweep {path}: ")
    return content


def _check_names(names: Iterable[str], place: str) -> None:
    """Raises: UserError, where a name is no setting; its message begins with `place`."""
    if unknown := sorted(set(names) - set(Sweep.model_fields)):
        close = difflib.get_close_matches(unknown[0], Sweep.model_fields, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"{place}unknown name {unknown[0]!r}.{hint}")


def _in_words(error: Any) -> str:
    flag = "--" + str(error["loc"][0]).replace("_", "-") + ": " if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    found = f" (found {error['input']!r})" if not message.endswith(str(error["input"])) else ""
    return f"{flag}{message}{found if error['type'] != 'value_error' else ''}"
