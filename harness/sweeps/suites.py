"""Suites of tasks, and which of their tasks a sweep leaves out. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.hub import source_of
from momentum_bench.harness.data.load import missing_data
from momentum_bench.harness.data.splits import (
    draw_split,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.tasks import SUITES


def expand_suites(sweep: Sweep) -> tuple[Sweep, list[str]]:
    """The sweep with its suites replaced by their tasks, and a message for each task that is left out.

    A suite leaves out tasks without data, and tasks that cannot be learnt by the method. A task that is
    named by itself is never left out.

    Raises:
        UserError: nothing is left, or a task that is named cannot be learnt by the method.
    """
    tasks: dict[str, None] = {}
    left_out: dict[str, str] = {}
    for word in sweep.task:
        for name in SUITES.get(word, (word,)):
            missing = _misfit(sweep, name)
            if missing and name in sweep.task:
                raise UserError(missing)
            if name not in sweep.task:
                missing = missing or missing_data(find_task(name, sweep.task_file), sweep.data_dir)
            if missing:
                left_out[name] = f"{word}: {name} is left out: {missing}"
            else:
                tasks[name] = None
    if not tasks:
        raise UserError(f"no task of {', '.join(sweep.task)} has data. {next(iter(left_out.values()))}")
    _check_revision(sweep, list(tasks))
    return sweep.model_copy(update={"task": tuple(tasks)}), list(left_out.values())


def _check_revision(sweep: Sweep, tasks: Sequence[str]) -> None:
    """Raises: UserError, if one revision is asked for of several data sets, or of one that has none."""
    if sweep.data_revision is None:
        return
    ids = {}
    for name in tasks:
        source = source_of(find_task(name, sweep.task_file), sweep.reading)
        ids[name] = getattr(source, "id", None)
    if len(set(ids.values())) > 1:
        found = ", ".join(f"{name} from {id}" for name, id in ids.items())
        raise UserError(
            f"--data-revision {sweep.data_revision}: a revision belongs to one data set, and these tasks "
            f"have several ({found}): give each a sweep of its own"
        )


def _misfit(sweep: Sweep, name: str) -> str | None:
    """Why a task cannot be learnt by the sweep's method; None: it can."""
    methods = find_task(name, sweep.task_file).methods
    if sweep.method in methods:
        return None
    return f"--method {sweep.method} does not fit {name}, which has {' and '.join(methods)}"


def without_short_tasks(
    sweep: Sweep, data: Sequence[TaskData], named: Sequence[str]
) -> tuple[Sweep, list[TaskData], list[str]]:
    """The sweep and its data without the suites' tasks that have too few rows, and a message for each.

    Args:
        named: what the user asked for. A task that is named by itself is never left out.

    Raises:
        UserError: a task that is named has too few rows, or nothing is left.
    """
    kept: list[TaskData] = []
    left_out: list[str] = []
    for rows in data:
        try:
            for seed in sweep.grid_seeds:
                draw_split(rows, sweep.k, seed, sweep.protocol)
            kept.append(rows)
        except UserError as error:
            if rows.task.name in named:
                raise
            left_out.append(f"{rows.task.name} is left out: {error}")
    if not kept:
        raise UserError(f"no task of {', '.join(named)} has enough rows. {left_out[0]}")
    return sweep.model_copy(update={"task": tuple(r.task.name for r in kept)}), kept, left_out
