"""Differences of two optimizers over the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Mean of n paired differences and its t interval; NaN where n < 2 leaves it undefined."""

    n_pairs: int
    mean: float
    std: float
    ci_low: float
    ci_high: float


def paired_difference(differences: Sequence[float]) -> PairedDifference:
    """Mean, standard deviation (ddof 1) and the 95 % t interval of paired differences.

    Raises:
        ValueError: no differences.
    """
    n = len(differences)
    if n == 0:
        raise ValueError("no pairs")
    mean = math.fsum(differences) / n
    if n == 1:
        return PairedDifference(1, mean, math.nan, math.nan, math.nan)
    from scipy.stats import t

    std = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return PairedDifference(n, mean, std, mean - half, mean + half)


def sentence(first: str, second: str, difference: PairedDifference) -> str:
    """What the pairs say, and no more than that. Differences are second minus first, in points."""
    points = f"{second} minus {first}: {100 * difference.mean:+.1f} points"
    n = difference.n_pairs
    if n < 2:
        return f"{points} over {n} paired seed; one pair says nothing about chance."
    low, high = 100 * difference.ci_low, 100 * difference.ci_high
    interval = f"{points} over {n} paired seeds, 95 % interval {low:+.1f} to {high:+.1f}"
    if difference.std == 0:
        return f"{interval}; all pairs differ equally, so the interval means nothing."
    if low > 0 or high < 0:
        better = second if difference.mean > 0 else first
        return f"{interval}: {better} scores higher on these seeds."
    return f"{interval}: no difference shown, and none larger than the interval is ruled out."
