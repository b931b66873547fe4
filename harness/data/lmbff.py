"""LM-BFF's own files (Gao et al. 2021): where each task's rows are, and the k-shot files drawn from them.

GLUE's tasks are TSV files whose lines are kept as they are; the others are CSV files of a label and a
text without a header, read and written by pandas. What is drawn follows `generate_k_shot_data.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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


MIDDLE_OF_STSB = 2.5
"""STS-B is balanced between scores below it and the others."""


class Layout(NamedTuple):
    """Where LM-BFF keeps one task.

    Attributes:
        folder: its name in the tar.
        tests: the files that are its test splits, in the order in which they are written.
        text, label: positions of the cells; of a TSV. The script itself groups by `group`.
        words: of a CSV, the label words that its ids 0, 1, ... stand for.
        skips_broken: whether lines with too few cells are passed over, as LM-BFF does for QQP.
    """

    folder: str
    tests: tuple[str, ...] = ("dev",)
    text: tuple[int, ...] = (0,)
    label: int = -1
    group: int = -1
    header: bool = True
    words: tuple[str, ...] = ()
    skips_broken: bool = False
    halves: bool = False

    @property
    def suffix(self) -> str:
        return "csv" if self.words else "tsv"


_MNLI = Layout("MNLI", ("dev_matched", "dev_mismatched"), (8, 9))
_POLARITY = ("terrible", "great")

LAYOUTS: dict[str, Layout] = {
    "sst2": Layout("SST-2", text=(0,), label=1),
    "cola": Layout("CoLA", text=(3,), label=1, group=1, header=False),
    "mrpc": Layout("MRPC", text=(3, 4), label=0, group=0),
    "qqp": Layout("QQP", text=(3, 4), label=5, skips_broken=True),
    "stsb": Layout("STS-B", text=(7, 8), halves=True),
    "mnli": _MNLI,
    "mnli_mismatched": _MNLI._replace(tests=("dev_mismatched", "dev_matched")),
    "snli": Layout("SNLI", text=(7, 8)),
    "qnli": Layout("QNLI", text=(1, 2)),
    "rte": Layout("RTE", text=(1, 2)),
    "wnli": Layout("WNLI", text=(1, 2)),
    "sst5": Layout("sst-5", ("test",), words=("terrible", "bad", "okay", "good", "great")),
    "mr": Layout("mr", ("test",), words=_POLARITY),
    "cr": Layout("cr", ("test",), words=_POLARITY),
    "mpqa": Layout("mpqa", ("test",), words=_POLARITY),
    "subj": Layout("subj", ("test",), words=("subjective", "objective")),
    "trec": Layout(
        "trec", ("test",), words=("Description", "Entity", "Expression", "Human", "Location", "Number")
    ),
}
"""By the names of our tasks. The first of `tests` is the task's own."""


class Files(NamedTuple):
    """One task's files in LM-BFF's layout."""

    layout: Layout
    train: Path
    test: Path


def files_of(task: Task, data_dir: Path) -> Files | None:
    """The task's files, where `data_dir` has them in LM-BFF's layout, under its name or ours.

    A CSV is in that layout when its first line does not name the task's columns.
    """
    layout = LAYOUTS.get(task.name)
    if layout is None:
        return None
    for name in dict.fromkeys((layout.folder, task.folder or task.name)):
        train, test = (data_dir / name / f"{stem}.{layout.suffix}" for stem in ("train", layout.tests[0]))
        if train.is_file() and test.is_file() and not (layout.words and _names_columns(train, task)):
            return Files(layout, train, test)
    return None


def _names_columns(path: Path, task: Task) -> bool:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return set(task.columns) <= set(next(csv.reader(lines), []))
    except (ValueError, OSError, csv.Error):
        return False  # whoever reads it all says what is wrong


# -- rows for a run ------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """The rows of a file by our columns; `left_out` are the positions of broken ones among all."""

    rows: list[dict[str, Any]]
    left_out: list[int]


def read_rows(task: Task, layout: Layout, path: Path) -> Rows:
    """The texts and labels of a file, by our names.

    Raises:
        UserError: a broken line, or a label id that LM-BFF does not have.
    """
    if layout.words:
        return Rows(list(_csv_rows(task, layout, path)), [])
    found = Rows([], [])
    _, lines = _lines(path, layout.header)
    places = (*layout.text, layout.label)
    for number, line in enumerate(lines):
        cells = line.rstrip("\n").split("\t")
        if len(cells) > max(places):
            values = (cells[place] for place in places)
            found.rows.append(dict(zip((*task.text, task.label), values, strict=True)))
        elif layout.skips_broken:
            found.left_out.append(number)
        else:
            raise UserError(
                f"{path}, line {number + 1 + layout.header}: {len(cells)} cells, expected at least "
                f"{max(places) + 1}, as LM-BFF's {layout.folder} has them"
            )
    return found


def _csv_rows(task: Task, layout: Layout, path: Path) -> Iterator[dict[str, Any]]:
    labels = {
        str(id): list(task.labels)[task.label_words.index(word)] for id, word in enumerate(layout.words)
    }
    for number, (label, text) in enumerate(_frame(path, dtype=str, keep_default_na=False).values.tolist(), 1):
        if label not in labels:
            raise UserError(
                f"{path}, row {number}: begins with {label!r}. Expected one of LM-BFF's label ids "
                f"{', '.join(labels)}, then the text; or, in our layout, a first line with the columns "
                f"{list(task.columns)}"
            )
        yield {task.text[0]: text, task.label: labels[label]}


# -- files for LM-BFF ----------------------------------------------------------------------------------


def k_shot_files(task: Task, files: Files, k: int, seed: int, test_limit: int | None) -> dict[str, str]:
    """The texts of LM-BFF's k-shot files by their names, as its script writes them.

    CoLA's lists are shuffled again for each of the script's seeds, in its order, whichever are asked
    for; so is its test split, where that is limited.

    Args:
        test_limit: MeZO's script has 1,000: that many test rows, drawn with seed 42; None: all.

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
    if layout.words:
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
        ("train", dev_name), drawn([_group(layout, line, files.train) for line in lines]), strict=True
    )
    texts |= {f"{name}.tsv": "".join([*header, *(lines[row] for row in rows)]) for name, rows in parts}
    for stem, path in tests:
        header, lines = _lines(path, layout.header)
        if test_limit is not None and len(lines) > test_limit:
            lines = [lines[row] for row in _shuffled_again(len(lines), times)[:test_limit]]
        texts[f"{stem.replace('dev', 'test')}.tsv"] = "".join([*header, *lines])
    return texts


def _shuffled_again(n: int, times: int) -> list[int]:
    """`select_test_rows` of a list that is shuffled that many times by the one seed."""
    rows = np.arange(n)
    for _ in range(times):
        rows = rows[np.random.RandomState(TEST_SEED).permutation(n)]
    return rows.tolist()


def _group(layout: Layout, line: str, path: Path) -> str:
    cells = line.strip().split("\t")
    try:
        return str(float(cells[layout.group]) >= MIDDLE_OF_STSB) if layout.halves else cells[layout.group]
    except (IndexError, ValueError) as error:
        raise UserError(f"{path}: no label in the line {line.strip()[:80]!r}") from error


def _lines(path: Path, header: bool) -> tuple[list[str], list[str]]:
    """The first line, if it is a header, and the others, each with its line end (written `\\n`).

    A header's byte-order mark stays in it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.readlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    return (lines[:1], lines[1:]) if header else ([], lines)


def _frame(path: Path, **how: Any) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_csv(path, header=None, **how)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: {first_line(error)}") from error
    if len(frame.columns) != 2:
        raise UserError(
            f"{path}: {len(frame.columns)} columns, LM-BFF's layout has two, a label id and a text"
        )
    return frame


def _csv(frame: pd.DataFrame) -> str:
    text = frame.to_csv(header=False, index=False, lineterminator="\n")
    assert isinstance(text, str)
    return text
