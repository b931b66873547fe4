"""What FSDP needs of the process. Whole runs on several ranks are in tests/execution."""

from __future__ import annotations

import os

import pytest
import torch
from torch.distributed.fsdp import CPUOffloadPolicy

from momentum_bench.harness.launcher import turned_on
from momentum_bench.harness.models import distributed
from momentum_bench.harness.models.distributed import left_to_us, shard


@pytest.mark.parametrize("configured", [{}, {"ACCELERATE_USE_FSDP": "true"}])
def test_fsdp_is_hidden_and_the_environment_is_as_before(
    monkeypatch: pytest.MonkeyPatch, configured: dict[str, str]
):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    for name, value in configured.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)

    def fail() -> None:
        with left_to_us():
            assert not turned_on("FSDP")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(os.environ) == before


class Layers(torch.nn.Module):
    """Two layers, each a unit of its own."""

    _no_split_modules = ("Linear",)

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("asked", ["true", "false"])
def test_every_unit_is_kept_in_host_memory_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: str
):
    """Pinned for a GPU; the CPU of a test cannot tell host memory from its own."""
    policies = []
    for name, value in {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_OFFLOAD_PARAMS": asked,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_mesh", lambda *_: None)
    monkeypatch.setattr(
        distributed, "fully_shard", lambda module, offload_policy, **_: policies.append(offload_policy)
    )
    model = Layers()
    shard(torch.nn.ModuleList([model]), model, torch.device(device), 1)
    assert len(policies) == 3  # and the root
    for policy in policies:
        assert isinstance(policy, CPUOffloadPolicy) == (asked == "true")
        assert getattr(policy, "pin_memory", None) == ((device == "cuda") if asked == "true" else None)
