"""Tasks that a user adds: from a file, or from an installed package's entry point. No torch here.

A spec holds the name of a task and its version, a digest of its facts. So an edited file is noticed.
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
from momentum_bench.tasks import SUITES, get_task, task_names, types, unknown_task
from momentum_bench.tasks.types import AnyTask, ImageTask, Task

ENTRY_POINTS = "momentum_bench.tasks"
"""The entry point group: each name in it is the name of a task, and leads to that `Task` or `ImageTask`."""


def find_task(name: str, task_file: Path | None = None) -> AnyTask:
    """A task by name: one of ours, the one in the user's file, or one that an installed package offers.

    Args:
        task_file: a Python file that defines `TASK`.

    Raises:
        UnknownTaskError: there is none; the message lists close names.
        UserError: two tasks have this name, or the task cannot be loaded.
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
    """Names of the tasks that are not in `tasks/`, sorted; no package is imported."""
    names = {point.name for point in offered(ENTRY_POINTS)}
    return sorted(names | {task_of(task_file).name} if task_file else names)


@lru_cache
def task_of(path: Path) -> AnyTask:
    """The `TASK` of a user's file.

    The file is read once in a process, so a task stays the same even if the file changes meanwhile.

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
    if not isinstance(task, Task | ImageTask):
        found = "no TASK" if task is None else f"a TASK of the type {type(task).__name__}"
        raise UserError(
            f"--task-file {path}: expected TASK = Task(...) or TASK = ImageTask(...), both from "
            f"momentum_bench; found {found}"
        )
    return task


def _refuse_imports(tree: ast.Module, path: Path) -> None:
    """Raises: UserError, when a file imports anything but `momentum_bench`, because a task is data."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        for module in names if isinstance(node, ast.Import) else [node.module or "."]:
            if module not in ("momentum_bench", "__future__"):
                raise UserError(
                    f"--task-file {path}, line {node.lineno}: imports {module}. A task is data: processes "
                    f"without torch and without a model read it too. Delete the line; a task file needs "
                    f"only `from momentum_bench import Task` (or ImageTask)"
                )


def _mistakes(error: ValidationError, tree: ast.Module, line: int | None) -> list[str]:
    """What is wrong with the fields, one line each, with the line in the file and the nearest right name."""
    kind: type[BaseModel] = getattr(types, error.title, Task)
    places = {word.arg: word.lineno for word in ast.walk(tree) if isinstance(word, ast.keyword)}
    extra = [str(mistake["loc"][0]) for mistake in error.errors() if mistake["type"] == "extra_forbidden"]
    close_to = {field: difflib.get_close_matches(field, kind.model_fields, n=1) for field in extra}
    lines = []
    for mistake in error.errors():
        field = str(mistake["loc"][0]) if mistake["loc"] else ""
        if mistake["type"] == "extra_forbidden":
            close = close_to[field]
            hint = f"Did you mean {close[0]}?" if close else f"The fields are {', '.join(kind.model_fields)}"
            message = f"{error.title} has no field {field!r}. {hint}"
        elif mistake["type"] == "missing":
            message = f"{error.title} needs the field {field}, which is missing"
        else:
            text = mistake["msg"].removeprefix("Value error, ")
            found = f" (found {mistake['input']!r})" if field and mistake["type"] != "value_error" else ""
            message = f"{field}: {text}{found}" if field else text
        if not (mistake["type"] == "missing" and [field] in close_to.values()):
            lines.append((places.get(field, line), message))
    return [f"line {place}: {message}" if place else message for place, message in lines]


@lru_cache
def _loaded(point: metadata.EntryPoint) -> AnyTask:
    """The task behind an entry point.

    Raises:
        UserError: it cannot be loaded, is no task, has another name, or its module imports torch.
    """
    origin, had_torch = f"the package {_package(point)}", "torch" in sys.modules
    try:
        task = point.load()
    except Exception as error:
        raise UserError(f"{origin}: its task {point.name} cannot be loaded: {first_line(error)}") from error
    if not isinstance(task, Task | ImageTask):
        raise UserError(
            f"{origin}: its entry point {point.name} leads to a {type(task).__name__}, "
            f"expected a momentum_bench.Task or ImageTask"
        )
    if task.name != point.name:
        raise UserError(
            f"{origin} offers under the name {point.name} a task whose name is {task.name}: use one name"
        )
    if "torch" in sys.modules and not had_torch:
        raise UserError(
            f"{origin}: {point.value} imports torch. A task is data, and processes without torch read it "
            f"too: put the task into a module that does not import torch"
        )
    return task


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
