"""The live optimizer: its groups, its state, and the check that it is the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from momentum_bench.harness.optimizers.entry import Hyperparameters, OptimizerEntry


class WrongOptimizerError(RuntimeError):
    """The optimizer that runs is not the one that was asked for, so the run must not count."""


def weight_decay_groups(
    named_parameters: Sequence[tuple[str, torch.nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Two parameter groups, as in LM-BFF: matrices decay; biases and norms (one dimension) do not.

    The optimizer applies the decay. In torch's SGD and most others it is coupled: it enters the gradient,
    and through it the momentum. In adamw and signsgd it is decoupled.
    """
    matrices = [p for _, p in named_parameters if p.requires_grad and p.ndim > 1]
    vectors = [p for _, p in named_parameters if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def state_tensors(optimizer: torch.optim.Optimizer) -> tuple[tuple[str, ...], int]:
    """Names of the tensors that the live optimizer keeps for parameters, and the bytes of all of them."""
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
    """Compare an optimizer after its first step with what its entry promises.

    Some public code for fine-tuning takes a momentum and silently does not use it. This check makes that
    impossible here.

    Raises:
        WrongOptimizerError: a hyperparameter has another value, or a state tensor is missing or not
            expected.
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
