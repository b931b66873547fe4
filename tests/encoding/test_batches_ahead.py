"""Batches that are made before they are asked for are the batches that would be made then."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import torch

from momentum_bench.harness.encoding.batches_ahead import BatchesAhead, Request

STEPS = [[Request([1, 2], 10), Request([3, 4], None)], [Request([5], 11), Request([6, 7], None)]]


def drawn(rows: Sequence[int], generator: torch.Generator | None = None) -> torch.Tensor:
    return torch.tensor(rows) + torch.rand(len(rows), generator=generator)


def all_requests() -> Iterator[Request]:
    return iter([request for step in STEPS for request in step])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_they_are_the_same_and_leave_the_generator_where_it_would_be():
    ahead = BatchesAhead(drawn, all_requests())
    for step in STEPS:
        for request in step:
            if request.seed is not None:
                torch.manual_seed(request.seed)
            start = torch.get_rng_state()
            expected, after = drawn(request.rows), torch.get_rng_state()
            torch.set_rng_state(start)
            taken = ahead.taken(request.rows)
            assert taken is not None
            assert torch.equal(taken, expected)
            assert torch.equal(torch.get_rng_state(), after)
    assert ahead.taken([1, 2]) is None  # no more were announced
    ahead.close()


def test_one_batch_is_made_ahead_and_no_more():
    made, may_go_on = [], threading.Semaphore(0)

    def make(rows: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        made.append(list(rows))
        may_go_on.release()
        return drawn(rows, generator)

    ahead = BatchesAhead(make, all_requests())
    for n, request in enumerate(all_requests(), start=1):
        may_go_on.acquire()
        assert len(made) == n
        if request.seed is not None:
            torch.manual_seed(request.seed)
        assert ahead.taken(request.rows) is not None
    ahead.close()
    assert len(made) == 4


def test_another_state_of_the_generator_or_other_rows_are_not_served():
    ahead = BatchesAhead(drawn, all_requests())
    torch.manual_seed(10)
    assert ahead.taken([2, 1]) is None
    assert ahead.taken([1, 2]) is not None
    torch.rand(1)  # something else draws between two parts of a step
    before = torch.get_rng_state()
    assert ahead.taken([3, 4]) is None
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(11)
    assert ahead.taken([5]) is not None  # the next step is in order again
    ahead.close()


def test_an_error_is_raised_where_its_batch_is_asked_for():
    def make(rows: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        raise ValueError(f"no image {rows[0]}")

    ahead = BatchesAhead(make, all_requests())
    with pytest.raises(ValueError, match="no image 1"):
        ahead.taken([1, 2])
    ahead.close()
