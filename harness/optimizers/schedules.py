"""Functions of the step alone: the learning rate, its average over time, and the steps that score dev."""

from __future__ import annotations

import math
from collections.abc import Sequence

from momentum_bench.harness.records.schema import RunSpec


def learning_rate(spec: RunSpec, step: int) -> float:
    """The effective learning rate of a step, counted from 0.

    The shapes are those of transformers' schedulers, which LM-BFF and MeZO use: a linear rise from 0
    over `warmup_steps`, and then `constant`, `linear` to 0 at `max_steps`, or half a `cosine`. With
    `step` the rate is a tenth after each of `decay_steps`, as in He et al. 2016.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * step / spec.warmup_steps
    if spec.lr_schedule == "constant":
        return spec.learning_rate
    if spec.lr_schedule == "step":
        return spec.learning_rate * 0.1 ** sum(step >= at for at in spec.decay_steps or ())
    done = (step - spec.warmup_steps) / (spec.max_steps - spec.warmup_steps)
    if spec.lr_schedule == "linear":
        return spec.learning_rate * (1 - done)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def averaged_schedule(rates: Sequence[float], momentum: float) -> list[float]:
    """The rates at which plain SGD gives each gradient the total weight that momentum gives it.

    Unroll m <- beta m + (1 - beta) g, x <- x - eta_s m (Wang et al. 2024, eq. 3) over all K steps: the
    gradient of step k moves x by the sum over s = k .. K - 1 of eta_s (1 - beta) beta^(s - k).
    The theorems of that paper compare SGDM with SGD at these rates.

    Args:
        rates: eta_0 .. eta_{K-1}, the effective rates of the whole run.
        momentum: beta, constant over the run.
    """
    averaged, tail = [], 0.0
    for rate in reversed(rates):
        tail = rate + momentum * tail
        averaged.append((1 - momentum) * tail)
    return averaged[::-1]


def is_evaluation_step(spec: RunSpec, steps_done: int) -> bool:
    """Whether dev is scored now: after every `eval_every` steps and after the last one, never at step 0."""
    return steps_done % spec.eval_every == 0 or steps_done == spec.max_steps
