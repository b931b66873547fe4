"""Where the inputs of a sweep lie on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inputs:
    """Where a sweep's inputs lie on this machine; this is no part of a spec.

    Attributes:
        model: the model as the user typed it.
        data_dir: the folder of local data; None: each task's own source.
        optimizer_file: the files with the user's own optimizers, if there are any.
        task_file: the file with the user's own task, if there is one.
    """

    model: str
    data_dir: Path | None
    optimizer_file: tuple[Path, ...] | None = None
    task_file: Path | None = None
