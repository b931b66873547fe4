"""What paired differences say in the language of probability: below, within or above a margin.

With flat priors on the mean and on the logarithm of the standard deviation, the mean difference has a
posterior of Student's t: the observed mean, plus the standard error times t with n - 1 degrees of freedom.
The region of practical equivalence (ROPE; Kruschke 2013, Benavoli et al. 2017) is one margin to each side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from momentum_bench.harness.verdicts.paired import summary


def posterior(differences: Sequence[float], margin: float, floor: float = 0.0) -> tuple[float, float, float]:
    """The probabilities that the mean difference is below, within and above a margin.

    Flat priors overstate with few seeds: they do not know that large differences are rare.

    Args:
        differences: second minus first, one for each seed, fractions.
        margin: half width of the region of practical equivalence, a fraction above 0.
        floor: the standard deviation that counts where all differences are equal (`spread_floor`); if it is
            0 too, the mean is taken to be known.

    Returns:
        Three probabilities with the sum 1: the first arm is better by more than the margin; the difference
        does not matter; the second arm is better by more than the margin. NaN for fewer than two
        differences.

    Raises:
        ValueError: the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"need a margin above 0, found {margin}")
    rounded = [round(d, 12) + 0.0 for d in differences]
    if len(rounded) < 2:
        return math.nan, math.nan, math.nan
    s = summary(rounded)
    spread = floor if len(set(rounded)) == 1 else s.std
    if spread == 0:
        below, above = float(s.mean < -margin), float(s.mean > margin)
    else:
        from scipy.stats import t

        error = spread / math.sqrt(s.n)
        below = float(t.cdf((-margin - s.mean) / error, s.n - 1))
        above = float(t.sf((margin - s.mean) / error, s.n - 1))
    return below, 1.0 - below - above, above
