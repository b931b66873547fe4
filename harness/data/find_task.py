"""Tasks that a user adds: from a file, or from an installed package's entry point. No torch here.

A spec holds a task's name and its version, a digest of its facts, so an edited file is noticed.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ValidationError

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.user_code import executed, line_of, offered, source_of
from momentum_bench.tasks import SUITES, Task, get_task, task_names, unknown_task
from momentum_bench.tasks import task as task_module
from momentum_bench.tasks.image_task import AnyTask

ENTRY_POINTS = "momentum_bench.tasks"
"""The entry point group: each name in it is a task's, and leads to that `Task`."""


def find_task(name: str, task_file: Path | None = None) -> AnyTask:
    """A task by name: one of ours, the one in the user's file, or one that an installed package offers.

    Args:
        task_file: a Python file that defines `TASK`.

    Raises:
        UnknownTaskError: there is none; the message says which names come close.
        UserError: one name for two tasks, or a task that cannot be loaded.
    """
    offers: dict[str, Callable[[], AnyTask]] = {}
    if name in task_names():
        offers["momentum-bench itself"] = lambda: get_task(name)
    if task_file and (own := task_of(task_file)).name == name:
        offers[f"--task-file {task_file}"] = lambda: own
        if name in SUITES:
            offers["momentum-bench itself, for a suite"] = lambda: own
    for point in (point for point in offered(ENTRY_POINTS) if point.name == name):
        offers[f"the package {_package(point)}"] = lambda point=point: _loaded(point)  # type: ignore[misc]
    if not offers:
        raise unknown_task(name, further_names(task_file))
    if len(offers) > 1:
        raise UserError(
            f"the task name {name} is taken more than once, by {' and by '.join(offers)}. "
            f"Change the name in the file, or uninstall the package"
        )
    [load] = offers.values()
    return load()


def further_names(task_file: Path | None = None) -> list[str]:
    """Names of the tasks that are not ours, sorted; no package is imported."""
    names = {point.name for point in offered(ENTRY_POINTS)}
    return sorted(names | {task_of(task_file).name} if task_file else names)


@lru_cache
def task_of(path: Path) -> Task:
    """The `TASK` of a user's file.

    Read once in a process, so a task stays what it was found to be, whatever becomes of the file.

    Raises:
        UserError: the file cannot be read or run, or its `TASK` is missing or wrong; with the line.
    """
    if path.suffix != ".py":
        raise UserError(f"--task-file {path}: expected a Python file, whose name ends in .py")
    source = source_of(path, "--task-file")
    try:
        tree = ast.parse(source, str(path))
        _refuse_imports(tree, path)
        task = getattr(executed(path, source), "TASK", None)
    except ValidationError as error:
        lines = "\n".join(_mistakes(error, tree, line_of(error, path)))
        raise UserError(f"--task-file {path}:\n{lines}") from error
    except UserError:
        raise
    except Exception as error:
        line = line_of(error, path)
        place = f", line {line}" if line else ""
        raise UserError(f"--task-file {path}{place}: {first_line(error)}") from error
    if not isinstance(task, Task):
        found = "no TASK" if task is None else f"a TASK that is a {type(task).__name__}"
        raise UserError(
            f"--task-file {path}: expected TASK = Task(...), a momentum_bench.Task; found {found}"
        )
    return task


def _refuse_imports(tree: ast.Module, path: Path) -> None:
    """Raises: UserError, when a file imports anything but the public face: a task is data."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        for module in names if isinstance(node, ast.Import) else [node.module or "."]:
            if module not in ("momentum_bench", "__future__"):
                raise UserError(
                    f"--task-file {path}, line {node.lineno}: imports {module}. A task is data: processes "
                    f"that load neither torch nor any model read it, and nothing in it may depend on one. "
                    f"Delete the line; `from momentum_bench import Task` is all that a task file needs"
                )


def _mistakes(error: ValidationError, tree: ast.Module, line: int | None) -> list[str]:
    """What is wrong with the fields, one line each, with the place and the nearest right name."""
    kind: type[BaseModel] = getattr(task_module, error.title, Task)
    places = {word.arg: word.lineno for word in ast.walk(tree) if isinstance(word, ast.keyword)}
    lines, meant = [], set()
    for mistake in error.errors():
        field = str(mistake["loc"][0]) if mistake["loc"] else ""
        if mistake["type"] == "extra_forbidden":
            close = difflib.get_close_matches(field, kind.model_fields, n=1)
            meant |= set(close)
            hint = f"Did you mean {close[0]}?" if close else f"The fields are {', '.join(kind.model_fields)}"
            message = f"{error.title} has no field {field!r}. {hint}"
        elif mistake["type"] == "missing":
            message = f"{error.title} needs the field {field}, which is not there"
        else:
            text = mistake["msg"].removeprefix("Value error, ")
            found = f" (found {mistake['input']!r})" if field and mistake["type"] != "value_error" else ""
            message = f"{field}: {text}{found}" if field else text
        if not (mistake["type"] == "missing" and field in meant):
            lines.append((places.get(field, line), message))
    return [f"line {place}: {message}" if place else message for place, message in lines]


@lru_cache
def _loaded(point: metadata.EntryPoint) -> Task:
    """The task behind an entry point.

    Raises:
        UserError: it cannot be loaded, is no task, bears another name, or brings torch along.
    """
    origin, had_torch = f"the package {_package(point)}", "torch" in sys.modules
    try:
        task = point.load()
    except Exception as error:
        raise UserError(f"{origin}: its task {point.name} cannot be loaded: {first_line(error)}") from error
    if not isinstance(task, Task):
        raise UserError(
            f"{origin}: its entry point {point.name} leads to a {type(task).__name__}, "
            f"expected a momentum_bench.Task"
        )
    if task.name != point.name:
        raise UserError(
            f"{origin} offers a task under the name {point.name} that calls itself {task.name}: use one name"
        )
    if "torch" in sys.modules and not had_torch:
        raise UserError(
            f"{origin}: {point.value} imports torch. A task is data, and processes that never load torch "
            f"read it: keep it in a module of its own"
        )
    return task


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
