"""The rows of a text task, from the hub, a local folder or an installed package, as checked examples."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from momentum_bench.harness.data import lmbff
from momentum_bench.harness.data.examples import Example, TaskData, content_hash
from momentum_bench.harness.data.hub import read_hub, source_of
from momentum_bench.harness.data.nested_rows import flat_rows
from momentum_bench.harness.data.row_files import SUFFIXES, near_files, read_folder, read_package, split_files
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import AS_IT_IS, Reading
from momentum_bench.tasks.types import PLACEHOLDER, HubSource, LocalOnly, Task, TextFolders

HIDDEN = ("-1", "-1.0")
"""How data sets write a label that they do not publish."""
ABSENT = ("", "-")
"""How data sets write that a row has no label, as SNLI does where its annotators did not agree."""


class StoredRows(NamedTuple):
    """The stored rows of a task, unchecked.

    Attributes:
        origin: the source without any path, for the record.
        label: the column that holds the label there.
        left_out: positions of broken rows among the stored training rows.
    """

    train: Iterable[dict[str, Any]]
    test: Iterable[dict[str, Any]]
    origin: str
    label: str
    left_out: tuple[int, ...] = ()


def load_text_data(
    task: Task, data_dir: Path | None, cached_only: bool = False, reading: Reading = AS_IT_IS
) -> TaskData:
    """The checked rows of a text task; see `load.load_task_data`."""
    stored = _stored(task, data_dir, cached_only, reading)
    train_examples, train_dropped = checked_examples(task, stored.train, task.train, stored.label)
    test_examples, test_dropped = checked_examples(task, stored.test, task.test, stored.label)
    both = train_examples + test_examples
    return TaskData(
        task=task,
        train=train_examples,
        test=test_examples,
        origin=stored.origin,
        fingerprint=content_hash([train_examples, test_examples]),
        n_unlabelled=train_dropped + test_dropped,
        n_empty=sum(not all(text.strip() for text in example.texts) for example in both),
        left_out=stored.left_out,
    )


def missing_text(task: Task, data_dir: Path | None) -> str | None:
    """Which data of a text task is missing, and what to type next; see `load.missing_data`."""
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
            f"no folder {folder}: --data-dir needs one folder for each task, here {folder.name}/ with "
            f"{task.train} and {task.test} files (.{', .'.join(SUFFIXES)}){theirs}"
        )
    for split in (task.train, task.test):
        if not split_files(folder, split):
            expected = f"expected {split}.jsonl (or .{', .'.join(SUFFIXES[1:])})"
            return f"{folder} has no {split} file: {expected}{near_files(folder, split)}"
    return None


def stored_rows(
    task: Task, data_dir: Path | None, reading: Reading = AS_IT_IS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The stored rows of train and test, one for each example of `load_task_data`, with our column names."""
    stored = _stored(task, data_dir, reading=reading)
    names = dict(zip(task.columns, (*task.columns[:-1], stored.label), strict=True))
    train, test = (
        [
            {name: row[column] for name, column in names.items()}
            for row in part
            if not _dropped(task, row[stored.label])
        ]
        for part in (stored.train, stored.test)
    )
    return train, test


def labelled_rows(
    task: Task, data_dir: Path, reading: Reading = AS_IT_IS
) -> tuple[list[dict[str, Any]], list[Example]]:
    """The stored training rows of a folder that have a label, and the checked example of each.

    Raises:
        UserError: there is no such file, or a row cannot be read.
    """
    folder = data_dir / (task.folder or task.name)
    if not split_files(folder, task.train):
        near = near_files(folder, task.train) if folder.is_dir() else ""
        raise UserError(f"{folder} has no {task.train} file (.{', .'.join(SUFFIXES)}){near}")
    [read] = read_folder(task, data_dir, (task.train,), reading.tsv)
    rows = list(flat_rows(task, read, task.train))
    examples, _ = checked_examples(task, rows, task.train, task.label)
    return [row for row in rows if not _dropped(task, row[task.label])], examples


def _stored(
    task: Task, data_dir: Path | None, cached_only: bool = False, reading: Reading = AS_IT_IS
) -> StoredRows:
    if missing := missing_text(task, data_dir):
        raise UserError(missing)
    if data_dir is not None:
        if files := _lmbff_files(task, data_dir):
            if reading.tsv == "quoted" and files.layout.suffix == "tsv":
                raise UserError(
                    f"--tsv quoted: {files.train} and {files.test.name} are LM-BFF's files, whose quotes "
                    f"belong to the text. Leave out --tsv, or give files named {task.train} and {task.test}"
                )
            return _read_lmbff(task, files)
        splits = (task.train, task.test)
        read = read_folder(task, data_dir, splits, reading.tsv)
        train, test = (flat_rows(task, rows, split) for rows, split in zip(read, splits, strict=True))
        chosen = f", --tsv {reading.tsv}" if reading.tsv else ""
        return StoredRows(train, test, f"folder{chosen}", task.label)
    source = source_of(task, reading)
    if isinstance(source, TextFolders):
        return StoredRows(*read_package(task, source), task.label)
    assert isinstance(source, HubSource)  # the data of LocalOnly is missing
    return StoredRows(*read_hub(task, source, cached_only), source.label or task.label)


def checked_examples(
    task: Task, rows: Iterable[dict[str, Any]], split: str, label_column: str
) -> tuple[list[Example], int]:
    """The checked examples of one split, and how many unlabelled rows were dropped."""
    columns = [*task.columns[:-1], label_column]
    read_label = partial(_number, task) if task.kind == "regression" else _class_reader(task)
    examples, dropped, number = [], 0, 0
    for number, row in enumerate(rows, 1):
        place = f"{task.name}, {split}, row {number}"
        if missing := [column for column in columns if column not in row]:
            raise UserError(
                f"{place}: no column {missing[0]!r}; found {sorted(row)}, expected {columns}"
                f"{_hint(task, row)}"
            )
        label = row[label_column]
        if _dropped(task, label):
            dropped += 1
            continue
        texts = _texts(task, row, place)
        if len(task.choices) == 1:
            example = _choice_from_list(texts, row[task.choices[0]], label, place)
            for text in (*example.candidates, *example.answers):
                _check_characters(text, place)
            examples.append(example)
        else:
            candidates = tuple(row[column] for column in task.choices)
            if not all(isinstance(text, str) for text in candidates):
                raise UserError(f"{place}: {list(task.choices)} must be text, found {candidates}")
            for text in candidates:
                _check_characters(text, place)
            examples.append(Example(texts, read_label(label, place), candidates))
    if not examples:
        raise UserError(f"{task.name}: the {split} split holds no labelled row ({number} in all)")
    return examples, dropped


def _hint(task: Task, row: dict[str, Any]) -> str:
    """Why a row may lack a column, as the end of a message; empty: nothing is known."""
    names = [str(name) for name in row]
    if len(names) == 1 and names[0].count(";") + 1 >= len(task.columns) > 1:
        return ". The cells are separated by semicolons: write commas, and quotes around cells with commas"
    if any(name.strip() in {str(spelling) for spelling in task.label_positions} for name in names):
        return ". The first line seems to be a row: the first line must name the columns"
    return ""


def _texts(task: Task, row: dict[str, Any], place: str) -> tuple[str, ...]:
    """The row's texts in the order of `Task.fields`."""
    texts = tuple(row[column] for column in task.text)
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{place}: {list(task.text)} must be text, found {[type(text).__name__ for text in texts]}"
        )
    for column, text in zip(task.text, texts, strict=True):
        _check_characters(text, f"{place}, {column}")
    for column, words in task.wordings.items():
        if row[column] not in words:
            raise UserError(f"{place}: {column} is {row[column]!r}, expected one of {list(words)}")
    texts = tuple(
        task.wordings[column][text] if column in task.wordings else text
        for column, text in zip(task.text, texts, strict=True)
    )
    if task.cloze and PLACEHOLDER not in row[task.cloze]:
        raise UserError(f"{place}: {task.cloze} holds no {PLACEHOLDER}: {row[task.cloze]!r}")
    if not task.marks:
        return texts
    try:
        spans = [(str(row[span]), int(row[position])) for span, position in task.marks]
    except (TypeError, ValueError):
        positions = [row[position] for _, position in task.marks]
        raise UserError(
            f"{place}: the positions of the spans must be whole numbers, found {positions}"
        ) from None
    return (*texts, marked(texts[0], spans))


def _check_characters(text: str, place: str) -> None:
    """Raises: UserError, if a text holds half of a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: character {error.start + 1} is half of a pair (\\u{ord(text[error.start]):04x}), as "
            f"in an emoji that was cut: remove it, or write the whole pair"
        ) from None


def _class_reader(task: Task) -> Callable[[Any, str], int]:
    """A function from a stored label, and the place of its row for messages, to a position in logit order."""
    positions = task.label_positions

    def position_of(label: Any, place: str) -> int:
        if isinstance(label, int | str) and label in positions:
            return positions[label]
        raise UserError(f"{place}: label {label!r}{_hidden(label)} is none of {list(task.labels)}")

    return position_of


def _number(task: Task, label: Any, place: str) -> float:
    """The label of a regression, a number between the ends of the task's scale."""
    low, high = task.ends
    try:
        number = float(label)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise UserError(f"{place}: label {label!r}{_hidden(label)} is no number from {low:g} to {high:g}")
    return number


def _choice_from_list(texts: tuple[str, ...], choices: Any, answers: Any, place: str) -> Example:
    """An example from a row with a list of candidates and a list of those that are right."""
    try:
        if isinstance(choices, str) or isinstance(answers, str):
            raise TypeError
        candidates, right = tuple(dict.fromkeys(choices)), tuple(dict.fromkeys(answers))
    except TypeError:
        raise UserError(
            f"{place}: candidates and answers must be lists of texts, found {choices!r} and {answers!r}"
        ) from None
    first = next((i for i, candidate in enumerate(candidates) if candidate in right), None)
    if first is None or not all(isinstance(text, str) and text.strip() for text in candidates + right):
        raise UserError(f"{place}: none of the answers {list(right)} is among the candidates {candidates}")
    return Example(texts, first, candidates, right)


def _hidden(label: Any) -> str:
    return " (-1 stands for a hidden label)" if str(label) in HIDDEN else ""


def _dropped(task: Task, label: Any) -> bool:
    if task.unlabelled != "drop":
        return False
    is_absent = label is None or (isinstance(label, float) and math.isnan(label))
    return is_absent or str(label).strip() in (*HIDDEN, *ABSENT)


def marked(text: str, spans: Iterable[tuple[str, int]]) -> str:
    """The text with its first span as `* span *` and its second as `# span #`.

    A span is given by its words, and by its position among the words of the text. White space separates
    words. Published positions are sometimes wrong, so the mark goes to the nearest place with the words
    of the span; if there is none, to the position itself.
    """
    words = text.split()
    if not words:
        return text
    plain = [_plain_word(word) for word in words]
    before, after = [""] * len(words), [""] * len(words)
    for (span, position), sign in zip(spans, "*#", strict=False):
        wanted = [_plain_word(word) for word in span.split()]
        places = [i for i in range(len(words)) if plain[i : i + len(wanted)] == wanted]
        first = min(places, key=lambda place: abs(place - position), default=position)
        first = max(0, min(first, len(words) - 1))
        last = max(first, min(first + len(wanted), len(words)) - 1)
        before[first], after[last] = f"{before[first]}{sign} ", f" {sign}{after[last]}"
    return " ".join(f"{b}{word}{a}" for b, word, a in zip(before, words, after, strict=True))


def _plain_word(word: str) -> str:
    return word.strip(string.punctuation).lower()


def _lmbff_files(task: Task, data_dir: Path) -> lmbff.Files | None:
    """The task's files in LM-BFF's layout, or None.

    Raises:
        UserError: other files of the task are there in our layout.
    """
    files = lmbff.files_of(task, data_dir)
    ours = [split_files(data_dir / (task.folder or task.name), split) for split in (task.train, task.test)]
    if files and all(ours) and {path for paths in ours for path in paths} != {files.train, files.test}:
        raise UserError(
            f"the data of {task.name} is there twice, in LM-BFF's layout ({files.train}, "
            f"{files.test.name}) and in ours ({ours[0][0]}, {ours[1][0].name}): keep one"
        )
    return files


def _read_lmbff(task: Task, files: lmbff.Files) -> StoredRows:
    train, test = (lmbff.read_rows(task, files.layout, path) for path in (files.train, files.test))
    n_broken = len(train.left_out) + len(test.left_out)
    broken = f", broken lines left out: {n_broken}" if n_broken else ""
    origin = f"folder in LM-BFF's layout{broken}"
    return StoredRows(train.rows, test.rows, origin, task.label, tuple(train.left_out))
