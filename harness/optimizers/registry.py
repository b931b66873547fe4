"""The optimizers under study, one entry each. Command line, grid, loop and leaderboard know no more of them.

Learning rates are *effective* rates eta everywhere but inside the torch optimizer itself: eta is the total
weight with which a gradient enters the parameters. Plain SGD runs torch's rate eta. Heavy-ball SGDM
(m <- beta m + g, x <- x - gamma m; Wang et al. 2024, eq. 1) runs gamma = eta (1 - beta), which gives
the iterates of the averaging form (m <- beta m + (1 - beta) g, x <- x - eta m; eq. 3). torch's
`dampening` is never used: its first step is undamped, so it is not the averaging form. Where the update
is no fixed linear function of the gradients there is no such weight, and the rate is the optimizer's own.

torch is imported when an optimizer is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.entry import (
    SIGN_RATES,
    Hyperparameters,
    OptimizerEntry,
    ParamGroups,
    always,
)
from momentum_bench.harness.optimizers.schedules import averaged_schedule

if TYPE_CHECKING:
    import torch

Settings = Callable[[Hyperparameters], Mapping[str, Any]]
Build = Callable[[ParamGroups, float, Hyperparameters, int], "torch.optim.Optimizer"]

# -- what each parameter group of an optimizer must hold, from the hyperparameters ----------------------


def plain(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """torch's SGD without momentum."""
    return {"momentum": 0, "dampening": 0, "nesterov": False}


def heavy_ball(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """torch's SGD with momentum."""
    return {"momentum": hyperparameters["momentum"], "dampening": 0, "nesterov": False}


def look_ahead(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """torch's SGD with Nesterov's momentum, which torch refuses at beta 0, where it is plain SGD."""
    beta = hyperparameters["momentum"]
    return {"momentum": beta, "dampening": 0, "nesterov": beta > 0}


def adam(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """torch's AdamW."""
    h = hyperparameters
    return {"betas": (h["beta1"], h["beta2"]), "eps": h["eps"], "amsgrad": False}


def nadam(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """torch's NAdam."""
    h = hyperparameters
    return {"betas": (h["beta1"], h["beta2"]), "eps": h["eps"], "momentum_decay": h["momentum_decay"]}


def muon(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """torch's Muon."""
    return {"momentum": hyperparameters["momentum"], "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}


def filtering(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """`published.SGDF`."""
    h = hyperparameters
    return {"betas": (h["beta1"], h["beta2"]), "eps": h["eps"], "exponent": h["exponent"]}


# -- how an optimizer is built ----------------------------------------------------------------------------


def _fused(groups: ParamGroups) -> bool | None:
    """Whether torch makes a step in one pass over parameter, gradient and state; None: torch's own choice.

    FSDP's parts do not allow it.
    """
    from momentum_bench.harness.sharded_tensors import in_parts

    return None if any(in_parts(p) for group in groups for p in group["params"]) else True


def torch_sgd(settings: Settings) -> Build:
    """Builds `torch.optim.SGD` with these settings."""

    def build(
        groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int
    ) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(groups, lr=rate, fused=_fused(groups), **settings(hyperparameters))

    return build


def torch_adamw(
    groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int
) -> torch.optim.Optimizer:
    """`torch.optim.AdamW`: Loshchilov & Hutter, ICLR 2019, Algorithm 2."""
    import torch

    return torch.optim.AdamW(groups, lr=rate, fused=_fused(groups), **adam(hyperparameters))


def torch_nadam(
    groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int
) -> torch.optim.Optimizer:
    """`torch.optim.NAdam` with decoupled weight decay: Dozat 2016, Algorithm 2."""
    import torch

    return torch.optim.NAdam(groups, lr=rate, decoupled_weight_decay=True, **nadam(hyperparameters))


def torch_muon(
    groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int
) -> torch.optim.Optimizer:
    """`torch.optim.Muon` on the hidden matrices and AdamW on the rest, at one rate.

    Muon's steps are scaled to the size of AdamW's, so that one rate suits both: Liu et al. 2025 (arXiv
    2502.16982), equation 4.
    """
    import torch

    from momentum_bench.harness.optimizers.partnered import partnered

    def first(matrices: ParamGroups) -> torch.optim.Optimizer:
        return torch.optim.Muon(matrices, lr=rate, **muon(hyperparameters))

    prefix = "adamw_"
    constants = {k.removeprefix(prefix): v for k, v in hyperparameters.items() if k.startswith(prefix)}
    return partnered(groups, first, replace(OPTIMIZERS["adamw"], constants=constants), rate, 1.0, seed)


def published(name: str, settings: Settings = dict, seeded: bool = False) -> Build:
    """Builds one of the optimizers of `published.py` with these settings.

    Args:
        settings: its keyword arguments; by default its hyperparameters.
        seeded: whether it also takes the run's seed.
    """

    def build(
        groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int
    ) -> torch.optim.Optimizer:
        from momentum_bench.harness.optimizers import published as module

        further = {"seed": seed} if seeded else {}
        kind: Callable[..., torch.optim.Optimizer] = getattr(module, name)
        return kind(groups, lr=rate, **settings(hyperparameters), **further)

    return build


# -- torch's rate and the state, from the hyperparameters -------------------------------------------------


def one_minus_beta(hyperparameters: Hyperparameters) -> float:
    """torch's rate of heavy ball for an effective rate of 1."""
    # rounded, or 1 - 0.9 would print as 0.09999999999999998 in every record
    return round(1 - float(hyperparameters["momentum"]), 12)


def one_minus_beta_over_beta(hyperparameters: Hyperparameters) -> float:
    """torch's rate of `random_scaling` for an effective rate of 1: it is heavy ball of rate lr beta.

    Raises:
        UserError: beta is 0.
    """
    beta = float(hyperparameters["momentum"])
    if beta == 0:
        raise UserError("random_scaling multiplies its step by momentum: pass --momentum above 0")
    return one_minus_beta(hyperparameters) / beta


def weights_under_momentum(rates: Sequence[float], hyperparameters: Hyperparameters) -> list[float]:
    """The rates at which SGD gives every gradient the total weight that it has under SGDM."""
    return averaged_schedule(rates, hyperparameters["momentum"])


def buffer_if_momentum(hyperparameters: Hyperparameters) -> frozenset[str]:
    """torch's SGD keeps a buffer only if there is momentum."""
    return frozenset({"momentum_buffer"} if hyperparameters["momentum"] else ())


def bytes_if_momentum(hyperparameters: Hyperparameters) -> float:
    """Bytes of that buffer for one parameter."""
    return 4 if hyperparameters["momentum"] else 0


BUFFER = always(frozenset({"momentum_buffer"}))

OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(
        "x <- x - eta g",
        torch_sgd(plain),
        settings=plain,
        still_at_zero=True,
    ),
    "sgdm": OptimizerEntry(
        "heavy ball: m <- beta m + g, x <- x - eta (1 - beta) m",
        torch_sgd(heavy_ball),
        hyperparameters=("momentum",),
        torch_rate=one_minus_beta,
        settings=heavy_ball,
        state_tensors=buffer_if_momentum,
        state_bytes_per_parameter=bytes_if_momentum,
        still_at_zero=True,
    ),
    "sgdm_ema": OptimizerEntry(
        "averaging form: m <- beta m + (1 - beta) g, x <- x - eta m",
        published("AveragedSGDM"),
        hyperparameters=("momentum",),
        state_tensors=BUFFER,
        state_bytes_per_parameter=always(4),
    ),
    "sgd_matched": OptimizerEntry(
        "SGD at the rates which give every gradient the total weight that it has under SGDM",
        torch_sgd(plain),
        hyperparameters=("momentum",),
        schedule=weights_under_momentum,
        settings=plain,
        still_at_zero=True,
    ),
    "nesterov": OptimizerEntry(
        # Sutskever et al., ICML 2013, in torch's form; weight 1 + beta / (1 - beta) = 1 / (1 - beta)
        "m <- beta m + g, x <- x - eta (1 - beta) (g + beta m)",
        torch_sgd(look_ahead),
        hyperparameters=("momentum",),
        torch_rate=one_minus_beta,
        settings=look_ahead,
        state_tensors=buffer_if_momentum,
        state_bytes_per_parameter=bytes_if_momentum,
        still_at_zero=True,
    ),
    "qhm": OptimizerEntry(
        "quasi-hyperbolic: m <- beta m + (1 - beta) g, x <- x - eta ((1 - nu) g + nu m)",
        published("QHM"),
        hyperparameters=("momentum",),
        constants={"nu": 0.7},  # its authors' choice; they combine it with beta = 0.999
        state_tensors=BUFFER,
        state_bytes_per_parameter=always(4),
    ),
    "random_scaling": OptimizerEntry(
        "heavy ball, each step times s ~ Exp(1); eta holds for the mean of s, which is 1",
        published("RandomScaling", seeded=True),
        hyperparameters=("momentum",),
        constants={"mu": 0.0},
        torch_rate=one_minus_beta_over_beta,
        state_tensors=always(frozenset({"delta"})),
        state_bytes_per_parameter=always(4),
    ),
    "sgdf": OptimizerEntry(
        "filter: x <- x - lr (m + K (g - m)), K estimated for each element; own rate, on SGD's scale",
        published("SGDF", filtering),
        constants={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "exponent": 1.0},
        # SGD's default grid: at every K from 0 (averaging form) to 1 (SGD) a gradient has about the weight lr
        own_rate=True,
        settings=filtering,
        state_tensors=always(frozenset({"exp_avg", "exp_var"})),
        state_bytes_per_parameter=always(8),
    ),
    "sngm": OptimizerEntry(
        "u <- beta u + g / ||g||, x <- x - lr u; own rate, because the size of the gradient does not count",
        published("SNGM"),
        hyperparameters=("momentum",),
        # SGD's default grid: its gradients have norm 1, like those that SGD clips
        own_rate=True,
        state_tensors=BUFFER,
        state_bytes_per_parameter=always(4),
    ),
    "signsgd": OptimizerEntry(
        "x <- x - lr sign(g), decoupled weight decay; own rate, because the size of the gradient does not "
        "count",
        published("SignSGD"),
        own_rate=True,
        still_at_zero=True,
        default_rates=SIGN_RATES,
    ),
    "signum": OptimizerEntry(
        "m <- beta m + (1 - beta) g, x <- x - lr sign(m), decoupled weight decay; own rate, as signsgd",
        published("Signum"),
        hyperparameters=("momentum",),
        own_rate=True,
        state_tensors=BUFFER,
        state_bytes_per_parameter=always(4),
        # the grid of its twin without momentum, so that the two have the same search
        default_rates=SIGN_RATES,
    ),
    "adamw": OptimizerEntry(
        "Adam with decoupled weight decay; own rate, because the size of the gradient does not count",
        torch_adamw,
        constants={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        own_rate=True,
        settings=adam,
        state_tensors=always(frozenset({"exp_avg", "exp_avg_sq", "step"})),
        state_bytes_per_parameter=always(8),
        default_rates=SIGN_RATES,
    ),
    "nadam": OptimizerEntry(
        "Adam with Nesterov's momentum and decoupled weight decay; own rate, as adamw",
        torch_nadam,
        constants={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "momentum_decay": 0.004},
        own_rate=True,
        settings=nadam,
        state_tensors=always(frozenset({"exp_avg", "exp_avg_sq", "mu_product", "step"})),
        state_bytes_per_parameter=always(8),
        # AdamW's grid
        default_rates=SIGN_RATES,
    ),
    "muon": OptimizerEntry(
        "hidden matrices: u <- orthogonalised momentum, x <- x - lr 0.2 sqrt(max(rows, columns)) u; "
        "the rest: adamw; own rate",
        torch_muon,
        hyperparameters=("momentum",),
        constants={"adamw_beta1": 0.9, "adamw_beta2": 0.999, "adamw_eps": 1e-8},
        own_rate=True,
        settings=muon,
        state_tensors=always(frozenset({"exp_avg", "exp_avg_sq", "momentum_buffer", "step"})),
        state_bytes_per_parameter=always(8),  # of the rest; a hidden matrix has half of it
        by_role=True,
        # AdamW's grid, because its steps are scaled to the size of AdamW's
        default_rates=SIGN_RATES,
    ),
}

FROM_LIBRARIES: Mapping[str, str] = {
    "lion": "pytorch_optimizer.Lion",  # Chen et al., NeurIPS 2023
    "schedule_free_sgd": "schedulefree.SGDScheduleFree",  # Defazio et al., NeurIPS 2024; its authors' code
}
"""Short names of classes in packages of the extra `optimizers`. In specs and tables their paths stand."""

TWINS: tuple[tuple[str, str], ...] = (
    ("sgd", "sgdm"),
    ("signsgd", "signum"),
    ("adamw:beta1=0", "adamw"),
    ("muon:momentum=0", "muon"),
)
"""Arms that differ in momentum alone, without it and with it: does momentum pay here?"""
