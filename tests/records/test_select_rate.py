"""One learning rate for several grids, and the runs that tie with a choice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.records.schema import Point
from momentum_bench.harness.records.selection import DevResult, select, select_rate


def result(rate: float, metric: float, loss: float = 0.5) -> DevResult:
    return DevResult(f"run-{rate:g}", rate, metric, loss)


def test_ties_are_listed_and_edges_count_diverged_rates():
    chosen = select(
        [result(0.1, 0.9), result(0.2, 0.9), result(0.3, 0.8)], list(map(Point, (0.1, 0.2, 0.3, 0.4)))
    )
    assert (chosen.tied, chosen.n_tied, chosen.on_edge) == (("run-0.1", "run-0.2"), 1, True)
    assert not select([result(0.3, 0.9)], list(map(Point, (0.1, 0.3, 0.4)))).on_edge


def test_nothing_to_choose_from():
    assert select_rate([]) is None


def test_the_rate_has_the_best_mean():
    groups = [[result(0.1, 0.9), result(0.2, 0.8)], [result(0.1, 0.5), result(0.2, 0.8)]]
    assert select_rate(groups) == 0.2


def test_ties_are_broken_by_mean_loss_then_smaller_rate():
    # 0.1 + 0.5 and 0.2 + 0.4 have equal means, though floats may differ in the last bit
    groups = [
        [result(0.1, 0.1, 0.9), result(0.2, 0.2, 0.4)],
        [result(0.1, 0.5, 0.9), result(0.2, 0.4, 0.4)],
    ]
    assert select_rate(groups) == 0.2
    assert select_rate([[result(0.2, 0.7), result(0.1, 0.7)]] * 2) == 0.1


def test_a_rate_that_did_not_finish_everywhere_is_not_chosen():
    assert select_rate([[result(0.1, 0.6), result(0.2, 0.9)], [result(0.1, 0.6)]]) == 0.1
    assert select_rate([[result(0.1, 0.6)], [result(0.2, 0.6)]]) is None


metrics = st.integers(0, 32).map(lambda n: n / 32)
grids = st.dictionaries(st.sampled_from([0.001, 0.01, 0.1]), st.tuples(metrics, metrics), min_size=1)


@given(st.lists(grids, min_size=1, max_size=5))
def test_no_rate_that_finished_everywhere_beats_the_chosen_one(scores):
    groups = [[result(rate, metric, loss) for rate, (metric, loss) in grid.items()] for grid in scores]
    common = set.intersection(*(set(grid) for grid in scores))
    chosen = select_rate(groups)
    assert chosen == select_rate([group[::-1] for group in reversed(groups)])
    if not common:
        assert chosen is None
        return
    means = {rate: sum(grid[rate][0] for grid in scores) for rate in common}
    assert means[chosen] == max(means.values())  # multiples of 1/32 add up exactly
