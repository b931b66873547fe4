"""How the scores of an example become its loss and its prediction, by the kind of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from momentum_bench.tasks import Task


@dataclass(frozen=True)
class Objective:
    """How a task is learned by a method.

    Attributes:
        kind: the task's kind: `classification`, `regression` or `multiple_choice`.
        generative: train on the log-likelihood of the right candidate alone, as MeZO does for COPA
            and ReCoRD with decoders; else on the cross-entropy over classes or candidates.
        ends: the lowest and the highest label of a regression.
    """

    kind: str
    generative: bool
    ends: tuple[float, float]

    def loss(
        self, scores: torch.Tensor, labels: torch.Tensor, reduction: Literal["mean", "sum"] = "mean"
    ) -> torch.Tensor:
        """The loss of B examples from their B x C scores.

        It is the cross-entropy over classes or candidates, in nats. A regression through two label words
        has KL(p || q) in nats, where p is the label's place between its ends and q the softmax over the
        two words (LM-BFF, Gao et al. 2021, whose code treats p as its logarithm by mistake). A regression
        through the one output of a head has the squared error, as in transformers.
        """
        if self.kind == "regression":
            losses = self._regression_losses(scores, labels)
            return losses.mean() if reduction == "mean" else losses.sum()
        if self.generative:
            losses = -scores.gather(1, labels[:, None])[:, 0]
            return losses.mean() if reduction == "mean" else losses.sum()
        return nn.functional.cross_entropy(scores, labels, reduction=reduction)

    def _regression_losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if scores.shape[1] == 1:
            return (scores[:, 0] - labels).square()
        low, high = self.ends
        p = (labels - low) / (high - low)
        target = torch.stack([1 - p, p], dim=1)
        return nn.functional.kl_div(scores.log_softmax(dim=1), target, reduction="none").sum(dim=1)

    def predictions(self, scores: torch.Tensor) -> torch.Tensor:
        """What B x C scores predict: the class, the position of the candidate, or the number (B)."""
        if self.kind != "regression":
            return scores.argmax(dim=1)
        if scores.shape[1] == 1:
            return scores[:, 0]
        low, high = self.ends
        return low + (high - low) * scores.softmax(dim=1)[:, 1]


def objective_of(task: Task, method: str) -> Objective:
    """The objective of a task of text under a method."""
    return Objective(
        kind=task.kind,
        generative=method == "causal" and task.kind == "multiple_choice",
        ends=task.ends if task.kind == "regression" else (0.0, 0.0),
    )
