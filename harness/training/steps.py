"""One training step, forward to update, in two ways that a run chooses between before its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch

from momentum_bench.harness.device_errors import is_of_the_device
from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.optimizers.entry import ClosureUse
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.seeds import rank_share
from momentum_bench.harness.sharded_tensors import whole
from momentum_bench.harness.training import cuda_graphs
from momentum_bench.harness.training.memory import memory_of_a_batch
from momentum_bench.harness.training.run_parts import RunParts
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.vocabulary_rows import ReachedRows


class StepResult(NamedTuple):
    """What one training step gives.

    Attributes:
        loss: of the batch, a scalar.
        norms: the norm of its gradient before clipping, where that is clipped: a list of one scalar or none.
        passes: how often loss and gradient of the batch were computed.
    """

    loss: torch.Tensor
    norms: list[torch.Tensor]
    passes: int


Step = Callable[[list[int], float], StepResult]
"""One training step, from the positions of its examples and torch's learning rate."""


def micro_batch_steps(
    spec: RunSpec, parts: RunParts, reached: ReachedRows, optimizer: torch.optim.Optimizer, micro_size: int
) -> Step:
    """Steps whose gradients are summed over micro-batches, each shared out among the ranks."""
    accelerator = parts.accelerator
    rank, ranks = accelerator.process_index, accelerator.num_processes

    def gradient(rows: list[int]) -> torch.Tensor:
        loss = torch.zeros((), device=accelerator.device)
        for start in range(0, spec.batch_size, micro_size):
            micro_rows = rows[start : start + micro_size]
            with memory_of_a_batch():
                mine = rank_share(micro_rows, rank, ranks)
                batch = parts.training_batch(mine, parts.loaded.packing)
                # Weighted by their sizes, the means of the micro-batches add up to the mean of the batch.
                # The ranks hold shares of one size, whose mean is taken.
                loss += _backward(parts, batch, spec.batch_size / len(micro_rows))
        return loss

    def step(rows: list[int], rate: float) -> StepResult:
        for group in optimizer.param_groups:
            group["lr"] = rate
        if closure_use is not None:
            return _step_with_closure(spec, parts, reached, optimizer, partial(gradient, rows), closure_use)
        return StepResult(gradient(rows), _update(spec, parts, reached, optimizer), 1)

    closure_use = parts.entry.closure if parts.entry else None
    return step


def _step_with_closure(
    spec: RunSpec,
    parts: RunParts,
    reached: ReachedRows,
    optimizer: torch.optim.Optimizer,
    gradient: Callable[[], torch.Tensor],
    use: ClosureUse,
) -> StepResult:
    """A step of an optimizer that asks for the gradient itself, at other parameters too.

    Each pass sees the same examples under the same dropout masks, so that it is the same function. Each
    gradient is clipped. Loss and norm of the step are those of its first pass.
    """
    losses: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []

    def closure() -> torch.Tensor:
        torch.manual_seed(torch.initial_seed())  # as it was set before the step
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            losses.append(gradient())
        norms.extend(_clip(spec, parts, reached, optimizer))
        return losses[-1]

    if use is ClosureUse.AFTER_GRADIENT:
        closure()
    with stepping(spec, parts):
        optimizer.step(closure)  # type: ignore[arg-type]
    optimizer.zero_grad(set_to_none=True)
    return StepResult(losses[0], norms[:1], len(losses))


def recorded_steps(
    spec: RunSpec, parts: RunParts, reached: ReachedRows, optimizer: torch.optim.Optimizer
) -> Step:
    """Steps of whole batches, each recorded as a CUDA graph for its shape and then replayed."""

    def whole_step(batch: Batch) -> tuple[torch.Tensor, ...]:
        return _backward(parts, batch, 1.0), *_update(spec, parts, reached, optimizer)

    recorded = cuda_graphs.RecordedSteps(whole_step, optimizer)
    packing = cuda_graphs.rounded(parts.loaded.packing)

    def step(rows: list[int], rate: float) -> StepResult:
        recorded.rate.fill_(rate)  # in place, because the recording reads it there
        with memory_of_a_batch():
            loss, *norms = recorded(parts.training_batch(rows, packing))
        return StepResult(loss, norms, 1)

    return step


def _backward(parts: RunParts, batch: Batch, divisor: float) -> torch.Tensor:
    """Add the gradients of the batch's mean loss, divided by a number, to those there; returns that loss."""
    with parts.accelerator.autocast():
        scores = logits(parts.loaded, batch)
    loss = parts.objective.loss(scores, batch.labels) / divisor
    parts.accelerator.backward(loss)
    return loss.detach()


def _update(
    spec: RunSpec, parts: RunParts, reached: ReachedRows, optimizer: torch.optim.Optimizer
) -> list[torch.Tensor]:
    """Clip, step, and drop the gradients; returns the norm before clipping, where there is clipping."""
    norms = _clip(spec, parts, reached, optimizer)
    with stepping(spec, parts):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norms


@contextmanager
def stepping(spec: RunSpec, parts: RunParts) -> Iterator[None]:
    """Inside, an optimizer steps. Whoever wrote a class may not have thought of parameters in parts.

    Raises:
        UserError: it is such a class.
    """
    try:
        yield
    except Exception as error:
        is_ours = parts.entry is None or parts.entry.promises
        if is_ours or not parts.loaded.sharded or isinstance(error, UserError) or is_of_the_device(error):
            raise
        raise UserError(
            f"{spec.optimizer} cannot step where each rank holds a part of every parameter (FSDP): "
            f"{first_line(error)}. Leave it out of --optimizers, or run it without FSDP"
        ) from error


def _clip(
    spec: RunSpec, parts: RunParts, reached: ReachedRows, optimizer: torch.optim.Optimizer
) -> list[torch.Tensor]:
    """Clip the gradients; returns their norm before that, where there is clipping."""
    reached.check()
    if spec.max_grad_norm is None:
        return []
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = parts.accelerator.clip_grad_norm_(parameters, spec.max_grad_norm)
    return [whole(torch.as_tensor(norm))]
