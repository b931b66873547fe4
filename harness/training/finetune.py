"""One run, from top to bottom: a spec in, a record out.

Everything random is a function of the run's seed and of the step. So SGD and SGDM of one seed see the
same examples in the same order under the same dropout masks.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm

from momentum_bench.harness.errors import first_line
from momentum_bench.harness.models.trainable import trained_state
from momentum_bench.harness.optimizers import live
from momentum_bench.harness.optimizers.live import NO_DOUBT, Movement
from momentum_bench.harness.optimizers.schedules import is_evaluation_step, learning_rate
from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.schema import Costs, Evaluation, RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.seeds import batch_indices, dropout_seed
from momentum_bench.harness.sharded_tensors import local
from momentum_bench.harness.training import checkpoints
from momentum_bench.harness.training.arithmetic import set_arithmetic
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.memory import BatchTooLargeError
from momentum_bench.harness.training.progress import Progress
from momentum_bench.harness.training.read_back import (
    dev_predictions,
    final_score,
    peak_memory,
    read_live,
    with_final_state,
)
from momentum_bench.harness.training.run_parts import RunParts
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.steps import micro_batch_steps, recorded_steps
from momentum_bench.harness.training.vocabulary_rows import (
    WHOLE_TABLES,
    ReachedRows,
    UsedElsewhereError,
    reached_rows,
)


def finetune(spec: RunSpec, session: Session, journal: Journal, progress: bool = False) -> RunRecord:
    """Fine-tune once, keep the best-dev checkpoint, and score test once from it.

    Where memory runs out, the run starts over with micro-batches of half the size, down to 1. One layout
    then holds from the first step to the last, and the global batch stays.

    Args:
        progress: show a bar of the steps.

    Returns:
        A record with status `done`, or `diverged` when a loss was not finite.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
        WrongOptimizerError: the optimizer that runs is not the one that was asked for.
        BatchTooLargeError: not even one example at a time fits.
    """
    set_arithmetic(spec, session.accelerator)
    session.check_inputs(spec)
    size = spec.batch_size // spec.gradient_accumulation_steps
    tables_apart = True
    while True:
        parts = session.parts(spec)  # again for each try, because a try leaves its model trained
        try:
            with reached_rows(spec, parts) if tables_apart else nullcontext(WHOLE_TABLES) as reached:
                record = _finetune(spec, parts, journal, progress, reached, size)
            gc.collect()  # frees the optimizer's state before the next run builds its own
            return record
        except UsedElsewhereError:
            tables_apart = False
            continue
        except BatchTooLargeError as error:
            if size == 1 or session.accelerator.num_processes > 1 or spec.cuda_graphs:
                raise  # nothing is smaller; or other ranks wait; or whole batches are recorded
            reason = first_line(error)
        size = -(-size // 2)
        print(f"{spec.label}: {reason}; starting over in micro-batches of {size}", file=sys.stderr)
        clear_device_cache(garbage_collection=True)


def _finetune(
    spec: RunSpec, parts: RunParts, journal: Journal, show: bool, reached: ReachedRows, micro_size: int
) -> RunRecord:
    # -- what is trained, and how one step is done ------------------------------------------------
    accelerator, model, entry = parts.accelerator, parts.loaded.model, parts.entry
    assert entry is not None  # else it is a run of `zero_shot`
    # the rates of all steps at once, because an optimizer's schedule may look ahead
    rates = entry.schedule(
        [learning_rate(spec, step) for step in range(spec.max_steps)], spec.hyperparameters
    )
    torch_rate = entry.torch_rate(spec.hyperparameters)
    optimizer = entry.build(
        _groups(spec, parts, reached), torch_rate * spec.learning_rate, spec.hyperparameters, spec.seed
    )
    if spec.cuda_graphs:
        train_step = recorded_steps(spec, parts, reached, optimizer)
    else:
        train_step = micro_batch_steps(spec, parts, reached, optimizer, micro_size)
    # On a GPU the host would wait for the device at each loss that it reads, so there it reads them at
    # evaluations only. The record is the same: the run ends with the first step whose loss was not finite.
    check_every_step = accelerator.device.type == "cpu"
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    # -- the loop ---------------------------------------------------------------------------------
    started = time.perf_counter()
    so_far = _earlier_progress(spec, parts, journal, optimizer, micro_size) or Progress(micro_size)
    started -= so_far.seconds
    reached.take()  # a checkpoint was loaded into the whole tables
    model.train()
    live.set_mode(optimizer, training=True)
    movement = Movement(optimizer) if not entry.promises and not so_far.n_steps else NO_DOUBT
    failure, n_checked = None, 0
    for step in tqdm(range(so_far.n_steps, spec.max_steps), desc=spec.label, leave=False, disable=not show):
        # Batch and masks depend on seed and step alone, so they are those of the other arm of a pair,
        # and a run that goes on from a checkpoint needs no saved state of any generator.
        rows = batch_indices(spec.seed, step, len(parts.split.train.labels), spec.batch_size)
        torch.manual_seed(dropout_seed(spec.seed, step, accelerator.process_index))
        loss, norms, passes = train_step(rows, rates[step] * torch_rate)
        so_far.forward_backward_passes += passes
        so_far.losses.append(accelerator.reduce(loss, "mean"))
        so_far.gradient_norms += norms
        so_far.n_steps = step + 1

        if step == 0:  # not before it, because an optimizer makes its state in its first step
            live.check_live(spec.optimizer, entry, spec.hyperparameters, optimizer)
            so_far.read_back = read_live(spec, parts, optimizer, micro_size)
        movement.look()
        evaluate_now = is_evaluation_step(spec, so_far.n_steps)
        if check_every_step or evaluate_now:
            failure = so_far.end_at_non_finite_loss(n_checked)
            n_checked = so_far.n_steps
        if evaluate_now and not failure:
            reached.write()
            with live.scoring_mode(optimizer):
                failure = _evaluate(parts, so_far, rates[step], journal)
        if failure:
            break
        if journal.checkpoint_every and so_far.n_steps % journal.checkpoint_every == 0:
            reached.write()
            so_far.seconds = time.perf_counter() - started
            checkpoints.save(journal.checkpoint, spec, model, optimizer, so_far)
    so_far.seconds = time.perf_counter() - started
    movement.check(spec.optimizer, so_far.n_steps)
    so_far.read_back = with_final_state(so_far.read_back, entry, optimizer)

    # -- the record, with the one look at test ----------------------------------------------------
    test, test_seconds = ({}, 0.0) if failure else _test_of_best(parts, so_far)
    return RunRecord(
        spec=spec,
        metric=parts.task.metric,
        status="diverged" if failure else "done",
        failure=failure,
        evaluations=tuple(so_far.evaluations),
        clipped_fraction=so_far.clipped_fraction(spec.max_grad_norm),
        split=parts.split.facts,
        read_back=so_far.read_back,
        costs=Costs(
            train_seconds=so_far.seconds - so_far.dev_seconds,
            dev_seconds=so_far.dev_seconds,
            test_seconds=test_seconds,
            peak_memory_bytes=peak_memory(accelerator.device),
            forward_backward_passes=so_far.forward_backward_passes if entry.closure else None,
        ),
        environment=environment(),
        **test,
    )


def _groups(spec: RunSpec, parts: RunParts, reached: ReachedRows) -> list[dict[str, Any]]:
    """The parameter groups that the optimizer is built with."""
    assert parts.entry is not None
    model, named = parts.loaded.model, reached.parameters(parts.loaded.model)
    return live.parameter_groups(parts.entry, model, named, parts.loaded.new_parameters, spec.weight_decay)


def _earlier_progress(
    spec: RunSpec, parts: RunParts, journal: Journal, optimizer: torch.optim.Optimizer, micro_size: int
) -> Progress | None:
    """What the run had at its last checkpoint, which is loaded and whose evaluations are journaled again."""
    if not journal.checkpoint_every:
        return None
    earlier = checkpoints.load(journal.checkpoint, spec, micro_size, parts.loaded.model, optimizer)
    for evaluation in earlier.evaluations if earlier else ():
        journal.append(evaluation)
    return earlier


def _evaluate(parts: RunParts, so_far: Progress, rate: float, journal: Journal) -> str | None:
    """Score dev and keep the parameters if they are the best so far; returns why the run ends, if so."""
    before = time.perf_counter()
    dev = parts.score(parts.split.dev)
    so_far.dev_seconds += time.perf_counter() - before
    if not math.isfinite(dev.loss):
        return f"dev loss {dev.loss} after step {so_far.n_steps}"
    evaluation = Evaluation(
        step=so_far.n_steps,
        learning_rate=rate,
        train_loss=so_far.train_loss_since_evaluation(),
        dev_metric=dev.metric,
        dev_loss=dev.loss,
    )
    so_far.evaluations.append(evaluation)
    journal.append(evaluation)
    if so_far.best is evaluation:
        # a true copy, because `.cpu()` alone would alias the live weights on a CPU
        best = trained_state(parts.loaded.model)
        so_far.best_parameters = {n: local(value).to("cpu", copy=True) for n, value in best.items()}
        so_far.best_predictions = tuple(dev.predictions)
    return None


def _test_of_best(parts: RunParts, so_far: Progress) -> tuple[dict[str, Any], float]:
    """What the record says of the best parameters: test, scored once, and its seconds; and dev, as scored."""
    assert so_far.best is not None  # because the last step is always evaluated
    trained = trained_state(parts.loaded.model)
    for name, value in trained.items():
        local(value).copy_(so_far.best_parameters[name])
    before = time.perf_counter()
    result = parts.score(parts.split.test)
    seconds = time.perf_counter() - before
    fields = {
        "dev": dev_predictions(so_far.best_predictions, parts),
        "test": final_score(result, parts),
        "best_step": so_far.best.step,
        "parameters_hash": hash_of(trained),
    }
    return fields, seconds
