"""Does momentum help when a pre-trained language model is fine-tuned on few examples?

The names below are the public face. Each is imported when it is first used, so that
`import momentum_bench` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from momentum_bench.harness import __version__
    from momentum_bench.harness.optimizers.entry import OptimizerEntry
    from momentum_bench.tasks import HubSource, LocalOnly, Task, TextFolders, get_task, task_names
    from momentum_bench.tasks.types import ImageTask

_HOME = {
    "HubSource": "momentum_bench.tasks",
    "ImageTask": "momentum_bench.tasks.types",
    "LocalOnly": "momentum_bench.tasks",
    "OptimizerEntry": "momentum_bench.harness.optimizers.entry",
    "Task": "momentum_bench.tasks",
    "TextFolders": "momentum_bench.tasks",
    "__version__": "momentum_bench.harness",
    "get_task": "momentum_bench.tasks",
    "task_names": "momentum_bench.tasks",
}
"""The module in which each public name is defined."""

__all__ = [
    "HubSource",
    "ImageTask",
    "LocalOnly",
    "OptimizerEntry",
    "Task",
    "TextFolders",
    "__version__",
    "get_task",
    "task_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
