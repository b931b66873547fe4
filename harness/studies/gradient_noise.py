"""The noise of mini-batch gradients: unbiased estimates, and the degrees of smoothing that follow.

A batch of b of the n training examples, drawn without replacement, has a gradient g_b around the full
gradient G. With Sigma the covariance of the gradients of single examples,

    E ||g_b||^2 = ||G||^2 + tr(Sigma) f(b),   f(b) = (n - b) / (n - 1) / b,

so mean squared norms at two batch sizes give unbiased estimates of ||G||^2 and of tr(Sigma), the variance
that Sato & Iiduka call C^2. For n -> infinity f(b) is 1 / b, and these are the estimators of McCandlish et
al. 2018 (arXiv 1812.06162, appendix A.1). Few-shot training sets are so small that the difference counts:
a batch of all n examples has no noise at all.

tr(Sigma) / ||G||^2 is McCandlish's *simple noise scale*: the batch size at which (for large n) noise and
signal are equally strong in a gradient. It is a ratio of two unbiased estimates, and is not unbiased itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.records.schema import Stored
from momentum_bench.harness.seeds import batch_indices, derived_seed
from momentum_bench.harness.studies.arms import Arm, inner_product
from momentum_bench.harness.training.scoring import logits, scoring_batches

FORMULAS = ("sgd", "shb", "nshb_v1", "nshb_aaai25")


def two_batch_estimate(small: float, large: float, n_small: int, n_large: int, n: int) -> tuple[float, float]:
    """Unbiased ||G||^2 and tr(Sigma) from the mean squared norms of gradients at two batch sizes.

    Args:
        small, large: means of ||g_b||^2 over batches of `n_small` and of `n_large` examples, where
            1 <= n_small < n_large <= n; the batches may share examples.
        n: how many examples the batches are drawn from, without replacement within a batch.

    Returns:
        The two estimates. A single draw of either may be below 0: an unbiased estimate has noise.
    """
    f_small, f_large = ((n - b) / (n - 1) / b for b in (n_small, n_large))
    variance = (small - large) / (f_small - f_large)
    return large - variance * f_large, variance


def degree_of_smoothing(
    formula: str, rate: float, variance: float, norm: float, batch_size: int, momentum: float
) -> float:
    """Sato & Iiduka's bound on the search-direction noise of one step: how much this noise smooths the loss.

    C^2 is the gradient variance, K bounds the norm of the full gradient, b is the batch size, and
    c = beta (beta^2 - beta + 1) / (1 - beta)^2. The formulas are those of the authors' public code:

    * `sgd`: rate (C^2 / b)^(1/2);
    * `shb`, heavy ball: rate (C^2 / b + c (C^2 / b + K^2))^(1/2) (arXiv 2402.02325);
    * `nshb_v1`, averaging form: rate (C^2 / b + 4 beta^2 (C^2 / b + K^2))^(1/2) (same paper);
    * `nshb_aaai25`, averaging form: rate (C^2 / ((1 - beta) b))^(1/2). The code of their AAAI 2025 paper
      keeps rate / ((1 - beta) b)^(1/2) at a target, which fixes the formula up to a factor. The factor C is
      our choice: with it, beta = 0 is SGD.

    Args:
        formula: one of `FORMULAS`.
        rate: torch's own learning rate for that form: eta (1 - beta) for heavy ball, eta for the others.
        variance, norm: C^2 and K.
    """
    noise = variance / batch_size
    inner = {
        "sgd": noise,
        "shb": noise + momentum * (momentum**2 - momentum + 1) / (1 - momentum) ** 2 * (noise + norm**2),
        "nshb_v1": noise + 4 * momentum**2 * (noise + norm**2),
        "nshb_aaai25": noise / (1 - momentum),
    }
    return rate * math.sqrt(inner[formula])


class GradientNoise(Stored):
    """Training loss and gradients at one point, over the whole training set.

    Attributes:
        train_loss: mean cross-entropy in nats.
        gradient_norm: ||G||, exact.
        variance: tr(Sigma) of the gradients of single examples: exact when all were taken, otherwise the
            unbiased estimate from a draw of them.
        n_examples: how many single examples were taken.
    """

    train_loss: float
    gradient_norm: float
    variance: float
    n_examples: int

    @property
    def noise_scale(self) -> float | None:
        """The simple noise scale, in examples; None where the gradient is 0."""
        return self.variance / self.gradient_norm**2 if self.gradient_norm else None


@dataclass(frozen=True)
class Measured:
    """The noise at a point, and the full gradient there, in the order of `Arm.trained`."""

    noise: GradientNoise
    gradient: list[torch.Tensor]


def drawn_examples(seed: int, step: int, n: int, most: int) -> list[int]:
    """At most `most` of n positions without replacement, ascending: all, or a new draw at every step."""
    return sorted(batch_indices(derived_seed(seed, "noise examples", step), 0, n, min(most, n)))


def measure(arm: Arm, train: Examples, examples: Sequence[int]) -> Measured:
    """The full gradient where the arm is, and the variance around it from the gradients of `examples`.

    For `two_batch_estimate`, each of these is a batch of 1, and the full gradient is the batch of n. Every
    training example has exactly one backward pass: those of `examples` alone, the others in scoring batches.
    """
    n = len(train.labels)
    parameters = arm.trained
    total = [torch.zeros_like(p) for p in parameters]
    loss_sum = squares = 0.0

    def add(rows: Sequence[int]) -> float:
        """Add the gradient of the rows' summed loss to the total, and return its squared norm."""
        nonlocal loss_sum
        batch = arm.batch(train, rows)
        loss = arm.objective.loss(logits(arm.loaded, batch), batch.labels, "sum")
        gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
        torch._foreach_add_(total, list(gradient))
        loss_sum += loss.item()
        return inner_product(gradient, gradient)

    for row in examples:
        squares += add([row])
    others = sorted(set(range(n)) - set(examples))
    for positions in scoring_batches([train.lengths[row] for row in others]):
        add([others[position] for position in positions])
    torch._foreach_div_(total, n)
    norm2, variance = two_batch_estimate(squares / len(examples), inner_product(total, total), 1, n, n)
    noise = GradientNoise(
        train_loss=loss_sum / n,
        gradient_norm=math.sqrt(norm2),
        variance=variance,
        n_examples=len(examples),
    )
    return Measured(noise, total)
