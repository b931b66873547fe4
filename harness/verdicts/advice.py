"""How many seeds would probably decide: the assurance of a plan (O'Hagan, Stevens and Campbell 2005).

The few differences at hand say little about the true mean difference and the true spread. So both are drawn
from their posterior under a flat prior, further differences are drawn from these, and the number of seeds is
the smallest one at which 80 % of the draws end in a verdict. It is a plan and promises nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from momentum_bench.harness.verdicts.looks import LEVEL

ASSURANCE = 0.8
DRAWS = 8_000
"""The standard error of a share of 0.8 is 0.0045. All numbers of seeds are tried on the same draws."""

MOST_SEEDS = 100_000
"""Where not even so many seeds would probably decide, there is no advice."""


@dataclass(frozen=True)
class Advice:
    """Total numbers of seeds at which a verdict has the probability 0.8; None: more than 100,000.

    Attributes:
        if_equal: if the true mean difference is 0.
        as_observed: if the true mean difference is what the pairs make probable.
    """

    if_equal: int | None
    as_observed: int | None


@cache
def advice(
    n: int, mean: float, spread: float, margin: float, levels: tuple[float, float] = (LEVEL, LEVEL)
) -> Advice:
    """How many seeds in all would probably decide, of which n are there.

    Args:
        n: number of differences at hand, at least 2.
        mean: of these.
        spread: their standard deviation, but at least what the sampling of test rows gives.
        margin: half width of the band of equivalence.
        levels: below which the p-value of a difference, and that of equivalence, decides. They are smaller
            than 0.05 where other comparisons and looks share this error rate.

    Raises:
        ValueError: the spread is not above 0.
    """
    if not spread > 0:
        raise ValueError(f"need a spread above 0, found {spread}")
    rng = np.random.default_rng(0)
    sigma = spread * np.sqrt((n - 1) / rng.chisquare(n - 1, DRAWS))
    shift = rng.standard_normal(DRAWS) * sigma / math.sqrt(n)
    further = _Further(n, mean, (n - 1) * spread**2, sigma, margin, levels)
    return Advice(_smallest(n, further, np.zeros(DRAWS)), _smallest(n, further, mean + shift))


@dataclass(frozen=True)
class _Further:
    """What is there, and the true spreads of the draws."""

    n: int
    mean: float
    squares: float
    sigma: np.ndarray
    margin: float
    levels: tuple[float, float]

    def share_decided(self, total: int, true_means: np.ndarray) -> float:
        """The share of draws that end in a verdict after `total` seeds."""
        from scipy.special import stdtrit

        rng = np.random.default_rng(1)  # the same draws for each total
        k = total - self.n
        new_mean = true_means + rng.standard_normal(DRAWS) * self.sigma / math.sqrt(k)
        new_squares = self.sigma**2 * (rng.chisquare(k - 1, DRAWS) if k > 1 else 0.0)
        mean = (self.n * self.mean + k * new_mean) / total
        squares = self.squares + new_squares + self.n * k / total * (new_mean - self.mean) ** 2
        error = np.sqrt(squares / (total - 1) / total)
        of_difference, of_equivalence = self.levels
        one_sided, two_sided = (
            stdtrit(total - 1, 1 - of_equivalence),
            stdtrit(total - 1, 1 - of_difference / 2),
        )
        decided = (self.margin - np.abs(mean) > one_sided * error) | (np.abs(mean) > two_sided * error)
        return float(decided.mean())


def _smallest(n: int, further: _Further, true_means: np.ndarray) -> int | None:
    """The smallest total at which enough draws are decided; shares hardly fall as the total grows."""
    low, high = n, n + 1
    while further.share_decided(high, true_means) < ASSURANCE:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = further.share_decided(middle, true_means) >= ASSURANCE
        low, high = (low, middle) if enough else (middle, high)
    return high
