"""Try an optimizer on a toy model: what it has, whether it moves everything, and whether it can be trusted.

A fault that makes results wrong is a finding about a fault. The check goes on after it, to name all of them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from momentum_bench.harness.optimizers import live
from momentum_bench.harness.optimizers.arms import parse_arm
from momentum_bench.harness.optimizers.entry import ClosureUse, Hyperparameters, OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.optimizers.optimizer_class import class_of
from momentum_bench.harness.records.schema import setting_text

FAULT = "fault"
RATE = 0.01
N_STEPS = 3
MOMENTUMS = (0.5, 0.9)
"""Values at which an optimizer that uses its momentum must end at different places."""


class Finding(NamedTuple):
    """One result of the check: its subject, and what was found."""

    about: str
    text: str

    @property
    def is_fault(self) -> bool:
        return self.about == FAULT


class _Toy(nn.Module):
    """An embedding, a hidden layer and a head, with fixed weights and inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def gradient(self, step: int) -> torch.Tensor:
        """Gradients of a loss that another target gives at each step."""
        self.zero_grad(set_to_none=True)
        with torch.enable_grad():
            scores = self.head(torch.tanh(self.hidden(self.embedding(torch.arange(6)))))
            loss = nn.functional.cross_entropy(scores, (torch.arange(6) + step) % 3)
            loss.backward()
        return loss.detach()


class _Trained:
    """A toy model with an optimizer on it."""

    def __init__(self, entry: OptimizerEntry, hyperparameters: Hyperparameters):
        self.entry = entry
        self.model = _Toy()
        named = list(self.model.named_parameters())
        groups = live.parameter_groups(entry, self.model, named, ("head.weight", "head.bias"), 0.0)
        # an entry may use its momentum in its schedule alone
        rates = entry.schedule([RATE] * N_STEPS, hyperparameters)
        self.rates = [rate * entry.torch_rate(hyperparameters) for rate in rates]
        self.optimizer = entry.build(groups, self.rates[0], hyperparameters, 0)
        live.set_mode(self.optimizer, training=True)

    def steps(self, first: int, n: int) -> _Trained:
        for step in range(first, first + n):
            torch.manual_seed(step)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rates[step]
            if self.entry.closure is not ClosureUse.ALONE:
                self.model.gradient(step)
            if self.entry.closure is None:
                self.optimizer.step()
            else:
                self.optimizer.step(_bound(self.model.gradient, step))  # type: ignore[arg-type]
        return self

    def values(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}


def _bound(gradient: Callable[[int], torch.Tensor], step: int) -> Callable[[], torch.Tensor]:
    return lambda: gradient(step)


def _differing(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


def findings(arm: str, files: Sequence[Path] = ()) -> Iterator[Finding]:
    """All findings about one optimizer, in the order of the checks.

    Raises:
        UserError: it cannot be found or run; the message says why.
    """
    name, entry = find_optimizer(arm, files)
    used = entry.all_hyperparameters(momentum=0.9)
    yield Finding("optimizer", f"{name}: {entry.summary}")
    if entry.closure:
        yield Finding("closure", entry.closure.value)
    with torch.random.fork_rng(devices=[]):
        start = _Toy()
        trained = _Trained(entry, used).steps(0, 1)
        yield from _of_settings(trained)
        yield from _of_movement(start, trained)
        yield from _of_state(trained)
        yield from _of_state_dict(entry, used)
        yield from _of_repetition(entry, used)
        yield from _of_momentum(name, entry, used)
        yield from _of_promises(name, entry, used, trained)


def _of_settings(trained: _Trained) -> Iterator[Finding]:
    kind = type(trained.optimizer)
    yield Finding("class", f"{kind.__module__}.{kind.__qualname__}")
    for group in trained.optimizer.param_groups:
        settings = {k: v for k, v in group.items() if k not in ("params", "lr", "role")}
        words = ", ".join(f"{key}={setting_text(value)}" for key, value in settings.items())
        yield Finding("group", f"{group.get('role', 'parameters')} ({len(group['params'])}): {words}")


def _of_movement(start: _Toy, trained: _Trained) -> Iterator[Finding]:
    moved = _differing(dict(start.named_parameters()), trained.values())
    if still := [name for name, _ in start.named_parameters() if name not in moved]:
        yield Finding(FAULT, f"the first step does not move {', '.join(still)}, which have a gradient")
    else:
        yield Finding("first step", "moves every parameter")


def _of_state(trained: _Trained) -> Iterator[Finding]:
    names, size = live.state_tensors(trained.optimizer)
    n = sum(p.numel() for p in trained.model.parameters())
    text = f"{', '.join(names)}: {size} bytes, {size / n:.3g} for each parameter" if names else "none"
    yield Finding("state", text)
    for parameter, state in trained.optimizer.state.items():
        for name, value in state.items():
            # a counter of one element may be on the CPU wherever the parameter is
            wrong = {t.device.type for t in live.tensors_in(value) if t.numel() > 1} - {parameter.device.type}
            if wrong:
                yield Finding(
                    FAULT, f"{name} is on the device {wrong.pop()}, its parameter on {parameter.device.type}"
                )
                return


def _of_state_dict(entry: OptimizerEntry, used: Hyperparameters) -> Iterator[Finding]:
    """Go on from a state dict, and compare with going on directly."""
    one = _Trained(entry, used).steps(0, 2)
    other = _Trained(entry, used)
    try:
        other.model.load_state_dict(one.model.state_dict())
        other.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
        before, after = live.state_tensors(one.optimizer)[0], live.state_tensors(other.optimizer)[0]
        lost = sorted({*before} - {*after})
        differing = _differing(one.steps(2, 1).values(), other.steps(2, 1).values())
    except Exception as error:
        yield Finding(FAULT, f"its state dict cannot be loaded: {type(error).__name__}: {error}")
        return
    if lost or differing:
        what = f"loses {', '.join(lost)}" if lost else "does not hold all of the state"
        yield Finding(FAULT, f"its state dict {what}: after a round trip, a step ends elsewhere")
    else:
        yield Finding("state dict", "makes a round trip")


def _of_repetition(entry: OptimizerEntry, used: Hyperparameters) -> Iterator[Finding]:
    runs = [_Trained(entry, used).steps(0, N_STEPS).values() for _ in range(2)]
    if _differing(*runs):
        yield Finding(FAULT, "the same steps twice give different parameters")
    else:
        yield Finding("repeated", "gives the same bits")


def _of_momentum(name: str, entry: OptimizerEntry, used: Hyperparameters) -> Iterator[Finding]:
    """Whether the constants that are a momentum by their name change the steps."""
    for key, default in _momentums(name, entry, used).items():
        values = [(m, *default[1:]) if isinstance(default, tuple) else m for m in MOMENTUMS]
        ends = [_Trained(entry, {**used, key: value}).steps(0, N_STEPS).values() for value in values]
        if _differing(*ends):
            yield Finding("momentum", f"{key} changes the steps")
        else:
            texts = " and ".join(map(setting_text, values))
            yield Finding(FAULT, f"it ignores {key}: {texts} give the same parameters")


def _momentums(name: str, entry: OptimizerEntry, used: Hyperparameters) -> dict[str, Any]:
    known = dict(used)
    if not entry.promises:
        parameters = inspect.signature(class_of(parse_arm(name).optimizer)).parameters
        known = {n: p.default for n, p in parameters.items()} | known
    return {key: known[key] for key in ("momentum", "beta", "beta1", "betas") if key in known}


def _of_promises(
    name: str, entry: OptimizerEntry, used: Hyperparameters, trained: _Trained
) -> Iterator[Finding]:
    if entry.promises:
        try:
            live.check_live(name, entry, used, trained.optimizer)
        except live.WrongOptimizerError as error:
            yield Finding(FAULT, f"it breaks a promise of its entry: {error}")
        else:
            yield Finding("promises", "of the entry are kept")
        return
    if not entry.by_role:  # an entry with a partner is not a few lines
        yield Finding(
            "entry", f"to promise this, give a file like it with --optimizer-file:\n{entry_text(name)}"
        )


def entry_text(arm: str) -> str:
    """A file for `--optimizer-file`, for who wants promises in place of a path."""
    name, entry = find_optimizer(arm)
    module, _, kind = parse_arm(name).optimizer.rpartition(".")
    used = "".join(f", {key}={value!r}" for key, value in entry.constants.items())
    names, size = live.state_tensors(_Trained(entry, entry.constants).steps(0, 1).optimizer)
    tensors = "{" + ", ".join(f'"{each}"' for each in names) + "}" if names else ""
    n = sum(p.numel() for p in _Toy().parameters())
    return (
        f"from momentum_bench import OptimizerEntry\n\n\n"
        f"def build(groups, rate, hyperparameters, seed):\n"
        f"    from {module} import {kind}\n\n"
        f"    return {kind}(groups, lr=rate{used})\n\n\n"
        f"OPTIMIZER = OptimizerEntry(\n"
        f'    "{kind}",\n'
        f"    build,\n"
        f"    own_rate=True,\n"
        f"    state_tensors=lambda h: frozenset({tensors}),\n"
        f"    state_bytes_per_parameter=lambda h: {size / n:.3g},\n"
        f")"
    )
