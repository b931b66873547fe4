"""Real data and models beside the checkout, for tests that skip where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """The folder that holds `data/` and `models/`; skips the calling test where it is absent."""
    folder = Path(os.environ.get("MOMENTUM_BENCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir() or not (folder / "models").is_dir():
        pytest.skip(f"no folder of real data and models beside the checkout ({folder.name})")
    return folder
