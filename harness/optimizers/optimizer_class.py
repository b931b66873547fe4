"""An optimizer that is named by the path of its class: any `torch.optim.Optimizer` of an installed package.

Nobody describes such an optimizer, so it is tried on a toy model before a sweep starts. The trial finds how
it steps and which parameters it takes. It promises nothing, and the record holds what it really did.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.optimizers.entry import (
    SIGN_RATES,
    ClosureUse,
    Hyperparameters,
    OptimizerEntry,
    ParamGroups,
    always,
)
from momentum_bench.harness.records.schema import setting, setting_text

if TYPE_CHECKING:
    import torch

PARTNER_RATE = "partner_rate"
"""The setting that gives the rate of a partner over the rate of the arm; 1 by default."""

ADAMW_RATE = 1e-3
"""The rate that torch's AdamW has by default. `SIGN_RATES` are made for it."""

N_TRIAL_STEPS = 2


def class_of(path: str) -> type[torch.optim.Optimizer]:
    """The class with this path.

    Raises:
        UserError: it cannot be imported, or is no optimizer; the message names what is near.
    """
    import torch

    parts = path.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UserError(f"--optimizers {path}: expected PACKAGE.CLASS, for example torch.optim.NAdam")
    module, rest = _imported(path, parts)
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            raise UserError(_no_such_class(path, found, part))
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        what = "a class that is no optimizer" if isinstance(found, type) else f"a {type(found).__name__}"
        raise UserError(f"--optimizers {path}: this is {what}; expected a subclass of torch.optim.Optimizer")
    return found


def _imported(path: str, parts: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """The longest part of a path that is a module, and the rest of the path."""
    for n in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:n])
        try:
            return importlib.import_module(name), parts[n:]
        except ModuleNotFoundError as error:
            # another name is missing: this module is there, and something that it needs is not
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(
                    f"--optimizers {path}: importing {name} raises {first_line(error)}"
                ) from error
        except Exception as error:
            raise UserError(f"--optimizers {path}: importing {name} raises {first_line(error)}") from error
    installed = sorted(metadata.packages_distributions())
    near = difflib.get_close_matches(parts[0], installed, n=1)
    hint = f"Did you mean {near[0]}, which is installed? " if near else ""
    raise UserError(
        f"--optimizers {path}: tried `import {parts[0]}`, and no package of this name is installed. {hint}"
        f"Install the package that has it into this Python ({sys.executable}), or see `optimizers list`"
    )


def _no_such_class(path: str, where: Any, name: str) -> str:
    import torch

    there = [
        key
        for key, value in vars(where).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    ]
    lower = {key.lower(): key for key in there}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f"Did you mean {lower[near[0]]}? " if near else ""
    known = f"Its optimizers: {', '.join(sorted(there))}" if there else "It has no optimizers"
    return f"--optimizers {path}: {getattr(where, '__name__', where)} has no {name}. {hint}{known}"


@lru_cache
def package_of(path: str) -> tuple[str, str]:
    """The name and the version of the package that has a class.

    A build label (`+cpu`) is left out, because the code is the same. Code without a package has the first 12
    hex digits of the SHA-256 of its module's file as its version.
    """
    top = path.partition(".")[0]
    for distribution in metadata.packages_distributions().get(top, ()):
        return distribution, metadata.version(distribution).partition("+")[0]
    file = inspect.getsourcefile(class_of(path))
    content = Path(file).read_bytes() if file else path.encode()
    return top, hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True)
class Trial:
    """What a trial on a toy model found.

    Attributes:
        closure: how the optimizer is given the gradient.
        evaluations_per_step: gradients that one step evaluates; None: their number varies.
        matrices_only: whether it takes no vectors.
        state_bytes_per_parameter: bytes of its state after the trial, over the number of parameters.
        takes_weight_decay: whether a group's `weight_decay` is one of its settings.
        default_rate: the learning rate that its class has by default; None: it has none.
    """

    closure: ClosureUse | None
    evaluations_per_step: int | None
    matrices_only: bool
    state_bytes_per_parameter: float
    takes_weight_decay: bool
    default_rate: float | None


def entry_of_class(path: str, settings: Mapping[str, Any], partner: OptimizerEntry | None) -> OptimizerEntry:
    """The entry of a class with these settings.

    Args:
        partner: the optimizer that gets all but the hidden matrices; None: this one gets everything.

    Raises:
        UserError: the class cannot be found or built, or it cannot be run here; the message says why.
    """
    own = {name: value for name, value in settings.items() if name != PARTNER_RATE}
    if PARTNER_RATE in settings and partner is None:
        raise UserError(
            f"--optimizers {path}: {PARTNER_RATE} is for an optimizer with a partner, NAME+PARTNER"
        )
    ratio = settings.get(PARTNER_RATE, 1)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio <= 0:
        raise UserError(f"--optimizers {path}: {PARTNER_RATE} must be a number above 0, found {ratio!r}")
    kind = class_of(path)
    check_settings(path, kind, own)
    trial = tried(path, tuple(sorted(own.items())), partner is not None)
    if partner and trial.closure:
        raise UserError(
            f"--optimizers {path}: it needs a closure, so it cannot share its steps with a partner"
        )
    scale = 1.0 if trial.default_rate is None else trial.default_rate / ADAMW_RATE
    rates = {m: tuple(float(f"{rate * scale:.12g}") for rate in each) for m, each in SIGN_RATES.items()}
    # not inspect.getdoc, which would take the words of torch's base class for those of the optimizer
    summary = inspect.cleandoc(kind.__doc__ or path).strip().splitlines()[0]
    return OptimizerEntry(
        summary=f"{summary.rstrip('.')}; own rate, because nothing is known about it",
        build=_builder(path, partner),
        constants=dict(settings),
        own_rate=True,
        state_bytes_per_parameter=always(trial.state_bytes_per_parameter),
        default_rates=rates,
        promises=False,
        closure=trial.closure,
        evaluations_per_step=trial.evaluations_per_step if trial.closure else None,
        by_role=partner is not None,
        takes_weight_decay=trial.takes_weight_decay and (partner is None or partner.takes_weight_decay),
    )


def _builder(
    path: str, partner: OptimizerEntry | None
) -> Callable[[ParamGroups, float, Hyperparameters, int], torch.optim.Optimizer]:
    def build(
        groups: ParamGroups, rate: float, hyperparameters: Hyperparameters, seed: int
    ) -> torch.optim.Optimizer:
        own = {name: value for name, value in hyperparameters.items() if name != PARTNER_RATE}
        kind, used = class_of(path), arguments(path, own)
        if partner is None:
            return kind(groups, lr=rate, **used)  # type: ignore[call-arg]
        from momentum_bench.harness.optimizers.partnered import partnered

        def first(matrices: ParamGroups) -> torch.optim.Optimizer:
            return kind(matrices, lr=rate, **used)  # type: ignore[call-arg]

        ratio = hyperparameters.get(PARTNER_RATE, 1) * partner.torch_rate(partner.constants)
        return partnered(groups, first, partner, rate, ratio, seed)

    return build


def arguments(path: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a class: its settings, with classes in place of the paths of optimizers.

    A list comes back from a stored record where a tuple went in, so it is made a tuple again.
    """
    return {
        name: class_of(value) if _is_class_path(value) else tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
    }


def all_arguments(path: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a class but the parameters and the rate, as a record can hold them.

    What is no number, truth value or text is told in words.
    """
    parameters = list(inspect.signature(class_of(path)).parameters.values())[1:]
    defaults = {
        p.name: p.default
        for p in parameters
        if p.default is not p.empty and p.name not in ("lr", "weight_decay")
    }
    return {name: _stored(value) for name, value in {**defaults, **settings}.items()}


def _stored(value: Any) -> Any:
    try:
        return setting(value)
    except ValueError:
        return str(value)


def _is_class_path(value: Any) -> bool:
    return isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split("."))


def check_settings(path: str, kind: type[torch.optim.Optimizer], settings: Mapping[str, Any]) -> None:
    """Raises: UserError, where a class lacks an argument, has no `lr`, or takes no such setting."""
    parameters = inspect.signature(kind).parameters
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    signature = f"{path}({', '.join(_argument(p) for p in parameters.values())})"
    known = _known_arguments(kind, settings)
    if "lr" not in known:
        raise UserError(
            f"--optimizers {path}: it has no lr, so there is no learning rate to compare: {signature}"
        )
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UserError(f"--optimizers {path}: it takes no {name}. {hint}Its arguments: {signature}")
    given = {next(iter(named), ""), "lr", *settings}
    if missing := [n for n, p in named.items() if p.default is p.empty and n not in given]:
        raise UserError(
            f"--optimizers {path}: it needs {', '.join(missing)}: write {path}:{missing[0]}=VALUE. "
            f"Its arguments: {signature}"
        )


def _known_arguments(kind: type[torch.optim.Optimizer], settings: Mapping[str, Any]) -> set[str]:
    """Names that a class takes.

    A class with `**kwargs` may swallow any name. So only those count that its bases name, and those of the
    optimizers in its settings, because it hands the rest on to these.
    """
    parameters = inspect.signature(kind).parameters.values()
    known = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return known
    others = [base for base in kind.__mro__[1:] if "__init__" in vars(base) and base is not object]
    others += [class_of(value) for value in settings.values() if _is_class_path(value)]
    for other in others:
        known |= {p.name for p in inspect.signature(other).parameters.values() if p.kind is not p.VAR_KEYWORD}
    return known


def _argument(parameter: inspect.Parameter) -> str:
    """One argument of a signature, without its type."""
    stars = (
        "**"
        if parameter.kind is parameter.VAR_KEYWORD
        else "*" * (parameter.kind is parameter.VAR_POSITIONAL)
    )
    default = "" if parameter.default is parameter.empty else f"={setting_text(parameter.default)}"
    return f"{stars}{parameter.name}{default}"


@lru_cache
def tried(path: str, settings: tuple[tuple[str, Any], ...], matrices_only: bool) -> Trial:
    """What a class does on a toy model, tried once in a process.

    Args:
        matrices_only: give it matrices alone, because a partner gets the rest.

    Raises:
        UserError: it cannot be built, or no way to call it works; the message says why.
    """
    toy = _Toy(path, dict(settings), matrices_only)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself shows them
        try:
            optimizer = toy.optimizer()
        except Exception as error:
            if not matrices_only and _Toy(path, dict(settings), True).works(None):
                return _with_matrices_only(path, settings)
            raise UserError(f"--optimizers {path}: it cannot be built: {first_line(error)}") from error
        if "lr" not in optimizer.param_groups[0] or "lr" not in optimizer.defaults:
            raise UserError(f"--optimizers {path}: it has no lr, so there is no learning rate to compare")
        failures = []
        for closure in (None, ClosureUse.ALONE, ClosureUse.AFTER_GRADIENT):
            failure = toy.failure(closure)
            if failure is None and closure is ClosureUse.ALONE and toy.reads_earlier_gradient():
                continue  # it is tried with one next
            if failure is None:
                return toy.trial(closure)
            failures.append(failure)
        if not matrices_only and _Toy(path, dict(settings), True).works(None):
            return _with_matrices_only(path, settings)
        reason = first_line(failures[0])
        if toy.failure(None, graph=True) is None:
            reason = (
                "it needs a second backward pass through the graph of the first, and training here keeps no "
                f"graph ({reason})"
            )
        raise UserError(f"--optimizers {path}: it cannot be run: {reason}")


def _with_matrices_only(path: str, settings: tuple[tuple[str, Any], ...]) -> Trial:
    return replace(tried(path, settings, True), matrices_only=True)


class _Toy:
    """A toy model (embedding, hidden matrix, head and vector) and an optimizer of a class on it."""

    def __init__(self, path: str, settings: Mapping[str, Any], matrices_only: bool):
        self.path, self.settings, self.matrices_only = path, settings, matrices_only
        self.evaluations: list[int] = []

    def optimizer(self) -> torch.optim.Optimizer:
        import torch

        generator = torch.Generator().manual_seed(0)
        shapes = ((7, 4), (4, 4), (3, 4)) if self.matrices_only else ((7, 4), (4, 4), (3, 4), (4,))
        self.parameters = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        groups = [{"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": 0.0}]
        if not self.matrices_only:
            groups.append({"params": [p for p in self.parameters if p.ndim == 1], "weight_decay": 0.0})
        kind = class_of(self.path)
        return kind(groups, lr=0.01, **arguments(self.path, self.settings))  # type: ignore[call-arg]

    def gradient(self, graph: bool = False) -> Any:
        import torch

        self.evaluations[-1] += 1
        embedding, hidden, head, *vectors = self.parameters
        for parameter in self.parameters:
            parameter.grad = None
        with torch.enable_grad():
            inside = torch.tanh(embedding @ hidden + sum(vectors))
            loss = (inside @ head.T).square().mean()
            loss.backward(create_graph=graph)
        return loss.detach()

    def failure(self, closure: ClosureUse | None, graph: bool = False) -> Exception | None:
        """What goes wrong in some steps; None: nothing does."""
        import torch

        try:
            with torch.random.fork_rng(devices=[]):
                self.live = self.optimizer()
                if callable(train := getattr(self.live, "train", None)):
                    train()
                self.evaluations = []  # in each step
                for _ in range(N_TRIAL_STEPS):
                    self.evaluations.append(0)
                    if closure is not ClosureUse.ALONE:
                        self.gradient(graph)
                    if closure is None:
                        self.live.step()
                    else:
                        self.live.step(self.gradient)
                    self.live.zero_grad(set_to_none=True)
        except Exception as error:
            return error
        return None

    def reads_earlier_gradient(self) -> bool:
        """Whether steps with a closure end elsewhere if there is a gradient before each of them."""
        other = _Toy(self.path, self.settings, self.matrices_only)
        failure = other.failure(ClosureUse.AFTER_GRADIENT)
        return failure is None and any(
            not bool((a == b).all()) for a, b in zip(self.parameters, other.parameters, strict=True)
        )

    def works(self, closure: ClosureUse | None) -> bool:
        return self.failure(closure) is None

    def trial(self, closure: ClosureUse | None) -> Trial:
        """The facts, after steps that did not fail."""
        from momentum_bench.harness.optimizers.live import state_tensors

        n = sum(p.numel() for p in self.parameters)
        rate = inspect.signature(type(self.live)).parameters.get("lr")
        given = isinstance(rate.default, int | float) and rate.default > 0 if rate else False
        each = set(self.evaluations)
        return Trial(
            closure=closure,
            evaluations_per_step=each.pop() if len(each) == 1 else None,
            matrices_only=False,
            state_bytes_per_parameter=state_tensors(self.live)[1] / n,
            takes_weight_decay="weight_decay" in self.live.defaults,
            default_rate=float(rate.default) if rate and given else None,
        )


def needs_partner(path: str, settings: Mapping[str, Any]) -> bool:
    """Whether a class takes matrices alone. Raises: UserError, as `tried`."""
    own = {name: value for name, value in settings.items() if name != PARTNER_RATE}
    check_settings(path, class_of(path), own)
    return tried(path, tuple(sorted(own.items())), False).matrices_only
