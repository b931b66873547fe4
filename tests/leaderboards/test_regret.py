"""The regret profile: shares of (task, seed) pairs, and those of the published boards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.leaderboards.build import board_of
from momentum_bench.leaderboards.regret import REGRET_COLUMNS, THRESHOLDS, regret, regret_lines
from tests.helpers.published import published_board
from tests.helpers.specs import make_record

DIFFERENCES = st.lists(st.integers(-100, 100).map(lambda n: n / 1000), min_size=1, max_size=20)


@given(DIFFERENCES, st.sampled_from(THRESHOLDS))
def test_shares_turn_with_the_sign_and_fall_with_the_threshold(differences: list[float], threshold: float):
    first, second = regret(differences, threshold)
    assert regret([-d for d in differences], threshold) == (second, first)
    assert 0 <= first + second <= 1
    assert regret(differences, threshold + 0.005) <= (first, second)


def test_a_cost_of_just_the_threshold_is_not_more_than_it():
    assert regret([0.3 - 0.2, -0.1, 0.11, 0.0], 0.1) == (0.25, 0.0)
    with pytest.raises(ValueError, match="no differences"):
        regret([], 0.0)


def test_tasks_of_one_family_count_together():
    records = [
        make_record(task=task, optimizer=optimizer, seed=seed, test=0.5 + (optimizer == "sgdm") * gain)
        for task, gain in (("sst2", 0.03), ("mr", -0.06))
        for optimizer in ("sgd", "sgdm")
        for seed in (13, 21)
    ]
    lines = list(regret_lines(board_of(records).comparisons))
    assert tuple(lines[0]) == REGRET_COLUMNS
    assert [line["threshold"] for line in lines] == list(THRESHOLDS)
    assert {(line["tasks"], line["n_pairs"], line["question"]) for line in lines} == {("mr;sst2", 4, "tuned")}
    # 0, 1, 2, 5 and 10 points
    assert [line["first_costs_more"] for line in lines] == [0.5, 0.5, 0.5, 0.0, 0.0]
    assert [line["second_costs_more"] for line in lines] == [0.5, 0.5, 0.5, 0.5, 0.0]


def test_the_published_boards():
    """Computed apart from this code, in per cent."""
    six_tasks = published_board("six-tasks-minilm-head").comparisons
    pairs = [pair for pair in six_tasks if pair.second.label == "sgdm"]
    lines = {line["threshold"]: line for line in regret_lines(pairs)}
    for threshold, second, first in ((0.01, 43, 23), (0.02, 27, 17), (0.05, 20, 3)):
        assert round(100 * lines[threshold]["second_costs_more"]) == second
        assert round(100 * lines[threshold]["first_costs_more"]) == first
    tuned = [
        pair
        for pair in published_board("digits-batch-size").comparisons
        if pair.question == "tuned" and pair.second.label == "sgdm"
    ]
    digits = [difference for pair in tuned for difference in pair.differences]
    assert [regret(digits, threshold) for threshold in (0.01, 0.02, 0.05)] == [
        (0.4, 0.1),
        (0.4, 0.05),
        (0.3, 0.05),
    ]
