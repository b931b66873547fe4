"""Scores of predictions, by the id of the `evaluate` metric that each equals. No torch here."""

from __future__ import annotations

from collections.abc import Sequence


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of predictions that equal their label (`evaluate`: accuracy), 0 .. 1."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


METRICS = {"accuracy": accuracy}
