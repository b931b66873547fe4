"""Differences of two optimizers over the same seeds: intervals, tests, and the verdict.

A difference is the test score of the second arm minus the test score of the first, for one seed, as a
fraction. What varies from pair to pair is the seed: the few-shot split, the initialisation of the head and
the order of batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from momentum_bench.harness.intervals import t_quantile

CONFIDENCE = 0.95
LEVEL = 0.05
"""The level of the paired t test, and of each of the two one-sided tests of TOST."""
MARGIN = 0.01
"""Half width of the band of equivalence: a difference of less than one point does not matter."""
POWER = 0.8
FEWEST_PAIRS = 3
TOO_FEW = f"{{}}, and a verdict takes {FEWEST_PAIRS}"
RESAMPLES = 9999
SIGN_FLIPS = 2**14
"""Up to 14 pairs all sign patterns are enumerated; with more pairs this number is drawn with a fixed seed."""

Verdict = Literal["equivalent", "a better", "b better", "inconclusive"]
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
        ci_low, ci_high: 95 % t interval of the mean difference.
        bootstrap_low, bootstrap_high: 95 % percentile bootstrap interval; shown, but it decides nothing.
        p_sign_flip: two-sided p of the sign-flip permutation test; shown, but it decides nothing.
        p_difference: two-sided p of the paired t test.
        p_equivalence: p of TOST, the larger of two one-sided paired t tests at the margin.
        verdict: follows from the two p-values above, each at 0.05; None if there is no verdict.
        no_verdict: why there is no verdict; empty if there is one.
        n_seeds_to_decide: see `seeds_to_decide`; None unless the verdict is inconclusive.
    """

    n_pairs: int
    mean: float
    std: float
    margin: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    bootstrap_low: float = math.nan
    bootstrap_high: float = math.nan
    p_sign_flip: float = math.nan
    p_difference: float = math.nan
    p_equivalence: float = math.nan
    verdict: Verdict | None = None
    no_verdict: str = ""
    n_seeds_to_decide: int | None = None


def no_difference(margin: float, reason: str) -> PairedDifference:
    """What stands in the place of a difference where two arms must not be compared."""
    return PairedDifference(0, math.nan, math.nan, margin, no_verdict=reason)


def paired_difference(differences: Sequence[float], margin: float = MARGIN) -> PairedDifference:
    """Everything that the leaderboard says about one pair of optimizers.

    Differences are first rounded to 12 digits, which is far below the weight of one test example. So equal
    scores stay equal even if their last bits differ.

    Args:
        differences: second minus first, one for each seed, fractions.
        margin: half width of the band of equivalence, a fraction above 0.

    Raises:
        ValueError: there are no differences, or the margin is not above 0.
    """
    if not differences or not margin > 0:
        raise ValueError(f"need pairs and a margin above 0, found {len(differences)} and {margin}")
    rounded = [round(d, 12) + 0.0 for d in differences]
    s = summary(rounded)
    if s.n == 1:
        return PairedDifference(1, s.mean, s.std, margin, no_verdict=TOO_FEW.format("1 pair"))
    if len(set(rounded)) == 1:
        return PairedDifference(s.n, s.mean, 0.0, margin, no_verdict="all pairs differ by the same amount")
    bootstrap_low, bootstrap_high = bootstrap_interval(rounded)
    p_difference, p_equivalence = t_tests(rounded, margin)
    decision = verdict(s.mean, p_difference, p_equivalence) if s.n >= FEWEST_PAIRS else None
    return PairedDifference(
        n_pairs=s.n,
        mean=s.mean,
        std=s.std,
        margin=margin,
        ci_low=s.ci_low,
        ci_high=s.ci_high,
        bootstrap_low=bootstrap_low,
        bootstrap_high=bootstrap_high,
        p_sign_flip=sign_flip_p(rounded),
        p_difference=p_difference,
        p_equivalence=p_equivalence,
        verdict=decision,
        no_verdict="" if decision else TOO_FEW.format(f"{s.n} pairs"),
        n_seeds_to_decide=(
            seeds_to_decide(s.n, s.mean, s.std, margin) if decision == "inconclusive" else None
        ),
    )


def t_tests(differences: Sequence[float], margin: float) -> tuple[float, float]:
    """p-values of the paired t test (two-sided) and of TOST (Schuirmann 1987) at a margin.

    Args:
        differences: two or more, not all equal.
        margin: a fraction above 0.

    Returns:
        p of a difference, and p of equivalence.
    """
    from scipy.stats import ttest_1samp

    above = ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = ttest_1samp(differences, margin, alternative="less").pvalue
    return float(ttest_1samp(differences, 0.0).pvalue), float(max(above, below))


def verdict(mean: float, p_difference: float, p_equivalence: float) -> Verdict:
    """The verdict on a pair, from its unadjusted p-values, each at 0.05.

    Equivalence is tested first, because a real difference that is shown to be within the margin does not
    matter. The Holm columns of a leaderboard are shown next to the verdict and do not change it.
    """
    if p_equivalence < LEVEL:
        return "equivalent"
    if p_difference < LEVEL:
        return "b better" if mean > 0 else "a better"
    return "inconclusive"


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean, from 9,999 resamples with a fixed seed.

    It is the percentile interval and not BCa, because with five differences the acceleration of BCa would
    rest on five jackknife values.
    """
    from scipy.stats import bootstrap

    result = bootstrap(
        (np.asarray(differences),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return round(float(low), 12) + 0.0, round(float(high), 12) + 0.0


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the sign-flip permutation test of the mean; with 5 pairs it is at least 0.0625."""
    from scipy.stats import permutation_test

    result = permutation_test(
        (np.asarray(differences),),
        np.mean,
        permutation_type="samples",
        n_resamples=SIGN_FLIPS,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def tost_power(n: int, std: float, margin: float) -> float:
    """The probability that n normal differences show equivalence if the true difference is 0.

    The mean and the sample deviation S are independent, and TOST shows equivalence if the mean is within
    margin - t S / sqrt(n) of 0. The normal probability of this given S is averaged over the chi distribution
    of S, by Gauss-Legendre quadrature over the quantiles of S.
    """
    from scipy.integrate import fixed_quad
    from scipy.stats import chi2, norm, t

    critical = float(t.ppf(1 - LEVEL, n - 1))

    def given_quantile(u: np.ndarray) -> np.ndarray:
        sample_std = std * np.sqrt(chi2.ppf(u, n - 1) / (n - 1))
        half = np.maximum(margin - critical * sample_std / math.sqrt(n), 0)
        power: np.ndarray = 2 * norm.cdf(half * math.sqrt(n) / std) - 1
        return power

    return float(fixed_quad(given_quantile, 0, 1, n=200)[0])


def seeds_to_decide(n: int, mean: float, std: float, margin: float) -> int:
    """The total number of seeds that would probably end an inconclusive verdict, if these pairs are typical.

    It is the smallest number above n at which, with the observed standard deviation, one of two conditions
    holds: TOST has power 0.8 for a true difference of 0; or the observed mean difference would be
    significant in the paired t test. It helps to plan the next sweep and promises nothing.
    """

    def decided(seeds: int) -> bool:
        from scipy.stats import t

        half = float(t.ppf(1 - LEVEL / 2, seeds - 1)) * std / math.sqrt(seeds)
        return abs(mean) > half or tost_power(seeds, std, margin) >= POWER

    low, high = n, n + 1
    while not decided(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family after Holm's step-down adjustment (1979), in the order of the input."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def sentence(first: str, second: str, difference: PairedDifference) -> str:
    """What the pairs show, in one sentence. Differences are second minus first, in points."""
    d = difference
    if not d.n_pairs:
        return f"{first} and {second} are not compared: {d.no_verdict}."
    points = f"{second} minus {first}: {100 * d.mean:+.1f} points over {d.n_pairs} paired seed"
    if d.n_pairs == 1:
        return f"{points}; one pair says nothing about chance."
    if math.isnan(d.ci_low):
        return f"{points}s; all pairs differ by the same amount, so there is no verdict."
    text = f"{points}s, 95 % interval {100 * d.ci_low:+.1f} to {100 * d.ci_high:+.1f}: "
    margin = in_points(d.margin)
    if d.verdict is None:
        return text + f"no verdict ({d.no_verdict})."
    if d.verdict == "equivalent":
        return text + f"equivalent within {margin}."
    if d.verdict == "inconclusive":
        return text + (
            f"inconclusive, neither a difference nor equivalence within {margin} is shown; about "
            f"{d.n_seeds_to_decide:,} seeds would decide."
        )
    return text + f"{second if d.verdict == 'b better' else first} scores higher."


def in_points(fraction: float) -> str:
    """A fraction as percentage points, in words: 0.01 gives `1 point`."""
    return f"{100 * fraction:g} point" + ("" if fraction == 0.01 else "s")
