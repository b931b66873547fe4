"""Facts about data sets: each file in this folder is a task. To add a task, add a file here.

The folder `types` holds what such a file may say.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence

from momentum_bench.tasks.types import AnyTask, HubSource, ImageTask, LocalOnly, Task, TextFolders

__all__ = [
    "SUITES",
    "AnyTask",
    "HubSource",
    "ImageTask",
    "LocalOnly",
    "Task",
    "TextFolders",
    "UnknownTaskError",
    "get_task",
    "suites_of",
    "task_names",
    "unknown_task",
]

SUITES: dict[str, tuple[str, ...]] = {
    "glue": ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "mnli_mismatched", "qnli", "rte", "wnli"),
    "superglue": ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"),
    "lmbff": (
        *("sst2", "sst5", "mr", "cr", "mpqa", "subj", "trec"),
        *("cola", "mrpc", "qqp", "stsb", "mnli", "snli", "qnli", "rte"),
    ),
    "paper": ("sst2", "sst5", "snli", "trec", "mnli"),
}
"""Names that stand for several tasks: two benchmarks, LM-BFF's tasks, and those of Wang et al. 2024."""


class UnknownTaskError(LookupError):
    """No task has the name that was asked for; the message lists close names."""


def task_names() -> list[str]:
    """Names of all tasks in this folder, sorted; no task file is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def suites_of(name: str) -> list[str]:
    """Names of the suites that hold a task."""
    return [suite for suite, members in SUITES.items() if name in members]


def get_task(name: str) -> AnyTask:
    """The task of that name.

    Raises:
        UnknownTaskError: there is none; the message says which names come close.
    """
    if name not in task_names():
        raise unknown_task(name)
    task: Task | ImageTask = importlib.import_module(f"{__name__}.{name}").TASK
    if task.name != name:
        raise ValueError(f"tasks/{name}.py describes a task named {task.name!r}: use one name")
    return task


def unknown_task(name: str, further: Sequence[str] = ()) -> UnknownTaskError:
    """The error for a name that is no task, with close names.

    Args:
        further: names of tasks that are not in this folder.
    """
    names = [*task_names(), *further]
    close = difflib.get_close_matches(name, [*names, *SUITES], n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return UnknownTaskError(
        f"unknown task {name!r}. {hint}Tasks: {', '.join(names)}. Suites: {', '.join(SUITES)}"
    )
