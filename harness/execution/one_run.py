"""One run, with training or without."""

from __future__ import annotations

from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.zero_shot import zero_shot


def record_of(spec: RunSpec, session: Session, journal: Journal, progress: bool = False) -> RunRecord:
    """Fine-tune as the specification says, or only score where it has no steps, and return the record.

    Args:
        journal: gets each evaluation, and the checkpoints if the run is to have any.
        progress: show a progress bar of the steps.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    if spec.max_steps:
        return finetune(spec, session, journal, progress)
    return zero_shot(spec, session, journal)
