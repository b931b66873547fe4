"""The `forward` of a module, exchanged for another one and put back: the one place where that is done.

Three things exchange it: the last layer of a model that takes packed rows (`packing.py`, for as long as the
model is used), tables of which few rows are trained (`training/vocabulary_rows.py`, for a run), and linear
layers whose weights are laid out for scoring (`onednn_weights.py`, for one scoring).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

from torch import nn

Forward = Callable[..., Any]
"""What takes the place of a `forward`: it is called with the module first, and then with its inputs."""


def is_exchanged(module: nn.Module) -> bool:
    """Whether the module computes by another `forward` than its class has, whoever put it there."""
    return "forward" in vars(module)


def own_forward(module: nn.Module) -> Callable[..., Any]:
    """The `forward` that the module's class has, whatever stands in its place."""
    return MethodType(type(module).forward, module)


def exchange(module: Any, forward: Forward) -> Callable[[], None]:
    """Let the module compute by `forward`; returns a function that puts back what was there before.

    Exchanges of one module stack: they are put back in the opposite order.
    """
    before = vars(module).get("forward")
    module.forward = MethodType(forward, module)  # a method, because a deep copy then binds it to the copy

    def put_back() -> None:
        if before is None:
            del module.forward
        else:
            module.forward = before

    return put_back


@contextmanager
def exchanged(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Inside, each of the modules computes by its `Forward`; afterwards, also after an error, as before."""
    with ExitStack() as stack:
        for module, forward in forwards.items():
            stack.callback(exchange(module, forward))
        yield
