"""The running optimizer: its groups and state, and whether it is the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from momentum_bench.harness.optimizers.entry import Hyperparameters, OptimizerEntry


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
