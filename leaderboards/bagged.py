"""The bagged choice of a learning rate: the dev choice, averaged over resampled dev splits.

A few-shot dev split is so small that chance chooses among good rates, and most of the spread of a tuned
difference comes from that. Bagging (Breiman 1996) keeps the question, best against best, and takes this luck
out: the dev rows of each class are resampled with replacement, in each resample dev chooses among the rates,
and a seed's test score is the mean over the rates, weighted by how often each was chosen. Dev alone sets the
weights. It needs the dev predictions of every run, which records of older versions do not have.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np

from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.metrics.functions import CORRELATIONS, EVALUATE, OF_QUESTIONS
from momentum_bench.harness.records.schema import DevPredictions, RunRecord

RESAMPLES = 100
"""Of a dev split, with a fixed seed. All rates and both arms of a pair see the same resamples."""

Prediction = int | float | str
Label = int | float | tuple[str, ...]


def bagged_weights(
    metric: str,
    labels: Sequence[Label],
    predictions: Sequence[Sequence[Prediction]],
    questions: Sequence[int] | None = None,
) -> list[float]:
    """How often dev chooses each of several runs, as shares with the sum 1; runs that tie share equally.

    The rows of each class are resampled. Where labels are numbers or texts, there are no classes and all rows
    are resampled together. Where a metric needs questions, whole questions are resampled.

    Args:
        metric: the id of a metric of this package.
        labels: of the dev rows.
        predictions: those of each run, one for each dev row.
        questions: the question that each row answers, for the metrics `OF_QUESTIONS`.

    Raises:
        ValueError: there is no run, or no dev row.
    """
    if not predictions or not labels:
        raise ValueError(f"nothing to choose from: {len(predictions)} runs, {len(labels)} dev rows")
    weights = np.zeros(len(predictions))
    for scores in _resampled_scores(metric, labels, predictions, questions):
        best = np.isclose(scores, scores.max(), rtol=0, atol=1e-12)  # equal but for the order of a sum
        weights += best / best.sum()
    return [float(weight) for weight in weights / RESAMPLES]


def _resampled_scores(
    metric: str,
    labels: Sequence[Label],
    predictions: Sequence[Sequence[Prediction]],
    questions: Sequence[int] | None,
) -> np.ndarray:
    """The dev scores of R resamples and N runs: R x N."""
    if metric in OF_QUESTIONS:
        assert questions is not None  # such a metric cannot be computed without them
        strata: tuple[Hashable, ...] = (None,) * len(set(questions))
        return _of_questions(metric, labels, predictions, questions, _draws(strata))
    has_classes = metric not in CORRELATIONS and not isinstance(labels[0], tuple)
    draws = _draws(tuple(labels) if has_classes else (None,) * len(labels))
    if metric == "accuracy":  # a mean over rows: all resamples at once
        right = np.array([[p == a for p, a in zip(of_run, labels, strict=True)] for of_run in predictions])
        counts: np.ndarray = right[:, draws].sum(axis=2).T / len(labels)
        return counts
    columns: dict[tuple[Prediction, ...], np.ndarray] = {}
    for of_run in map(tuple, predictions):
        if of_run not in columns:  # neighbouring rates often predict the same
            columns[of_run] = np.array(
                [compute(metric, [labels[i] for i in rows], [of_run[i] for i in rows]) for rows in draws]
            )
    return np.stack([columns[tuple(of_run)] for of_run in predictions], axis=1)


def _of_questions(
    metric: str,
    labels: Sequence[Label],
    predictions: Sequence[Sequence[Prediction]],
    questions: Sequence[int],
    draws: np.ndarray,
) -> np.ndarray:
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, question in enumerate(questions):
        rows_of[question].append(row)
    groups = list(rows_of.values())
    scores = []
    for drawn in draws:
        # a question that is drawn twice is two questions
        numbered = [(row, place) for place, group in enumerate(drawn) for row in groups[group]]
        rows, numbers = [row for row, _ in numbered], [place for _, place in numbered]
        of_labels = [labels[row] for row in rows]
        scores.append([compute(metric, of_labels, [p[row] for row in rows], numbers) for p in predictions])
    return np.array(scores)


@lru_cache(maxsize=64)  # the runs of a seed share their dev rows
def _draws(strata: tuple[Hashable, ...]) -> np.ndarray:
    """Resamples of rows, as positions: R x rows. Each stratum keeps its number of rows."""
    rng = np.random.default_rng(0)
    parts = []
    for stratum in Counter(strata):
        rows = np.array([row for row, of_row in enumerate(strata) if of_row == stratum])
        parts.append(rows[rng.integers(len(rows), size=(RESAMPLES, len(rows)))])
    drawn = np.concatenate(parts, axis=1)
    drawn.setflags(write=False)
    return drawn


def bagged_score(runs: Sequence[RunRecord]) -> float | None:
    """The test score of one seed's bagged choice among its runs, as a fraction.

    Diverged and failed runs cannot be chosen, as in every choice here.

    Args:
        runs: the runs of one row and one seed, with any status.

    Returns:
        The score; None: no run finished, one of them has no dev predictions, their dev rows differ, or
        `evaluate` computes the metric with code that it downloads.
    """
    done = [run for run in runs if run.status == "done"]
    found = [run.dev for run in done if run.dev is not None]
    if not found or len(found) < len(done) or done[0].metric.startswith(EVALUATE):
        return None
    first = found[0]
    if any(_rows_of(dev) != _rows_of(first) for dev in found):
        return None
    weights = bagged_weights(
        done[0].metric, first.labels, [dev.predictions for dev in found], first.questions
    )
    scored = zip(weights, done, strict=True)
    return math.fsum(weight * run.test.metric for weight, run in scored if run.test is not None)


def _rows_of(dev: DevPredictions) -> tuple[object, ...]:
    return dev.labels, dev.questions
