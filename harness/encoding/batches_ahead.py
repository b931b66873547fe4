"""Batches that are made before they are asked for, in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch


class Request(NamedTuple):
    """A batch that will be asked for.

    Attributes:
        rows: the positions of its examples.
        seed: that of torch's generator when it is asked for; None: the generator is where the batch before
            has left it.
    """

    rows: list[int]
    seed: int | None


class _Waiting(NamedTuple):
    """A batch that is being made from a state of a generator."""

    rows: list[int]
    before: torch.Tensor
    made: Future[tuple[torch.Tensor, torch.Tensor]]


class BatchesAhead:
    """The next batch is made while the one before is in use, so there is one batch more in memory.

    What is made ahead depends on torch's CPU generator. It is made from a copy of the state that the
    generator will have, and given only if the generator has that state when the batch is asked for. So a
    batch is never another one than it would be without this.
    """

    def __init__(
        self,
        make: Callable[[Sequence[int], torch.Generator], torch.Tensor],
        requests: Iterator[Request],
    ):
        """Begin with the first request.

        Args:
            make: a batch from positions, with random draws from a generator; called in another thread.
        """
        self._make, self._requests = make, requests
        self._generator = torch.Generator()
        self._thread = ThreadPoolExecutor(1, "batches ahead")
        self._waiting = self._next()

    def taken(self, rows: Sequence[int]) -> torch.Tensor | None:
        """The batch of these rows; None if another one was made, or from another state of the generator.

        torch's generator then is where making the batch would have left it.

        Raises:
            Exception: what was raised while the batch was made.
        """
        waiting = self._waiting
        if waiting is None or waiting.rows != list(rows):
            return None
        batch, after = waiting.made.result()
        is_wanted = torch.equal(waiting.before, torch.get_rng_state())
        self._waiting = self._next()
        if not is_wanted:
            return None
        torch.set_rng_state(after)
        return batch

    def close(self) -> None:
        """End the thread; a batch that nobody asked for is dropped."""
        self._waiting = None
        self._thread.shutdown(cancel_futures=True)

    def _next(self) -> _Waiting | None:
        request = next(self._requests, None)
        if request is None:
            return None
        if request.seed is not None:
            self._generator.manual_seed(request.seed)

        def work() -> tuple[torch.Tensor, torch.Tensor]:
            return self._make(request.rows, self._generator), self._generator.get_state()

        return _Waiting(request.rows, self._generator.get_state(), self._thread.submit(work))
