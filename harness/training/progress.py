"""How far a run is: all that its loop has gathered so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from momentum_bench.harness.data.task_kinds import Prediction
from momentum_bench.harness.records.schema import Evaluation, ReadBack, by_rank


@dataclass
class Progress:
    """What a run has after some steps, next to the model and the optimizer. A checkpoint holds all of it.

    Attributes:
        micro_batch_size: examples that go through the model at once; the bits of a run depend on it.
        n_steps: steps that are done.
        evaluations: the scores of dev so far.
        best_parameters: what was trained, as it was at the best evaluation, on the CPU; empty before
            the first evaluation.
        best_predictions: what these parameters predicted on dev, one for each example.
        read_back: what really runs; None before the first step.
        losses: the training loss of each step, a scalar on the device.
        gradient_norms: the norm before clipping of each step, a scalar; empty where nothing is clipped.
        seconds: wall-clock time so far, all of it.
        dev_seconds: the part of it in which dev was scored.
    """

    micro_batch_size: int
    n_steps: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    best_parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    best_predictions: tuple[Prediction, ...] = ()
    read_back: ReadBack | None = None
    losses: list[torch.Tensor] = field(default_factory=list)
    gradient_norms: list[torch.Tensor] = field(default_factory=list)
    seconds: float = 0.0
    dev_seconds: float = 0.0

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose parameters are chosen: best dev metric, then lower dev loss, then earlier."""
        return min(self.evaluations, key=by_rank, default=None)

    def train_loss_since_evaluation(self) -> float:
        """The mean training loss of the steps since the last evaluation."""
        since = self.evaluations[-1].step if self.evaluations else 0
        return float(torch.stack(self.losses[since:]).mean())

    def end_at_non_finite_loss(self, first: int) -> str | None:
        """A message that names the first step, from position `first` on, whose loss is not finite.

        Steps after it are forgotten: how many there are depends on how often a device is asked.
        """
        finite = torch.isfinite(torch.stack(self.losses[first:])).tolist()
        if all(finite):
            return None
        self.n_steps = first + finite.index(False) + 1
        del self.losses[self.n_steps :], self.gradient_norms[self.n_steps :]
        return f"training loss not finite at step {self.n_steps}"

    def clipped_fraction(self, limit: float | None) -> float:
        """The share of steps whose gradient norm was above `limit`; 0 where nothing is clipped."""
        if limit is None or not self.gradient_norms:
            return 0.0
        return int((torch.stack(self.gradient_norms) > limit).sum()) / len(self.gradient_norms)
