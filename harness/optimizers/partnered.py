"""Two optimizers as one: hidden matrices go to the first, everything else goes to its partner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.entry import MATRICES, OptimizerEntry, ParamGroups


class Partnered(Optimizer):
    """Steps of a first optimizer and then of its partner.

    Groups and state are those of both, so whoever sets a rate or reads the state sees all of them. In the
    partner's groups, `partner_rate` is its learning rate over that of the group.
    """

    def __init__(self, first: Optimizer, partner: Optimizer):
        groups = [*first.param_groups, *partner.param_groups]
        super().__init__(groups, {"lr": first.defaults["lr"]})
        self.param_groups = groups  # the same dictionaries as those of the two, so a new rate reaches them
        self.first, self.partner = first, partner
        self._share()

    def _share(self) -> None:
        """Give the two their groups, and one dictionary of state: each has its own parameters in it."""
        n = len(self.first.param_groups)
        self.first.param_groups, self.partner.param_groups = self.param_groups[:n], self.param_groups[n:]
        self.first.state = self.partner.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()  # because it makes new groups and a new dictionary

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.first.step()
        rates = [group["lr"] for group in self.partner.param_groups]
        for group in self.partner.param_groups:
            group["lr"] = group["lr"] * group["partner_rate"]
        self.partner.step()
        for group, rate in zip(self.partner.param_groups, rates, strict=True):
            group["lr"] = rate
        return loss

    def train(self) -> None:
        """Tell both that training goes on, where they want to know."""
        for each in (self.first, self.partner):
            if callable(train := getattr(each, "train", None)):
                train()

    def eval(self) -> None:
        """Tell both that the model is scored, where they want to know."""
        for each in (self.first, self.partner):
            if callable(evaluate := getattr(each, "eval", None)):
                evaluate()


def partnered(
    groups: ParamGroups,
    first: Callable[[ParamGroups], Optimizer],
    partner: OptimizerEntry,
    rate: float,
    ratio: float,
    seed: int,
) -> Optimizer:
    """The first optimizer on the groups of hidden matrices, and its partner on all others.

    Args:
        groups: groups with a `role`, as `live.role_groups` makes them.
        first: makes the first optimizer from its groups, at `rate`.
        partner: the partner's entry; its constants are its hyperparameters.
        ratio: the partner's rate over `rate`.

    Raises:
        UserError: no hidden matrix is trained, so the first optimizer would have nothing to do.
    """
    matrices = [group for group in groups if group["role"] == MATRICES]
    others = [{**group, "partner_rate": ratio} for group in groups if group["role"] != MATRICES]
    if not matrices:
        raise UserError(
            "no hidden matrix is trained here, so the optimizer would be its partner alone: name the partner "
            "as the optimizer, or leave out --freeze and --peft"
        )
    if not others:
        return first(matrices)
    return Partnered(first(matrices), partner.build(others, rate * ratio, partner.constants, seed))
