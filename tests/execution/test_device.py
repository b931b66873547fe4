"""Which device a process has, and what is said about it."""

from __future__ import annotations

from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import accelerator
from momentum_bench.harness.execution import device as device_file
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.device import check_usable, device_line
from momentum_bench.harness.execution.prepare import new_session, prepare_for_others
from momentum_bench.harness.execution.ray_cluster import _run_group
from momentum_bench.harness.inputs import AS_IT_IS, Inputs
from momentum_bench.harness.training.session import Session
from tests.helpers.gpu import a_gpu
from tests.helpers.runs import spec_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _device_is_reset():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_device_is_the_one_that_was_asked_for(tiny_model: Path):
    with a_gpu():
        for asked, found in ((None, "cuda"), ("cuda", "cuda"), ("cpu", "cpu")):
            AcceleratorState._reset_state(reset_partial_state=True)
            session = new_session(Inputs(str(tiny_model), None, device=asked), "fp32")
            assert session.accelerator.device.type == found


def test_a_device_that_is_not_there_is_refused():
    for asked in ("cuda", "mps"):
        with pytest.raises(UserError, match=f"--device {asked}: this process runs on cpu.*Type --device cpu"):
            make_accelerator("fp32", device=asked)


@pytest.mark.parametrize(
    ("card", "built", "usable"),
    [
        ((7, 0), ["sm_75", "sm_80"], False),  # V100, and torch 2.13 from PyPI
        ((6, 0), ["sm_75", "sm_80", "sm_90"], False),
        ((8, 9), ["sm_75", "sm_86"], True),  # the code of an earlier card of the same number
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((12, 0), ["sm_80", "compute_90"], True),  # the driver compiles for later cards
        ((12, 1), ["sm_100", "sm_120"], True),
    ],
)
def test_a_card_for_which_torch_has_no_code_is_refused(
    monkeypatch: pytest.MonkeyPatch, card: tuple[int, int], built: list[str], usable: bool
):
    with a_gpu() as gpu:
        if gpu.pretended is None:
            pytest.skip("the card is the machine's own")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: card)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
        if usable:
            check_usable(torch.device("cuda", 0))
        else:
            with pytest.raises(
                UserError, match=rf"\(sm_{card[0]}{card[1]}\).*code for {built[0]}.*--device cpu"
            ):
                make_accelerator("fp32")
        monkeypatch.undo()


def test_a_gpu_that_is_not_used_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert device_line(CPU, was_asked_for=False).startswith("device: cpu, ")
    monkeypatch.setattr(device_file, "NVIDIA", tmp_path)
    assert "warning: this machine has an NVIDIA GPU" in device_line(CPU, was_asked_for=False)
    assert device_line(CPU, was_asked_for=True).startswith("device: cpu, ")
    reasons = []
    for cuda, available in ((None, False), ("13.0", False), ("13.0", True)):
        monkeypatch.setattr(torch, "version", SimpleNamespace(cuda=cuda, hip=None))
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        reasons.append(device_line(CPU, was_asked_for=False))
    assert "built without CUDA" in reasons[0]
    assert "the driver may be older than CUDA 13.0 needs" in reasons[1]
    assert "ACCELERATE_USE_CPU may be set" in reasons[2]


def test_a_gpu_is_named():
    with a_gpu():
        name = torch.cuda.get_device_name()
        assert device_line(torch.device("cuda", 0), was_asked_for=False).startswith(f"device: cuda:0, {name}")
    assert device_line(torch.device("mps"), False).endswith("--device cpu uses the CPU")


def test_a_driver_without_a_gpu_hands_out_runs_that_need_one(tiny_model: Path, toy_data: Path):
    """With Ray it is for the nodes to say what they can do."""
    inputs = Inputs(str(tiny_model), toy_data, device="cuda")
    with_cpu = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
    spec = spec_for(with_cpu, cuda_graphs=True, precision="tf32")
    session = prepare_for_others([spec], inputs)
    assert session.accelerator.device.type == "cpu"
    assert session.split(spec).facts.n_train > 0


def test_a_node_without_a_gpu_refuses_them(tiny_model: Path, toy_data: Path):
    with_cpu = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
    recorded = [spec_for(with_cpu, cuda_graphs=True).model_dump_json()]
    inputs = (str(tiny_model), None, str(toy_data), None, None, astuple(AS_IT_IS))
    with pytest.raises(UserError, match="--cuda-graphs: this runs on cpu"):
        next(_run_group(inputs, "fp32", recorded))
    with pytest.raises(UserError, match="--device cuda: this process runs on cpu"):
        next(_run_group((inputs[0], "cuda", *inputs[2:]), "fp32", recorded))


def test_ranks_wait_for_the_first_one_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch):
    """NCCL's own limit of ten minutes is shorter than what rank 0 may need to prepare all splits."""
    asked: dict[str, Any] = {}

    def made(**settings: Any) -> SimpleNamespace:
        asked.update(settings)
        return SimpleNamespace(num_processes=1, device=CPU, distributed_type=DistributedType.MULTI_CPU)

    monkeypatch.setattr(accelerator, "Accelerator", made)
    make_accelerator("fp32", together=True)
    [patience] = [h for h in asked["kwargs_handlers"] if isinstance(h, InitProcessGroupKwargs)]
    assert patience.timeout >= timedelta(days=1)
