"""The runs of a small sweep, planned as `momentum-bench run` plans them, for scripts that run them here."""

from __future__ import annotations

from typing import Any

from harness.models import resolve_model
from harness.records import RunSpec
from harness.sources import load_task_data
from harness.sweep import Inputs, make_sweep, plan
from tasks import get_task


def planned(**flags: Any) -> tuple[list[RunSpec], Inputs]:
    """The specs that follow from flags of the command line, and where their inputs lie."""
    sweep = make_sweep(flags, None)
    source = resolve_model(sweep.model)
    data = [load_task_data(get_task(name), sweep.data_dir) for name in sweep.task]
    return plan(sweep, data, source.name, source.revision), Inputs(sweep.model, sweep.data_dir)
