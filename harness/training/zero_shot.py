"""A run without training: the pre-trained model is scored as it is."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.schema import Costs, Evaluation, RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training.arithmetic import set_arithmetic
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.read_back import dev_predictions, final_score, peak_memory, read_live
from momentum_bench.harness.training.session import Session


def zero_shot(spec: RunSpec, session: Session, journal: Journal) -> RunRecord:
    """Score dev and test once each, with the same split, prompt and label words as a run that trains.

    Returns:
        A record with status `done` and one evaluation, of step 0; or with status `diverged`, if the loss
        on dev is not finite.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    accelerator = session.accelerator
    set_arithmetic(spec, accelerator)
    session.check_inputs(spec)
    parts = session.parts(spec)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    dev = parts.score(parts.split.dev)
    dev_done = time.perf_counter()
    facts: dict[str, Any] = {
        "spec": spec,
        "metric": parts.task.metric,
        "split": parts.split.facts,
        "read_back": read_live(spec, parts, optimizer=None),
        "environment": environment(),
    }
    if not math.isfinite(dev.loss):
        return RunRecord(**facts, status="diverged", failure=f"dev loss {dev.loss} without training")
    evaluation = Evaluation(
        step=0, learning_rate=0.0, train_loss=None, dev_metric=dev.metric, dev_loss=dev.loss
    )
    journal.append(evaluation)
    before_test = time.perf_counter()
    test = parts.score(parts.split.test)
    test_done = time.perf_counter()
    return RunRecord(
        **facts,
        status="done",
        evaluations=(evaluation,),
        best_step=0,
        parameters_hash=hash_of(dict(parts.loaded.model.named_parameters())),
        clipped_fraction=0.0,
        dev=dev_predictions(dev.predictions, parts),
        test=final_score(test, parts),
        costs=Costs(
            train_seconds=0.0,
            dev_seconds=dev_done - started,
            test_seconds=test_done - before_test,
            peak_memory_bytes=peak_memory(accelerator.device),
        ),
    )
