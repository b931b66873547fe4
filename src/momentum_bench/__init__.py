"""Does momentum help when a pre-trained language model is fine-tuned on few examples?

    import momentum_bench as mb

    results = mb.run(task="sst2", k=16)
    results.leaderboard()

The names below are the public face. Each is imported when it is first used, so that
`import momentum_bench` loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from momentum_bench.harness import __version__
    from momentum_bench.harness.api.leaderboard import Leaderboard
    from momentum_bench.harness.api.results import Results, leaderboard, load_results
    from momentum_bench.harness.api.run import run
    from momentum_bench.harness.api.sweep import Sweep
    from momentum_bench.harness.errors import UserError
    from momentum_bench.harness.execution.plan_sweep import SweepEvents
    from momentum_bench.harness.optimizers.entry import OptimizerEntry
    from momentum_bench.tasks import HubSource, LocalOnly, Task, TextFolders, get_task, task_names
    from momentum_bench.tasks.types import ImageTask

_HOME = {
    "HubSource": "momentum_bench.tasks",
    "ImageTask": "momentum_bench.tasks.types",
    "Leaderboard": "momentum_bench.harness.api.leaderboard",
    "LocalOnly": "momentum_bench.tasks",
    "OptimizerEntry": "momentum_bench.harness.optimizers.entry",
    "Results": "momentum_bench.harness.api.results",
    "Sweep": "momentum_bench.harness.api.sweep",
    "SweepEvents": "momentum_bench.harness.execution.plan_sweep",
    "Task": "momentum_bench.tasks",
    "TextFolders": "momentum_bench.tasks",
    "UserError": "momentum_bench.harness.errors",
    "__version__": "momentum_bench.harness",
    "get_task": "momentum_bench.tasks",
    "leaderboard": "momentum_bench.harness.api.results",
    "load_results": "momentum_bench.harness.api.results",
    "run": "momentum_bench.harness.api.run",
    "task_names": "momentum_bench.tasks",
}
"""The module in which each public name is defined."""

__all__ = [
    "HubSource",
    "ImageTask",
    "Leaderboard",
    "LocalOnly",
    "OptimizerEntry",
    "Results",
    "Sweep",
    "SweepEvents",
    "Task",
    "TextFolders",
    "UserError",
    "__version__",
    "get_task",
    "leaderboard",
    "load_results",
    "run",
    "task_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """This package as a module whose public names stay what they are.

    Python makes an imported submodule an attribute of its package. So `import momentum_bench.run` would put
    the module in the place of the function `run`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
