"""How far an optimizer moves in a whole run, next to SGD at the same effective rates. No torch here."""

from __future__ import annotations

import math

from momentum_bench.harness.optimizers.schedules import averaged_schedule, learning_rate
from momentum_bench.harness.records.schema import RunSpec

FIRST_WEIGHT_EXPONENT = {"sgdm": 1, "sgdm_ema": 1, "qhm": 1, "nesterov": 2}
"""A step s, from 0, of the optimizer has moved by 1 - beta^(s + this) of what it moves with a full buffer."""

NOT_FAR_ENOUGH = 0.95
"""Below this, equal effective rates are not equal training, and a note says so."""


def accumulated_rate(spec: RunSpec) -> float | None:
    """The sum of the weights with which gradients have entered until the last step, divided by SGD's.

    The buffer of momentum starts empty. So at one effective rate SGDM has moved less than SGD when the run
    ends: the sum over s of eta_s (1 - beta^(s + 1)), in place of the sum of eta_s. The ratio is 0.98 for
    1,000 steps of the linear schedule with beta 0.9, 0.91 for 200 and 0.66 for 40.

    Returns:
        The ratio; None: the optimizer has no effective rate, or nothing is trained.
    """
    rates = [learning_rate(spec, step) for step in range(spec.max_steps)]
    total = math.fsum(rates)
    if not total:
        return None
    beta = float(spec.hyperparameters.get("momentum", 0.0))
    if spec.optimizer == "sgd":
        return 1.0
    if spec.optimizer == "sgd_matched":
        return math.fsum(averaged_schedule(rates, beta)) / total
    if (exponent := FIRST_WEIGHT_EXPONENT.get(spec.optimizer)) is None:
        return None
    share = float(
        spec.hyperparameters.get("nu", 1.0)
    )  # of the buffer in a step; qhm's other part is plain SGD
    lost = math.fsum(rate * beta ** (step + exponent) for step, rate in enumerate(rates))
    return 1 - share * lost / total
