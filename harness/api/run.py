"""A sweep run from Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from momentum_bench.harness.api.progress import ProgressBar
from momentum_bench.harness.api.results import Results
from momentum_bench.harness.api.sweep import Sweep
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.plan_sweep import SweepEvents, plan_sweep
from momentum_bench.leaderboards.rendering.files import write_board


def run(
    sweep: Sweep | None = None,
    *,
    retry_failed: bool = False,
    events: SweepEvents | None = None,
    **settings: Any,
) -> Results:
    """Run what is missing of a sweep, and write the tables of its output directory.

    It does what `momentum-bench run` does: the same runs, records and tables. Finished runs are never run
    again, so the same call goes on after an interruption.

        results = mb.run(task="sst2", k=16)
        results.leaderboard()

    Args:
        sweep: what to run; or give its settings as keywords, see `Sweep`. Without both it is the quick start.
        retry_failed: run again what is recorded as failed.
        events: is told what happens; None: a progress bar and lines on stderr. `SweepEvents()` is silent.

    Returns:
        The runs of this sweep. `results.failed` lists those that ended in an error. The ranks of a launcher
        share out the runs, and each of them returns when all runs are finished.

    Raises:
        UserError: the sweep is contradictory, an input is missing, or the disk is gone. Finished runs are
            kept.
    """
    if sweep is not None and settings:
        raise UserError(f"both a Sweep and {', '.join(settings)} are given: put all settings into the Sweep")
    if sweep is not None and not isinstance(sweep, Sweep):
        raise UserError(
            f"expected a Sweep or settings by name, such as task='sst2'; found {type(sweep).__name__}"
        )
    checked = (Sweep(**settings) if sweep is None else sweep).checked
    with ExitStack() as stack:
        told = stack.enter_context(ProgressBar()) if events is None else events
        planned = plan_sweep(checked, told)

        from momentum_bench.harness.execution.run_sweep import run_sweep

        stack.enter_context(_torch_as_before())
        outcome = run_sweep(planned, told, retry_failed)
        if outcome.builds_board:
            write_board(planned.store)
    specs = outcome.planned.specs
    records = [outcome.records[spec.run_id] for spec in specs if spec.run_id in outcome.records]
    return Results(records, outcome.store)


@contextmanager
def _torch_as_before() -> Iterator[None]:
    """Give the caller's process its torch back: a run sets threads, algorithms, precision and random state.

    Accelerate keeps one state in a process, and refuses a second precision. So each sweep gets a new one.
    """
    import torch
    from accelerate.state import AcceleratorState, PartialState

    from momentum_bench.harness.training import arithmetic

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    rounding, attention = arithmetic.convolutions(), torch.backends.cuda.cudnn_sdp_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    # to ask for the state of a GPU that nobody uses yet would take memory of it
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    states = [
        (shared, dict(shared)) for shared in (AcceleratorState._shared_state, PartialState._shared_state)
    ]
    for shared, _ in states:
        shared.clear()
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        if arithmetic.convolutions() != rounding:
            arithmetic.set_convolutions(rounding)
        torch.backends.cuda.enable_cudnn_sdp(attention)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warn)
        for shared, before in states:
            shared.clear()
            shared.update(before)
