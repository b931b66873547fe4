"""Scores of a model on an encoded split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import nn

from momentum_bench.harness.data.task_kinds import Prediction
from momentum_bench.harness.device_errors import is_out_of_memory
from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.errors import first_line
from momentum_bench.harness.messages import note
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.models.forward import read, scoring
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.training.objectives import Objective

TOKENS_PER_BATCH = 4096
"""A scoring batch has at most so many padded tokens. It is fixed: no score may depend on the machine."""


@dataclass(frozen=True)
class Scores:
    """The metric (a fraction), the mean loss (in nats, or squared), and the prediction for each example."""

    metric: float
    loss: float
    predictions: list[Prediction]


def logits(loaded: LoadedModel, batch: Batch) -> torch.Tensor:
    """The scores of B examples for C classes or candidates: B x C, in fp32.

    The score of a class is that of its word at the place that is read, or an output of a head. The score of a
    candidate is its mean log-likelihood per token, or the one output of a head. Where examples have
    different numbers of candidates, -inf fills the places of the missing ones.
    """
    scores = read(loaded, batch)
    if batch.words is not None:
        return scores[:, batch.words].float()
    if batch.candidates is None:
        return scores.float()
    each = scores[:, 0].float() if batch.targets is None else _log_likelihoods(scores.float(), batch)
    return nn.utils.rnn.pad_sequence(each.split(batch.candidates), True, -torch.inf)


def _log_likelihoods(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The mean log-probability of the targets of each of S sequences, in nats per token (S)."""
    assert batch.read_at is not None
    assert batch.targets is not None
    assert batch.candidates is not None
    log_probabilities = scores.log_softmax(dim=1).gather(1, batch.targets[:, None])[:, 0]
    sequences = torch.arange(sum(batch.candidates), device=scores.device)
    # S x R, because a sum over it gives the same bits in every run, which a scattered sum does not
    in_sequence = batch.read_at[0] == sequences[:, None]
    return torch.where(in_sequence, log_probabilities, 0.0).sum(dim=1) / in_sequence.sum(dim=1)


def scoring_batches(lengths: list[int], sequences: list[int] | None = None) -> list[list[int]]:
    """Positions of examples, sorted by length and cut into batches of a bounded padded size.

    Args:
        lengths: tokens of each example's longest sequence.
        sequences: how many sequences each example has; None: one each.
    """
    batches: list[list[int]] = []
    n_sequences = 0
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        n_sequences += 1 if sequences is None else sequences[row]
        # the new row is the longest so far, so it sets the padded length of the whole batch
        if not batches or n_sequences * lengths[row] > TOKENS_PER_BATCH:
            batches.append([])
            n_sequences = 1 if sequences is None else sequences[row]
        batches[-1].append(row)
    return batches


PartScores = tuple[torch.Tensor, torch.Tensor]
"""Predictions of B examples (B), and the sum of their losses (a scalar)."""


def _in_smaller_parts(
    rows: list[int], scores_of: Callable[[list[int]], PartScores], may_halve: bool
) -> PartScores:
    """The scores of a batch; where there is no memory for it, of its halves, down to one example."""
    try:
        return scores_of(rows)
    except Exception as error:
        if len(rows) == 1 or not may_halve or not is_out_of_memory(error):
            raise
        reason = first_line(error)
    middle = len(rows) // 2
    note(f"{reason}; {len(rows)} examples are scored again in two parts")
    clear_device_cache(garbage_collection=True)
    first, second = (_in_smaller_parts(part, scores_of, True) for part in (rows[:middle], rows[middle:]))
    return torch.cat([first[0], second[0]]), first[1] + second[1]


def score(
    loaded: LoadedModel,
    encoded: Examples,
    objective: Objective,
    metric: str,
    pad_id: int,
    accelerator: Accelerator,
) -> Scores:
    """Score every example once, without dropout; the model stays in the mode in which it was.

    A batch for which there is no memory is scored in smaller parts.

    Ranks that share a run's batches share the scoring too: each fills in the results of its batches,
    and the sum over the ranks is the whole.

    Args:
        metric: the id of an `evaluate` metric.
    """
    was_training = loaded.model.training
    loaded.model.eval()
    number = torch.float if objective.kind == "regression" else torch.long
    predictions = torch.zeros(len(encoded.labels), dtype=number)
    batches = scoring_batches(encoded.lengths, encoded.candidates)
    losses = torch.zeros(len(batches), dtype=torch.float64)

    def scores_of(rows: list[int]) -> PartScores:
        batch = encoded.batch(rows, pad_id, accelerator.device, loaded.packing)
        with accelerator.autocast():
            scores = logits(loaded, batch)
        loss = objective.loss(scores, batch.labels, "sum")
        return objective.predictions(scores).cpu(), loss.cpu().double()

    with scoring(loaded):
        for first in range(0, len(batches), accelerator.num_processes):
            at = first + accelerator.process_index
            if at >= len(batches):
                if loaded.sharded:  # because the other ranks need this one's parts of the parameters
                    logits(loaded, encoded.batch(batches[0], pad_id, accelerator.device))
                break
            may_halve = accelerator.num_processes == 1  # else other ranks may wait
            predictions[batches[at]], losses[at] = _in_smaller_parts(batches[at], scores_of, may_halve)
    loaded.model.train(was_training)
    if accelerator.num_processes > 1:
        predictions = accelerator.reduce(predictions.to(accelerator.device), "sum").cpu()
        losses = accelerator.reduce(losses.to(accelerator.device), "sum").cpu()
    loss = 0.0
    for part in losses.tolist():  # one by one, because that gives the same bits for any number of ranks
        loss += part
    references = encoded.references
    stated = references.stated(predictions.tolist())
    return Scores(
        metric=compute(metric, references.answers, stated, references.questions),
        loss=loss / len(encoded.labels),
        predictions=stated,
    )
