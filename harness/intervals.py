"""Confidence intervals by Student's t distribution. Starts without scipy, which takes a second to load."""

from __future__ import annotations


def t_quantile(degrees_of_freedom: int, confidence: float = 0.95) -> float:
    """How many standard errors lie between an estimate and each end of its two-sided t interval.

    Args:
        degrees_of_freedom: at least 1. It is n - 1 for the mean of n values, n - 2 for the slope of a line
            through n points.
    """
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees_of_freedom))
