"""What one step does when its optimizer does not step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.training.steps import stepping
from tests.helpers.specs import make_spec

FAULT = RuntimeError("no valid strategy preserves this placement\nand more")


def raised(error: Exception, sharded: bool, promises: bool) -> Exception:
    """What leaves `stepping` when an optimizer raises an error inside."""
    parts: Any = SimpleNamespace(
        entry=SimpleNamespace(promises=promises), loaded=SimpleNamespace(sharded=sharded)
    )
    spec = make_spec(optimizer="torch.optim.Adafactor@2")
    with pytest.raises((RuntimeError, UserError)) as caught, stepping(spec, parts):
        raise error
    return caught.value


def test_a_class_that_cannot_step_on_parts_is_the_user_s_choice():
    told = raised(FAULT, sharded=True, promises=False)
    assert isinstance(told, UserError)
    assert "torch.optim.Adafactor@2 cannot step" in str(told)
    assert "no valid strategy preserves this placement. Leave it out" in str(told)
    assert "and more" not in str(told)


@pytest.mark.parametrize(
    ("error", "sharded", "promises"),
    [
        (FAULT, False, False),
        (FAULT, True, True),
        (torch.OutOfMemoryError("no memory"), True, False),
        (UserError("the data changed"), True, False),
    ],
)
def test_every_other_error_stays_what_it_is(error: Exception, sharded: bool, promises: bool):
    assert raised(error, sharded, promises) is error
