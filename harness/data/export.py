"""Few-shot splits as files: LM-BFF's own, byte for byte, or JSON lines of the rows. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from momentum_bench.harness.data import lmbff, task_kinds
from momentum_bench.harness.data.examples import Example
from momentum_bench.harness.data.leakage import asked
from momentum_bench.harness.data.load import load_task_data, missing_data
from momentum_bench.harness.data.row_files import split_files
from momentum_bench.harness.data.splits import draw_split, select_test_rows
from momentum_bench.harness.data.text_rows import labelled_rows, stored_rows
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import AS_IT_IS, Reading
from momentum_bench.harness.records.files import check_no_links, write_atomically
from momentum_bench.harness.records.schema import canonical_json
from momentum_bench.tasks import Task


def lmbff_texts(
    task: Task, data_dir: Path | None, k: int, seeds: Sequence[int], test_limit: int | None
) -> dict[str, str]:
    """LM-BFF's k-shot files by their paths, `SST-2/16-13/train.tsv`.

    Raises:
        UserError: the rows are not in LM-BFF's own files, or a split cannot be drawn.
    """
    if data_dir and (missing := missing_data(task, data_dir)):
        raise UserError(missing)
    files = lmbff.files_of(task, data_dir) if data_dir else None
    if files is None:
        layout = lmbff.LAYOUTS.get(task.name)
        needed = (
            f"DIR/{layout.folder}/train.{layout.suffix} and {layout.tests[0]}.{layout.suffix}, given by "
            f"--data-dir DIR"
            if layout
            else f"which it does not have for {task.name}"
        )
        raise UserError(
            f"--format lm-bff copies lines of LM-BFF's own files, {needed}. "
            f"For rows from another source, type --format jsonl"
        )
    return {
        f"{files.layout.folder}/{k}-{seed}/{name}": text
        for seed in seeds
        for name, text in lmbff.k_shot_files(task, files, k, seed, test_limit).items()
    }


def jsonl_texts(
    task: Task,
    data_dir: Path | None,
    k: int,
    seeds: Sequence[int],
    protocol: str,
    test_limit: int | None,
    reading: Reading = AS_IT_IS,
) -> dict[str, str]:
    """The rows of each split as `run` draws it, by path, `sst2/16-13/train.jsonl`.

    Raises:
        UserError: there is no such data, or a split cannot be drawn.
    """
    data = load_task_data(task, data_dir, reading=reading)
    train, test = stored_rows(task, data_dir, reading)
    questions = task_kinds.questions(task, data.test)
    test_text = _lines(test[row] for row in select_test_rows(len(data.test), test_limit, questions))
    texts = {}
    for seed in seeds:
        few = draw_split(data, k, seed, protocol)
        folder = f"{task.name}/{k}-{seed}"
        texts[f"{folder}/train.jsonl"] = _lines(train[row] for row in few.train)
        texts[f"{folder}/dev.jsonl"] = _lines(train[row] for row in few.dev)
        texts[f"{folder}/test.jsonl"] = test_text
    return texts


def held_out_texts(
    task: Task, data_dir: Path | None, fraction: float, reading: Reading = AS_IT_IS
) -> dict[str, str]:
    """The rows of the one file of a task as two, train and test, by path, `sst2/train.jsonl`.

    A row is in test if the SHA-256 of its texts, as canonical JSON in UTF-8, is below `fraction` when it is
    read as a number from 0 to 1. So the cut depends on nothing else: rows that are added later leave the
    others where they are, and equal texts are in one split. Rows that are grouped by a passage stay together.

    Raises:
        UserError: the folder has a test file already, a row cannot be read, or a split would lack a class.
    """
    if data_dir is None:
        raise UserError("--test-fraction cuts the rows of a folder: add --data-dir DIR")
    folder = data_dir / (task.folder or task.name)
    if there := split_files(folder, task.test):
        raise UserError(
            f"--test-fraction is for tasks without a test split, and {there[0]} is one: leave out "
            f"--test-fraction, or remove the file"
        )
    rows, examples = labelled_rows(task, data_dir, reading)
    is_test = [_fraction_of(task, example) < fraction for example in examples]
    texts = {}
    for split, of_test in ((task.train, False), (task.test, True)):
        chosen = [row for row, each in enumerate(is_test) if each == of_test]
        _check_classes(task, split, fraction, [examples[row] for row in chosen])
        texts[f"{folder.name}/{split}.jsonl"] = _lines(
            {column: rows[row][column] for column in task.columns} for row in chosen
        )
    return texts


def _check_classes(task: Task, split: str, fraction: float, examples: Sequence[Example]) -> None:
    """Raises: UserError, if a split has no row, or none of a class."""
    found = set() if task.kind == "multiple_choice" else set(task_kinds.strata(task, examples))
    names = [] if task.kind == "multiple_choice" else list(task.labels.values())
    missing = [name for number, name in enumerate(names) if number not in found]
    if missing or not examples:
        of = f" of {', '.join(missing)}" if missing else ""
        raise UserError(
            f"--test-fraction {fraction:g} leaves the {split} split of {task.name} without a row{of}: choose "
            f"another fraction, or give more rows"
        )


def _fraction_of(task: Task, example: Example) -> float:
    """A number from 0 to 1 that follows from what the example asks."""
    digest = hashlib.sha256(canonical_json(asked(task, example)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    # lists come from Parquet as arrays
    return "".join(json.dumps(row, ensure_ascii=False, default=lambda a: a.tolist()) + "\n" for row in rows)


def write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Write files by their paths below `out`.

    Raises:
        UserError: a file cannot be written; or it exists with other content, or would be written through
            a link below `out`, and then no file is written.
    """
    check_no_links(out, texts)
    try:
        for name, text in texts.items():
            if (out / name).exists() and (out / name).read_bytes() != text.encode():
                raise UserError(
                    f"--out {out} already holds a {name} with other content, and nothing was written: remove "
                    f"it, or choose another --out"
                )
        for name, text in texts.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out / name, text)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from error
