from __future__ import annotations

import pytest
import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.training import arithmetic


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_what_ran_before_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arithmetic, "_rounds", lambda device: True)
    arithmetic.use("medium", "cpu")
    assert torch.get_float32_matmul_precision() == "medium"
    for name in ("fp32", "bf16"):
        torch.set_float32_matmul_precision("medium")
        arithmetic.use(name, "cpu")
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_device_that_does_not_round_cannot_claim_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arithmetic, "_rounds", lambda device: False)
    with pytest.raises(UserError, match="full precision all the same"):
        arithmetic.use("medium", "cpu")
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("name", "device", "other"), [("tf32", "cpu", "medium"), ("medium", "cuda", "tf32")])
def test_a_precision_of_another_device_is_an_error(name: str, device: str, other: str):
    with pytest.raises(UserError, match=f"runs on {device}: use {other}"):
        arithmetic.use(name, device)


def test_rounding_is_seen_in_a_product():
    torch.set_float32_matmul_precision("highest")
    assert not arithmetic._rounds("cpu")
    # what bf16 makes of the same number
    assert (torch.tensor(1 + 2.0**-13).bfloat16() == 1).item()
