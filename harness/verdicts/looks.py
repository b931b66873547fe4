"""Looks: tests at several numbers of seeds, of which the first that decides ends the sweep.

Whoever tests after 5, 10, 20 and 40 seeds, each time at 0.05, says "better" far more often than in 5 % of
the cases in which nothing differs. So a p-value of a look is replaced by the probability, if nothing differs,
that the smallest p-value over all planned looks is at most as large. This is a group sequential design with a
constant nominal level (Pocock 1977), for the t statistic.

The distribution of the smallest p-value is simulated once for each plan of looks, with a fixed seed. Sums and
sums of squares of the seeds between two looks are drawn, not the single differences: the result has the same
distribution, and 1,000 seeds cost no more than 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np

DEFAULT_LOOKS = (5, 10, 20, 40)
"""Numbers of confirming seeds at which a sweep that runs until it is decided is tested."""

FEWEST_SEEDS = 3
"""No test with fewer."""

LEVEL = 0.05

DRAWS = 400_000
"""Simulated sequences. The standard error of a level of 0.05 is 0.0003."""

FEWEST_DRAWS_BELOW = 1_000
"""Where fewer sequences have a smaller p-value, the bound of Bonferroni is used, which is close there."""


def check_looks(looks: Sequence[int]) -> None:
    """Raises: ValueError, where numbers of seeds do not ascend from at least 3."""
    if not looks or looks[0] < FEWEST_SEEDS or any(after <= before for before, after in pairwise(looks)):
        raise ValueError(
            f"looks are ascending numbers of seeds, the first at least {FEWEST_SEEDS}, for example "
            f"{','.join(map(str, DEFAULT_LOOKS))}; found {','.join(map(str, looks)) or 'none'}"
        )


def overall_p(p: float, looks: Sequence[int], one_sided: bool = False) -> float:
    """The p-value of one look as a p-value of the whole plan of looks.

    It is the probability that the smallest p-value over all looks is at most p, if nothing differs; for one
    look it is p itself.

    Args:
        p: of the t test at one of the looks, or of one of the two tests of TOST.
        looks: all planned numbers of seeds, ascending.
        one_sided: p is that of a one-sided test, as in TOST at the margin.
    """
    if len(looks) == 1:
        return p
    smallest = _smallest(tuple(looks))[1 if one_sided else 0]
    tail = float(smallest[FEWEST_DRAWS_BELOW])
    if p <= tail:
        return min(1.0, len(looks) * p)
    return max(len(looks) * tail, float(np.searchsorted(smallest, p, side="right")) / DRAWS)


def nominal_level(looks: Sequence[int], one_sided: bool = False, level: float = LEVEL) -> float:
    """The level of the test at each look with which the whole plan of looks has a level, such as 0.05."""
    if len(looks) == 1:
        return level
    if level * DRAWS < FEWEST_DRAWS_BELOW:
        return level / len(looks)
    return float(np.quantile(_smallest(tuple(looks))[1 if one_sided else 0], level))


@cache
def _smallest(looks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest p-values of simulated sequences without a difference, sorted: two-sided and one-sided."""
    from scipy.special import stdtr

    check_looks(looks)
    rng = np.random.default_rng(0)
    n, total, squares = 0, np.zeros(DRAWS), np.zeros(DRAWS)
    two_sided, one_sided = np.ones(DRAWS), np.ones(DRAWS)
    for look in looks:
        new = look - n
        added = rng.standard_normal(DRAWS) * np.sqrt(new)
        total += added
        # the sum of squares around the mean of the new ones, and then around 0
        squares += (rng.chisquare(new - 1, DRAWS) if new > 1 else 0.0) + added**2 / new
        n = look
        spread = np.sqrt((squares - total**2 / n) / (n - 1))
        above = stdtr(n - 1, -total / (spread * np.sqrt(n)))  # P(T > t)
        one_sided = np.minimum(one_sided, above)
        two_sided = np.minimum(two_sided, 2 * np.minimum(above, 1 - above))
    return np.sort(two_sided), np.sort(one_sided)
