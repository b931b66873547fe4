"""SGD and SGDM on a noisy quadratic, coupled by common noise, solved exactly. It needs only numpy and scipy.

f(x) = a x^2 / 2 in one dimension has gradients a x + sigma xi, with xi independent N(0, 1). Both optimizers
start at x = 1 and get the same xi:

    SGD    x <- x - eta (a x + sigma xi)
    SGDM   m <- beta m + (1 - beta) (a y + sigma xi),  y <- y - eta m        (Wang et al. 2024, eq. 3)

The state s = (x, y, m) follows s <- A s + sigma b xi. So its mean is A^K s_0, and its covariance is the sum
of A^j b b^T A^jT sigma^2. This sum is P - A^K P A^KT, where P solves P = A P A^T + sigma^2 b b^T.

What to expect. z = y - eta beta / (1 - beta) m makes SGD's step with the gradient at y. So at the end SGDM
lags behind SGD by eta beta / (1 - beta) m, and on the way its drift lags by as much.

* sigma fixed: m is of order 1 whatever eta is, so the distance of the paths is of order eta.
* sigma = eta^(-1/2), the largest noise that the theorem allows (Wang et al. 2024, theorem 3.5): m has
  the standard deviation sigma ((1 - beta) / (1 + beta))^(1/2), so the distance is of the order
  eta / (1 - beta) sigma (1 - beta)^(1/2) = (eta / (1 - beta))^(1/2).
* The weak error |E h(x) - E h(y)| does not depend on single paths. For h = x^2, both variances are
  eta sigma^2 / (2 a) to leading order and differ by a factor 1 + O(eta / (1 - beta)), and the means differ by
  O(eta / (1 - beta)). So the error is of order eta in both regimes, well inside the theorem's bound,
  (eta / (1 - beta))^(1/2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_discrete_lyapunov


@dataclass(frozen=True)
class QuadraticGap:
    """How far apart SGD's x and SGDM's y are after all steps.

    Attributes:
        rms_distance: the square root of E (x - y)^2.
        weak_error: |E x^2 - E y^2|.
        mean: E x and E y.
        second_moment: E x^2 and E y^2.
    """

    rms_distance: float
    weak_error: float
    mean: tuple[float, float]
    second_moment: tuple[float, float]


def quadratic_gap(eta: float, beta: float, sigma: float, steps: int, curvature: float = 1.0) -> QuadraticGap:
    """The exact gap between SGD and SGDM at effective rate eta after `steps` steps from x = y = 1, m = 0.

    Args:
        eta: effective learning rate of both.
        beta: momentum, 0 <= beta < 1.
        sigma: standard deviation of the gradient noise.
        curvature: a > 0.

    Raises:
        ValueError: one of the two is not stable at this rate.
    """
    step, noise = _recursion(eta, beta, curvature)
    if max(abs(np.linalg.eigvals(step))) >= 1:
        raise ValueError(f"eta {eta:g}, beta {beta:g}: not stable at curvature {curvature:g}")
    stationary = solve_discrete_lyapunov(step, sigma**2 * np.outer(noise, noise))
    power = np.linalg.matrix_power(step, steps)
    mean = power @ np.array([1.0, 1.0, 0.0])
    moments = stationary - power @ stationary @ power.T + np.outer(mean, mean)
    apart = np.array([1.0, -1.0, 0.0])
    return QuadraticGap(
        rms_distance=float(np.sqrt(max(0.0, apart @ moments @ apart))),
        weak_error=float(abs(moments[0, 0] - moments[1, 1])),
        mean=(float(mean[0]), float(mean[1])),
        second_moment=(float(moments[0, 0]), float(moments[1, 1])),
    )


def _recursion(eta: float, beta: float, curvature: float) -> tuple[np.ndarray, np.ndarray]:
    """A and b of s <- A s + sigma b xi, for s = (x, y, m). In a step, y moves by the new m."""
    new_m = np.array([0.0, (1 - beta) * curvature, beta])
    step = np.array([[1 - eta * curvature, 0.0, 0.0], [0.0, 1.0, 0.0] - eta * new_m, new_m])
    noise = np.array([-eta, -eta * (1 - beta), 1 - beta])
    return step, noise
