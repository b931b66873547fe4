"""What the project knows of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
