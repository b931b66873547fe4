"""One learning rate for all seeds, and the runs that tie with a choice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.records.selection import DevResult, select, select_shared


def result(rate: float, metric: float, loss: float = 0.5) -> DevResult:
    return DevResult(f"run-{rate:g}", rate, metric, loss)


def test_ties_are_listed_and_edges_count_diverged_rates():
    chosen = select([result(0.1, 0.9), result(0.2, 0.9), result(0.3, 0.8)], (0.1, 0.2, 0.3, 0.4))
    assert (chosen.tied, chosen.n_tied, chosen.on_edge) == (("run-0.1", "run-0.2"), 1, True)
    assert not select([result(0.3, 0.9)], (0.1, 0.3, 0.4)).on_edge


def test_nothing_to_share():
    assert select_shared({}) is None


def test_a_shared_rate_has_the_best_mean_over_seeds():
    by_seed = {
        13: [result(0.1, 0.9), result(0.2, 0.8)],
        21: [result(0.1, 0.5), result(0.2, 0.8)],
    }
    assert select_shared(by_seed) == {13: "run-0.2", 21: "run-0.2"}


def test_a_shared_rate_breaks_ties_by_mean_loss_then_smaller_rate():
    # 0.1 + 0.5 and 0.2 + 0.4 have equal means, though floats may differ in the last bit
    by_seed = {
        13: [result(0.1, 0.1, 0.9), result(0.2, 0.2, 0.4)],
        21: [result(0.1, 0.5, 0.9), result(0.2, 0.4, 0.4)],
    }
    assert set(select_shared(by_seed).values()) == {"run-0.2"}
    equal = {seed: [result(0.2, 0.7), result(0.1, 0.7)] for seed in (13, 21)}
    assert set(select_shared(equal).values()) == {"run-0.1"}


def test_a_rate_that_did_not_finish_everywhere_is_not_shared():
    by_seed = {13: [result(0.1, 0.6), result(0.2, 0.9)], 21: [result(0.1, 0.6)]}
    assert set(select_shared(by_seed).values()) == {"run-0.1"}
    assert select_shared({13: [result(0.1, 0.6)], 21: [result(0.2, 0.6)]}) is None


metrics = st.integers(0, 32).map(lambda n: n / 32)
grids = st.dictionaries(st.sampled_from([0.001, 0.01, 0.1]), st.tuples(metrics, metrics), min_size=1)


@given(st.dictionaries(st.integers(0, 4), grids, min_size=1))
def test_no_rate_that_finished_everywhere_beats_the_shared_one(scores):
    by_seed = {
        seed: [result(rate, metric, loss) for rate, (metric, loss) in grid.items()]
        for seed, grid in scores.items()
    }
    common = set.intersection(*(set(grid) for grid in scores.values()))
    shared = select_shared(by_seed)
    assert shared == select_shared({seed: by_seed[seed][::-1] for seed in reversed(by_seed)})
    if not common:
        assert shared is None
        return
    (chosen,) = {r.learning_rate for s, rs in by_seed.items() for r in rs if r.run_id == shared[s]}
    means = {rate: sum(scores[seed][rate][0] for seed in scores) for rate in common}
    assert means[chosen] == max(means.values())  # multiples of 1/32 add up exactly
