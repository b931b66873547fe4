"""All that can fail is built before the first run trains."""

from __future__ import annotations

from collections.abc import Sequence

from momentum_bench.harness.execution.accelerator import make_accelerator, quiet_libraries
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.metrics.compute import check_available
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.cuda_graphs import check_recordable
from momentum_bench.harness.training.memory import keep_freed_memory
from momentum_bench.harness.training.session import Session


def prepare(
    specs: Sequence[RunSpec], inputs: Inputs, precision: str, together: bool = False, cpu: bool = False
) -> Session:
    """Build every split, prompt and model of the runs, so that what cannot work fails before training.

    Args:
        together: whether the ranks of the launch share each run's batches.
        cpu: use the CPU, whatever else there is.

    Raises:
        UserError: one of them cannot be built.
    """
    quiet_libraries()
    keep_freed_memory()
    session = Session(inputs, make_accelerator(precision, together, cpu))
    for spec in specs:
        session.objective(spec)
        for metric in session.metrics(spec):
            check_available(metric)
        session.split(spec)
        check_recordable(spec, session)
    return session
