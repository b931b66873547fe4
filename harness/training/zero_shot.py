"""A run without training: the pre-trained model answers the prompt as it is."""

from __future__ import annotations

import math
import time

import torch

from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.schema import Costs, Evaluation, RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training.arithmetic import set_arithmetic
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.read_back import final_score, peak_memory, read_live
from momentum_bench.harness.training.scoring import score
from momentum_bench.harness.training.session import Session


def zero_shot(spec: RunSpec, session: Session, journal: Journal) -> RunRecord:
    """Score dev and test once each, with the same split, prompt and label words as a run that trains.

    Returns:
        A record with status `done` and one evaluation, of step 0, or `diverged` when the loss on dev is
        not finite.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    accelerator = session.accelerator
    set_arithmetic(spec, accelerator.device)
    session.check_inputs(spec)
    task = session.task(spec)
    split = session.split(spec)
    loaded = session.fresh_model(spec)
    objective = session.objective(spec)
    pad_id = session.pad_id(spec)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    dev = score(loaded, split.dev, objective, task.metric, pad_id, accelerator)
    dev_done = time.perf_counter()
    read_back = read_live(spec, session, loaded, optimizer=None)
    if not math.isfinite(dev.loss):
        return RunRecord(
            spec=spec,
            metric=task.metric,
            status="diverged",
            failure=f"dev loss {dev.loss} without training",
            split=split.facts,
            read_back=read_back,
            environment=environment(),
        )
    evaluation = Evaluation(
        step=0, learning_rate=0.0, train_loss=None, dev_metric=dev.metric, dev_loss=dev.loss
    )
    journal.append(evaluation)
    before_test = time.perf_counter()
    test = score(loaded, split.test, objective, task.metric, pad_id, accelerator)
    test_done = time.perf_counter()
    return RunRecord(
        spec=spec,
        metric=task.metric,
        status="done",
        evaluations=(evaluation,),
        best_step=0,
        parameters_hash=hash_of(dict(loaded.model.named_parameters())),
        clipped_fraction=0.0,
        split=split.facts,
        read_back=read_back,
        test=final_score(test, split, task),
        costs=Costs(
            train_seconds=0.0,
            dev_seconds=dev_done - started,
            test_seconds=test_done - before_test,
            peak_memory_bytes=peak_memory(accelerator.device),
        ),
        environment=environment(),
    )
