"""Functions of the step alone: the learning rate, and when dev is scored."""

from __future__ import annotations

import math

from harness.records import RunSpec


def learning_rate(spec: RunSpec, step: int) -> float:
    """The effective learning rate of a step, counted from 0.

    Shapes are those of transformers' schedulers, which LM-BFF and MeZO use: a linear rise from 0
    over `warmup_steps`, then `constant`, `linear` to 0 at `max_steps`, or a half `cosine`.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * step / spec.warmup_steps
    if spec.lr_schedule == "constant":
        return spec.learning_rate
    done = (step - spec.warmup_steps) / (spec.max_steps - spec.warmup_steps)
    if spec.lr_schedule == "linear":
        return spec.learning_rate * (1 - done)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def is_evaluation_step(spec: RunSpec, steps_done: int) -> bool:
    """Dev is scored after every `eval_every` steps and after the last one; never before the first."""
    return steps_done % spec.eval_every == 0 or steps_done == spec.max_steps
