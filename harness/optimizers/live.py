"""The live optimizer: its groups, its state, and the check that it is the one that was asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from momentum_bench.harness.optimizers.entry import HEADS, MATRICES, VECTORS, Hyperparameters, OptimizerEntry


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


def parameter_groups(
    entry: OptimizerEntry,
    model: torch.nn.Module,
    named_parameters: Sequence[tuple[str, torch.nn.Parameter]],
    drawn: Collection[str],
    weight_decay: float,
) -> list[dict[str, Any]]:
    """The groups that an optimizer is built with: by role, or those that decay and those that do not.

    Args:
        drawn: names of the parameters of a new head.
    """
    if entry.by_role:
        return role_groups(model, named_parameters, drawn, weight_decay)
    return weight_decay_groups(named_parameters, weight_decay)


def role_groups(
    model: torch.nn.Module,
    named_parameters: Sequence[tuple[str, torch.nn.Parameter]],
    drawn: Collection[str],
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Parameter groups by role, as Muon is run (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982).

    A matrix is hidden if it belongs to no embedding and to no layer that gives the model's outputs. Those
    layers are the model's output embeddings and the last linear layer, if that is new. All but vectors decay.

    Args:
        drawn: names of the parameters of a new head.
    """
    from torch import nn

    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    get_output = getattr(model, "get_output_embeddings", None)
    if callable(get_output) and (output := get_output()) is not None:
        tables.add(id(output.weight))
    new_layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in drawn
    ]
    tables |= {id(module.weight) for module in new_layers[-1:]}
    roles: dict[str, list[torch.nn.Parameter]] = {MATRICES: [], HEADS: [], VECTORS: []}
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            role = HEADS if id(parameter) in tables else MATRICES if parameter.ndim == 2 else VECTORS
            roles[role].append(parameter)
    groups = []
    for role, parameters in roles.items():
        # tensors of three and more dimensions are no vectors, so they decay
        for decays in (True, False):
            of_kind = [p for p in parameters if (p.ndim > 1) == decays]
            if of_kind:
                groups.append(
                    {"params": of_kind, "weight_decay": weight_decay if decays else 0.0, "role": role}
                )
    return groups


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a value, at any depth of lists, tuples and dictionaries."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def state_tensors(optimizer: torch.optim.Optimizer) -> tuple[tuple[str, ...], int]:
    """Names under which the live optimizer keeps tensors for parameters, and the bytes of all of them.

    A list of tensors counts under its one name. A tensor that two names share counts once.
    """
    tensors = [
        (name, tensor)
        for state in optimizer.state.values()
        if isinstance(state, Mapping)
        for name, value in state.items()
        for tensor in tensors_in(value)
    ]
    names = tuple(sorted({str(name) for name, _ in tensors}))
    different = {id(tensor): tensor for _, tensor in tensors}.values()
    return names, sum(tensor.numel() * tensor.element_size() for tensor in different)


def set_mode(optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Tell an optimizer that has modes whether the model trains or is scored.

    Schedule-Free optimizers (Defazio et al. 2024) put the average of the iterates into the parameters to
    score them, and take it out again to train.
    """
    if callable(change := getattr(optimizer, "train" if training else "eval", None)):
        change()


def parameter_names(
    optimizer: torch.optim.Optimizer, named_parameters: Sequence[tuple[str, torch.nn.Parameter]]
) -> tuple[tuple[str, ...], ...]:
    """Names of the parameters of each group."""
    names = {id(parameter): name for name, parameter in named_parameters}
    return tuple(tuple(names[id(p)] for p in group["params"]) for group in optimizer.param_groups)


@contextmanager
def scoring_mode(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the optimizer knows that the model is scored."""
    set_mode(optimizer, training=False)
    yield
    set_mode(optimizer, training=True)


class Movement:
    """Whether an optimizer has moved any of its parameters since this was made.

    An optimizer that returns without doing anything would otherwise give a result: that of the start.

    Args:
        optimizer: None: there is no doubt that it moves them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | None):
        groups = optimizer.param_groups if optimizer else []
        self._still = [(p, p.detach().clone()) for group in groups for p in group["params"]]

    def look(self) -> None:
        """Compare with the start, until some element of some parameter is another one."""
        if any(not bool((now == before).all()) for now, before in self._still):
            self._still = []

    def check(self, name: str, n_steps: int) -> None:
        """Raises: WrongOptimizerError, if all parameters were still at their start at the last look."""
        if self._still:
            raise WrongOptimizerError(f"{name} returned from {n_steps} steps without moving any parameter")


NO_DOUBT = Movement(None)
"""For optimizers with promises, which tests cover."""


def check_live(
    name: str, entry: OptimizerEntry, hyperparameters: Hyperparameters, optimizer: torch.optim.Optimizer
) -> None:
    """Compare an optimizer after its first step with what its entry promises.

    An entry without promises is compared with nothing.

    Some public code for fine-tuning takes a momentum and silently does not use it. This check makes that
    impossible here.

    Raises:
        WrongOptimizerError: a hyperparameter has another value, or a state tensor is missing or not
            expected.
    """
    if not entry.promises:
        return
    expected = entry.state_tensors(hyperparameters)
    found = set(state_tensors(optimizer)[0])
    if found != expected:
        raise WrongOptimizerError(
            f"{name}: after one step the state holds {sorted(found)}, expected {sorted(expected)}"
        )
    for group in optimizer.param_groups:
        for key, value in entry.promised(hyperparameters, group).items():
            if group.get(key) != value:
                raise WrongOptimizerError(f"{name}: {key} is {group.get(key)}, asked for {value}")
