"""Scores of predictions, by the id of the `evaluate` metric that each equals. No torch here.

Those that only `evaluate`'s `super_glue` has are named after what it returns. Classes are positions
in logit order. One-sided predictions are scored, not warned about: an F1 or a correlation that is
undefined counts as 0.
"""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

EVALUATE = "evaluate:"
"""What the id of a metric that `evaluate` computes itself starts with."""


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
        warnings.simplefilter("ignore")  # scipy warns of predictions that hardly differ
        value = float(correlation(labels, predictions).statistic)
    return value if value == value else 0.0  # NaN where they differ by less than rounding


def question_exact_match(
    labels: Sequence[int], predictions: Sequence[int], questions: Sequence[int]
) -> float:
    """Share of questions of which every answer is judged right (`super_glue`, multirc), 0 .. 1."""
    groups = list(_by_question(labels, predictions, questions))
    return sum(right == found for right, found in groups) / len(groups)


def f1_m(labels: Sequence[int], predictions: Sequence[int], questions: Sequence[int]) -> float:
    """Mean over the questions of their macro F1 (`super_glue`, multirc), 0 .. 1."""
    scores = [macro_f1(right, found) for right, found in _by_question(labels, predictions, questions)]
    return sum(scores) / len(scores)


def _by_question(
    labels: Sequence[int], predictions: Sequence[int], questions: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for label, prediction, question in zip(labels, predictions, questions, strict=True):
        right, found = groups.setdefault(question, ([], []))
        right.append(label)
        found.append(prediction)
    yield from groups.values()


def answer_f1(labels: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Mean over examples of the best F1 of words with any right answer (`super_glue`, record), 0 .. 1.

    Words are compared as SQuAD does: lower case, without punctuation and articles.
    """
    return _best_of_answers(_word_f1, labels, predictions)


def answer_exact_match(labels: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Share of predictions that read as one of the right answers (`super_glue`, record), 0 .. 1."""
    return _best_of_answers(lambda right, found: float(right == found), labels, predictions)


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


def _word_f1(right: list[str], found: list[str]) -> float:
    common = sum((Counter(right) & Counter(found)).values())
    return 2 * common / (len(right) + len(found)) if common else 0.0


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
"""Metrics of numbers; what is no text is a class otherwise."""

OF_QUESTIONS = ("f1_m", "question_exact_match")
"""Metrics that are also given the question of each row."""


def score(
    metric: str, labels: Sequence[Any], predictions: Sequence[Any], questions: Sequence[int] | None = None
) -> float:
    """The score by one of `METRICS`.

    Args:
        questions: of each row, for the metrics `OF_QUESTIONS`.
    """
    if metric in OF_QUESTIONS:
        return METRICS[metric](labels, predictions, questions)
    return METRICS[metric](labels, predictions)
