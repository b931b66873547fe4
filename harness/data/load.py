"""The one door to the data of a task: texts or images, from any source."""

from __future__ import annotations

from pathlib import Path

from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.data.given_splits import load_given_data
from momentum_bench.harness.data.images import load_image_data, missing_images
from momentum_bench.harness.data.text_rows import load_text_data, missing_text
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import AS_IT_IS, Reading
from momentum_bench.tasks.types import AnyTask, ImageTask


def load_task_data(
    task: AnyTask, data_dir: Path | None, cached_only: bool = False, reading: Reading = AS_IT_IS
) -> TaskData:
    """Read and check the rows of both roles, training and test.

    Args:
        reading: what the user chose about how rows are read.
        data_dir: a folder with `<task>/{train,validation,test}.{jsonl,...}`, with LM-BFF's own files, or
            with `<task>/{train,test}/<class>/*.png` for images; None: the task's own source.
        cached_only: of the hub, read what it left on this machine, and download nothing.

    Raises:
        UserError: no such data, no network, a broken line, a missing column, an unknown label, or
            another number of classes than the task has.
    """
    if isinstance(task, ImageTask):
        if reading.given_k is not None:
            raise UserError(f"--splits given is for tasks of text, and {task.name} has images: leave it out")
        return load_image_data(task, data_dir, reading)
    if reading.given_k is not None:
        return load_given_data(task, data_dir, reading.given_k, reading)
    return load_text_data(task, data_dir, cached_only, reading)


def missing_data(task: AnyTask, data_dir: Path | None) -> str | None:
    """Which data of the task is missing, and what to type next; None: nothing is missing.

    This looks for files alone: it assumes that the hub and packages hold their data.
    """
    if isinstance(task, ImageTask):
        return missing_images(task, data_dir)
    return missing_text(task, data_dir)
