"""Regression, multiple choice and grouped answers: their rows, splits, scores and losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from momentum_bench.harness.data import task_kinds
from momentum_bench.harness.data.examples import Example, TaskData, content_hash
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split, few_shot_passages, select_test_rows
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.schema import FinalScore
from momentum_bench.harness.training.objectives import objective_of
from momentum_bench.harness.training.session import Session
from momentum_bench.tasks import Task, get_task
from tests.conftest import write_rows
from tests.helpers.runs import spec_for

STSB, COPA, MULTIRC, RECORD = map(get_task, ("stsb", "copa", "multirc", "record"))
SEEDS = st.integers(0, 2**32 - 1)

ROWS: dict[str, dict] = {
    "stsb": {"sentence1": "a plane", "sentence2": "a jet", "label": 3.8},
    "copa": {"premise": "It fell.", "question": "cause", "choice1": "I ran.", "choice2": "Up.", "label": 1},
    "record": {
        "passage": "Ann met Bob. Bob ran.\n@highlight\nAnn won",
        "query": "@placeholder lost",
        "entities": ["Ann", "Bob", "Bob"],
        "answers": ["Bob", "Robert"],
    },
    "multirc": {"paragraph": "Rain fell.", "question": "What fell?", "answer": "Rain", "label": 1},
}


def loaded(folder: Path, name: str, **changes: object) -> TaskData:
    for split in ("train", "validation"):
        write_rows(folder / name / f"{split}.jsonl", [ROWS[name] | changes])
    return load_task_data(get_task(name), folder)


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("stsb", Example(("a plane", "a jet"), 3.8)),
        ("copa", Example(("It fell.", "because"), 1, ("I ran.", "Up."))),
        (
            "record",
            Example((ROWS["record"]["passage"], "@placeholder lost"), 1, ("Ann", "Bob"), ("Bob", "Robert")),
        ),
    ],
)
def test_rows_of_every_kind_are_read(name: str, example: Example, tmp_path: Path):
    assert loaded(tmp_path, name).train == [example]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stsb", {"label": "much"}, "stsb, train, row 1: label 'much' is no number from 0 to 5"),
        ("stsb", {"label": 5.2}, "label 5.2 is no number from 0 to 5"),
        ("stsb", {"label": -1.0}, r"-1 stands for a hidden label"),
        ("copa", {"question": "why"}, r"question is 'why', expected one of \['cause', 'effect'\]"),
        ("copa", {"choice2": None}, "must be text"),
        ("copa", {"label": 2}, "label 2 is none of"),
        ("record", {"entities": "Ann"}, "must be lists of texts"),
        ("record", {"answers": ["Carl"]}, "none of the answers"),
        ("record", {"answers": []}, "none of the answers"),
        ("record", {"query": "Bob lost"}, "query holds no @placeholder"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(name: str, changes: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, name, **changes)


def test_numbers_may_be_text_and_candidates_change_the_fingerprint(tmp_path: Path):
    assert loaded(tmp_path, "stsb", label="2.5").train[0].label == 2.5
    plain, other = Example(("a",), 0, ("x", "y")), Example(("a",), 0, ("x", "z"))
    assert len({content_hash([[example]]) for example in (plain, other, Example(("a",), 0))}) == 3


NESTED: dict[str, dict] = {
    # as SuperGLUE's and FewGLUE's own files have them
    "wsc": {
        "text": "Mark told Pete lies. He lied.",
        "target": {"span1_text": "Mark", "span1_index": 0, "span2_text": "He", "span2_index": 4},
        "idx": 0,
        "label": True,
    },
    "multirc": {
        "idx": 0,
        "version": 1.1,
        "passage": {
            "text": "Rain fell.",
            "questions": [
                {
                    "question": "What fell?",
                    "answers": [{"text": "Rain", "label": 1}, {"text": "Ann", "label": 0}],
                },
                {"question": "Where?", "answers": [{"text": "Here", "label": 0, "idx": 2}], "idx": 1},
            ],
        },
    },
    "record": {
        "source": "ours",
        "passage": {
            "text": "Ann met Bob. Bob ran.",
            "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}, {"start": 13, "end": 15}],
        },
        "qas": [
            {"query": "@placeholder ran", "answers": [{"start": 8, "end": 10, "text": "Bob"}], "idx": 0},
            {"query": "@placeholder met him", "answers": [{"start": 0, "end": 2, "text": "Ann"}], "idx": 1},
        ],
        "idx": 0,
    },
}


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        (
            "wsc",
            [
                {"text": NESTED["wsc"]["text"], "span1_text": "Mark", "span1_index": 0}
                | {"span2_text": "He", "span2_index": 4, "label": 1}
            ],
        ),
        (
            "multirc",
            [
                {"paragraph": "Rain fell.", "question": question, "answer": answer, "label": label}
                for question, answer, label in (
                    ("What fell?", "Rain", 1),
                    ("What fell?", "Ann", 0),
                    ("Where?", "Here", 0),
                )
            ],
        ),
        (
            "record",
            [
                {
                    "passage": "Ann met Bob. Bob ran.",
                    "query": query,
                    "entities": ["Ann", "Bob"],
                    "answers": [name],
                }
                for query, name in (("@placeholder ran", "Bob"), ("@placeholder met him", "Ann"))
            ],
        ),
    ],
)
def test_nested_rows_of_superglue_are_read_as_the_flat_ones(name: str, flat: list[dict], tmp_path: Path):
    for folder, rows in (("nested", [NESTED[name]]), ("flat", flat)):
        for split in ("train", "validation"):
            write_rows(tmp_path / folder / name / f"{split}.jsonl", rows)
    nested, plain = (load_task_data(get_task(name), tmp_path / folder) for folder in ("nested", "flat"))
    assert nested.train == plain.train
    assert nested.fingerprint == plain.fingerprint


def test_a_nested_row_without_a_part_is_named(tmp_path: Path):
    broken = NESTED["record"] | {"qas": [{"query": "@placeholder ran"}]}  # a test row, without answers
    for split in ("train", "validation"):
        write_rows(tmp_path / "record" / f"{split}.jsonl", [broken])
    with pytest.raises(UserError, match=r"record, train, row 1: a nested row, .* lacks 'answers'"):
        load_task_data(RECORD, tmp_path)


FIELDS = {"name": "x", "title": "", "source": {"reason": ""}, "test": "t", "licence": "", "citation": ""}


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (STSB, {"labels": {5: "high", 0: "low"}}, "low before high"),
        (STSB, {"balance_at": None}, "needs balance_at"),
        (STSB, {"metric": "accuracy"}, "accuracy' scores classes, and the task predicts numbers"),
        (COPA, {"template": "{premise}{mask}", "label_words": ("a", "b")}, "do not fit a mask"),
        (COPA, {"labels": {0: "a", 1: "b", 2: "c"}}, "2 choices for 3 labels"),
        (COPA, {"choices": ()}, "needs choices"),
        (COPA, {"causal_template": "{candidate} {premise}"}, r"end with its only \{candidate\}"),
        (COPA, {"causal_template": "{premise}"}, r"end with its only \{candidate\}"),
        (RECORD, {"labels": {0: "a", 1: "b"}}, "have no labels"),
        (RECORD, {"metric": "f1"}, "predicts texts from a list"),
        (RECORD, {"cloze": "text"}, "cloze names"),
        (MULTIRC, {"groups": ("paragraph",)}, "scores answers to questions"),
        (MULTIRC, {"groups": ("passage",)}, "groups names"),
        (MULTIRC, {"cut": ("passage",)}, "cut names"),
        (MULTIRC, {"metric": "pearsonr"}, "predicts classes"),
        (MULTIRC, {"choices": ("answer",)}, "multiple_choice"),
    ],
)
def test_a_mistake_in_a_task_of_another_kind_is_named(base: Task, change: dict, message: str):
    with pytest.raises((ValidationError, ValueError), match=message):
        Task.model_validate(base.model_dump() | change)


def test_a_causal_template_changes_no_result_of_another_method():
    other = STSB.model_copy(update={"causal_template": "{sentence1} {candidate}"})
    assert other.version == STSB.version_for("prompt") == STSB.version_for("head")
    assert other.version_for("causal") != STSB.version_for("causal")
    assert COPA.methods == RECORD.methods == ("head", "causal")
    assert get_task("sst2").causal == "{sentence} It was {candidate}"


@pytest.mark.parametrize("name", ["cola", "mnli", "wsc", "stsb", "record"])
def test_whose_a_prompt_is_stands_in_the_citation(name: str):
    citation = get_task(name).citation
    assert any(source in citation for source in ("LM-BFF", "MeZO", "ours"))


# -- few-shot splits ---------------------------------------------------------------------------


@given(st.lists(st.floats(0, 5), min_size=8, max_size=60), st.integers(1, 6), SEEDS)
def test_stsb_is_balanced_at_two_and_a_half(scores: list[float], k: int, seed: int):
    halves = [score >= 2.5 for score in scores]
    assume(min(sum(halves), len(halves) - sum(halves)) > k)
    rows = [Example(("a", "b"), score) for score in scores]
    few = draw_split(TaskData(STSB, rows, rows, "", "", 0, 0), k, seed, "mezo")
    assert [halves[row] for row in few.train].count(True) == k
    assert len(few.train) == 2 * k
    assert not set(few.train) & set(few.dev)
    shuffled = np.random.RandomState(seed).permutation(len(rows)).tolist()
    for half in (False, True):
        mine = [row for row in shuffled if halves[row] is half]
        assert [row for row in few.train if halves[row] is half] == mine[:k]
        assert [row for row in few.dev if halves[row] is half] == mine[k : 2 * k]


@given(st.lists(st.integers(0, 8), min_size=4, max_size=60), st.integers(1, 5), SEEDS)
def test_train_and_dev_are_whole_passages_and_share_none(numbers: list[int], k: int, seed: int):
    names = {number: f"passage {number}" for number in numbers}
    rows = [Example((names[number], f"q{i}", "a"), i % 2) for i, number in enumerate(numbers)]
    passages = task_kinds.passages(MULTIRC, rows)
    n = len(names)
    if n <= k:
        with pytest.raises(UserError, match=f"Choose --k below {n}"):
            few_shot_passages(passages, k, seed)
        return
    few = draw_split(TaskData(MULTIRC, rows, rows, "", "", 0, 0), k, seed, "mezo")
    train, dev = ({passages[row] for row in part} for part in (few.train, few.dev))
    assert len(train) == k
    assert len(dev) == min(k, n - k)
    assert not train & dev
    for part, chosen in ((few.train, train), (few.dev, dev)):
        assert sorted(part) == [row for row, passage in enumerate(passages) if passage in chosen]
    assert few.short_classes == ([0] if n < 2 * k else [])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 30))
def test_of_questions_all_answers_are_scored_or_none(questions: list[int], limit: int):
    numbers = {q: i for i, q in enumerate(dict.fromkeys(questions))}
    questions = [numbers[q] for q in questions]
    if (
        len(questions) > limit
        and questions.count(np.random.RandomState(42).permutation(len(numbers))[0]) > limit
    ):
        with pytest.raises(UserError, match="test-limit"):
            select_test_rows(len(questions), limit, questions)
        return
    rows = select_test_rows(len(questions), limit, questions)
    assert 0 < len(rows) <= limit or len(rows) == len(questions)
    assert len(set(rows)) == len(rows)
    chosen = {questions[row] for row in rows}
    assert sorted(rows) == [row for row, q in enumerate(questions) if q in chosen]


# -- losses and predictions --------------------------------------------------------------------


def test_two_label_words_interpolate_between_the_ends():
    objective = objective_of(STSB, "prompt")
    scores = torch.tensor([[0.3, 1.2], [2.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([3.8, 0.0], dtype=torch.float64)
    loss, predicted = 0.0, []
    for (no, yes), y in zip(scores.tolist(), labels.tolist(), strict=True):
        q = np.exp(yes) / (np.exp(no) + np.exp(yes))
        p = y / 5
        loss += p * np.log(p / q) if p else 0.0
        loss += (1 - p) * np.log((1 - p) / (1 - q)) if p < 1 else 0.0
        predicted.append(5 * q)
    assert objective.loss(scores, labels, "sum").item() == pytest.approx(loss)
    assert objective.loss(scores, labels).item() == pytest.approx(loss / 2)
    assert objective.predictions(scores).tolist() == pytest.approx(predicted)
    # at its label the loss is 0, which LM-BFF's own would not be
    at_label = torch.log(torch.tensor([[1 - 3.8 / 5, 3.8 / 5]], dtype=torch.float64))
    assert objective.loss(at_label, labels[:1]).item() == pytest.approx(0, abs=1e-12)


def test_a_head_of_one_output_is_trained_on_squared_errors():
    objective = objective_of(STSB, "head")
    scores, labels = torch.tensor([[1.0], [4.0]]), torch.tensor([3.0, 3.5])
    assert objective.loss(scores, labels).item() == pytest.approx((4 + 0.25) / 2)
    assert objective.predictions(scores).tolist() == [1.0, 4.0]


def test_candidates_are_trained_by_cross_entropy_or_the_right_ones_likelihood():
    scores = torch.tensor([[-1.0, -2.0, -torch.inf], [-3.0, -1.5, -1.0]])
    labels = torch.tensor([1, 2])
    head, decoder = objective_of(COPA, "head"), objective_of(COPA, "causal")
    expected = torch.nn.functional.cross_entropy(scores, labels)
    assert head.loss(scores, labels).item() == pytest.approx(expected.item())
    assert decoder.loss(scores, labels).item() == pytest.approx((2.0 + 1.0) / 2)
    assert decoder.predictions(scores).tolist() == [0, 2]
    assert not objective_of(MULTIRC, "causal").generative


def test_what_is_compared_with_predictions_is_stored_and_read_back():
    rows = [
        Example(("p", "q"), 0, ("Ann", "Bob"), ("Ann", "Anna")),
        Example(("p", "r"), 1, ("X", "Y"), ("Y",)),
    ]
    references = task_kinds.references(RECORD, rows)
    assert references.answers == [("Ann", "Anna"), ("Y",)]
    assert references.stated([1, 1]) == ["Bob", "Y"]
    stored = FinalScore(
        metric=0.5,
        loss=None,
        rows=(0, 1),
        labels=tuple(references.answers),
        predictions=tuple(references.stated([1, 1])),
    )
    assert FinalScore.model_validate_json(stored.model_dump_json()) == stored
    number = FinalScore(metric=0.5, loss=1.0, rows=(0,), labels=(3.0,), predictions=(2.25,))
    again = FinalScore.model_validate_json(number.model_dump_json())
    assert [type(value) for value in (*again.labels, *again.predictions)] == [float, float]
    old = {"metric": 1.0, "loss": 0.1, "rows": [0], "labels": [1], "predictions": [1]}
    assert FinalScore.model_validate_json(json.dumps(old)).labels == (1,)
    answers = [Example(("p", "q", "a"), 1), Example(("p", "q", "b"), 0), Example(("p", "r", "a"), 0)]
    assert task_kinds.references(MULTIRC, answers).questions == [0, 0, 1]


def test_in_training_no_right_candidate_counts_as_wrong(tiny_model: Path, tmp_path: Path):
    both = Example(("", ""), 1, ("Ann", "Bob", "Carl", "Robert"), ("Robert", "Bob"))
    assert task_kinds.with_one_answer(both) == both._replace(candidates=("Ann", "Bob", "Carl"))
    last = both._replace(label=3)
    assert task_kinds.with_one_answer(last) == last._replace(candidates=("Ann", "Carl", "Robert"), label=2)
    one = both._replace(answers=("Bob", "Bobby"))
    assert task_kinds.with_one_answer(one) is one

    rows = [
        {
            "passage": f"film {i}",
            "query": "@placeholder was fun",
            "entities": ["the film", "plot", "it"],
            "answers": ["the film", "it"],
        }
        for i in range(8)
    ]
    for part in ("train", "validation"):
        write_rows(tmp_path / "record" / f"{part}.jsonl", rows)
    session = Session(Inputs(str(tiny_model), tmp_path), make_accelerator("fp32"))
    split = session.split(spec_for(session, task="record", method="head", k=2))
    assert split.train.candidates == [2, 2]
    assert split.dev.candidates == [3, 3]
    assert set(split.test.references.stated([0, 2] * 4)) == {"the film", "it"}
