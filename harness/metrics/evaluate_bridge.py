"""`evaluate` on both sides: our metrics as its modules, and its modules as our metrics.

It is imported on demand, because `evaluate` loads torch. Our metrics fetch nothing and write nothing, so
parallel runs share no cache file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import datasets

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.metrics.functions import EVALUATE, METRICS, OF_QUESTIONS, score

try:
    import evaluate
except ImportError as error:
    raise UserError(
        f"the package evaluate cannot be imported ({error}): pip install 'momentum-bench[evaluate]'"
    ) from error

_NUMBER, _TEXT = datasets.Value("float64"), datasets.Value("string")


class OurMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """One of our metrics as an `evaluate.Metric`: `OurMetric("pearsonr").compute(...)`.

    `question_exact_match` and `f1_m` also take `questions`.

    Raises:
        UserError: there is no such metric.
    """

    def __init__(self, name: str):
        if name not in METRICS:
            raise UserError(f"no metric {name!r} of ours: they are {', '.join(METRICS)}")
        super().__init__(config_name=name, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        name = self.config_name
        features = {"predictions": _NUMBER, "references": _NUMBER}
        if name.startswith("answer_"):
            features = {"predictions": _TEXT, "references": datasets.Sequence(_TEXT)}
        if name in OF_QUESTIONS:
            features["questions"] = _NUMBER
        return evaluate.MetricInfo(
            description=METRICS[name].__doc__ or "",
            citation="",
            features=datasets.Features(features),
        )

    def _compute(
        self, predictions: Sequence[Any], references: Sequence[Any], questions: Sequence[Any] | None = None
    ) -> dict[str, float]:
        return {self.config_name: score(self.config_name, references, predictions, questions)}


@lru_cache(maxsize=8)
def load(name: str) -> Any:
    """One of `evaluate`'s own metrics, from the hub or its cache, or the script in a folder of the user.

    Raises:
        UserError: it cannot be loaded, or its script may not be run.
    """
    try:
        return loads.metric_module(name)
    except UserError:
        raise
    except Exception as error:  # a script's missing package, no network, no such metric
        raise UserError(
            f"metric {EVALUATE}{name}: evaluate cannot load it: {first_line(error)}. Without network, give "
            f"the folder of a copy of its script ({EVALUATE}./FOLDER), or one of {', '.join(METRICS)}"
        ) from error


def compute_by_evaluate(metric: str, labels: Sequence[Any], predictions: Sequence[Any]) -> float:
    """The score by `evaluate:NAME`, or by one of its scores, `evaluate:NAME:SCORE`.

    Raises:
        UserError: the metric cannot be loaded, does not accept such predictions, or has no such score.
    """
    name, _, wanted = metric.removeprefix(EVALUATE).partition(":")
    try:
        scores = load(name).compute(references=list(labels), predictions=list(predictions))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"metric {metric}: evaluate cannot compute it: {first_line(error)}") from error
    if not wanted and len(scores) == 1:
        wanted = next(iter(scores))
    value = scores.get(wanted)
    if not isinstance(value, int | float):  # numpy's float64 is a float
        raise UserError(f"metric {metric}: expected evaluate:NAME:SCORE, SCORE one of {', '.join(scores)}")
    return float(value)
