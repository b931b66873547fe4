"""A sweep made from flags, a sweep file and defaults."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from momentum_bench.harness.data.find_task import find_task, further_names, task_of
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.arms import spec_name
from momentum_bench.harness.optimizers.find_optimizer import check_axis
from momentum_bench.harness.records.schema import canonical_json
from momentum_bench.harness.sweeps import image_defaults
from momentum_bench.harness.sweeps.defaults import CONFIRMED_QUICK_START, DEFAULTS, QUICK_START
from momentum_bench.harness.sweeps.grids import axes, check_entry, entry_of, hyperparameters, points
from momentum_bench.harness.sweeps.protocols import PROTOCOLS
from momentum_bench.harness.sweeps.request import (
    ELSEWHERE,
    EMBEDDED_TASK,
    SETTINGS,
    Sweep,
    flag_of,
    listed,
    renamed,
)
from momentum_bench.harness.sweeps.rules import check_rules, typed
from momentum_bench.tasks import SUITES, task_names
from momentum_bench.tasks.types import ImageTask


def make_sweep(flags: Mapping[str, Any], sweep_file: Path | None) -> Sweep:
    """The checked sweep. A flag overrides the sweep file, which overrides the defaults.

    The defaults of the quick start override those of the protocol.

    Args:
        flags: the settings that were given, by their names; text is read as on the command line.

    Raises:
        UserError: an unknown name, a value out of range, or values that do not go together.
    """
    _check_names(flags, "")
    asked = (_read_file(sweep_file) if sweep_file else {}) | dict(flags)
    protocol = asked.get("protocol", DEFAULTS["protocol"])
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise UserError(f"--protocol {protocol}: expected {' or '.join(PROTOCOLS)}")
    _take_names_of_files(asked)
    images = image_tasks(asked)
    if protocol == "from-scratch" and not images:
        raise UserError("--protocol from-scratch is for image tasks (see `tasks list`): add --task NAME")
    embedded = listed(asked.get("task", EMBEDDED_TASK)) == [EMBEDDED_TASK]
    settings = DEFAULTS | PROTOCOLS[protocol] | (_quick_start(asked) if embedded else {})
    settings |= asked
    if images:
        if len(listed(asked["task"])) > 1:
            raise UserError(
                f"--task {','.join(listed(asked['task']))}: {images[0].name} has its own network and its own "
                f"number of steps, so give it a sweep of its own"
            )
        own = image_defaults.settings(images[0], asked)
        for name in ("method", "model"):
            if asked.get(name, own[name]) != own[name]:
                raise UserError(
                    f"--{name} {asked[name]} does not go with --task {images[0].name}: this task trains "
                    f"its own network from scratch. Leave out --{name}."
                )
        settings |= own | asked
    try:
        sweep = Sweep.model_validate(settings)
    except ValidationError as error:
        raise UserError("\n".join(map(_sentence, error.errors()))) from None
    check_rules(sweep)
    for text in sweep.tune or ():
        check_axis(text, sweep.optimizers, sweep.optimizer_file)
    for name in sweep.optimizers:
        check_entry(sweep, name)
    _check_arms(sweep)
    return sweep


def _quick_start(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the embedded task.

    Whoever names optimizers, or seeds on which the whole grid runs, has a design in mind that is not its own.
    """
    confirms = asked.keys() & {"tune_seeds", "confirm_seeds", "until_decided"}
    if "optimizers" in asked or ("seeds" in asked and not confirms) or asked.get("max_steps") in (0, "0"):
        return QUICK_START
    design = QUICK_START | CONFIRMED_QUICK_START
    # until it is decided, the last look is the maximum
    return design | ({"confirm_seeds": None} if "until_decided" in asked else {})


def _take_names_of_files(asked: dict[str, Any]) -> None:
    """Let files name the task and the optimizers where no name was asked for."""
    if isinstance(file := asked.get("task_file"), str | Path) and "task" not in asked:
        asked["task"] = (task_of(Path(file)).name,)
    files = listed(asked.get("optimizer_file")) or []
    for file in files:
        if not isinstance(file, str | Path):
            raise UserError(f"--optimizer-file: expected the path of a file, found {file!r}")
    asked["optimizer_file"] = tuple(Path(file) for file in files) or None
    if files and "optimizers" not in asked:
        asked["optimizers"] = tuple(Path(file).stem for file in files)


def _check_arms(sweep: Sweep) -> None:
    """Raises: UserError, where two arms are the same, or one does not take the sweep's weight decay."""
    seen: dict[tuple[str, str], str] = {}
    for arm in sweep.optimizers:
        of_arm = [hyperparameters(sweep, arm), list(axes(sweep, arm))]
        same = seen.setdefault((spec_name(arm), canonical_json(of_arm)), arm)
        if same != arm:
            raise UserError(f"--optimizers: {same} and {arm} are the same arm here: leave out one of them")
        if sweep.weight_decay and not entry_of(sweep, arm).takes_weight_decay:
            raise UserError(
                f"{typed(sweep, 'weight_decay')}: {arm} takes no weight decay: leave out one of them"
            )
    if sweep.trials is not None:
        for task in sweep.task:
            for arm in () if task in SUITES else sweep.optimizers:
                points(sweep, task, arm)  # raises where a grid has fewer points
    for name in sweep.axes:
        if not any(name in axes(sweep, arm) for arm in sweep.optimizers):
            raise UserError(
                f"{typed(sweep, name)}: none of {','.join(sweep.optimizers)} takes it from this option: "
                f"add one that does, for example sgdm, or give one value"
            )


def image_tasks(asked: Mapping[str, Any]) -> list[ImageTask]:
    """The image tasks among the tasks of a sweep: ours, those of packages, and the one in `task_file`.

    A name that is no task is left for the checks of `Sweep`, which explain it.
    """
    file = asked.get("task_file")
    path = Path(file) if isinstance(file, str | Path) else None
    known = {*task_names(), *further_names(path)}
    names = [name for name in listed(asked.get("task")) or () if isinstance(name, str) and name in known]
    return [task for name in names if isinstance(task := find_task(name, path), ImageTask)]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--sweep {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--sweep {path}: {error}") from error
    content = {key.replace("-", "_"): value for key, value in content.items()}
    _check_names(content, f"--sweep {path}: ")
    return content


def _check_names(names: Iterable[str], place: str) -> None:
    """Raises: UserError, where a name is no setting; its message begins with `place`."""
    if unknown := sorted(set(names) - set(SETTINGS)):
        if now := renamed(unknown[0]):
            raise UserError(f"{place}{now}")
        ours = ELSEWHERE.get(unknown[0])
        close = [ours] if ours else difflib.get_close_matches(unknown[0], SETTINGS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"{place}unknown name {unknown[0]!r}.{hint}")


def _sentence(error: Any) -> str:
    """What pydantic found wrong with one setting."""
    flag = flag_of(str(error["loc"][0])) + ": " if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    found = f" (found {error['input']!r})" if not message.endswith(str(error["input"])) else ""
    return f"{flag}{message}{found if error['type'] != 'value_error' else ''}"
