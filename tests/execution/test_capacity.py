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
    runs_at_a_time,
    runs_that_fit,
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
    monkeypatch.setattr(capacity, "usable_cores", lambda: 64)
    monkeypatch.setattr(capacity, "available_memory", lambda: 2**40)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (int(3.5 * (SPARE * largest + BYTES_OF_A_CONTEXT)), 2**40)
    )
    assert runs_at_a_time(on_gpu, specs * 4, "auto") == 3
    assert runs_at_a_time(on_gpu, specs * 4, 5) == 5
    assert runs_at_a_time(on_gpu, specs, 5) == 2  # there are only two runs
    assert runs_at_a_time(on_gpu, specs * 4, None) == 1


def test_auto_on_a_gpu_counts_cores_and_memory_of_the_host_too(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    """Small models would have a GPU hold many more processes than the host can feed."""
    on_gpu = SimpleNamespace(accelerator=SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(capacity, "bytes_of_a_run", lambda _, spec: 2**26)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80 * 2**30, 80 * 2**30))
    monkeypatch.setattr(capacity, "available_memory", lambda: 2**40)
    monkeypatch.setattr(capacity, "usable_cores", lambda: 8)
    specs = [spec_for(session)] * 100
    assert runs_at_a_time(on_gpu, specs, "auto") == 8
    assert runs_at_a_time(on_gpu, [spec_for(session, threads_per_run=4)] * 100, "auto") == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert runs_at_a_time(on_gpu, specs, "auto") == 2
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(capacity, "available_memory", lambda: 7 * 2**30)
    assert runs_at_a_time(on_gpu, specs, "auto") == 3
    monkeypatch.setattr(capacity, "available_memory", lambda: 2**40)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * 2**30, 80 * 2**30))
    plain = runs_at_a_time(on_gpu, specs, "auto")
    monkeypatch.setattr(capacity, "bytes_of_a_run", lambda _, spec: 2**31)
    assert runs_at_a_time(on_gpu, [spec_for(session, cuda_graphs=True)] * 100, "auto") < plain


def test_on_a_cpu_it_is_by_cores_and_memory_and_a_rank_has_its_share(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    specs = [spec_for(session)] * 20
    monkeypatch.setattr(capacity, "usable_cores", lambda: 8)
    monkeypatch.setattr(capacity, "available_memory", lambda: 2**40)
    for asked in (None, "auto"):
        assert runs_at_a_time(session, specs, asked) == 8
    assert runs_at_a_time(session, specs, 3) == 3
    assert runs_at_a_time(session, [], None) == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert runs_at_a_time(session, specs, None) == 1
    assert runs_at_a_time(session, specs, "auto") == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # two machines
    assert runs_at_a_time(session, specs, "auto") == 4
    monkeypatch.setattr(capacity, "available_memory", lambda: 0)
    assert runs_at_a_time(session, specs, "auto") == 1


def test_where_free_memory_is_not_known_auto_is_refused(session: Session):
    on_mps = SimpleNamespace(accelerator=SimpleNamespace(device=torch.device("mps")))
    with pytest.raises(UserError, match="this runs on mps, whose free memory is unknown: give a number"):
        runs_at_a_time(on_mps, [spec_for(session)], "auto")
    assert runs_at_a_time(on_mps, [spec_for(session)] * 3, 2) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"data_parallel_ranks": 2}, "--runs-at-a-time auto does not go with --data-parallel"),
        ({"executor": "ray"}, "--runs-at-a-time auto does not go with --executor ray"),
        ({"runs_at_a_time": "all"}, "--runs-at-a-time: .*'auto'"),
        ({"runs_at_a_time": "0"}, "--runs-at-a-time: .*greater than or equal to 1"),
        ({"runs_at_a_time": "0.5"}, "--runs-at-a-time"),
    ],
)
def test_what_contradicts_it_is_refused(flags: dict, message: str):
    assert make_sweep({"task": "sst2", "runs_at_a_time": "3"}, None).runs_at_a_time == 3
    with pytest.raises(UserError, match=message):
        make_sweep({"task": "sst2", "runs_at_a_time": "auto"} | flags, None)
