"""The one door to a task's data: text or images, from wherever they come."""

from __future__ import annotations

from pathlib import Path

from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.data.text_rows import load_text_data, missing_text
from momentum_bench.tasks.image_task import AnyTask, ImageTask


def load_task_data(task: AnyTask, data_dir: Path | None, cached_only: bool = False) -> TaskData:
    """Read and check the rows of both roles.

    Args:
        data_dir: a folder with `<task>/{train,validation,test}.{jsonl,...}`, or with LM-BFF's own
            files; None: the task's own source.
        cached_only: of the hub, read what it left on this machine, and download nothing.

    Raises:
        UserError: no such data, no network, a broken line, a missing column, an unknown label.
    """
    if isinstance(task, ImageTask):
        from momentum_bench.harness.data.images import load_image_data

        return load_image_data(task, data_dir)
    return load_text_data(task, data_dir, cached_only)


def missing_data(task: AnyTask, data_dir: Path | None) -> str | None:
    """What of the task's data is not there at all, and what to type next; None: nothing is missing.

    Only looks for files: what the hub or a package holds counts as there.
    """
    if isinstance(task, ImageTask):
        from momentum_bench.harness.data.images import missing_images

        return missing_images(task, data_dir)
    return missing_text(task, data_dir)
