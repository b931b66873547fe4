"""A test split that is cut from one file by a hash of each row's texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momentum_bench.harness.data.export import held_out_texts
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import get_task
from tests.conftest import sentiment_rows, write_rows
from tests.helpers.command_line import run_command

SST2, MULTIRC = map(get_task, ("sst2", "multirc"))


def parts(folder: Path, fraction: float = 0.25) -> list[list[dict]]:
    """The rows of train and of test."""
    texts = held_out_texts(SST2, folder, fraction)
    assert list(texts) == ["sst2/train.jsonl", "sst2/validation.jsonl"]
    return [[json.loads(line) for line in text.splitlines()] for text in texts.values()]


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    write_rows(tmp_path / "sst2" / "train.jsonl", sentiment_rows(200))
    return tmp_path


def test_each_row_is_in_one_split_in_the_stored_order(one_file: Path):
    rows = [{"sentence": row["sentence"], "label": row["label"]} for row in sentiment_rows(200)]
    train, test = parts(one_file)
    assert [row for row in rows if row in train] == train
    assert [row for row in rows if row in test] == test
    assert len(train) + len(test) == 200
    assert 25 < len(test) < 75


def test_the_cut_of_a_row_depends_on_its_texts_alone(one_file: Path):
    train, test = parts(one_file)
    more = [{"sentence": f"another film {i}", "label": i % 2} for i in range(50)]
    write_rows(
        one_file / "sst2" / "train.jsonl", [*more, *reversed(sentiment_rows(200)), *sentiment_rows(20)]
    )
    new_train, new_test = parts(one_file)
    assert all(row in new_train for row in train)
    assert all(row in new_test for row in test)
    assert not {row["sentence"] for row in new_train} & {row["sentence"] for row in new_test}


def test_a_larger_fraction_only_adds_to_test(one_file: Path):
    _, small = parts(one_file, 0.2)
    _, large = parts(one_file, 0.6)
    assert all(row in large for row in small)


def test_answers_to_one_passage_stay_together(tmp_path: Path):
    rows = [
        {"paragraph": f"p{i}", "question": f"q{j}", "answer": f"a{n}", "label": n}
        for i in range(40)
        for j in range(2)
        for n in range(2)
    ]
    write_rows(tmp_path / "multirc" / "train.jsonl", rows)
    texts = held_out_texts(MULTIRC, tmp_path, 0.3).values()
    train, test = ({json.loads(line)["paragraph"] for line in text.splitlines()} for text in texts)
    assert train | test == {f"p{i}" for i in range(40)}
    assert not train & test


def test_a_split_without_a_class_is_refused(tmp_path: Path):
    write_rows(
        tmp_path / "sst2" / "train.jsonl", [{"sentence": "good", "label": 1}, {"sentence": "bad", "label": 0}]
    )
    with pytest.raises(UserError, match=r"leaves the validation split of sst2 without a row of "):
        held_out_texts(SST2, tmp_path, 1e-9)


def test_what_was_written_is_read_as_data(one_file: Path, tmp_path: Path):
    words = ["tasks", "split", "sst2", "--test-fraction", "0.25", "--out", tmp_path / "cut"]
    done = run_command(*words, "--data-dir", one_file)
    assert done.returncode == 0, done.stderr
    assert f"To use them: --data-dir {tmp_path / 'cut'}" in done.stderr
    data = load_task_data(SST2, tmp_path / "cut")
    assert [len(data.train), len(data.test)] == [len(part) for part in parts(one_file)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--test-fraction", "1"], "--test-fraction 1: expected a number between 0 and 1"),
        (["--test-fraction", "0.2", "--k", "4"], "leave out --k and --test-limit"),
        (
            ["--test-fraction", "0.2", "--data-dir", "DATA"],
            "validation.jsonl is one: leave out --test-fraction",
        ),
        (["--test-fraction", "0.2", "--data-dir", "NONE"], "has no train file"),
        (["--test-fraction", "0.2"], "add --data-dir DIR"),
    ],
)
def test_what_cannot_be_cut_is_explained(more: list[str], message: str, toy_data: Path, tmp_path: Path):
    words = [str({"DATA": toy_data, "NONE": tmp_path / "none"}.get(word, word)) for word in more]
    done = run_command("tasks", "split", "sst2", "--out", tmp_path / "cut", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "cut").exists()
