from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tasks
from tasks.task import TemplatePiece, filtered, parse_template
from tests.conftest import ROOT

NAMES = tasks.task_names()


def test_the_tasks_of_the_paper_and_the_embedded_one_are_there():
    assert {"sst2", "sst5", "snli", "trec", "mnli", "rte", "bbc_news"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_one_short_file_of_data(name: str):
    lines = (ROOT / "tasks" / f"{name}.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 20
    assert all(line.startswith("from tasks.task import") for line in imports)
    assert tasks.get_task(name).name == name


def test_an_unknown_name_comes_with_the_nearest_ones():
    with pytest.raises(tasks.UnknownTaskError, match="Did you mean sst2"):
        tasks.get_task("sts2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "{sentence} It was."}, "0 times"),
        ({"template": "{mask}{mask}{sentence}"}, "2 times"),
        ({"template": "{premise}{mask}"}, "names"),
        ({"template": "{sentence|shout}{mask}"}, "unknown filter"),
        ({"label_words": ("great",)}, "1 label words for 2"),
        ({"label_words": ("great", "great")}, "share"),
        ({"metrics": "accuracy"}, "Extra inputs"),
    ],
)
def test_a_mistake_in_a_task_file_is_named(change: dict, message: str):
    fields = tasks.get_task("sst2").model_dump() | change
    with pytest.raises((ValidationError, ValueError), match=message):
        tasks.Task.model_validate(fields)


def test_the_version_follows_the_facts_and_not_the_words_for_people():
    task = tasks.get_task("sst2")
    assert task.model_copy(update={"title": "other"}).version == task.version
    assert task.model_copy(update={"max_length": 64}).version != task.version
    swapped = dict(reversed(task.labels.items()))
    assert task.model_copy(update={"labels": swapped}).version != task.version


def test_template_pieces_keep_a_space_with_the_field_that_follows_it():
    assert parse_template("{premise|cut_last}?{mask}, {hypothesis|lower_first}") == (
        TemplatePiece("field", "premise", ("cut_last",)),
        TemplatePiece("text", "?"),
        TemplatePiece("mask", ""),
        TemplatePiece("text", ","),
        TemplatePiece("field", "hypothesis", ("lower_first",), after_space=True),
    )
    assert parse_template("{mask}: {text}")[1:] == (
        TemplatePiece("text", ":"),
        TemplatePiece("field", "text", (), after_space=True),
    )


@given(st.text())
def test_filters_touch_one_end_only(text: str):
    assert filtered(text, "cut_last") == text[:-1]
    assert filtered(text, "lower_first")[1:].endswith(text[1:])
    assert filtered(text, "upper_first").endswith(text[1:])
