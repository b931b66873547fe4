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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.schedules import averaged_schedule

if TYPE_CHECKING:
    import torch

Hyperparameters = Mapping[str, float]
ParamGroups = Sequence[dict[str, Any]]

FROM_THE_SWEEP = ("momentum",)
"""Hyperparameters that a sweep sets; all others are an entry's constants."""

# Half decades over the rates that MeZO's authors tune SGD with by prompt (1e-4 to 1e-2) and one beyond,
# for a head that starts from random weights thirty times those. All optimizers on SGD's scale share them.
DEFAULT_RATES = {
    "prompt": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "head": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "causal": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "scratch": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""A decoder starts, as a prompted model does, from a head that is trained: its grid is the prompt's.

That of networks from scratch lies around 1, the rate of SGD that matches heavy ball at its customary
0.1 with beta 0.9 (He et al. 2016).
"""

# A step of the sign of the gradient, which AdamW's first steps are too, moves every element by the
# rate. These are centred on the rates that AdamW fine-tunes such models with (LM-BFF: 1e-5 to 5e-5),
# and for a head that starts from random weights on ten times those.
SIGN_RATES = {
    "prompt": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
    "head": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "causal": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
    "scratch": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


def _nothing(hyperparameters: Hyperparameters) -> frozenset[str]:
    return frozenset()


def _momentum_buffer(hyperparameters: Hyperparameters) -> frozenset[str]:
    return frozenset({"momentum_buffer"})


def _unchanged(rates: Sequence[float], hyperparameters: Hyperparameters) -> list[float]:
    return list(rates)


@dataclass(frozen=True)
class OptimizerEntry:
    """How one optimizer is built, and what must be true of it once it runs.

    Attributes:
        summary: its update in words, for messages and help.
        build: parameter groups, torch learning rate, hyperparameters, the run's seed -> the torch
            optimizer. Parameter groups carry their own `weight_decay`.
        hyperparameters: names of those it takes from the sweep, out of `FROM_THE_SWEEP`.
        constants: its other hyperparameters, with the values that all its runs have.
        torch_rate: torch's learning rate for an effective rate of 1.
        own_rate: True where no effective rate exists and the grid is in the optimizer's own rates.
        schedule: the effective rates of the whole run, hyperparameters -> those that it runs.
        settings: what every parameter group must hold, from the hyperparameters.
        state_tensors: names of the tensors that its state must hold after a step, and no others.
        state_bytes_per_parameter: bytes of those for one 32-bit parameter, step counters aside.
        still_at_zero: True where an element whose gradients are all 0 stays where it is, whatever the
            others do, unless it decays.
        default_rates: six rates for each method, where a task has no hint of its own; those of
            `prompt` stand in for `causal`'s where they are not given; `scratch` may be left out.

    Raises:
        ValueError: names or rates that cannot be meant.
    """

    summary: str
    build: Callable[[ParamGroups, float, Hyperparameters, int], torch.optim.Optimizer]
    hyperparameters: tuple[str, ...] = ()
    constants: Hyperparameters = field(default_factory=dict)
    torch_rate: Callable[[Hyperparameters], float] = lambda hyperparameters: 1.0
    own_rate: bool = False
    schedule: Callable[[Sequence[float], Hyperparameters], list[float]] = _unchanged
    settings: Callable[[Hyperparameters], Mapping[str, Any]] = dict
    state_tensors: Callable[[Hyperparameters], frozenset[str]] = _nothing
    state_bytes_per_parameter: Callable[[Hyperparameters], float] = lambda hyperparameters: 0
    still_at_zero: bool = False
    default_rates: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: DEFAULT_RATES)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.hyperparameters) - set(FROM_THE_SWEEP)):
            raise ValueError(
                f"hyperparameters {unknown} are not set by a sweep, which sets {list(FROM_THE_SWEEP)}: "
                f"give them a value in constants"
            )
        if both := sorted(set(self.hyperparameters) & set(self.constants)):
            raise ValueError(f"{both} are both hyperparameters of the sweep and constants")
        for method in ("prompt", "head", *self.default_rates):
            rates = self.default_rates.get(method, ())
            if len(set(rates)) != 6 or min(rates) <= 0:
                raise ValueError(f"default_rates[{method!r}] must be six rates above 0, found {rates}")


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

    from harness.sharding import in_parts

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
    from harness.rival_optimizers import AveragedSGDM

    return AveragedSGDM(groups, lr=rate, **hyperparameters)


def _qhm(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from harness.rival_optimizers import QHM

    return QHM(groups, lr=rate, **hyperparameters)


def _signsgd(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from harness.rival_optimizers import SignSGD

    return SignSGD(groups, lr=rate)


def _sngm(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from harness.rival_optimizers import SNGM

    return SNGM(groups, lr=rate, **hyperparameters)


def _random_scaling(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from harness.rival_optimizers import RandomScaling

    h = hyperparameters
    return RandomScaling(groups, lr=rate, seed=seed, momentum=h["momentum"], mu=h["mu"])


def _sgdf(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int):
    from harness.rival_optimizers import SGDF

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


class WrongOptimizerError(RuntimeError):
    """What runs is not the optimizer that was asked for; the run must not count."""


def weight_decay_groups(
    named_parameters: Sequence[tuple[str, torch.nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Two parameter groups: matrices decay, biases and norms (one dimension) do not, as in LM-BFF.

    What becomes of the decay is the optimizer's affair: coupled (it enters the gradient, and through
    it the momentum) in torch's SGD and most others, decoupled in adamw and signsgd.
    """
    matrices = [p for _, p in named_parameters if p.requires_grad and p.ndim > 1]
    vectors = [p for _, p in named_parameters if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def state_tensors(optimizer: torch.optim.Optimizer) -> tuple[tuple[str, ...], int]:
    """Names of the per-parameter tensors in the live optimizer's state, and their bytes in all."""
    import torch

    tensors = [
        (name, value)
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    ]
    names = tuple(sorted({name for name, _ in tensors}))
    return names, sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)


def check_live(
    name: str, entry: OptimizerEntry, hyperparameters: Hyperparameters, optimizer: torch.optim.Optimizer
) -> None:
    """Compare the optimizer that has just made its first step with what its entry promises.

    Raises:
        WrongOptimizerError: a hyperparameter, or the presence of a buffer, is not as asked. Public
            codes that offer momentum for fine-tuning drop it without a word; this one cannot.
    """
    expected = entry.state_tensors(hyperparameters)
    found = set(state_tensors(optimizer)[0])
    if found != expected:
        raise WrongOptimizerError(
            f"{name}: after one step the state holds {sorted(found)}, expected {sorted(expected)}"
        )
    for group in optimizer.param_groups:
        for key, value in entry.settings(hyperparameters).items():
            if group.get(key) != value:
                raise WrongOptimizerError(f"{name}: {key} is {group.get(key)}, asked for {value}")
