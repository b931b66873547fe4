"""One run, from top to bottom: a spec in, a record out.

Everything random is a function of the run's seed and of the step, so SGD and SGDM of one seed see
the same examples in the same order under the same dropout masks.
"""

from __future__ import annotations

import gc
import math
import resource
import sys
import time
from typing import Any

import torch
import xxhash
from torch import nn
from tqdm import tqdm

from harness import optimizers
from harness.environment import environment
from harness.metrics import compute
from harness.models import LoadedModel
from harness.reading import layout_of
from harness.records import (
    NO_OPTIMIZER,
    Costs,
    Evaluation,
    FinalScore,
    ReadBack,
    RunRecord,
    RunSpec,
    is_better,
)
from harness.sampling import batch_indices, derived_seed
from harness.schedules import is_evaluation_step, learning_rate
from harness.scoring import Scores, logits, score
from harness.store import Journal
from harness.trainable import trained_parameters
from harness.workbench import EncodedSplit, Workbench
from tasks import Task, get_task


def finetune(spec: RunSpec, bench: Workbench, journal: Journal, progress: bool = False) -> RunRecord:
    """Fine-tune once, keep the best-dev checkpoint, and score test once from it.

    Returns:
        A record with status `done`, or `diverged` when a loss was not finite.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
        WrongOptimizerError: what runs is not the optimizer that was asked for.
    """
    # -- what is trained, on what ---------------------------------------------------------------
    torch.set_num_threads(spec.threads_per_run)
    accelerator = bench.accelerator
    bench.check_inputs(spec)
    task = get_task(spec.task)
    split = bench.split(spec)
    loaded = bench.fresh_model(spec)
    model = loaded.model
    objective = bench.objective(spec)
    pad_id = bench.tokenizer.pad_token_id or 0
    entry = bench.optimizer(spec)
    # the rates of the whole run, for an optimizer may need those to come
    rates = entry.schedule(
        [learning_rate(spec, step) for step in range(spec.max_steps)], spec.hyperparameters
    )
    torch_rate = entry.torch_rate(spec.hyperparameters)
    groups = optimizers.weight_decay_groups(list(model.named_parameters()), spec.weight_decay)
    optimizer = entry.build(groups, torch_rate * spec.learning_rate, spec.hyperparameters, spec.seed)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    micro_size = spec.batch_size // spec.gradient_accumulation_steps
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
    dev_seconds = 0.0
    started = time.perf_counter()
    model.train()
    for step in tqdm(range(spec.max_steps), desc=spec.label, leave=False, disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = rates[step] * torch_rate
        rows = batch_indices(spec.seed, step, len(split.train.labels), spec.batch_size)
        torch.manual_seed(derived_seed(spec.seed, "dropout", step))
        step_loss = torch.zeros((), device=accelerator.device)
        for start in range(0, spec.batch_size, micro_size):
            micro_rows = rows[start : start + micro_size]
            batch = split.train.batch(micro_rows, pad_id, accelerator.device, loaded.packing)
            with accelerator.autocast():
                scores = logits(loaded, batch, objective)
            # micro-batches are of one size, so the mean of their means is the batch's mean
            loss = objective.loss(scores, batch.labels) / spec.gradient_accumulation_steps
            accelerator.backward(loss)
            step_loss += loss.detach()
        losses.append(step_loss)
        if spec.max_grad_norm is not None:
            norm = accelerator.clip_grad_norm_(parameters, spec.max_grad_norm)
            gradient_norms.append(torch.as_tensor(norm).detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        if step == 0:
            optimizers.check_live(spec.optimizer, entry, spec.hyperparameters, optimizer)
            read_back = read_live(spec, bench, loaded, optimizer)
        evaluate_now = is_evaluation_step(spec, step + 1)
        if check_every_step or evaluate_now:
            failure = _first_non_finite(losses, since=n_checked)
            n_checked = len(losses)
        if failure:
            break
        if evaluate_now:
            before = time.perf_counter()
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
                    name: value.detach().to("cpu", copy=True)
                    for name, value in model.named_parameters()
                    if value.requires_grad
                }
    train_seconds = time.perf_counter() - started - dev_seconds

    # -- the one look at test -------------------------------------------------------------------
    test, test_seconds, best_step, parameters_hash = None, 0.0, None, None
    if failure is None:
        assert best is not None  # the last step is always evaluated
        with torch.no_grad():
            for name, value in best_parameters.items():
                model.get_parameter(name).copy_(value)
        before = time.perf_counter()
        result = score(loaded, split.test, objective, task.metric, pad_id, accelerator)
        test_seconds = time.perf_counter() - before
        best_step, parameters_hash = best.step, hash_of(best_parameters)
        test = final_score(result, split, task)
    del optimizer, groups, parameters, best_parameters
    gc.collect()
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


def final_score(result: Scores, split: EncodedSplit, task: Task) -> FinalScore:
    """What a record says of the scores of test."""
    references = split.test.references
    return FinalScore(
        metric=result.metric,
        further={
            name: compute(name, references.answers, result.predictions, references.questions)
            for name in task.further_metrics
        },
        loss=result.loss if math.isfinite(result.loss) else None,
        rows=tuple(split.test_rows),
        labels=tuple(references.answers),
        predictions=tuple(result.predictions),
        questions=None if references.questions is None else tuple(references.questions),
    )


def hash_of(parameters: dict[str, torch.Tensor]) -> str:
    """xxh3-128 over names and bytes, in the order of the names; tensors on the CPU."""
    digest = xxhash.xxh3_128()
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(parameters[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_non_finite(losses: list[torch.Tensor], since: int) -> str | None:
    finite = torch.isfinite(torch.stack(losses[since:])).tolist()
    if all(finite):
        return None
    return f"training loss not finite at step {since + finite.index(False) + 1}"


def _clipped_fraction(norms: list[torch.Tensor], limit: float | None) -> float:
    if limit is None or not norms:
        return 0.0
    return int((torch.stack(norms) > limit).sum()) / len(norms)


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of the device's memory on a GPU since it was last reset, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def read_live(
    spec: RunSpec, bench: Workbench, loaded: LoadedModel, optimizer: torch.optim.Optimizer | None
) -> ReadBack:
    """What really runs, from the live objects, after the first step.

    Args:
        optimizer: None: nothing is trained.
    """
    model, accelerator = loaded.model, bench.accelerator
    trainable = [p for p in model.parameters() if p.requires_grad and optimizer]
    dropouts = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in trainable or model.parameters()})
    with accelerator.autocast():
        kind = accelerator.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return ReadBack(
        **_optimizer_facts(optimizer),
        n_trainable_parameters=sum(p.numel() for p in trainable),
        new_parameters=loaded.new_parameters,
        parameter_dtype=",".join(dtypes),
        autocast_dtype=None if autocast is None else str(autocast).removeprefix("torch."),
        dropout_probabilities=tuple(sorted(dropouts)),
        model_class=type(model).__name__,
        attention=str(getattr(model.config, "_attn_implementation", "eager")),
        device=accelerator.device.type,
        threads=torch.get_num_threads(),
        layout={
            **layout_of(loaded),
            "gradient_accumulation_steps": spec.gradient_accumulation_steps,
            "data_parallel_ranks": 1,
        },
        trained=trained_parameters(model) if optimizer else (),
        adapter=loaded.adapter.settings if loaded.adapter else None,
    )


def _optimizer_facts(optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    if optimizer is None:
        facts: dict[str, Any] = {"optimizer_class": NO_OPTIMIZER, "torch_learning_rate": 0.0}
        return facts | {"param_groups": (), "state_tensors": (), "optimizer_state_bytes": 0}
    names, state_bytes = optimizers.state_tensors(optimizer)
    plain = (int, float, bool, str, tuple, type(None))
    return {
        "optimizer_class": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        "torch_learning_rate": optimizer.defaults["lr"],
        "param_groups": tuple(
            {key: value for key, value in group.items() if isinstance(value, plain)}
            for group in optimizer.param_groups
        ),
        "state_tensors": names,
        "optimizer_state_bytes": state_bytes,
    }
