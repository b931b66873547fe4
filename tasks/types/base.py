"""What every task has, whether its rows are texts or images."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MetricName = Literal[
    "accuracy",
    "f1",
    "macro_f1",
    "matthews_correlation",
    "pearsonr",
    "spearmanr",
    "pearson_spearman",
    "f1_a",
    "f1_m",
    "question_exact_match",
    "answer_f1",
    "answer_exact_match",
]
"""The project's own metrics; `harness/metrics/functions.py` explains each."""

EvaluateMetric = Annotated[str, Field(pattern=r"^evaluate:[\w./-]+(:\w+)?$")]
"""Any metric that the library `evaluate` loads, by its id there: `evaluate:NAME` or `evaluate:NAME:SCORE`."""

PREDICTS = dict.fromkeys(("pearsonr", "spearmanr", "pearson_spearman"), "numbers")
PREDICTS |= dict.fromkeys(("answer_f1", "answer_exact_match"), "texts from a list")
"""What a metric compares, where that is not classes."""

OF_TWO_CLASSES = ("f1", "f1_a", "f1_m", "question_exact_match")
"""Metrics in which the second class is the positive one."""


class Facts(BaseModel):
    """Base of all that a task file says: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseTask(Facts):
    """The fields and questions that text and image tasks share.

    Attributes:
        name: the value of `--task`, equal to the name of the file.
        title: one line for people.
        train: the split for training. Dev is always cut from it.
        label: the label column.
        metric: id of the `evaluate` metric that the score equals; higher is always better. It chooses
            checkpoints and learning rates. `harness/metrics/functions.py` explains those that combine
            two metrics or belong to one benchmark; `evaluate:NAME` is any other that `evaluate` loads.
        further_metrics: ids of other metrics that score the test predictions, for the record.
        learning_rates: the task's own default grid, by method, where the common grid does not fit.
        licence: of the data.
        citation: of the data, and who wrote the prompts: `prompt: ...; causal: ...`.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    train: str = "train"
    label: str = "label"
    metric: MetricName | EvaluateMetric = "accuracy"
    further_metrics: tuple[MetricName | EvaluateMetric, ...] = ()
    learning_rates: dict[str, tuple[float, ...]] = {}
    licence: str
    citation: str

    @property
    @abstractmethod
    def methods(self) -> tuple[str, ...]:
        """The methods that can learn the task."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Outputs of a classification head or network on this task."""

    @property
    @abstractmethod
    def version(self) -> str:
        """`version_for` the methods that no prompt of a decoder changes."""

    @abstractmethod
    def version_for(self, method: str) -> str:
        """First 12 hex digits of a SHA-256 of every fact that can change a result of the method."""


def digest_of(facts: dict[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of these facts."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def check_metrics(task: BaseTask, predicted: str, n_classes: int, n_groups: int = 0) -> None:
    """Check that the metrics of a task fit its predictions.

    Args:
        predicted: `classes`, `numbers` or `texts from a list`.
        n_groups: how many columns group the rows: 2 where rows are answers to questions.

    Raises:
        ValueError: a metric scores other predictions than the task's, or another number of classes.
    """
    for metric in (task.metric, *task.further_metrics):
        if metric.startswith("evaluate:"):
            continue
        scored = PREDICTS.get(metric, "classes")
        if scored != predicted:
            raise ValueError(f"metric {metric!r} scores {scored}, and the task predicts {predicted}")
        if metric in OF_TWO_CLASSES and n_classes != 2:
            raise ValueError(f"{metric} needs two classes (the second is the positive one): use macro_f1")
        if metric in ("f1_m", "question_exact_match") and n_groups != 2:
            raise ValueError(f"{metric} scores answers to questions: groups=(PASSAGE, QUESTION) names them")
