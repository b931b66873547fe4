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
    """Positions of the `batch_size` examples of a step (counted from 0), among n training examples.

    Each epoch has an order of its own, and epochs follow one another without a gap. So every batch is
    full, and every example is seen equally often.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_epoch_order(seed, p // n, n)[p % n]) for p in positions]


def rank_share(rows: list[int], rank: int, ranks: int) -> list[int]:
    """The rank's consecutive part of a micro-batch; its size must divide evenly among the ranks."""
    size = len(rows) // ranks
    return rows[rank * size : (rank + 1) * size]


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout masks; each rank that shares a batch draws masks of its own."""
    return derived_seed(seed, f"dropout of rank {rank}" if rank else "dropout", step)


def exponential_scale(seed: int, step: int) -> float:
    """The draw from Exp(1) of one step, a function of seed and step alone."""
    return float(np.random.RandomState(derived_seed(seed, "random_scaling", step)).standard_exponential())
