from __future__ import annotations

import os

import pytest
import torch
from accelerate.state import AcceleratorState

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import accelerator
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.training import arithmetic
from tests.helpers.gpu import a_gpu
from tests.helpers.specs import make_spec


@pytest.fixture(autouse=True)
def _as_before():
    before, convolutions = torch.get_float32_matmul_precision(), arithmetic.convolutions()
    yield
    torch.set_float32_matmul_precision(before)
    if arithmetic.convolutions() != convolutions:
        arithmetic.set_convolutions(convolutions)


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


@pytest.mark.parametrize(("name", "expected"), [("fp32", "ieee"), ("bf16", "ieee"), ("tf32", "tf32")])
def test_convolutions_of_a_gpu_round_as_products_do(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
):
    """torch's own default for them is TF32 whatever the precision of products is."""
    monkeypatch.setattr(arithmetic, "_rounds", lambda device: True)
    other = "tf32" if expected == "ieee" else "ieee"
    arithmetic.set_convolutions(other)
    arithmetic.use(name, "cuda")
    assert arithmetic.convolutions() == expected
    assert torch.backends.cudnn.allow_tf32 == (expected == "tf32")  # torch can still read its old switch


def test_a_cpu_leaves_the_switches_of_a_gpu_alone():
    before = arithmetic.convolutions()
    arithmetic.use("fp32", "cpu")
    assert arithmetic.convolutions() == before


@pytest.mark.parametrize("steps", ["4", "auto"])
def test_accumulation_is_divided_once_whatever_a_launcher_says(monkeypatch: pytest.MonkeyPatch, steps: str):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", steps)
    assert make_accelerator("fp32").gradient_accumulation_steps == 1


def test_a_process_of_another_precision_does_no_run():
    """Else a record would say bf16 of a run in fp32."""
    with pytest.raises(UserError, match="asks for --precision bf16, but this process casts to None"):
        arithmetic.set_arithmetic(make_spec(precision="bf16"), make_accelerator("fp32"))


def test_the_workspace_is_fixed_before_the_first_product(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []
    monkeypatch.setattr(accelerator, "use", lambda *given: seen.append(os.environ["CUBLAS_WORKSPACE_CONFIG"]))
    with a_gpu():
        make_accelerator("fp32")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert seen == [":4096:8"]
