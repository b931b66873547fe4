"""The optimizers under study. One registry entry each; the command line, the grid, the loop and the
leaderboard know them only through it. torch is imported when an optimizer is built.

Learning rates are *effective* rates eta everywhere but inside the torch optimizer itself. Plain SGD
runs torch's rate eta. Heavy-ball SGDM (m <- beta m + g, x <- x - gamma m; Wang et al. 2024, eq. 1)
runs gamma = eta (1 - beta), which gives the iterates of the averaging form (m <- beta m +
(1 - beta) g, x <- x - eta m; eq. 3). torch's `dampening` is never used: its first step is undamped,
so it is not the averaging form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Hyperparameters = Mapping[str, float]
ParamGroups = Sequence[dict[str, Any]]

DEFAULT_RATES = {
    "prompt": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "head": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
}


@dataclass(frozen=True)
class OptimizerEntry:
    """How one optimizer is built, and what must be true of it once it runs.

    Attributes:
        summary: its update in words, for messages and help.
        build: parameter groups, torch learning rate, hyperparameters -> the torch optimizer.
        hyperparameters: names of those it uses, out of the sweep's.
        torch_rate: torch's learning rate for an effective rate of 1.
        state_tensors: names of the tensors that its state must hold after a step, and no others.
        default_rates: six effective rates for each method, where a task has no hint of its own.
    """

    summary: str
    build: Callable[[ParamGroups, float, Hyperparameters], torch.optim.Optimizer]
    hyperparameters: tuple[str, ...] = ()
    torch_rate: Callable[[Hyperparameters], float] = lambda hyperparameters: 1.0
    state_tensors: Callable[[Hyperparameters], frozenset[str]] = lambda hyperparameters: frozenset()
    default_rates: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: DEFAULT_RATES)


def _sgd(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters):
    import torch

    return torch.optim.SGD(groups, lr=rate)


def _sgdm(groups: ParamGroups, rate: float, hyperparameters: Hyperparameters):
    import torch

    return torch.optim.SGD(groups, lr=rate, momentum=hyperparameters["momentum"])


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry("x <- x - eta g", _sgd),
    "sgdm": OptimizerEntry(
        "heavy ball: m <- beta m + g, x <- x - eta (1 - beta) m",
        _sgdm,
        hyperparameters=("momentum",),
        # rounded, or 1 - 0.9 would print as 0.09999999999999998 in every record
        torch_rate=lambda hyperparameters: round(1 - hyperparameters["momentum"], 12),
        state_tensors=lambda hyperparameters: frozenset(
            ["momentum_buffer"] if hyperparameters["momentum"] else []
        ),
    ),
}


class WrongOptimizerError(RuntimeError):
    """What runs is not the optimizer that was asked for; the run must not count."""


def weight_decay_groups(
    named_parameters: Sequence[tuple[str, torch.nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Two parameter groups: matrices decay, biases and norms (one dimension) do not, as in LM-BFF.

    The decay is torch SGD's coupled one: it enters the gradient, and through it the momentum.
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


def check_live(name: str, hyperparameters: Hyperparameters, optimizer: torch.optim.Optimizer):
    """Compare the optimizer that has just made its first step with what its entry promises.

    Raises:
        WrongOptimizerError: a hyperparameter, or the presence of a buffer, is not as asked. Public
            codes that offer momentum for fine-tuning drop it without a word; this one cannot.
    """
    expected = OPTIMIZERS[name].state_tensors(hyperparameters)
    found = set(state_tensors(optimizer)[0])
    if found != expected:
        raise WrongOptimizerError(
            f"{name}: after one step the state holds {sorted(found)}, expected {sorted(expected)}"
        )
    for group in optimizer.param_groups:
        for key, value in hyperparameters.items():
            if group.get(key) != value:
                raise WrongOptimizerError(f"{name}: {key} is {group.get(key)}, asked for {value}")
