"""`tasks check`: what it finds, what it refuses, and that it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from momentum_bench.harness.data.find_task import task_of
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.text_rows import marked
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import task_check
from momentum_bench.harness.execution.task_check import SETTINGS, findings
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.suites import expand_suites
from momentum_bench.tasks import get_task
from tests.conftest import SHARED, write_rows
from tests.helpers.processes import command_alone
from tests.helpers.tickets import SOURCE, ticket_rows


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    task_of.cache_clear()
    yield
    task_of.cache_clear()


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    (tmp_path / "tickets.py").write_text(SOURCE)
    write_rows(tmp_path / "data" / "tickets" / "train.jsonl", ticket_rows(24))
    write_rows(tmp_path / "data" / "tickets" / "test.jsonl", ticket_rows(30)[24:])
    return tmp_path


def found(folder: Path, model: Path, **changes: Any) -> dict[str, list[str]]:
    """The findings by what they are about."""
    flags = {"task_file": folder / "tickets.py", "data_dir": folder / "data", "model": str(model), "k": 4}
    sweep, _ = expand_suites(make_sweep(SETTINGS | flags | changes, None))
    lines: dict[str, list[str]] = {}
    for finding in findings(sweep):
        lines.setdefault(finding.about, []).append(finding.text)
    return lines


def test_a_sound_task_by_prompt(tickets: Path, tiny_model: Path):
    lines = found(tickets, tiny_model)
    assert lines["rows"] == ["24 train rows, 6 test rows; folder"]
    assert lines["labels"] == ["train: 12 calm, 12 urgent", "test: 3 calm, 3 urgent"]
    assert lines["split"] == ["k = 4, seed 13: 8 train rows, 8 dev rows"]
    assert lines["masks"] == ["one in each of 22 encoded texts"]
    assert len(lines["example"]) == 3
    assert {line.split(",")[0] for line in lines["example"]} == {"calm -> good", "urgent -> bad"}
    assert all("It was [MASK]. [SEP]" in line or "it was [MASK]" in line for line in lines["example"])
    assert lines["trained"][0].startswith("2 steps of sgdm, losses ")
    assert "warning" not in lines


def test_a_sound_task_by_head(tickets: Path, tiny_model: Path):
    lines = found(tickets, tiny_model, method="head")
    assert "masks" not in lines
    assert "words" not in lines
    assert {line.split(",")[0] for line in lines["example"]} == {"calm", "urgent"}


def test_what_a_reader_should_know_is_a_warning(tickets: Path, tiny_model: Path):
    rows = [
        *ticket_rows(24),
        {"text": "film 0 was good fun", "label": "urgent"},
        {"text": " ", "label": "calm"},
    ]
    rows += ticket_rows(2)
    write_rows(tickets / "data" / "tickets" / "train.jsonl", rows)
    test = [row for row in ticket_rows(40)[24:] if row["label"] == "calm"]
    test += [{"text": "film " * 90, "label": "calm"}, *ticket_rows(1)]
    write_rows(tickets / "data" / "tickets" / "test.jsonl", test)
    warnings = found(tickets, tiny_model, k=12)["warning"]
    assert warnings[:5] == [
        "no test row is 'urgent'",
        "1 rows have an empty text; they are kept",
        "1 of 10 test rows (10.0%) are training rows too: they leak where a split draws them",
        "3 training rows repeat another: train and dev may share them",
        "1 texts of training rows have two labels",
    ]
    assert warnings[5] == "fewer than 2 x 12 rows of calm, rows of urgent: train or dev has too few of them"
    assert "1 test rows are in this split's train or dev" in warnings
    assert any(line.endswith("0 of 24 train, 0 of 4 dev, 1 of 10 test") for line in warnings)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("{text} It", "{text|shout} It"), "unknown filter 'shout'"),
        (('text=("text",)', 'text=("body",)'), r"names \['text'\], but the text columns are \('body',\)"),
        (('"text"', '"body"', "{text}", "{body}"), "no column 'body'; found"),
        (('"bad"', '"marvellous"'), "the label word 'marvellous' is 10 tokens"),
        (('"bad"', '"GOOD"'), "label words collide in this vocabulary"),
        (('"urgent": "urgent"', '"hot": "hot"'), "row 2: label 'urgent' is none of"),
    ],
)
def test_what_cannot_be_run_is_refused(tickets: Path, tiny_model: Path, edit: tuple[str, ...], message: str):
    source = SOURCE
    for old, new in zip(edit[::2], edit[1::2], strict=True):
        source = source.replace(old, new)
    (tickets / "tickets.py").write_text(source)
    with pytest.raises(UserError, match=message):
        found(tickets, tiny_model)


def test_a_copy_of_the_training_rows_as_test_is_refused(tickets: Path, tiny_model: Path):
    write_rows(tickets / "data" / "tickets" / "test.jsonl", ticket_rows(20))
    with pytest.raises(UserError, match=r"20 of 20 test rows \(100\.0%\) are training rows too: the test"):
        found(tickets, tiny_model)


def test_too_large_a_k_is_refused(tickets: Path, tiny_model: Path):
    with pytest.raises(UserError, match="Choose --k below 12"):
        found(tickets, tiny_model, k=16)


def test_long_examples_are_shown_without_their_middle(tickets: Path, tiny_model: Path, monkeypatch):
    monkeypatch.setattr(task_check, "LONGEST_SHOWN", 20)
    lines = found(tickets, tiny_model)
    assert all(" characters ...] " in line and line.endswith(" [SEP]") for line in lines["example"])


@pytest.fixture
def tinystories() -> Path:
    """A real decoder of 656k parameters."""
    folder = SHARED / "models" / "tinystories-656k"
    if not folder.is_dir():
        pytest.skip("no tinystories-656k beside the checkout")
    return folder


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("copa", ("the right candidate, ", "<|start_story|>", "in shock.")),
        ("stsb", ("5, ", "<|start_story|>", "")),
    ],
)
def test_other_kinds_by_a_decoder(name: str, shown: tuple[str, str, str], tmp_path: Path, tinystories: Path):
    def row(i: int) -> dict:
        if name == "stsb":
            return {"sentence1": f"film {i}", "sentence2": "a movie", "label": 5.0 * (i % 2)}
        choices = {"choice1": "She was in pain.", "choice2": "She was in shock."}
        return choices | {"premise": f"She fell {i} times.", "question": "effect", "label": i % 2}

    write_rows(tmp_path / name / "train.jsonl", [row(i) for i in range(20)])
    write_rows(tmp_path / name / "validation.jsonl", [row(i) for i in range(20, 30)])
    flags = {"task": name, "data_dir": tmp_path, "model": str(tinystories), "method": "causal", "k": 2}
    lines = list(findings(make_sweep(SETTINGS | flags, None)))
    examples = [finding.text for finding in lines if finding.about == "example"]
    assert len(examples) == 3
    assert any(t.startswith(shown[0]) and shown[1] in t and t.endswith(shown[2]) for t in examples)
    assert lines[-1].about == "trained"


def test_the_command_ends_with_what_it_found(command_here, tickets: Path, tiny_model: Path):
    words = ["tasks", "check", tickets / "tickets.py", "--data-dir", tickets / "data", "--model", tiny_model]
    done = command_here(*words, "--k", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "passed   0 warning(s)"
    (tickets / "tickets.py").write_text("import torch\n" + SOURCE)
    done = command_alone(*words)  # where torch is not loaded yet
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 1: imports torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_span_whose_published_place_is_wrong_is_marked_where_it_reads(data_dir: Path):
    assert marked("one it two", [("one", 0), ("it", 99)]) == "* one * # it # two"
    assert marked("one two", [("one", 0), ("gone", 99)]) == "* one * # two #"
    row = load_task_data(get_task("wsc"), data_dir).test[42]
    assert "iron * safe *" in row.texts[-1]
    assert "# it #" in row.texts[-1]
