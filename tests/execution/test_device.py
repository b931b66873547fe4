"""Which device a process has, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import device as device_file
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.device import check_usable, device_line
from momentum_bench.harness.execution.prepare import new_session
from momentum_bench.harness.inputs import Inputs
from tests.helpers.gpu import a_gpu

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
