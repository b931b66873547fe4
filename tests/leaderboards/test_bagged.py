"""The bagged choice: its weights, what it needs, and that the spread of a tuned difference falls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.records.schema import DevPredictions, RunRecord
from momentum_bench.leaderboards.bagged import (
    RESAMPLES,
    bagged_score,
    bagged_weights,
)
from momentum_bench.leaderboards.columns import metric_on_test
from momentum_bench.leaderboards.comparisons import compare
from momentum_bench.leaderboards.rows import rows_of
from tests.helpers.specs import make_record

N_DEV = 12
LABELS = tuple(row % 2 for row in range(N_DEV))
PREDICTIONS = st.lists(st.lists(st.integers(0, 1), min_size=N_DEV, max_size=N_DEV), min_size=1, max_size=4)


def run(rate: float, predictions, test: float = 0.5, labels=LABELS, **changes) -> RunRecord:
    """A run whose dev score is that of its dev predictions."""
    dev = compute("accuracy", labels, predictions)
    record = make_record(learning_rate=rate, dev=dev, test=test, **changes)
    return record.model_copy(
        update={"dev": DevPredictions(labels=tuple(labels), predictions=tuple(map(int, predictions)))}
    )


def right(n: int) -> tuple[int, ...]:
    """Predictions of which the first n are right."""
    return LABELS[:n] + tuple(1 - label for label in LABELS[n:])


@given(PREDICTIONS)
def test_weights_are_shares_and_equal_predictions_share_equally(predictions: list[list[int]]):
    weights = bagged_weights("accuracy", LABELS, predictions)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    twice = bagged_weights("accuracy", LABELS, predictions * 2)
    assert twice == pytest.approx([weight / 2 for weight in weights * 2])


@given(PREDICTIONS, st.randoms())
def test_the_order_of_the_runs_changes_nothing(predictions: list[list[int]], random):
    order = random.sample(range(len(predictions)), len(predictions))
    weights = bagged_weights("accuracy", LABELS, predictions)
    moved = bagged_weights("accuracy", LABELS, [predictions[place] for place in order])
    assert moved == pytest.approx([weights[place] for place in order])


@given(PREDICTIONS)
@settings(max_examples=20, deadline=None)
def test_a_metric_of_the_library_counts_the_same_rows(predictions: list[list[int]]):
    """Accuracy is computed for all resamples at once; the way of the other metrics gives the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "momentum_bench.leaderboards.bagged.compute",
            lambda metric, labels, predicted, *_: compute("accuracy", labels, predicted),
        )
        slow = bagged_weights("f1", LABELS, predictions)
    assert slow == pytest.approx(bagged_weights("accuracy", LABELS, predictions))


def test_a_run_that_is_right_everywhere_is_always_chosen():
    assert bagged_weights("accuracy", LABELS, [right(6), right(N_DEV), right(2)]) == [0, 1, 0]


def test_classes_keep_their_sizes():
    """With one row of a class, it is in every resample."""
    labels = (0, 1, 1, 1)
    knows, guesses = (0, 0, 0, 0), (1, 1, 1, 1)
    # in every resample one row of class 0 and three of class 1
    assert bagged_weights("accuracy", labels, [knows, guesses]) == [0, 1]


@pytest.mark.parametrize(
    ("metric", "labels", "good", "bad"),
    [
        ("f1", (0, 1) * 6, (0, 1) * 6, (0, 0) * 6),
        ("matthews_correlation", (0, 1) * 6, (0, 1) * 6, (1, 0) * 6),
        ("pearsonr", (0.0, 1.5, 2.5, 5.0), (0.1, 1.0, 2.0, 4.0), (4.0, 2.0, 1.0, 0.0)),
        ("answer_f1", (("one", "two"), ("red fox",)), ("one", "red fox"), ("red", "one")),
    ],
)
def test_every_kind_of_metric(metric: str, labels, good, bad):
    weights = bagged_weights(metric, labels, [bad, good])
    assert weights[1] > 0.9
    assert sum(weights) == pytest.approx(1)


def test_questions_are_resampled_whole():
    labels, questions = (1, 0, 1, 0), (7, 7, 9, 9)
    # right on whole questions 9 and 7: in a quarter of resamples only one question is drawn twice
    first, second = (1, 0, 0, 0), (0, 0, 1, 0)
    weights = bagged_weights("question_exact_match", labels, [first, second], questions)
    assert sum(weights) == pytest.approx(1)
    assert weights[0] == pytest.approx(0.5, abs=0.15)
    assert bagged_weights("f1_m", labels, [labels, first], questions)[0] > 0.7


def test_the_score_of_a_seed_is_the_weighted_mean_of_test():
    runs = [run(0.01, right(6), 0.2), run(0.1, right(7), 0.6), run(1.0, right(3), 0.9)]
    weights = bagged_weights("accuracy", LABELS, [r.dev.predictions for r in runs if r.dev])
    expected = math.fsum(w * metric_on_test(r) for w, r in zip(weights, runs, strict=True))
    assert bagged_score(runs) == pytest.approx(expected)
    assert 0.2 < expected < 0.9
    assert any(0 < weight < 1 for weight in weights)


def test_test_scores_choose_nothing():
    runs = [run(0.01, right(6), 0.2), run(0.1, right(7), 0.6)]
    other = [run(0.01, right(6), 0.6), run(0.1, right(7), 0.2)]
    scores = bagged_score(runs), bagged_score(other)
    assert None not in scores
    assert sum(score for score in scores if score) == pytest.approx(0.8)


def test_what_diverged_cannot_be_chosen_and_without_dev_predictions_there_is_no_score():
    good = run(0.1, right(7), 0.6)
    assert bagged_score([good, make_record(learning_rate=1.0, status="diverged")]) == 0.6
    assert bagged_score([make_record(learning_rate=1.0, status="diverged")]) is None
    assert bagged_score([good, make_record(learning_rate=1.0)]) is None  # of an older version
    other_rows = run(1.0, right(7), labels=LABELS[::-1])
    assert bagged_score([good, other_rows]) is None
    by_evaluate = good.model_copy(update={"metric": "evaluate:rouge"})
    assert bagged_score([by_evaluate]) is None


def test_a_seed_without_a_score_leaves_no_difference():
    records = [
        *(run(rate, right(7), optimizer="sgd", seed=seed) for rate in (0.1, 1.0) for seed in (13, 21)),
        *(run(rate, right(7), 0.6, optimizer="sgdm", seed=13) for rate in (0.1, 1.0)),
        *(make_record(learning_rate=rate, optimizer="sgdm", seed=21) for rate in (0.1, 1.0)),
    ]
    first, second = rows_of(records)
    assert second.bagged.keys() == {13}
    comparison, _ = compare(first, second, 0.01)
    assert comparison is not None
    assert comparison.columns["choice"] == "plain"  # one choice for all seeds of a comparison
    assert len(comparison.differences) == 2


def test_the_spread_of_a_tuned_difference_falls():
    """The arms have the same true curve. Dev has 16 rows a class, so differences are luck of the choice."""
    rng = np.random.default_rng(11)
    seeds = range(120)
    rates, accuracy = (0.01, 0.03, 0.1, 0.3, 1.0), (0.6, 0.68, 0.72, 0.7, 0.62)
    labels = (0,) * 16 + (1,) * 16
    records = []
    for seed in seeds:
        difficulty = rng.uniform(size=32)  # of the rows, shared by all runs of the seed
        for optimizer in ("sgd", "sgdm"):
            for rate, p in zip(rates, accuracy, strict=True):
                is_right = 0.5 * difficulty + 0.5 * rng.uniform(size=32) < p
                predictions = np.where(is_right, labels, 1 - np.array(labels))
                test = p + rng.normal(0, 0.002)
                records.append(
                    run(rate, predictions, test, labels, seed=seed, optimizer=optimizer).model_copy(
                        update={"test": make_record(test=0.5).test.model_copy(update={"metric": test})}
                    )
                )
    first, second = rows_of(records)
    plain = [metric_on_test(second.chosen[s]) - metric_on_test(first.chosen[s]) for s in seeds]
    comparison, _ = compare(first, second, 0.01)
    assert comparison is not None
    bagged = comparison.differences
    assert comparison.columns["choice"] == "bagged"
    assert comparison.columns["plain_mean_difference"] == pytest.approx(np.mean(plain))
    assert np.std(bagged, ddof=1) < 0.85 * np.std(plain, ddof=1)  # measured on real runs: 2.44 against 3.55
    assert abs(np.mean(bagged)) < 0.01
    assert RESAMPLES == 100
