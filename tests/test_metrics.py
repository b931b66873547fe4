"""Each metric against its textbook formula, computed here from counts."""

from __future__ import annotations

import warnings
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics import METRICS
from tasks.task import MetricName


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
