"""The GPU of tests that need one: the machine's own, or one that is pretended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.helpers import pretended_gpu


@dataclass(frozen=True)
class Gpu:
    """What was seen on it; None on a real one, which does not count.

    Attributes:
        waits: how often the host waited for the device, by line of ours.
    """

    pretended: pretended_gpu.PretendedGpu | None

    @property
    def recordings(self) -> int | None:
        return None if self.pretended is None else self.pretended.recordings

    @property
    def replays(self) -> int:
        return 0 if self.pretended is None else self.pretended.replays

    @property
    def waits(self) -> Counter[str]:
        if self.pretended is None:
            pytest.skip("a real GPU does not count what waits for it")
        return self.pretended.waits


@contextmanager
def a_gpu() -> Iterator[Gpu]:
    """Inside, accelerate picks a GPU. Skips where there is none and none can be pretended."""
    if torch.cuda.is_available():
        AcceleratorState._reset_state(reset_partial_state=True)
        with mock.patch.dict(os.environ):
            os.environ.pop("ACCELERATE_USE_CPU", None)
            yield Gpu(None)
        AcceleratorState._reset_state(reset_partial_state=True)
        return
    if reason := pretended_gpu.why_not():
        pytest.skip(f"no GPU, and none can be pretended: {reason}")
    with pretended_gpu.pretended_gpu() as pretended:
        yield Gpu(pretended)
