"""One point for several seeds and arms, and the runs that tie with a choice."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.records.schema import Point
from momentum_bench.harness.records.selection import DevResult, edges_of, select, select_matched, select_point


def result(rate: float, metric: float, loss: float = 0.5, **settings: float) -> DevResult:
    return DevResult(f"run-{rate:g}", rate, metric, loss, tuple(sorted(settings.items())))


def rate_of(groups: Sequence[Sequence[DevResult]]) -> float | None:
    point = select_point(groups)
    return None if point is None else point.learning_rate


def test_ties_are_listed_and_edges_count_diverged_rates():
    chosen = select(
        [result(0.1, 0.9), result(0.2, 0.9), result(0.3, 0.8)], list(map(Point, (0.1, 0.2, 0.3, 0.4)))
    )
    assert (chosen.tied, chosen.n_tied, chosen.on_edge) == (("run-0.1", "run-0.2"), 1, True)
    assert not select([result(0.3, 0.9)], list(map(Point, (0.1, 0.3, 0.4)))).on_edge


def test_nothing_to_choose_from():
    assert rate_of([]) is None


def test_the_rate_has_the_best_mean():
    groups = [[result(0.1, 0.9), result(0.2, 0.8)], [result(0.1, 0.5), result(0.2, 0.8)]]
    assert rate_of(groups) == 0.2


def test_ties_are_broken_by_mean_loss_then_smaller_rate():
    # 0.1 + 0.5 and 0.2 + 0.4 have equal means, though floats may differ in the last bit
    groups = [
        [result(0.1, 0.1, 0.9), result(0.2, 0.2, 0.4)],
        [result(0.1, 0.5, 0.9), result(0.2, 0.4, 0.4)],
    ]
    assert rate_of(groups) == 0.2
    assert rate_of([[result(0.2, 0.7), result(0.1, 0.7)]] * 2) == 0.1


def test_a_rate_that_did_not_finish_everywhere_is_not_chosen():
    assert rate_of([[result(0.1, 0.6), result(0.2, 0.9)], [result(0.1, 0.6)]]) == 0.1
    assert rate_of([[result(0.1, 0.6)], [result(0.2, 0.6)]]) is None


metrics = st.integers(0, 32).map(lambda n: n / 32)
grids = st.dictionaries(st.sampled_from([0.001, 0.01, 0.1]), st.tuples(metrics, metrics), min_size=1)


@given(st.lists(grids, min_size=1, max_size=5))
def test_no_rate_that_finished_everywhere_beats_the_chosen_one(scores):
    groups = [[result(rate, metric, loss) for rate, (metric, loss) in grid.items()] for grid in scores]
    common = set.intersection(*(set(grid) for grid in scores))
    chosen = rate_of(groups)
    assert chosen == rate_of([group[::-1] for group in reversed(groups)])
    if not common:
        assert chosen is None
        return
    means = {rate: sum(grid[rate][0] for grid in scores) for rate in common}
    assert means[chosen] == max(means.values())  # multiples of 1/32 add up exactly


@given(st.lists(st.lists(grids, min_size=2, max_size=2), min_size=1, max_size=3))
def test_arms_without_axes_of_their_own_choose_as_if_all_their_runs_were_of_one(scores):
    arms = [[[result(rate, m, loss) for rate, (m, loss) in grid.items()] for grid in arm] for arm in scores]
    point = select_point([group for arm in arms for group in arm])
    assert select_matched(arms) == (None if point is None else [point] * len(arms))


def test_an_arm_stands_at_each_rate_for_the_best_values_of_its_own_axes():
    sgd = [[result(0.1, 0.6), result(0.3, 0.7)]]
    sgdm = [
        [
            result(0.1, 0.9, momentum=0.5),
            result(0.1, 0.2, momentum=0.9),
            result(0.3, 0.6, momentum=0.5),
            result(0.3, 0.7, momentum=0.9),
        ]
    ]
    # at 0.1 the two give 0.6 + 0.9, at 0.3 no more than 0.7 + 0.7
    assert select_matched([sgd, sgdm]) == [Point(0.1), Point(0.1, (("momentum", 0.5),))]


def test_the_values_of_shared_axes_are_chosen_for_all_arms_together():
    one = [[result(0.1, 0.9, batch_size=4), result(0.1, 0.5, batch_size=8)]]
    other = [[result(0.1, 0.1, batch_size=4), result(0.1, 0.6, batch_size=8)]]
    assert select_matched([one, other]) == [Point(0.1, (("batch_size", 8),))] * 2
    assert select_matched([one, [[result(0.1, 0.9, batch_size=16)]]]) is None
    assert select_matched([]) is None


def test_values_that_are_no_numbers_have_no_end():
    grid = [
        Point(rate, (("nesterov", on), ("nu", nu)))
        for rate in (1, 2, 3)
        for on in (False, True)
        for nu in (0, 5)
    ]
    assert edges_of(Point(2, (("nesterov", True), ("nu", 0))), grid) == (False, ())
    assert edges_of(Point(2, (("nesterov", True), ("nu", 5))), grid) == (False, ("nu",))
    assert edges_of(Point(3, (("nesterov", False), ("nu", 0))), grid) == (True, ("learning_rate",))
