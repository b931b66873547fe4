"""What the studies share before their first cell: settings, the sweep whose runs they couple, its data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import image_tasks, make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.request import Sweep

if TYPE_CHECKING:
    from momentum_bench.harness.data.examples import TaskData
    from momentum_bench.harness.records.schema import RunSpec


FIXED: dict[str, Any] = {
    "optimizers": ("sgd",),
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "dropout": 0.0,
    "precision": "fp32",
}
"""What a study couples differs in its optimizer alone; `harness/studies/closeness.py` says why. fp32,
for the rounding of bf16 would be part of every distance."""


def settings_of(presets: Mapping[str, dict[str, Any]], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with what was given in its place; a task of one's own stands for the preset's task."""
    if name not in presets:
        raise UserError(f"--preset {name}: expected {' or '.join(presets)}")
    kept = {key: value for key, value in presets[name].items() if key != "task" or "task_file" not in given}
    return kept | dict(given)


def read_momenta(values: str | Sequence[float]) -> tuple[float, ...]:
    """Raises: UserError, when one is no number from 0 to below 1, is there twice, or all are 0."""
    words = values.split(",") if isinstance(values, str) else values
    try:
        betas = tuple(float(word) for word in words)
    except ValueError:
        betas = (math.nan,)
    if not all(0 <= beta < 1 for beta in betas) or len(set(betas)) < len(betas) or not any(betas):
        raise UserError(
            f"--momenta {values}: expected different numbers from 0 to below 1, one above 0 at least, "
            f"e.g. 0,0.5,0.9"
        )
    return betas


def read_levels(values: str | Sequence[int]) -> tuple[int, ...]:
    """Raises: UserError, when one is no whole number from 1, or is there twice."""
    words = values.split(",") if isinstance(values, str) else values
    try:
        levels = tuple(int(word) for word in words)
    except ValueError:
        levels = (0,)
    if min(levels) < 1 or len(set(levels)) < len(levels):
        raise UserError(f"--levels {values}: expected different whole numbers from 1, e.g. 1,2,4,8")
    return levels


def read_batch_sizes(values: str | Sequence[int | None]) -> tuple[int | None, ...]:
    """Raises: UserError, when one is neither a whole number from 1 nor full, or is there twice."""
    words = values.split(",") if isinstance(values, str) else values
    try:
        sizes = tuple(None if word in (None, "full") else int(word) for word in words)
    except ValueError:
        sizes = (0,)
    if any(size is not None and size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
        raise UserError(
            f"--batch-sizes {values}: expected different whole numbers from 1, or full for the whole "
            f"training set, e.g. 1,4,full"
        )
    return sizes


def study_sweep(settings: Mapping[str, Any], steps: int) -> Sweep:
    """The runs of plain SGD that a study couples others to, as a sweep.

    Raises:
        UserError: a setting that no sweep accepts, several tasks, or several ranks.
    """
    flags = {name: value for name, value in settings.items() if name in Sweep.model_fields} | FIXED
    flags |= {"max_steps": steps, "eval_every": 1}
    if images := image_tasks(settings):
        raise UserError(f"--task {images[0].name}: studies are of text tasks, and this one is of images")
    method = make_sweep(flags, None).method
    if method not in settings["rates"]:
        raise UserError(
            f"--method {method}: a study's models are trained by {' or '.join(settings['rates'])}"
        )
    sweep = make_sweep({"learning_rates": settings["rates"][method]} | flags, None)
    if len(sweep.task) > 1:
        raise UserError(f"--task {','.join(sweep.task)}: a study takes one task at a time")
    check_launcher(sweep)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a study couples its models in one process: start it without a launcher")
    return sweep


def study_data(sweep: Sweep) -> TaskData:
    from momentum_bench.harness.data.load import load_task_data

    data = load_task_data(find_task(sweep.task[0], sweep.task_file), sweep.data_dir)
    note(f"{data.task.name}: {len(data.train)} train rows, {data.origin}")
    return data


def planned_runs(sweep: Sweep, data: TaskData) -> list[RunSpec]:
    from momentum_bench.harness.models.files import resolve_model

    source = resolve_model(sweep.model, sweep.task_file)
    note(f"{source.name}: revision {source.revision}")
    return plan(sweep, [data], source.name, source.revision)
