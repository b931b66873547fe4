"""LM-BFF's own files (Gao et al. 2021): where the rows of each task are, and the k-shot files from them.

GLUE's tasks are TSV files, whose lines are kept as they are. The others are CSV files without a header, with
a label id and a text in each row; pandas reads and writes them. The draws follow `generate_k_shot_data.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from momentum_bench.harness.data.splits import (
    CANONICAL_SEEDS,
    TEST_SEED,
    few_shot_split,
    select_test_rows,
    shuffled_rows,
)
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.tasks import Task

if TYPE_CHECKING:
    import pandas as pd


class Layout(NamedTuple):
    """Where LM-BFF keeps one task.

    Attributes:
        folder: the name of the task's folder in LM-BFF's archive.
        suffix: `tsv`, or `csv` of a label id and a text. The ids 0, 1, ... are the task's labels in logit
            order, because that is the order of the label words in LM-BFF.
        tests: names of its test files, in the order in which the script writes them.
        text, label: positions of the cells in a line of a TSV.
        group: position of the cell by which the script groups the lines of a TSV.
        header: whether the first line of a TSV names the columns.
        skips_broken: whether lines with too few cells are left out, as LM-BFF does for QQP.
    """

    folder: str
    tests: tuple[str, ...] = ("dev",)
    text: tuple[int, ...] = (0,)
    label: int = -1
    group: int = -1
    header: bool = True
    suffix: Literal["tsv", "csv"] = "tsv"
    skips_broken: bool = False


_MNLI = Layout("MNLI", ("dev_matched", "dev_mismatched"), (8, 9))

LAYOUTS: dict[str, Layout] = {
    "sst2": Layout("SST-2", text=(0,), label=1),
    "cola": Layout("CoLA", text=(3,), label=1, group=1, header=False),
    "mrpc": Layout("MRPC", text=(3, 4), label=0, group=0),
    "qqp": Layout("QQP", text=(3, 4), label=5, skips_broken=True),
    "stsb": Layout("STS-B", text=(7, 8)),
    "mnli": _MNLI,
    "mnli_mismatched": _MNLI._replace(tests=("dev_mismatched", "dev_matched")),
    "snli": Layout("SNLI", text=(7, 8)),
    "qnli": Layout("QNLI", text=(1, 2)),
    "rte": Layout("RTE", text=(1, 2)),
    "wnli": Layout("WNLI", text=(1, 2)),
    "sst5": Layout("sst-5", ("test",), suffix="csv"),
    **{name: Layout(name, ("test",), suffix="csv") for name in ("mr", "cr", "mpqa", "subj", "trec")},
}
"""By the names of our tasks. The first of `tests` is the task's own test split."""


class Files(NamedTuple):
    """One task's files in LM-BFF's layout."""

    layout: Layout
    train: Path
    test: Path


def files_of(task: Task, data_dir: Path) -> Files | None:
    """The task's files, if `data_dir` has them in LM-BFF's layout, under LM-BFF's name or ours; else None.

    A CSV is in that layout if its first line does not name the task's columns.
    """
    layout = LAYOUTS.get(task.name)
    if layout is None:
        return None
    for name in dict.fromkeys((layout.folder, task.folder or task.name)):
        train, test = (data_dir / name / f"{stem}.{layout.suffix}" for stem in ("train", layout.tests[0]))
        is_ours = layout.suffix == "csv" and names_columns(train, task)
        if train.is_file() and test.is_file() and not is_ours:
            return Files(layout, train, test)
    return None


def names_columns(path: Path, task: Task) -> bool:
    """Whether the first line of a CSV or TSV names the task's columns, as it does in our layout."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
            return set(task.columns) <= set(next(reader, []))
    except (ValueError, OSError, csv.Error):
        return False  # the code that reads the whole file says what is wrong


# -- rows for a run ------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """The rows of a file, with our column names.

    Attributes:
        left_out: positions of the broken rows among all rows of the file.
    """

    rows: list[dict[str, Any]]
    left_out: list[int]


def read_rows(task: Task, layout: Layout, path: Path) -> Rows:
    """The texts and labels of a file, with our column names.

    Raises:
        UserError: a broken line, or a label id that LM-BFF does not have.
    """
    if layout.suffix == "csv":
        return Rows(list(_csv_rows(task, path)), [])
    read = Rows([], [])
    _, lines = _lines(path, layout.header)
    places = (*layout.text, layout.label)
    for number, line in enumerate(lines):
        cells = line.rstrip("\n").split("\t")
        if len(cells) > max(places):
            values = (cells[place] for place in places)
            read.rows.append(dict(zip((*task.text, task.label), values, strict=True)))
        elif layout.skips_broken:
            read.left_out.append(number)
        else:
            raise UserError(
                f"{path}, line {number + 1 + layout.header}: {len(cells)} cells, expected at least "
                f"{max(places) + 1}, as LM-BFF's {layout.folder} has them"
            )
    return read


def _csv_rows(task: Task, path: Path) -> Iterator[dict[str, Any]]:
    labels = {str(label_id): label for label_id, label in enumerate(task.labels)}
    for number, (label, text) in enumerate(_frame(path, dtype=str, keep_default_na=False).values.tolist(), 1):
        if label not in labels:
            raise UserError(
                f"{path}, row {number}: starts with {label!r}. Expected one of LM-BFF's label ids "
                f"{', '.join(labels)}, and then the text; or, in our layout, a first line with the "
                f"columns {list(task.columns)}"
            )
        yield {task.text[0]: text, task.label: labels[label]}


# -- files for LM-BFF ----------------------------------------------------------------------------------


def k_shot_files(task: Task, files: Files, k: int, seed: int, test_limit: int | None) -> dict[str, str]:
    """The contents of LM-BFF's k-shot files by their names, as its script writes them.

    The script shuffles the lists of CoLA again for each of its seeds, in its order, and so does this
    function, no matter which seeds are asked for. The same holds for a limited test split of CoLA.

    Args:
        k: rows of each class, in train and in dev.
        test_limit: that many test rows, drawn with seed 42 (MeZO's script has 1,000); None: all.

    Raises:
        UserError: a file cannot be read, or k leaves no dev rows.
    """
    layout = files.layout
    tests = [(stem, files.train.with_name(f"{stem}.{layout.suffix}")) for stem in layout.tests]
    tests = sorted((stem, path) for stem, path in tests if path.is_file())
    again = task.accumulates_shuffles and seed in CANONICAL_SEEDS
    times = CANONICAL_SEEDS.index(seed) + 1 if again else 1

    def drawn(groups: Sequence[str]) -> tuple[list[int], list[int]]:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        order = shuffled_rows(len(groups), seed, task.accumulates_shuffles)
        train, dev, _ = few_shot_split([numbers[group] for group in groups], len(numbers), k, order)
        return train, dev

    texts: dict[str, str] = {}
    if layout.suffix == "csv":
        frame = _frame(files.train)
        parts = zip(("train", "dev"), drawn(frame[0].map(str).tolist()), strict=True)
        texts |= {f"{name}.csv": _csv(frame.iloc[rows]) for name, rows in parts}
        for stem, path in tests:
            frame = _frame(path)
            texts[f"{stem}.csv"] = _csv(frame.iloc[select_test_rows(len(frame), test_limit)])
        return texts
    header, lines = _lines(files.train, layout.header)
    dev_name = "dev_matched" if layout.folder == "MNLI" else "dev"
    parts = zip(
        ("train", dev_name), drawn([_group(task, layout, line, files.train) for line in lines]), strict=True
    )
    texts |= {f"{name}.tsv": "".join([*header, *(lines[row] for row in rows)]) for name, rows in parts}
    for stem, path in tests:
        header, lines = _lines(path, layout.header)
        if test_limit is not None and len(lines) > test_limit:
            lines = [lines[row] for row in _shuffled_again(len(lines), times)[:test_limit]]
        texts[f"{stem.replace('dev', 'test')}.tsv"] = "".join([*header, *lines])
    return texts


def _shuffled_again(n: int, times: int) -> list[int]:
    """Positions of n test rows after the one seed for test rows has shuffled them that many times."""
    rows = np.arange(n)
    for _ in range(times):
        rows = rows[np.random.RandomState(TEST_SEED).permutation(n)]
    return rows.tolist()


def _group(task: Task, layout: Layout, line: str, path: Path) -> str:
    """What the script groups a line by: its label, or the half of the scale for a regression."""
    cells = line.strip().split("\t")
    try:
        cell = cells[layout.group]
        return cell if task.balance_at is None else str(float(cell) >= task.balance_at)
    except (IndexError, ValueError) as error:
        raise UserError(f"{path}: no label in the line {line.strip()[:80]!r}") from error


def _lines(path: Path, header: bool) -> tuple[list[str], list[str]]:
    """The first line, if it is a header, and the other lines; each ends with `\\n`.

    A byte-order mark at the start of a header stays in it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.readlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    return (lines[:1], lines[1:]) if header else ([], lines)


def _frame(path: Path, **options: Any) -> pd.DataFrame:
    import pandas as pd

    try:
        frame: pd.DataFrame = pd.read_csv(path, header=None, **options)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: {first_line(error)}") from error
    if len(frame.columns) != 2:
        raise UserError(
            f"{path}: {len(frame.columns)} columns, but LM-BFF's layout has two, a label id and a text"
        )
    return frame


def _csv(frame: pd.DataFrame) -> str:
    text = frame.to_csv(header=False, index=False, lineterminator="\n")
    assert isinstance(text, str)
    return text
