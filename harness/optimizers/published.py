"""Optimizers from the literature that torch does not have, in their published form.

All take torch's own `weight_decay`. Each docstring says whether it is coupled (added to the gradient, so
that momentum and normalisation include it) or decoupled (it shrinks the parameters, next to the update).
Complex and sparse gradients are an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from momentum_bench.harness.seeds import exponential_scale

Closure = Callable[[], float]


class _Group(NamedTuple):
    """The parameters of one group that have a gradient at this step; all lists have the same order."""

    settings: dict[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]
    buffers: list[list[Tensor]]


def _groups(optimizer: Optimizer, *buffers: str, coupled_decay: bool = True) -> Iterator[_Group]:
    """The groups that have gradients, with the named state tensors, which start at zero."""
    for group in optimizer.param_groups:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            continue
        gradients = [p.grad for p in parameters]
        if any(g.is_complex() or g.is_sparse for g in gradients):
            raise TypeError(f"{type(optimizer).__name__} takes real, dense gradients only")
        for name in buffers:
            for parameter in parameters:
                if name not in optimizer.state[parameter]:
                    optimizer.state[parameter][name] = torch.zeros_like(parameter)
        if coupled_decay and group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        named = [[optimizer.state[parameter][name] for parameter in parameters] for name in buffers]
        yield _Group(group, parameters, gradients, named)


def _loss(closure: Closure | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check(lr: float, weight_decay: float, **fractions: float) -> None:
    """Raises: ValueError, unless lr and weight decay are >= 0 and the named others in [0, 1)."""
    if lr < 0 or weight_decay < 0:
        raise ValueError(f"lr and weight_decay must be 0 or more, found {lr} and {weight_decay}")
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, found {value}")


class AveragedSGDM(Optimizer):
    """SGDM in its averaging form: m <- beta m + (1 - beta) g, x <- x - lr m, m = 0 at first.

    Wang et al. 2024 (arXiv 2307.15196), eq. 3. At constant beta its iterates are those of heavy ball
    at lr (1 - beta). `momentum` (beta) may change in `param_groups` between steps. Then the two forms
    differ, and the theory is about this one. Weight decay is coupled.
    """

    def __init__(self, params: ParamsT, lr: float, momentum: float, weight_decay: float = 0.0):
        _check(lr, weight_decay, momentum=momentum)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        for group, parameters, gradients, (averages,) in _groups(self, "momentum_buffer"):
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            torch._foreach_add_(parameters, averages, alpha=-group["lr"])
        return loss


class QHM(Optimizer):
    """Quasi-hyperbolic momentum: m <- beta m + (1 - beta) g, x <- x - lr ((1 - nu) g + nu m).

    Ma & Yarats, ICLR 2019 (arXiv 1810.06801). nu = 0 is SGD, nu = 1 the averaging form of SGDM.
    Weight decay is coupled.
    """

    def __init__(self, params: ParamsT, lr: float, momentum: float, nu: float, weight_decay: float = 0.0):
        _check(lr, weight_decay, momentum=momentum)
        if not 0 <= nu <= 1:
            raise ValueError(f"nu must be from 0 to 1, found {nu}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "nu": nu, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        for group, parameters, gradients, (averages,) in _groups(self, "momentum_buffer"):
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            torch._foreach_add_(parameters, gradients, alpha=-group["lr"] * (1 - group["nu"]))
            torch._foreach_add_(parameters, averages, alpha=-group["lr"] * group["nu"])
        return loss


class SignSGD(Optimizer):
    """x <- (1 - lr weight_decay) x - lr sign(g): Bernstein et al., ICML 2018 (arXiv 1802.04434).

    It has neither momentum nor state. Weight decay is decoupled, because inside the sign it would count
    as much as the gradient, whatever its size.
    """

    def __init__(self, params: ParamsT, lr: float, weight_decay: float = 0.0):
        _check(lr, weight_decay)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        for group, parameters, gradients, _ in _groups(self, coupled_decay=False):
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, torch._foreach_sign(gradients), alpha=-group["lr"])
        return loss


class Signum(Optimizer):
    """m <- beta m + (1 - beta) g, x <- (1 - lr weight_decay) x - lr sign(m), m = 0 at first.

    Bernstein et al., ICML 2018 (arXiv 1802.04434), Algorithm 2. At beta = 0 it is SignSGD. Weight decay is
    decoupled, as there.
    """

    def __init__(self, params: ParamsT, lr: float, momentum: float, weight_decay: float = 0.0):
        _check(lr, weight_decay, momentum=momentum)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        for group, parameters, gradients, (buffers,) in _groups(self, "momentum_buffer", coupled_decay=False):
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, torch._foreach_sign(buffers), alpha=-group["lr"])
        return loss


class SNGM(Optimizer):
    """Normalised gradients, then momentum: u <- beta u + g / ||g||, x <- x - lr u, u = 0 at first.

    Zhao et al. 2020 (arXiv 2007.13985). ||g|| is the Euclidean norm over the parameters of all groups
    together, so a step is never longer than lr / (1 - beta). A gradient of zero adds nothing to u.
    Weight decay is coupled, and the norm includes it.
    """

    def __init__(self, params: ParamsT, lr: float, momentum: float, weight_decay: float = 0.0):
        _check(lr, weight_decay, momentum=momentum)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        groups = list(_groups(self, "momentum_buffer"))
        norm = torch.nn.utils.get_total_norm([g for group in groups for g in group.gradients])
        norm.clamp_(min=torch.finfo(norm.dtype).tiny)
        for group, parameters, gradients, (buffers,) in groups:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, torch._foreach_div(gradients, norm))
            torch._foreach_add_(parameters, buffers, alpha=-group["lr"])
        return loss


class RandomScaling(Optimizer):
    """SGDM with each step multiplied by a random s ~ Exp(1), the same s for all parameters.

    Zhang & Cutkosky, ICML 2024 (arXiv 2405.09742), with online gradient descent as the learner:
    d <- beta / (1 + lr mu) (d - lr g), x <- x + s d, d = 0 at first. E[s] = 1. With s = 1 and a
    constant lr it is heavy ball with momentum b = beta / (1 + lr mu) at rate lr b. Under a schedule each
    gradient keeps the lr of its own step. Weight decay is coupled.

    Args:
        momentum: beta, above 0 (at 0 nothing would move) and below 1.
        seed: s of a step is a function of this seed and the number of the step. Both are in the state
            dict, so a resumed run draws the same s, and so does every rank of a run.
        average: keep the paper's output in state as `averaged_iterate`, the exponentially weighted
            mean of the iterates.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float,
        seed: int,
        mu: float = 0.0,
        average: bool = False,
        weight_decay: float = 0.0,
    ):
        _check(lr, weight_decay, momentum=momentum)
        if momentum == 0 or mu < 0:
            raise ValueError(f"momentum must be above 0 and mu 0 or more, found {momentum} and {mu}")
        constants = {"mu": mu, "seed": seed, "average": average, "step": 0}
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **constants})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        first = self.param_groups[0]
        step = first["step"] + 1
        scale = exponential_scale(first["seed"], step)
        for group in self.param_groups:
            group["step"] = step
        names = ("delta", "averaged_iterate") if first["average"] else ("delta",)
        for group, parameters, gradients, (deltas, *averages) in _groups(self, *names):
            shrink = group["momentum"] / (1 + group["lr"] * group["mu"])
            torch._foreach_mul_(deltas, shrink)
            torch._foreach_add_(deltas, gradients, alpha=-shrink * group["lr"])
            torch._foreach_add_(parameters, deltas, alpha=scale)
            if averages:
                weight = (1 - group["momentum"]) / (1 - group["momentum"] ** step)
                torch._foreach_lerp_(averages[0], parameters, weight)
        return loss


class SGDF(Optimizer):
    """A filter between the gradient and its average; it estimates a gain K for each element.

    Yao et al. (arXiv 2311.02818), in the form of their public code, at step t = 1, 2, ...:
    m <- b1 m + (1 - b1) g, s <- b2 s + (1 - b2) (g - m)^2, m' = m / (1 - b1^t), s' = s / c with
    c = (1 + b1)(1 - b2^t) / ((1 - b1)(1 - b1^2t)), K = s' / (s' + (g - m')^2 + eps),
    x <- x - lr (m' + K^exponent (g - m')). K = 1 is SGD, K = 0 the averaging form of SGDM with Adam's
    bias correction. Weight decay is coupled.

    Args:
        exponent: 1 as in the first paper's code, 0.5 as in their code of 2026 (which adds eps to
            s + c (g - m')^2 instead: a difference of the order of eps).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        exponent: float = 1.0,
        weight_decay: float = 0.0,
    ):
        _check(lr, weight_decay, beta1=betas[0], beta2=betas[1])
        if eps <= 0 or exponent <= 0:
            raise ValueError(f"eps and exponent must be above 0, found {eps} and {exponent}")
        constants = {"betas": betas, "eps": eps, "exponent": exponent}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **constants})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = _loss(closure)
        for group, parameters, gradients, (averages, variances) in _groups(self, "exp_avg", "exp_var"):
            b1, b2 = group["betas"]
            steps = []
            for parameter in parameters:
                self.state[parameter]["step"] = self.state[parameter].get("step", 0) + 1
                steps.append(self.state[parameter]["step"])
            torch._foreach_lerp_(averages, gradients, 1 - b1)
            deviations = torch._foreach_sub(gradients, averages)
            torch._foreach_mul_(variances, b2)
            torch._foreach_addcmul_(variances, deviations, deviations, value=1 - b2)

            directions = torch._foreach_div(averages, [1 - b1**t for t in steps])
            residuals = torch._foreach_sub(gradients, directions)
            c = [(1 + b1) * (1 - b2**t) / ((1 - b1) * (1 - b1 ** (2 * t))) for t in steps]
            gains = torch._foreach_div(variances, c)
            totals = torch._foreach_mul(residuals, residuals)
            torch._foreach_add_(totals, gains)
            torch._foreach_add_(totals, group["eps"])
            torch._foreach_div_(gains, totals)
            if group["exponent"] != 1:
                torch._foreach_pow_(gains, group["exponent"])
            torch._foreach_addcmul_(directions, residuals, gains)
            torch._foreach_add_(parameters, directions, alpha=-group["lr"])
        return loss
