"""Scores of predictions, by the id of the `evaluate` metric that each equals. No torch here.

Classes are positions in logit order. One-sided predictions are scored, not warned about: an F1 or a
correlation that is undefined counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of predictions that equal their label (`evaluate`: accuracy), 0 .. 1."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of class 1 of two (`evaluate`: f1), 0 .. 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0))


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Unweighted mean of the F1 of the classes that occur (`evaluate`: f1 with macro), 0 .. 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0))


def matthews_correlation(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Matthews' correlation coefficient (`evaluate`: matthews_correlation), -1 .. 1."""
    from sklearn.metrics import matthews_corrcoef

    if len({*labels, *predictions}) == 1:
        return 0.0  # undefined; scikit-learn says so too, but with a warning
    return float(matthews_corrcoef(labels, predictions))


METRICS: dict[str, Callable[[Sequence[int], Sequence[int]], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews_correlation": matthews_correlation,
}
