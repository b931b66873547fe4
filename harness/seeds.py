"""Random draws of a run: each is a function of the run's seed and the step, never of what ran before."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


def derived_seed(seed: int, purpose: str, position: int = 0) -> int:
    """A 32-bit seed for one purpose ("head", "order", "dropout", ...) at one position (step, epoch)."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{position}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@lru_cache(maxsize=64)
def _epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.RandomState(derived_seed(seed, "order", epoch)).permutation(n)


def batch_indices(seed: int, step: int, n: int, batch_size: int) -> list[int]:
    """Positions of the `batch_size` training examples of a step (from 0), of n.

    Epochs, each with an order of its own, follow one another without a gap, so every batch is full
    and every example is seen equally often.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_epoch_order(seed, p // n, n)[p % n]) for p in positions]


def rank_share(rows: list[int], rank: int, ranks: int) -> list[int]:
    """The rank's consecutive part of a micro-batch, which divides evenly among the ranks."""
    size = len(rows) // ranks
    return rows[rank * size : (rank + 1) * size]


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """What a step's dropout masks are drawn from; ranks that share a batch draw masks of their own."""
    return derived_seed(seed, f"dropout of rank {rank}" if rank else "dropout", step)


def exponential_scale(seed: int, step: int) -> float:
    """The draw from Exp(1) of one step, the same wherever and whenever it is made."""
    return float(np.random.RandomState(derived_seed(seed, "random_scaling", step)).standard_exponential())
