from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from momentum_bench.harness.models.exchanged_forward import (
    exchange,
    exchanged,
    is_exchanged,
    own_forward,
)

ONE = torch.ones(1, 3)


@pytest.fixture
def layer() -> nn.Linear:
    layer = nn.Linear(3, 3, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def doubled(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return 2 * own_forward(module)(inputs)


def negated(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return -own_forward(module)(inputs)


def test_exchanges_stack_and_are_put_back_in_turn(layer: nn.Linear):
    first = exchange(layer, doubled)
    assert torch.equal(layer(ONE), 2 * ONE)
    second = exchange(layer, negated)
    assert torch.equal(layer(ONE), -ONE)
    second()
    assert torch.equal(layer(ONE), 2 * ONE)
    first()
    assert not is_exchanged(layer)
    assert torch.equal(layer(ONE), ONE)


def test_what_somebody_else_put_there_comes_back(layer: nn.Linear):
    theirs = layer.forward = lambda inputs: inputs + 5
    with exchanged({layer: doubled}):
        assert torch.equal(layer(ONE), 2 * ONE)
    assert layer.forward is theirs


def test_an_error_leaves_no_module_exchanged(layer: nn.Linear):
    other = copy.deepcopy(layer)

    def fail() -> None:
        with exchanged({layer: doubled, other: negated}):
            assert is_exchanged(layer)
            assert is_exchanged(other)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not is_exchanged(layer)
    assert not is_exchanged(other)


def test_a_deep_copy_computes_with_its_own_parameters(layer: nn.Linear):
    with exchanged({layer: doubled}):
        other = copy.deepcopy(layer)
        nn.init.zeros_(other.weight)
        assert torch.equal(layer(ONE), 2 * ONE)
        assert not other(ONE).any()
