"""Each metric against its textbook formula, computed here from counts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.metrics.functions import METRICS
from momentum_bench.tasks.types import MetricName


def pairs(n_classes: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Lists of (label, prediction)."""
    classes = st.integers(0, n_classes - 1)
    return st.lists(st.tuples(classes, classes), min_size=1, max_size=60)


def scored(metric: str, rows: list[tuple[int, int]]) -> float:
    """The metric; a warning on the way is an error."""
    labels, predictions = zip(*rows, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return METRICS[metric](labels, predictions)


def f1_of(rows: np.ndarray, positive: int) -> float:
    labels, predictions = rows[:, 0] == positive, rows[:, 1] == positive
    both = np.sum(labels & predictions)
    return 2 * both / (np.sum(labels) + np.sum(predictions)) if both else 0.0


def correlation_of(rows: np.ndarray) -> float:
    """Gorodkin's form: the correlation of the two one-hot matrices."""
    one_hot = rows[:, :, None] == np.arange(rows.max() + 1)
    x, y = (one_hot[:, side] - one_hot[:, side].mean(axis=0) for side in (0, 1))
    spread = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / spread) if spread > 1e-12 else 0.0


def test_every_metric_that_a_task_may_name_is_there():
    assert set(METRICS) == set(get_args(MetricName))


@given(pairs(3))
def test_accuracy_is_the_share_of_hits(rows: list[tuple[int, int]]):
    assert scored("accuracy", rows) == pytest.approx(np.mean([a == b for a, b in rows]))


@given(pairs(2))
def test_f1_is_of_the_second_class(rows: list[tuple[int, int]]):
    assert scored("f1", rows) == pytest.approx(f1_of(np.array(rows), 1))


@given(pairs(3))
def test_macro_f1_is_the_plain_mean_over_the_classes_that_occur(rows: list[tuple[int, int]]):
    classes = sorted({c for row in rows for c in row})
    expected = np.mean([f1_of(np.array(rows), c) for c in classes])
    assert scored("macro_f1", rows) == pytest.approx(expected)


@given(pairs(2))
def test_matthews_is_the_correlation_of_two_binary_variables(rows: list[tuple[int, int]]):
    assert scored("matthews_correlation", rows) == pytest.approx(correlation_of(np.array(rows)), abs=1e-9)


@given(pairs(4))
def test_matthews_of_several_classes_is_gorodkins(rows: list[tuple[int, int]]):
    assert scored("matthews_correlation", rows) == pytest.approx(correlation_of(np.array(rows)), abs=1e-9)


@pytest.mark.parametrize("predicted", [0, 1])
def test_predictions_of_one_class_are_scored_without_a_warning(predicted: int):
    rows = [(0, predicted), (1, predicted), (1, predicted)]
    assert scored("matthews_correlation", rows) == 0
    assert scored("matthews_correlation", [(predicted, predicted)] * 3) == 0
    assert scored("f1", [(label, 0) for label, _ in rows]) == 0
    assert scored("f1", [(0, 0)] * 3) == 0


def ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks from 1, by counting."""
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def pearson_of(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)))


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 40)), min_size=3, max_size=60))
def test_correlations_are_the_textbooks(rows: list[tuple[int, int]]):
    """As in evaluate's glue for stsb: pearsonr and spearmanr of predictions and labels."""
    labels, predictions = (np.array(side) / 5 for side in zip(*rows, strict=True))
    found = [compute(name, list(labels), list(predictions)) for name in ("pearsonr", "spearmanr")]
    if len(set(labels)) == 1 or len(set(predictions)) == 1:
        assert found == [0, 0]
        return
    expected = [pearson_of(labels, predictions), pearson_of(ranks(labels), ranks(predictions))]
    assert found == pytest.approx(expected, abs=1e-9)
    both = compute("pearson_spearman", list(labels), list(predictions))
    assert both == pytest.approx(sum(expected) / 2, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=60))
def test_multirc_is_scored_over_all_answers_and_by_question(rows: list[tuple[int, int, int]]):
    """evaluate's super_glue for multirc: f1_a over all answers, exact_match and f1_m by question."""
    labels, predictions, questions = zip(*rows, strict=True)
    table = np.array(rows)
    exact, macro = [], []
    for question in set(questions):
        mine = table[table[:, 2] == question]
        exact.append(float(np.array_equal(mine[:, 0], mine[:, 1])))
        classes = sorted(set(mine[:, :2].ravel().tolist()))
        macro.append(np.mean([f1_of(mine, c) for c in classes]))
    assert compute("f1_a", labels, predictions, questions) == pytest.approx(f1_of(table, 1))
    assert compute("question_exact_match", labels, predictions, questions) == pytest.approx(np.mean(exact))
    assert compute("f1_m", labels, predictions, questions) == pytest.approx(np.mean(macro))


NAMES = st.lists(
    st.sampled_from(["The", "a", "Red", "red!", "Cross", "cross.", "U.N.", "an"]), max_size=5
).map(" ".join)


def tokens_of(text: str) -> list[str]:
    """SQuAD's normalisation, letter by letter and word by word."""
    kept = "".join(c.lower() for c in text if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return [word for word in kept.split() if word not in ("a", "an", "the")]


@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), NAMES), min_size=1, max_size=12))
def test_record_takes_the_best_of_the_right_answers(rows: list[tuple[list[str], str]]):
    """evaluate's super_glue for record: the best token F1 and exact match over the answers."""
    f1s, exact = [], []
    for answers, prediction in rows:
        best = 0.0
        for answer in answers:
            right, found = tokens_of(answer), tokens_of(prediction)
            rest, common = list(right), 0
            for word in found:
                if word in rest:
                    rest.remove(word)
                    common += 1
            if common:
                precision, recall = common / len(found), common / len(right)
                best = max(best, 2 * precision * recall / (precision + recall))
        f1s.append(best)
        exact.append(float(any(tokens_of(answer) == tokens_of(prediction) for answer in answers)))
    labels, predictions = zip(*rows, strict=True)
    assert compute("answer_f1", labels, predictions) == pytest.approx(np.mean(f1s))
    assert compute("answer_exact_match", labels, predictions) == pytest.approx(np.mean(exact))


def test_the_same_numbers_through_evaluate_without_network_or_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("evaluate", reason="the evaluate extra is not installed")
    from momentum_bench.harness.metrics.evaluate_bridge import OurMetric

    monkeypatch.chdir(tmp_path)
    numbers = {"references": [1.0, 2.0, 2.5, 4.0], "predictions": [0.5, 2.5, 2.0, 5.0]}
    assert OurMetric("pearsonr").compute(**numbers) == {
        "pearsonr": compute("pearsonr", numbers["references"], numbers["predictions"])
    }
    texts = {"references": [["Ann", "Anna"], ["Bob"]], "predictions": ["anna", "Bob X"]}
    assert OurMetric("answer_f1").compute(**texts)["answer_f1"] == pytest.approx((1 + 2 / 3) / 2)
    answers = {"references": [1, 0, 1], "predictions": [1, 0, 0], "questions": [0, 0, 1]}
    assert OurMetric("question_exact_match").compute(**answers) == {"question_exact_match": 0.5}
    with pytest.raises(UserError, match="no metric 'rouge' of ours"):
        OurMetric("rouge")
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import datasets
import evaluate

class HalfRight(evaluate.Metric):
    def _info(self):
        number = datasets.Value("int64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        share = sum(p == r for p, r in zip(predictions, references)) / len(references)
        return {"half": share / 2, "whole": share}
"""


def test_any_metric_that_evaluate_loads_scores_a_users_task(tmp_path: Path):
    pytest.importorskip("evaluate", reason="the evaluate extra is not installed")
    (tmp_path / "half_right").mkdir()
    (tmp_path / "half_right" / "half_right.py").write_text(SCRIPT)
    metric = f"evaluate:{tmp_path / 'half_right'}"
    assert compute(f"{metric}:half", [0, 1, 1, 0], [0, 1, 1, 1]) == 0.375
    with pytest.raises(UserError, match="SCORE one of half, whole"):
        compute(metric, [0], [0])
    with pytest.raises(UserError, match="evaluate cannot load it"):
        compute("evaluate:no_such_metric_anywhere", [0], [0])
