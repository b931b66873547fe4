"""All that the project knows about one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Hyperparameters = Mapping[str, Any]  # numbers; those of a class that is named by its path may be anything
ParamGroups = Sequence[dict[str, Any]]

MATRICES, HEADS, VECTORS = "hidden matrices", "embeddings and heads", "vectors and others"
"""The roles of parameters, for optimizers that take matrices alone."""

FROM_THE_SWEEP = ("momentum",)
"""Hyperparameters that a sweep sets; all others are an entry's constants."""

# For a prompt: half decades over the rates with which MeZO's authors tune SGD (1e-4 to 1e-2), and one more.
# For a head, which starts from random weights: thirty times those. All optimizers on SGD's scale share them.
# How the rates for a head did, for every optimizer: docs/default-rates.md.
DEFAULT_RATES = {
    "prompt": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "head": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "causal": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "scratch": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""Six rates for each method.

The grid of a decoder is that of a prompt, because both start from a trained head. The grid of networks from
scratch lies around 1: SGD at that rate matches heavy ball at the usual 0.1 with beta 0.9 (He et al. 2016).
"""

# A step of signsgd moves every element by the rate, and so do AdamW's first steps. The centre of these grids
# is the rates at which AdamW fine-tunes such models (LM-BFF: 1e-5 to 5e-5), and ten times those for a head,
# which starts from random weights.
SIGN_RATES = {
    "prompt": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
    "head": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "causal": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
    "scratch": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


def always(value: T) -> Callable[[Hyperparameters], T]:
    """A function that gives this value for all hyperparameters."""

    def constant(hyperparameters: Hyperparameters) -> T:
        return value

    return constant


RATE_ITSELF, NO_STATE, NO_BYTES = always(1.0), always(frozenset[str]()), always(0.0)
"""What holds for plain SGD, and by default for every entry."""


def _unchanged(rates: Sequence[float], hyperparameters: Hyperparameters) -> list[float]:
    return list(rates)


class ClosureUse(Enum):
    """How an optimizer uses a closure, a function that computes loss and gradient again."""

    ALONE = "it computes every gradient by the closure (torch's LBFGS)"
    AFTER_GRADIENT = "it takes a gradient as usual, moves, and computes a second one by the closure (SAM)"


@dataclass(frozen=True)
class OptimizerEntry:
    """How one optimizer is built, and what must be true of it once it runs.

    Attributes:
        summary: its update in words, for messages and help.
        build: parameter groups, torch learning rate, hyperparameters, the run's seed -> the torch
            optimizer. Each parameter group has its own `weight_decay`.
        hyperparameters: names of those that it takes from the sweep, out of `FROM_THE_SWEEP`.
        constants: its other hyperparameters, with the values that all its runs have.
        torch_rate: hyperparameters -> torch's learning rate for an effective rate of 1.
        own_rate: True: there is no effective rate, and the grid is in the optimizer's own rates.
        schedule: the effective rates of the whole run, hyperparameters -> the rates that really run.
        settings: hyperparameters -> what every parameter group must hold, but those of a partner.
        state_tensors: hyperparameters -> names of all tensors that its state holds after a step.
        state_bytes_per_parameter: hyperparameters -> bytes of those tensors for one 32-bit parameter,
            without step counters; where parameters differ, the most that one has.
        still_at_zero: True: an element whose gradients are all 0 does not move, whatever the other
            elements do, unless weight decay moves it.
        default_rates: six rates for each method, for tasks without rates of their own. `causal` may be
            left out, and then has the rates of `prompt`; `scratch` may be left out too.
        promises: False: nobody said what is true of it, so `settings` and `state_tensors` are not compared
            with the live optimizer. The record then holds all that was found.
        closure: how it uses a closure; None: it needs none.
        evaluations_per_step: with a closure: the gradients that one step evaluates; None: their number varies
            or is not known.
        by_role: True: parameters are grouped as hidden matrices, embeddings and heads, and vectors, each
            group with a `role`; False: as those that decay and those that do not.
        takes_weight_decay: whether a group's `weight_decay` changes its steps.

    Raises:
        ValueError: names or rates that make no sense.
    """

    summary: str
    build: Callable[[ParamGroups, float, Hyperparameters, int], torch.optim.Optimizer]
    hyperparameters: tuple[str, ...] = ()
    constants: Hyperparameters = field(default_factory=dict)
    torch_rate: Callable[[Hyperparameters], float] = RATE_ITSELF
    own_rate: bool = False
    schedule: Callable[[Sequence[float], Hyperparameters], list[float]] = _unchanged
    settings: Callable[[Hyperparameters], Mapping[str, Any]] = dict
    state_tensors: Callable[[Hyperparameters], frozenset[str]] = NO_STATE
    state_bytes_per_parameter: Callable[[Hyperparameters], float] = NO_BYTES
    still_at_zero: bool = False
    default_rates: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: DEFAULT_RATES)
    promises: bool = True
    closure: ClosureUse | None = None
    evaluations_per_step: int | None = None
    by_role: bool = False
    takes_weight_decay: bool = True

    def all_hyperparameters(self, momentum: float) -> dict[str, Any]:
        """Its constants and what a sweep sets, for a sweep with this momentum."""
        return {**dict.fromkeys(self.hyperparameters, momentum), **self.constants}

    def promised(self, hyperparameters: Hyperparameters, group: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a live parameter group must hold: `settings`, but nothing in a group of a partner."""
        return self.settings(hyperparameters) if not self.by_role or group.get("role") == MATRICES else {}

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.hyperparameters) - set(FROM_THE_SWEEP)):
            raise ValueError(
                f"hyperparameters {unknown}: a sweep sets only {list(FROM_THE_SWEEP)}. "
                f"Give the others a value in constants"
            )
        if both := sorted(set(self.hyperparameters) & set(self.constants)):
            raise ValueError(f"{both} cannot be hyperparameters of the sweep and constants at once")
        for method in ("prompt", "head", *self.default_rates):
            rates = self.default_rates.get(method, ())
            if len(set(rates)) != 6 or min(rates) <= 0:
                raise ValueError(f"default_rates[{method!r}] must be six rates above 0, found {rates}")
