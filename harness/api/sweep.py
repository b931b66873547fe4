"""A sweep as Python code asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from momentum_bench.harness.launcher import launched
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import Sweep as CheckedSweep

DATA_PARALLEL = "data_parallel"
"""The flag `--data-parallel`. It takes the number of ranks from the launcher."""


class Sweep:
    """What to run: tasks x seeds x learning rates x optimizers, and how each run goes.

    The names, defaults and rules are those of `momentum-bench run` and of sweep files; see
    `momentum-bench run --help`. A setting that is not given has its default. The value None means "none":
    `max_grad_norm=None` does not clip, `test_limit=None` scores all test rows.

        mb.Sweep(task="sst2", k=16, seeds=range(5), learning_rates=[1e-2, 1e-1])

    Attributes:
        given: the settings that were given, without those of a sweep file.
        checked: all settings with their defaults, as attributes: `sweep.checked.batch_size`.

    Raises:
        UserError: an unknown name, a value out of range, or values that contradict each other.
    """

    def __init__(self, **settings: Any):
        self._set(settings, None)

    @classmethod
    def from_toml(cls, path: str | PathLike[str], **settings: Any) -> Sweep:
        """The sweep of a sweep file. Settings given here override those in the file.

        Raises:
            UserError: the file cannot be read, or see `Sweep`.
        """
        sweep = cls.__new__(cls)
        sweep._set(settings, Path(path))
        return sweep

    def _set(self, settings: Mapping[str, Any], file: Path | None) -> None:
        flags = {name: _plain(value) for name, value in settings.items() if name != DATA_PARALLEL}
        if settings.get(DATA_PARALLEL):
            flags["data_parallel_ranks"] = launched().ranks
        self.given = dict(settings)
        self.file = file
        self.checked: CheckedSweep = make_sweep(flags, file)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and self.checked == other.checked

    def __hash__(self) -> int:
        return hash(self.checked)

    def __repr__(self) -> str:
        settings = [f"{name}={value!r}" for name, value in self.given.items()]
        if self.file is None:
            return f"Sweep({', '.join(settings)})"
        return f"Sweep.from_toml({', '.join([repr(str(self.file)), *settings])})"


def _plain(value: Any) -> Any:
    """A range, an array or another iterable as a list, and a number of numpy as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return [_plain(part) for part in value]
    return value
