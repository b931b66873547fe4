"""How tensors reach a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from momentum_bench.harness.encoding.transfer import sent
from tests.conftest import ROOT


@pytest.mark.parametrize(("device", "waits_not"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_only_a_cuda_device_is_not_waited_for(device: str, waits_not: bool):
    """On MPS, `non_blocking` may read memory that is already free, and no error would say so."""
    asked: dict[str, Any] = {}

    class Watched:
        def to(self, device: torch.device, non_blocking: bool) -> None:
            asked.update(device=device, non_blocking=non_blocking)

    sent(Watched(), torch.device(device))  # type: ignore[arg-type]
    assert asked == {"device": torch.device(device), "non_blocking": waits_not}


def test_no_other_place_copies_from_the_host_without_waiting():
    places = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "harness").rglob("*.py")
        if "non_blocking=" in path.read_text()
    }
    # a recorded batch takes the values of another batch, and both are on the device
    assert places == {"harness/encoding/transfer.py", "harness/training/cuda_graphs.py"}
