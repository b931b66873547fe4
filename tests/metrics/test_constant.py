"""What a constant prediction scores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.metrics.constant import best_constant
from momentum_bench.harness.metrics.functions import accuracy


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_for_accuracy_it_is_the_share_of_the_commonest_label(labels):
    assert best_constant("accuracy", labels) == pytest.approx(max(map(labels.count, labels)) / len(labels))


@given(st.lists(st.integers(0, 2), min_size=2, max_size=30))
def test_no_constant_scores_higher(labels):
    for constant in range(4):
        score = accuracy(labels, [constant] * len(labels))
        assert score <= best_constant("accuracy", labels) + 1e-12


def test_other_metrics():
    assert best_constant("f1", [0, 1, 1, 0]) == pytest.approx(2 / 3)  # all positive
    assert best_constant("matthews_correlation", [0, 1, 1, 0]) == 0
    assert best_constant("pearsonr", [0.1, 0.5, 3.0]) == 0
    assert best_constant("question_exact_match", [1, 1, 0, 1], [0, 0, 1, 1]) == 0.5
    assert best_constant("answer_f1", [("a", "b"), ("c",)]) is None
    assert best_constant("evaluate:accuracy", [0, 1]) is None
