"""Scores of predictions. Each has the id of the `evaluate` metric that it equals. No torch here.

Metrics that only `evaluate`'s `super_glue` has are named after its results. Classes are positions in logit
order. One-sided predictions are scored without a warning: an undefined F1 or correlation counts as 0.
"""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

EVALUATE = "evaluate:"
"""The start of the id of a metric that `evaluate` computes itself."""


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of predictions that equal their label (`evaluate`: accuracy), 0 .. 1."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of the second of two classes (`evaluate`: f1), 0 .. 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0))


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Unweighted mean of the F1 of all classes that occur (`evaluate`: f1 with macro), 0 .. 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0))


def matthews_correlation(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Matthews' correlation coefficient (`evaluate`: matthews_correlation), -1 .. 1."""
    from sklearn.metrics import matthews_corrcoef

    if len({*labels, *predictions}) == 1:
        return 0.0  # undefined; scikit-learn gives 0 too, but with a warning
    return float(matthews_corrcoef(labels, predictions))


def pearsonr(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's correlation (`evaluate`: pearsonr; glue, stsb), -1 .. 1."""
    from scipy import stats

    return _correlation(stats.pearsonr, labels, predictions)


def spearmanr(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's rank correlation (`evaluate`: spearmanr; glue, stsb), -1 .. 1."""
    from scipy import stats

    return _correlation(stats.spearmanr, labels, predictions)


def pearson_spearman(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Mean of Pearson's and Spearman's correlation, STS-B's part in the GLUE score, -1 .. 1."""
    return (pearsonr(labels, predictions) + spearmanr(labels, predictions)) / 2


def _correlation(
    correlation: Callable[..., Any], labels: Sequence[float], predictions: Sequence[float]
) -> float:
    if len(set(labels)) == 1 or len(set(predictions)) == 1:
        return 0.0  # undefined
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns about predictions that hardly differ
        value = float(correlation(labels, predictions).statistic)
    return value if value == value else 0.0  # NaN if they differ by less than rounding


def question_exact_match(
    labels: Sequence[int], predictions: Sequence[int], questions: Sequence[int]
) -> float:
    """Share of questions with a right prediction for every answer (`super_glue`, multirc), 0 .. 1."""
    groups = list(_by_question(labels, predictions, questions))
    return sum(right == predicted for right, predicted in groups) / len(groups)


def f1_m(labels: Sequence[int], predictions: Sequence[int], questions: Sequence[int]) -> float:
    """Mean of the macro F1 of each question (`super_glue`, multirc), 0 .. 1."""
    groups = _by_question(labels, predictions, questions)
    scores = [macro_f1(right, predicted) for right, predicted in groups]
    return sum(scores) / len(scores)


def _by_question(
    labels: Sequence[int], predictions: Sequence[int], questions: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for label, prediction, question in zip(labels, predictions, questions, strict=True):
        right, predicted = groups.setdefault(question, ([], []))
        right.append(label)
        predicted.append(prediction)
    yield from groups.values()


def answer_f1(labels: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Mean over the examples of the best F1 of words with a right answer (`super_glue`, record), 0 .. 1.

    Words are compared as in SQuAD: lower case, without punctuation and articles.
    """
    return _best_of_answers(_word_f1, labels, predictions)


def answer_exact_match(labels: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Share of predictions with the words of a right answer (`super_glue`, record), 0 .. 1."""
    return _best_of_answers(lambda right, predicted: float(right == predicted), labels, predictions)


def _best_of_answers(
    score: Callable[[list[str], list[str]], float],
    labels: Sequence[Sequence[str]],
    predictions: Sequence[str],
) -> float:
    best = [
        max(score(_words(answer), _words(prediction)) for answer in answers)
        for answers, prediction in zip(labels, predictions, strict=True)
    ]
    return sum(best) / len(best)


def _words(text: str) -> list[str]:
    """The words that SQuAD's evaluation compares."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _word_f1(right: list[str], predicted: list[str]) -> float:
    common = sum((Counter(right) & Counter(predicted)).values())
    return 2 * common / (len(right) + len(predicted)) if common else 0.0


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews_correlation": matthews_correlation,
    "pearsonr": pearsonr,
    "spearmanr": spearmanr,
    "pearson_spearman": pearson_spearman,
    "f1_a": f1,
    "f1_m": f1_m,
    "question_exact_match": question_exact_match,
    "answer_f1": answer_f1,
    "answer_exact_match": answer_exact_match,
}

CORRELATIONS = ("pearsonr", "spearmanr", "pearson_spearman")
"""Metrics of numbers; all others score classes or texts."""

SHARES_OF_ROWS = ("accuracy", "answer_exact_match")
"""Metrics that are the share of rows whose prediction is right."""

OF_QUESTIONS = ("f1_m", "question_exact_match")
"""Metrics that also need the question of each row."""


def score(
    metric: str, labels: Sequence[Any], predictions: Sequence[Any], questions: Sequence[int] | None = None
) -> float:
    """The score by one of `METRICS`.

    Args:
        questions: the question that each row answers, for the metrics `OF_QUESTIONS`.
    """
    if metric in OF_QUESTIONS:
        return METRICS[metric](labels, predictions, questions)
    return METRICS[metric](labels, predictions)
