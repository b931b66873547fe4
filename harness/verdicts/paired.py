"""Differences of two optimizers over the same seeds: intervals, tests, and the verdict.

A difference is the test score of the second arm minus the test score of the first, for one seed, as a
fraction. What varies from pair to pair is the seed: the few-shot split, the initialisation of the head and
the order of batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from momentum_bench.harness.intervals import t_quantile

CONFIDENCE = 0.95
LEVEL = 0.05
"""The level of the paired t test, and of each of the two one-sided tests of TOST."""
MARGIN = 0.01
"""Half width of the band of equivalence: a difference of less than one point does not matter."""
FEWEST_PAIRS = 3
TOO_FEW = f"{{}}, and a verdict takes {FEWEST_PAIRS}"
SIGN_FLIPS = 2**14
"""Up to 14 pairs all sign patterns are enumerated; with more pairs this number is drawn with a fixed seed."""

Verdict = Literal["equivalent", "a better", "b better", "inconclusive", "not learned"]
"""a is the first optimizer of a pair, b the second."""


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (ddof 1) and 95 % t interval of n values; NaN where n is too small for one."""

    n: int
    mean: float
    std: float
    ci_low: float
    ci_high: float


def summary(values: Sequence[float]) -> Summary:
    """The summary of independent values: all NaN for no value, and no spread for one value."""
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1, CONFIDENCE) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


@dataclass(frozen=True)
class PairedDifference:
    """What n paired differences show. A number is NaN where the pairs do not define it.

    Attributes:
        spread: the standard deviation that tests and advice rest on; see `paired_difference`.
        ci_low, ci_high: 95 % t interval of the mean difference.
        ci90_low, ci90_high: 90 % t interval, which is within the margin where TOST at 0.05 shows equivalence.
        p_difference: two-sided p of the paired t test.
        p_equivalence: p of TOST, the larger of two one-sided paired t tests at the margin.
        verdict: see `decided`; None if there is no verdict.
        no_verdict: why there is no verdict; empty if there is one.
    """

    n_pairs: int
    mean: float
    std: float
    margin: float
    spread: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    ci90_low: float = math.nan
    ci90_high: float = math.nan
    p_difference: float = math.nan
    p_equivalence: float = math.nan
    verdict: Verdict | None = None
    no_verdict: str = ""


def no_difference(margin: float, reason: str) -> PairedDifference:
    """What stands in the place of a difference where two arms must not be compared."""
    return PairedDifference(0, math.nan, math.nan, margin, no_verdict=reason)


def paired_difference(
    differences: Sequence[float], margin: float = MARGIN, floor: float = 0.0
) -> PairedDifference:
    """What the pairs show of one pair of optimizers, without a verdict, which depends on other pairs too.

    Differences are first rounded to 12 digits, which is far below the weight of one test example. So equal
    scores stay equal even if their last bits differ.

    Where all differences are equal, their standard deviation is 0, and would prove anything. Then the floor
    takes its place: the standard deviation that the sampling of test rows alone gives. Where that is 0 too,
    both arms predicted the same of every row, and are as equal as they can be.

    Args:
        differences: second minus first, one for each seed, fractions.
        margin: half width of the band of equivalence, a fraction above 0.
        floor: see `spread_floor`.

    Raises:
        ValueError: there are no differences, or the margin is not above 0.
    """
    if not differences or not margin > 0:
        raise ValueError(f"need pairs and a margin above 0, found {len(differences)} and {margin}")
    rounded = [round(d, 12) + 0.0 for d in differences]
    s = summary(rounded)
    if s.n == 1:
        return PairedDifference(1, s.mean, s.std, margin, no_verdict=TOO_FEW.format("1 pair"))
    std = 0.0 if len(set(rounded)) == 1 else s.std
    spread = std or floor
    p_difference, p_equivalence = t_tests(s.mean, spread, s.n, margin)
    error = spread / math.sqrt(s.n)
    half, half90 = (t_quantile(s.n - 1, confidence) * error for confidence in (CONFIDENCE, 1 - 2 * LEVEL))
    return PairedDifference(
        n_pairs=s.n,
        mean=s.mean,
        std=std,
        margin=margin,
        spread=spread,
        ci_low=s.mean - half,
        ci_high=s.mean + half,
        ci90_low=s.mean - half90,
        ci90_high=s.mean + half90,
        p_difference=p_difference,
        p_equivalence=p_equivalence,
        no_verdict="" if s.n >= FEWEST_PAIRS else TOO_FEW.format(f"{s.n} pairs"),
    )


def decided(
    difference: PairedDifference, p_difference: float, p_equivalence: float, learned: bool = True
) -> PairedDifference:
    """The difference with its verdict, if it may have one.

    Equivalence is tested first, because a real difference that is shown to be within the margin does not
    matter. Arms that learned nothing are equal too, which says nothing about optimizers: they get the verdict
    `not learned` in place of `equivalent`.

    Args:
        p_difference, p_equivalence: adjusted for the other pairs of the family and for looks.
        learned: whether both arms scored above the commonest label by more than the margin.
    """
    if difference.no_verdict:
        return difference
    verdict: Verdict = "inconclusive"
    if p_equivalence < LEVEL:
        verdict = "equivalent" if learned else "not learned"
    elif p_difference < LEVEL:
        verdict = "b better" if difference.mean > 0 else "a better"
    return replace(difference, verdict=verdict)


def t_tests(mean: float, std: float, n: int, margin: float) -> tuple[float, float]:
    """p-values of the paired t test (two-sided) and of TOST (Schuirmann 1987) at a margin.

    Args:
        mean, std: of the differences; without spread each p is 0 or 1.
        n: number of differences, at least 2.
        margin: a fraction above 0.

    Returns:
        p of a difference, and p of equivalence.
    """
    if std == 0:
        return float(mean == 0), float(abs(mean) >= margin)
    from scipy.special import stdtr

    error = std / math.sqrt(n)
    return (
        float(2 * stdtr(n - 1, -abs(mean) / error)),
        float(stdtr(n - 1, -(margin - abs(mean)) / error)),
    )


def spread_floor(disagreements: Sequence[float], n_test: Sequence[int]) -> float:
    """The standard deviation of a difference that the sampling of test rows alone gives.

    It is the root of (share of test rows on which the two models disagree / number of test rows), a root mean
    square over the seeds.

    Args:
        disagreements: the share of each seed.
        n_test: the number of test rows of each seed.
    """
    parts = [share / n for share, n in zip(disagreements, n_test, strict=True)]
    return math.sqrt(math.fsum(parts) / len(parts)) if parts else 0.0


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the sign-flip permutation test of the mean; with 5 pairs it is at least 0.0625.

    It is shown and decides nothing. Differences that are all 0 have the p-value 1.
    """
    from scipy.stats import permutation_test

    result = permutation_test(
        (np.asarray(differences),),
        np.mean,
        permutation_type="samples",
        n_resamples=SIGN_FLIPS,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family after Holm's step-down adjustment (1979), in the order of the input."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def in_points(fraction: float) -> str:
    """A fraction as percentage points, in words: 0.01 gives `1 point`."""
    return f"{100 * fraction:g} point" + ("" if fraction == 0.01 else "s")
