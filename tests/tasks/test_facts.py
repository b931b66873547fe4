from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoTokenizer

from momentum_bench import tasks
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.encoding.label_words import label_word_ids
from momentum_bench.harness.encoding.texts import encode_plain, encode_prompts
from momentum_bench.tasks.types import ImageTask, TemplatePiece, filled, filtered, parse_template
from tests.conftest import ROOT

NAMES = tasks.task_names()


def test_the_tasks_of_the_paper_and_the_embedded_one_are_there():
    assert {"sst2", "sst5", "snli", "trec", "mnli", "rte", "bbc_news"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_one_short_file_of_data(name: str):
    lines = (ROOT / "tasks" / f"{name}.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 22
    assert all(line.startswith("from momentum_bench.tasks.types import") for line in imports)
    assert tasks.get_task(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_task_of_the_hub_is_pinned_to_a_commit(name: str):
    for protocol in ("mezo", "lm-bff"):
        source = tasks.get_task(name).source_for(protocol)
        if isinstance(source, tasks.HubSource):
            assert re.fullmatch("[0-9a-f]{40}", source.revision)


def test_an_unknown_name_comes_with_the_nearest_ones():
    with pytest.raises(tasks.UnknownTaskError, match=r"Did you mean .*sst2"):
        tasks.get_task("sts2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "{sentence} It was."}, r"holds \{mask\} 0 times"),
        ({"template": "{mask}{mask}{sentence}"}, r"holds \{mask\} 2 times"),
        ({"template": "{premise}{mask}"}, "names"),
        ({"template": "{sentence|shout}{mask}"}, "unknown filter"),
        ({"template": "{sentence:.10}{mask}"}, "the template has ':.10' after 'sentence'"),
        ({"template": "{sentence|lower!r}{mask}"}, "the template has '!r' after 'sentence.lower'"),
        ({"template": "{sentence}{mask!s}"}, "the template has '!s' after 'mask'"),
        ({"head_text": ("{sentence!r}",)}, "the template has '!r' after 'sentence'"),
        ({"causal_template": "{sentence} {candidate:>9}"}, "the template has ':>9' after 'candidate'"),
        ({"label_words": ("great",)}, "1 label words for 2"),
        ({"label_words": ("great", "great")}, "share"),
        ({"metrics": "accuracy"}, "Extra inputs"),
        ({"metric": "f2"}, "Input should be 'accuracy'"),
        ({"labels": {0: "bad", 1: "bad"}}, r"the label 'bad' could be 0 \('bad'\) as well as 1"),
        ({"labels": {0: "1", 1: "0"}}, r"the label '1' could be 0 \('1'\) as well as 1 \('0'\)"),
        ({"labels": {1: "a", "1": "b"}}, "the label '1' could be 1"),
        ({"head_text": ("{sentence} {mask}",)}, "none in head_text"),
        ({"head_text": ("{premise}",)}, "names"),
        ({"text": ("sentence", "a", "b")}, "3 text columns need a head_text"),
        ({"marks": (("word", "place"),)}, "marks names"),
        (
            {
                "further_metrics": ("f1",),
                "labels": {i: str(i) for i in range(3)},
                "label_words": tuple("abc"),
            },
            "f1 needs two classes",
        ),
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
    asked = filtered(text, "question_mark")
    assert asked.startswith(text)
    assert asked.count("?") - text.count("?") == (bool(text) and not text.endswith("?"))


def test_a_template_is_filled_with_the_texts_of_a_row():
    pieces = parse_template('"{a|lower}" and {b|upper_first|question_mark}{mask}.')
    assert filled(pieces, {"a": "ONE", "b": "is it {a}"}, "_") == '"one" and Is it {a}?_.'


def real_row(name: str, data_dir: Path) -> tuple[str, list[str]]:
    """Prompt and head inputs of the task's first test row."""
    task = tasks.get_task(name)
    row = dict(zip(task.fields, load_task_data(task, data_dir).test[0].texts, strict=True))
    return filled(parse_template(task.template), row, "_"), [
        filled(parse_template(text), row) for text in task.head_text
    ]


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("mrpc", r"strategy \._, \" The foodservice"),
        ("boolq", r"\. Does ethanol .* produces\?_\."),
        ("cb", r'Suppose Valence .* Can we infer that "Valence was helping"\? Yes, No, or Maybe\?_\.'),
    ],
)
def test_prompts_of_real_rows_read_as_published(name: str, prompt: str, data_dir: Path):
    assert re.search(prompt, real_row(name, data_dir)[0])


def test_spans_stand_in_the_prompt_and_are_marked_for_a_head(data_dir: Path):
    prompt, (text,) = real_row("wsc", data_dir)
    assert prompt.endswith('does the pronoun "him" refer to anyone? Yes or No?_.')
    assert "Still, * anyone * who knew" in text
    assert "could take his claim away from # him # ." in text
    prompt, (first, second) = real_row("wic", data_dir)
    assert prompt.startswith('Does the word "class" have the same meaning')
    assert (first, second[:10]) == ("class: An emerging professional class.", "Apologizin")


REAL = [
    name
    for name in NAMES
    if name not in ("bbc_news", "mnli_mismatched") and not isinstance(tasks.get_task(name), ImageTask)
]


@pytest.mark.parametrize("name", REAL)
def test_real_rows_of_every_task_become_a_split_that_models_can_read(
    name: str, data_dir: Path, splade_tiny: Path
):
    task = tasks.get_task(name)
    data = load_task_data(task, data_dir)
    k = 16 if name != "cb" else 8  # cb has 16 neutral rows in all
    few = draw_split(data, k, 13, "lm-bff")
    if not task.groups:
        assert len(few.train) == k * len(task.labels)
    assert not few.short_classes
    tokenizer = AutoTokenizer.from_pretrained(splade_tiny)
    examples = [data.train[row] for row in few.train]
    plain = encode_plain(tokenizer, task, examples, task.max_length)
    assert max(map(len, plain.input_ids)) <= task.max_length
    assert plain.labels == [example.label for example in examples]
    if "prompt" in task.methods:
        assert len(label_word_ids(tokenizer, task)) == len(task.labels)
        prompts = encode_prompts(tokenizer, task, examples, task.max_length)
        assert all(ids.count(tokenizer.mask_token_id) == 1 for ids in prompts.input_ids)
        assert max(map(len, prompts.input_ids)) <= task.max_length
        assert prompts.labels == plain.labels
