from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.records.schema import Point
from momentum_bench.harness.records.selection import DevResult, select

RESULTS = st.lists(
    st.builds(
        DevResult,
        run_id=st.text("abcdef", min_size=4, max_size=4),
        learning_rate=st.sampled_from([0.001, 0.01, 0.1, 1.0]),
        dev_metric=st.sampled_from([0.5, 0.75, 1.0]),
        dev_loss=st.sampled_from([0.1, 0.2]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda result: result.run_id,
)
GRID = tuple(map(Point, (0.001, 0.01, 0.1, 1.0)))


@given(RESULTS, st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_runs(results, random):
    shuffled = list(results)
    random.shuffle(shuffled)
    assert select(shuffled, GRID) == select(results, GRID)


@given(RESULTS)
def test_nothing_beats_the_choice(results):
    choice = select(results, GRID)
    best = next(r for r in results if r.run_id == choice.run_id)
    assert all(r.dev_metric <= best.dev_metric for r in results)
    ties = [r for r in results if r.dev_metric == best.dev_metric]
    assert all(best.dev_loss <= r.dev_loss for r in ties)
    assert choice.n_tied == len({r.learning_rate for r in ties}) - 1
    assert choice.on_edge == (best.learning_rate in (0.001, 1.0))


def test_ties_go_to_lower_loss_then_smaller_rate_then_run_id():
    def result(run_id: str, rate: float, loss: float) -> DevResult:
        return DevResult(run_id, rate, 1.0, loss)

    results = [result("b", 0.01, 0.2), result("c", 0.1, 0.1), result("d", 0.01, 0.1), result("a", 0.01, 0.1)]
    assert select(results, GRID).run_id == "a"
    assert select(results[:2], GRID).run_id == "c"


def product_of(rates: Iterable[float], sizes: Iterable[float], betas: Iterable[float]) -> list[Point]:
    return [
        Point(rate, (("batch_size", size), ("momentum", beta)))
        for rate in rates
        for size in sizes
        for beta in betas
    ]


def at(point: Point, metric: float = 1.0) -> DevResult:
    return DevResult(str(point), point.learning_rate, metric, 0.1, point.settings)


def test_ties_go_to_the_smaller_rate_then_to_smaller_values_by_the_names_of_axes():
    points = product_of((0.1, 0.01), (8, 4), (0.9, 0.5))
    assert select([at(p) for p in points], points).run_id == str(min(points))
    of_a_size = [p for p in points if p.learning_rate == 0.1]
    chosen = select([at(p) for p in of_a_size], points)
    assert chosen.run_id == str(Point(0.1, (("batch_size", 4), ("momentum", 0.5))))
    assert chosen.n_tied == 3


@pytest.mark.parametrize(
    ("rate", "size", "beta", "on_edge", "ends"),
    [
        (0.1, 4, 0.9, False, ("batch_size",)),  # two batch sizes: each is an end, which says nothing
        (0.1, 8, 0.5, True, ("batch_size", "momentum")),
        (0.1, 8, 0.99, True, ("batch_size", "momentum")),
        (1.0, 4, 0.9, True, ("learning_rate", "batch_size")),
    ],
)
def test_edges_are_told_on_every_axis(
    rate: float, size: float, beta: float, on_edge: bool, ends: tuple[str, ...]
):
    points = product_of((0.01, 0.1, 1.0), (4, 8), (0.5, 0.9, 0.99))
    chosen = select([at(Point(rate, (("batch_size", size), ("momentum", beta))))], points)
    assert (chosen.on_edge, chosen.ends) == (on_edge, ends)


def test_a_value_with_nothing_beyond_it_is_no_edge():
    points = product_of((0.01, 0.1, 1.0), (1, 2, 4), (0, 0.5, 0.9))
    chosen = select([at(Point(0.1, (("batch_size", 1), ("momentum", 0))))], points)
    assert (chosen.on_edge, chosen.ends) == (False, ())


def test_what_selects_cannot_see_test():
    assert not [field for field in dataclasses.fields(DevResult) if "test" in field.name]
    with pytest.raises(ValueError, match="no finished run"):
        select([], GRID)
