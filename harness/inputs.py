"""What a sweep takes from this machine: the places of its inputs, and a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inputs:
    """Where a sweep's inputs lie on this machine, and what type of device does its runs.

    This is no part of a spec, and every process that does runs is given it.

    Attributes:
        model: the model as the user typed it.
        data_dir: the folder of local data; None: each task's own source.
        optimizer_file: the files with the user's own optimizers, if there are any.
        task_file: the file with the user's own task, if there is one.
        device: `cpu`, `cuda` or `mps`; None: the best that is there.
    """

    model: str
    data_dir: Path | None
    optimizer_file: tuple[Path, ...] | None = None
    task_file: Path | None = None
    device: str | None = None
