"""TODO: what this file holds."""

from __future__ import annotations

from pathlib import Path

from momentum_bench.harness.data import lmbff
from momentum_bench.harness.data.examples import TaskData, content_hash
from momentum_bench.harness.data.row_files import SUFFIXES, _split_files
from momentum_bench.harness.data.text_rows import _examples, _lmbff_files, _stored
from momentum_bench.tasks import LocalOnly
from momentum_bench.tasks.image_task import AnyTask, ImageTask


def load_task_data(task: AnyTask, data_dir: Path | None) -> TaskData:
    """Read and check the rows of both roles.

    Args:
        data_dir: a folder with `<task>/{train,validation,test}.{jsonl,...}`, or with LM-BFF's own
            files; None: the task's own source.

    Raises:
        UserError: no such data, no network, a broken line, a missing column, an unknown label.
    """
    if isinstance(task, ImageTask):
        from momentum_bench.harness.data.images import load_image_data

        return load_image_data(task, data_dir)
    found = _stored(task, data_dir)
    train_examples, train_dropped = _examples(task, found.train, task.train, found.label)
    test_examples, test_dropped = _examples(task, found.test, task.test, found.label)
    both = train_examples + test_examples
    return TaskData(
        task=task,
        train=train_examples,
        test=test_examples,
        origin=found.origin,
        fingerprint=content_hash([train_examples, test_examples]),
        n_unlabelled=train_dropped + test_dropped,
        n_empty=sum(not all(text.strip() for text in example.texts) for example in both),
        left_out=found.left_out,
    )


def missing_data(task: AnyTask, data_dir: Path | None) -> str | None:
    """What of the task's data is not there at all, and what to type next; None: nothing is missing.

    Only looks for files: what the hub or a package holds counts as there.
    """
    if isinstance(task, ImageTask):
        from momentum_bench.harness.data.images import missing_images

        return missing_images(task, data_dir)
    columns = f"columns {list(task.columns)}"
    if data_dir is None:
        if not isinstance(task.source, LocalOnly):
            return None
        return (
            f"{task.name} cannot be downloaded: {task.source.reason}. Give a local copy: --data-dir "
            f"DIR, with DIR/{task.folder or task.name}/{task.train}.jsonl and {task.test}.jsonl ({columns})"
        )
    if _lmbff_files(task, data_dir):
        return None
    folder = data_dir / (task.folder or task.name)
    if not folder.is_dir():
        layout = lmbff.LAYOUTS.get(task.name)
        names = [f"{name}.{layout.suffix}" for name in ("train", layout.tests[0])] if layout else []
        theirs = f", or {layout.folder}/ with LM-BFF's {' and '.join(names)}" if layout else ""
        return (
            f"no folder {folder}: --data-dir needs one folder a task, here {folder.name}/ with "
            f"{task.train} and {task.test} files (.{', .'.join(SUFFIXES)}){theirs}"
        )
    for split in (task.train, task.test):
        if not _split_files(folder, split):
            return f"{folder} has no {split} file: expected {split}.jsonl (or .{', .'.join(SUFFIXES[1:])})"
    return None
