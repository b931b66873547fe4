"""The optimizers under study. One registry entry each; the command line, the grid, the loop and the
leaderboard know them only through it. torch is imported when an optimizer is built.

Learning rates are *effective* rates eta everywhere but inside the torch optimizer itself: the total
weight with which a gradient enters the parameters. Plain SGD runs torch's rate eta. Heavy-ball SGDM
(m <- beta m + g, x <- x - gamma m; Wang et al. 2024, eq. 1) runs gamma = eta (1 - beta), which gives
the iterates of the averaging form (m <- beta m + (1 - beta) g, x <- x - eta m; eq. 3). torch's
`dampening` is never used: its first step is undamped, so it is not the averaging form. Where no such
weight exists (the update is no fixed linear function of the gradients), the rate is the optimizer's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.schedules import averaged_schedule

if TYPE_CHECKING:
    pass

from momentum_bench.harness.optimizers.entry import SIGN_RATES, Hyperparameters, OptimizerEntry, ParamGroups


def _momentum_buffer(hyperparameters: Hyperparameters) -> frozenset[str]:
    return frozenset({"momentum_buffer"})


def _settings_sgd(hyperparameters: Hyperparameters) -> dict[str, Any]:
    return {"momentum": 0, "dampening": 0, "nesterov": False}


def _settings_sgdm(hyperparameters: Hyperparameters) -> dict[str, Any]:
    return {"momentum": hyperparameters["momentum"], "dampening": 0, "nesterov": False}


def _settings_nesterov(hyperparameters: Hyperparameters) -> dict[str, Any]:
    # at beta 0 Nesterov's step is SGD's, and torch refuses to be told so
    beta = hyperparameters["momentum"]
    return {"momentum": beta, "dampening": 0, "nesterov": beta > 0}


def _settings_adamw(hyperparameters: Hyperparameters) -> dict[str, Any]:
    return {"betas": _betas(hyperparameters), "eps": hyperparameters["eps"], "amsgrad": False}


def _settings_sgdf(hyperparameters: Hyperparameters) -> dict[str, Any]:
    h = hyperparameters
    return {"betas": _betas(h), "eps": h["eps"], "exponent": h["exponent"]}


def _betas(hyperparameters: Hyperparameters) -> tuple[float, float]:
    return hyperparameters["beta1"], hyperparameters["beta2"]


def _torch_sgd(groups: ParamGroups, rate: float, settings: Mapping[str, Any]):
    import torch

    from momentum_bench.harness.sharded_tensors import in_parts

    # fused: one pass over parameter, gradient and buffer in place of three. Not for what FSDP has cut up
    fused = None if any(in_parts(p) for group in groups for p in group["params"]) else True
    return torch.optim.SGD(groups, lr=rate, fused=fused, **settings)


def _sgd(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    return _torch_sgd(groups, rate, _settings_sgd(hyperparameters))


def _sgdm(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    return _torch_sgd(groups, rate, _settings_sgdm(hyperparameters))


def _nesterov(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    return _torch_sgd(groups, rate, _settings_nesterov(hyperparameters))


def _adamw(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    import torch

    return torch.optim.AdamW(groups, lr=rate, **_settings_adamw(hyperparameters))


def _sgdm_ema(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from momentum_bench.harness.optimizers.published import AveragedSGDM

    return AveragedSGDM(groups, lr=rate, **hyperparameters)


def _qhm(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from momentum_bench.harness.optimizers.published import QHM

    return QHM(groups, lr=rate, **hyperparameters)


def _signsgd(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from momentum_bench.harness.optimizers.published import SignSGD

    return SignSGD(groups, lr=rate)


def _sngm(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from momentum_bench.harness.optimizers.published import SNGM

    return SNGM(groups, lr=rate, **hyperparameters)


def _random_scaling(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from momentum_bench.harness.optimizers.published import RandomScaling

    h = hyperparameters
    return RandomScaling(groups, lr=rate, seed=seed, momentum=h["momentum"], mu=h["mu"])


def _sgdf(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from momentum_bench.harness.optimizers.published import SGDF

    return SGDF(groups, lr=rate, **_settings_sgdf(hyperparameters))


def _heavy_ball_rate(hyperparameters: Hyperparameters) -> float:
    # rounded, or 1 - 0.9 would print as 0.09999999999999998 in every record
    return round(1 - hyperparameters["momentum"], 12)


def _random_scaling_rate(hyperparameters: Hyperparameters) -> float:
    """(1 - beta) / beta: beta comes before the rate too, in heavy ball of rate lr beta."""
    beta = hyperparameters["momentum"]
    if beta == 0:
        raise UserError("random_scaling multiplies its step by momentum: pass --momentum above 0")
    return _heavy_ball_rate(hyperparameters) / beta


def _torch_sgd_buffer(hyperparameters: Hyperparameters) -> frozenset[str]:
    return frozenset({"momentum_buffer"} if hyperparameters["momentum"] else ())


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry("x <- x - eta g", _sgd, settings=_settings_sgd, still_at_zero=True),
    "sgdm": OptimizerEntry(
        "heavy ball: m <- beta m + g, x <- x - eta (1 - beta) m",
        _sgdm,
        hyperparameters=("momentum",),
        torch_rate=_heavy_ball_rate,
        settings=_settings_sgdm,
        state_tensors=_torch_sgd_buffer,
        state_bytes_per_parameter=lambda h: 4 if h["momentum"] else 0,
        still_at_zero=True,
    ),
    "sgdm_ema": OptimizerEntry(
        "averaging form: m <- beta m + (1 - beta) g, x <- x - eta m",
        _sgdm_ema,
        hyperparameters=("momentum",),
        state_tensors=_momentum_buffer,
        state_bytes_per_parameter=lambda h: 4,
    ),
    "sgd_matched": OptimizerEntry(
        "SGD at the rates which give every gradient the total weight that it has under SGDM",
        _sgd,
        hyperparameters=("momentum",),
        schedule=lambda rates, h: averaged_schedule(rates, h["momentum"]),
        settings=_settings_sgd,
        still_at_zero=True,
    ),
    "nesterov": OptimizerEntry(
        # Sutskever et al., ICML 2013, in torch's form; weight 1 + beta / (1 - beta) = 1 / (1 - beta)
        "m <- beta m + g, x <- x - eta (1 - beta) (g + beta m)",
        _nesterov,
        hyperparameters=("momentum",),
        torch_rate=_heavy_ball_rate,
        settings=_settings_nesterov,
        state_tensors=_torch_sgd_buffer,
        state_bytes_per_parameter=lambda h: 4 if h["momentum"] else 0,
        still_at_zero=True,
    ),
    "qhm": OptimizerEntry(
        "quasi-hyperbolic: m <- beta m + (1 - beta) g, x <- x - eta ((1 - nu) g + nu m)",
        _qhm,
        hyperparameters=("momentum",),
        constants={"nu": 0.7},  # its authors' choice; they pair it with beta = 0.999
        state_tensors=_momentum_buffer,
        state_bytes_per_parameter=lambda h: 4,
    ),
    "random_scaling": OptimizerEntry(
        "heavy ball, each step times s ~ Exp(1); eta holds for the mean of s, which is 1",
        _random_scaling,
        hyperparameters=("momentum",),
        constants={"mu": 0.0},
        torch_rate=_random_scaling_rate,
        state_tensors=lambda h: frozenset({"delta"}),
        state_bytes_per_parameter=lambda h: 4,
    ),
    "sgdf": OptimizerEntry(
        "filter: x <- x - lr (m + K (g - m)), K estimated for each element; own rate, on SGD's scale",
        _sgdf,
        constants={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "exponent": 1.0},
        # every K from 0 (averaging form) to 1 (SGD) weighs gradients by about lr: SGD's default grid
        own_rate=True,
        settings=_settings_sgdf,
        state_tensors=lambda h: frozenset({"exp_avg", "exp_var"}),
        state_bytes_per_parameter=lambda h: 8,
    ),
    "sngm": OptimizerEntry(
        "u <- beta u + g / ||g||, x <- x - lr u; own rate, for the gradient's size does not count",
        _sngm,
        hyperparameters=("momentum",),
        # SGD's default grid: its gradients have norm 1, as those that SGD clips. By dev loss on bbc_news
        # (head, k = 8, 30 steps): 0.70 at 0.03, 0.13 at 0.1, 0.40 at 0.3, the best well inside
        own_rate=True,
        state_tensors=_momentum_buffer,
        state_bytes_per_parameter=lambda h: 4,
    ),
    "signsgd": OptimizerEntry(
        "x <- x - lr sign(g), decoupled weight decay; own rate, for the gradient's size does not count",
        _signsgd,
        own_rate=True,
        still_at_zero=True,
        default_rates=SIGN_RATES,
    ),
    "adamw": OptimizerEntry(
        # Loshchilov & Hutter, ICLR 2019, Algorithm 2
        "Adam with decoupled weight decay; own rate, for the gradient's size does not count",
        _adamw,
        constants={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        own_rate=True,
        settings=_settings_adamw,
        state_tensors=lambda h: frozenset({"exp_avg", "exp_avg_sq", "step"}),
        state_bytes_per_parameter=lambda h: 8,
        default_rates=SIGN_RATES,
    ),
}
