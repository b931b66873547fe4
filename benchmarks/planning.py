"""The runs of a small sweep, planned as `momentum-bench run` plans them, for scripts that run them here."""

from __future__ import annotations

from typing import Any

from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.tasks import get_task


def planned(**flags: Any) -> tuple[list[RunSpec], Inputs]:
    """The specs that follow from flags of the command line, and where their inputs lie."""
    sweep = make_sweep(flags, None)
    source = resolve_model(sweep.model)
    data = [load_task_data(get_task(name), sweep.data_dir) for name in sweep.task]
    return plan(sweep, data, source.name, source.revision), Inputs(sweep.model, sweep.data_dir)
