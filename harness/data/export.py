"""Few-shot splits as files: LM-BFF's own, byte for byte, or JSON lines of the rows. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from momentum_bench.harness.data import lmbff, task_kinds
from momentum_bench.harness.data.load import load_task_data, missing_data
from momentum_bench.harness.data.splits import draw_split, select_test_rows
from momentum_bench.harness.data.text_rows import stored_rows
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import AS_IT_IS, Reading
from momentum_bench.harness.records.files import check_no_links, write_atomically
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
