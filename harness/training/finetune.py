"""One run, from top to bottom: a spec in, a record out.

Everything random is a function of the run's seed and of the step, so SGD and SGDM of one seed see
the same examples in the same order under the same dropout masks.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from contextlib import nullcontext

import torch
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm

from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.errors import first_line
from momentum_bench.harness.models.trainable import trained_state
from momentum_bench.harness.optimizers import live
from momentum_bench.harness.optimizers.schedules import is_evaluation_step, learning_rate
from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.schema import (
    Costs,
    Evaluation,
    ReadBack,
    RunRecord,
    RunSpec,
    by_rank,
    is_better,
)
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.seeds import batch_indices, dropout_seed, rank_share
from momentum_bench.harness.sharded_tensors import local, whole
from momentum_bench.harness.training import checkpoints, cuda_graphs
from momentum_bench.harness.training.arithmetic import set_arithmetic
from momentum_bench.harness.training.checkpoints import Progress, hash_of
from momentum_bench.harness.training.memory import BatchTooLargeError, memory_of_a_batch
from momentum_bench.harness.training.read_back import final_score, peak_memory, read_live
from momentum_bench.harness.training.scoring import logits, score
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.vocabulary_rows import (
    WHOLE_TABLES,
    ReachedRows,
    UsedElsewhereError,
    reached_rows,
)


def finetune(spec: RunSpec, session: Session, journal: Journal, progress: bool = False) -> RunRecord:
    """Fine-tune once, keep the best-dev checkpoint, and score test once from it.

    Where memory runs out the run starts over with micro-batches of half the size, down to 1, so that
    one layout holds from its first step to its last; the global batch stays.

    Returns:
        A record with status `done`, or `diverged` when a loss was not finite.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
        WrongOptimizerError: what runs is not the optimizer that was asked for.
        BatchTooLargeError: not even one example at a time fits.
    """
    set_arithmetic(spec, session.accelerator.device)
    session.check_inputs(spec)
    size = spec.batch_size // spec.gradient_accumulation_steps
    tables_apart = True
    while True:
        try:
            with reached_rows(spec, session) if tables_apart else nullcontext(WHOLE_TABLES) as reached:
                record = _finetune(spec, session, journal, progress, reached, size)
            gc.collect()  # the optimizer's state, before the next run has its own
            return record
        except UsedElsewhereError:
            tables_apart = False
            continue
        except BatchTooLargeError as error:
            if size == 1 or session.accelerator.num_processes > 1 or spec.cuda_graphs:
                raise  # nothing smaller; or other ranks wait in a collective; or whole batches are asked for
            reason = first_line(error)
        size = -(-size // 2)
        print(f"{spec.label}: {reason}; starting over in micro-batches of {size}", file=sys.stderr)
        clear_device_cache(garbage_collection=True)


def _finetune(
    spec: RunSpec, session: Session, journal: Journal, progress: bool, reached: ReachedRows, micro_size: int
) -> RunRecord:
    # -- what is trained, on what ---------------------------------------------------------------
    accelerator = session.accelerator
    rank = accelerator.process_index  # 0, unless ranks share this run's batches
    task = session.task(spec)
    split = session.split(spec)
    loaded = session.fresh_model(spec)
    model = loaded.model
    objective = session.objective(spec)
    pad_id = session.pad_id(spec)
    entry = session.optimizer(spec)
    # the rates of the whole run, for an optimizer may need those to come
    rates = entry.schedule(
        [learning_rate(spec, step) for step in range(spec.max_steps)], spec.hyperparameters
    )
    torch_rate = entry.torch_rate(spec.hyperparameters)
    groups = live.weight_decay_groups(reached.parameters(model), spec.weight_decay)
    optimizer = entry.build(groups, torch_rate * spec.learning_rate, spec.hyperparameters, spec.seed)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def backward(batch: Batch, parts: float) -> torch.Tensor:
        with accelerator.autocast():
            scores = logits(loaded, batch, objective)
        loss = objective.loss(scores, batch.labels) / parts
        accelerator.backward(loss)
        return loss.detach()

    def update() -> list[torch.Tensor]:
        """The optimizer's step; the norm of the gradient, where it is clipped."""
        reached.check()
        norms = []
        if spec.max_grad_norm is not None:
            norm = accelerator.clip_grad_norm_(parameters, spec.max_grad_norm)
            norms.append(whole(torch.as_tensor(norm)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norms

    recorded: cuda_graphs.RecordedSteps | None = None
    packing = loaded.packing
    if spec.cuda_graphs:
        recorded = cuda_graphs.RecordedSteps(lambda batch: (backward(batch, 1.0), *update()), optimizer)
        packing = cuda_graphs.rounded(packing)
    # On a GPU reading a loss makes the device wait, so there it is read at evaluations only. What
    # is recorded is the same: the first step whose loss was not finite.
    check_every_step = accelerator.device.type == "cpu"
    n_checked = 0
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    # -- the loop -------------------------------------------------------------------------------
    evaluations: list[Evaluation] = []
    best: Evaluation | None = None
    best_parameters: dict[str, torch.Tensor] = {}
    read_back: ReadBack | None = None
    failure: str | None = None
    losses: list[torch.Tensor] = []
    gradient_norms: list[torch.Tensor] = []
    first_step, dev_seconds = 0, 0.0
    started = time.perf_counter()
    if journal.checkpoint_every and (
        earlier := checkpoints.load(journal.checkpoint, spec, micro_size, model, optimizer)
    ):
        first_step, evaluations, read_back = earlier.n_steps, earlier.evaluations, earlier.read_back
        losses, gradient_norms = earlier.losses, earlier.gradient_norms
        best = min(evaluations, key=by_rank, default=None)
        best_parameters = earlier.best_parameters
        started, dev_seconds = started - earlier.seconds, earlier.dev_seconds
        for evaluation in evaluations:
            journal.append(evaluation)
    reached.take()
    model.train()
    steps = range(first_step, spec.max_steps)
    for step in tqdm(steps, desc=spec.label, leave=False, disable=not progress):
        if recorded:
            recorded.rate.fill_(rates[step] * torch_rate)
        else:
            for group in optimizer.param_groups:
                group["lr"] = rates[step] * torch_rate
        rows = batch_indices(spec.seed, step, len(split.train.labels), spec.batch_size)
        torch.manual_seed(dropout_seed(spec.seed, step, rank))
        if recorded:
            with memory_of_a_batch():
                batch = split.train.batch(rows, pad_id, accelerator.device, packing)
                step_loss, *norms = recorded(batch)
        else:
            step_loss = torch.zeros((), device=accelerator.device)
            for start in range(0, spec.batch_size, micro_size):
                micro_rows = rows[start : start + micro_size]
                mine = rank_share(micro_rows, rank, accelerator.num_processes)
                with memory_of_a_batch():
                    batch = split.train.batch(mine, pad_id, accelerator.device, packing)
                    # weighted by their sizes, the means of the micro-batches add up to the batch's mean;
                    # ranks hold parts of one size, of which they take the mean
                    step_loss += backward(batch, spec.batch_size / len(micro_rows))
            norms = update()
        losses.append(accelerator.reduce(step_loss, "mean"))
        gradient_norms += norms

        if step == 0:
            live.check_live(spec.optimizer, entry, spec.hyperparameters, optimizer)
            read_back = read_live(spec, session, loaded, optimizer, micro_size)
        evaluate_now = is_evaluation_step(spec, step + 1)
        if check_every_step or evaluate_now:
            failure = _first_non_finite(losses, since=n_checked)
            n_checked = len(losses)
        if failure:
            break
        if evaluate_now:
            before = time.perf_counter()
            reached.write()
            dev = score(loaded, split.dev, objective, task.metric, pad_id, accelerator)
            dev_seconds += time.perf_counter() - before
            if not math.isfinite(dev.loss):
                failure = f"dev loss {dev.loss} after step {step + 1}"
                break
            since = evaluations[-1].step if evaluations else 0
            evaluation = Evaluation(
                step=step + 1,
                learning_rate=rates[step],
                train_loss=float(torch.stack(losses[since:]).mean()),
                dev_metric=dev.metric,
                dev_loss=dev.loss,
            )
            evaluations.append(evaluation)
            journal.append(evaluation)
            if best is None or is_better(evaluation, best):
                best = evaluation
                # a true copy: `.cpu()` alone would alias the live weights on a CPU
                best_parameters = {
                    name: local(value).to("cpu", copy=True) for name, value in trained_state(model).items()
                }
        if journal.checkpoint_every and (step + 1) % journal.checkpoint_every == 0:
            assert read_back is not None
            seconds = time.perf_counter() - started
            reached.write()
            so_far = Progress(
                step + 1,
                micro_size,
                evaluations,
                best_parameters,
                read_back,
                losses,
                gradient_norms,
                seconds,
                dev_seconds,
            )
            checkpoints.save(journal.checkpoint, spec, model, optimizer, so_far)
    train_seconds = time.perf_counter() - started - dev_seconds

    # -- the one look at test -------------------------------------------------------------------
    test, test_seconds, best_step, parameters_hash = None, 0.0, None, None
    if failure is None:
        assert best is not None  # the last step is always evaluated
        for name, value in trained_state(model).items():
            local(value).copy_(best_parameters[name])
        before = time.perf_counter()
        result = score(loaded, split.test, objective, task.metric, pad_id, accelerator)
        test_seconds = time.perf_counter() - before
        best_step, parameters_hash = best.step, hash_of(trained_state(model))
        test = final_score(result, split, task)
    return RunRecord(
        spec=spec,
        metric=task.metric,
        status="diverged" if failure else "done",
        failure=failure,
        evaluations=tuple(evaluations),
        best_step=best_step,
        parameters_hash=parameters_hash,
        clipped_fraction=_clipped_fraction(gradient_norms, spec.max_grad_norm),
        split=split.facts,
        read_back=read_back,
        test=test,
        costs=Costs(
            train_seconds=train_seconds,
            dev_seconds=dev_seconds,
            test_seconds=test_seconds,
            peak_memory_bytes=peak_memory(accelerator.device),
        ),
        environment=environment(),
    )


def _first_non_finite(losses: list[torch.Tensor], since: int) -> str | None:
    finite = torch.isfinite(torch.stack(losses[since:])).tolist()
    if all(finite):
        return None
    return f"training loss not finite at step {since + finite.index(False) + 1}"


def _clipped_fraction(norms: list[torch.Tensor], limit: float | None) -> float:
    if limit is None or not norms:
        return 0.0
    return int((torch.stack(norms) > limit).sum()) / len(norms)
