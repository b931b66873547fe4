"""What FSDP needs of the process. Whole runs on several ranks are in tests/execution."""

from __future__ import annotations

import os

import pytest

from momentum_bench.harness.launcher import turned_on
from momentum_bench.harness.models.distributed import left_to_us


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
