from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import capacity
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.capacity import (
    BYTES_OF_A_CONTEXT,
    SPARE,
    bytes_of_a_run,
    runs_that_fit,
    workers_on_gpu,
)
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training.memory import saved_bytes
from momentum_bench.harness.training.session import Session
from tests.helpers.runs import spec_for


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@given(free=st.integers(0, 2**40), of_run=st.integers(1, 2**36))
def test_as_many_runs_as_the_memory_holds_and_one_at_least(free: int, of_run: int):
    n = runs_that_fit(free, of_run)
    each = SPARE * of_run + BYTES_OF_A_CONTEXT
    assert n == 1 or n * each <= free
    assert (n + 1) * each > free


def test_activations_are_what_is_saved_for_the_backward_pass():
    weight, inputs = torch.ones(8, 4, requires_grad=True), torch.ones(16, 4, requires_grad=True)

    def forward() -> torch.Tensor:
        return (inputs @ weight.t()).exp().view(4, -1).view(-1).square().sum()

    # the inputs, and the result of exp, which square and its views share
    assert saved_bytes(forward, [weight]) == (16 * 4 + 16 * 8) * 4
    assert saved_bytes(forward, []) == (16 * 4 + 16 * 8 + 8 * 4) * 4


@pytest.mark.parametrize("method", ["head", "prompt"])
def test_a_run_takes_parameters_gradients_state_and_activations(session: Session, method: str):
    def needed(**changes) -> int:
        return bytes_of_a_run(session, spec_for(session, method=method, **changes))

    of_model = sum(p.nbytes for p in session.loaded(spec_for(session, method=method)).model.parameters())
    sgd = needed(optimizer="sgd")
    assert sgd > 2 * of_model
    assert needed(optimizer="sgdm") == sgd + of_model
    assert needed(optimizer="sgd", batch_size=2) < sgd
    assert needed(optimizer="sgd", gradient_accumulation_steps=2) == needed(optimizer="sgd", batch_size=2)


def test_auto_is_by_the_largest_run_and_a_number_is_that_number(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    specs = [spec_for(session, optimizer=name) for name in ("sgd", "sgdm")]
    largest = bytes_of_a_run(session, specs[1])
    on_gpu = SimpleNamespace(accelerator=SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(capacity, "bytes_of_a_run", lambda _, spec: bytes_of_a_run(session, spec))
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (int(3.5 * (SPARE * largest + BYTES_OF_A_CONTEXT)), 2**40)
    )
    assert workers_on_gpu(on_gpu, specs, "auto") == 3
    assert workers_on_gpu(on_gpu, specs, 5) == 5


def test_without_a_gpu_the_flag_is_refused(session: Session):
    if session.accelerator.device.type == "cuda":
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match="this runs on cpu, without a GPU: use --workers"):
        workers_on_gpu(session, [spec_for(session)], "auto")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"runs_per_gpu": "2", "workers": 2}, "both say how many runs"),
        ({"runs_per_gpu": "auto", "data_parallel_ranks": 2}, "runs_per_gpu auto: with --data-parallel"),
        ({"runs_per_gpu": "auto", "executor": "ray"}, "several on a GPU by --gpus-per-run"),
        ({"runs_per_gpu": "all"}, "'auto'"),
        ({"runs_per_gpu": "0"}, "greater than or equal to 1"),
    ],
)
def test_what_contradicts_it_is_refused(flags: dict, message: str):
    assert make_sweep({"task": "sst2", "runs_per_gpu": "3"}, None).runs_per_gpu == 3
    with pytest.raises(UserError, match=message):
        make_sweep({"task": "sst2"} | flags, None)
