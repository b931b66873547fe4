"""A session, and everything in it that can fail, before the first run trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from momentum_bench.harness.execution.accelerator import make_accelerator, quiet_libraries
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.metrics.compute import check_available
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.cuda_graphs import check_recordable
from momentum_bench.harness.training.memory import keep_freed_memory
from momentum_bench.harness.training.session import Session


def new_session(inputs: Inputs, precision: str, together: bool = False, cpu: bool = False) -> Session:
    """A session for this process, whose libraries are set up for runs.

    Args:
        together: whether the ranks of the launch share the batches of each run.
        cpu: use the CPU, whatever else there is.

    Raises:
        UserError: the device does not have that precision, or the ranks were not joined.
    """
    quiet_libraries()
    keep_freed_memory()
    return Session(inputs, make_accelerator(precision, together, cpu, inputs.device))


def prepare_for_others(specs: Sequence[RunSpec], inputs: Inputs) -> Session:
    """What `prepare` gives, for runs that other machines do: what their devices can do, they say themselves.

    Raises:
        UserError: a split, a prompt or a model cannot be built.
    """
    here = new_session(replace(inputs, device=None), "fp32", cpu=True)
    _make_all(specs, here)
    return here


def prepare(
    specs: Sequence[RunSpec], inputs: Inputs, precision: str, together: bool = False, cpu: bool = False
) -> Session:
    """A session with every split, prompt and model of the runs, so that what cannot work fails first.

    Args:
        together: whether the ranks of the launch share the batches of each run.
        cpu: use the CPU, whatever else there is.

    Raises:
        UserError: one of them cannot be built.
    """
    session = new_session(inputs, precision, together, cpu)
    _make_all(specs, session)
    for spec in specs:
        check_recordable(spec, session)
    return session


def _make_all(specs: Sequence[RunSpec], session: Session) -> None:
    for spec in specs:
        session.objective(spec)
        for metric in session.metrics(spec):
            check_available(metric)
        session.split(spec)
