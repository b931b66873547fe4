"""Scores of a model on an encoded split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from harness.encoding import Batch, Encoded
from harness.metrics import METRICS
from harness.models import LoadedModel
from harness.reading import read

TOKENS_PER_BATCH = 4096
"""Padded tokens of a scoring batch at most. Fixed, so that scores never depend on the machine."""


@dataclass(frozen=True)
class Scores:
    """Metric (0 .. 1), mean cross-entropy in nats, and the predicted class of each example."""

    metric: float
    loss: float
    predictions: list[int]


def logits(loaded: LoadedModel, batch: Batch, label_words: torch.Tensor | None) -> torch.Tensor:
    """B x L scores in fp32: of the label words at the mask, or of the classifier."""
    scores = read(loaded, batch)
    return scores.float() if label_words is None else scores[:, label_words].float()


def scoring_batches(lengths: list[int]) -> list[list[int]]:
    """Positions of examples, sorted by length and cut into batches of a bounded padded size."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        # the new row is the longest so far, so it sets the padded length of the whole batch
        if not batches or (len(batches[-1]) + 1) * lengths[row] > TOKENS_PER_BATCH:
            batches.append([])
        batches[-1].append(row)
    return batches


def score(
    loaded: LoadedModel,
    encoded: Encoded,
    label_words: torch.Tensor | None,
    metric: str,
    pad_id: int,
    accelerator: Accelerator,
) -> Scores:
    """Score every example once, without dropout; the model is left in the mode it was in."""
    was_training = loaded.model.training
    loaded.model.eval()
    predictions = torch.zeros(len(encoded.labels), dtype=torch.long)
    loss = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for rows in scoring_batches([len(ids) for ids in encoded.input_ids]):
            batch = encoded.batch(rows, pad_id, accelerator.device)
            with accelerator.autocast():
                scores = logits(loaded, batch, label_words)
            predictions[rows] = scores.argmax(dim=1).cpu()
            loss += nn.functional.cross_entropy(scores, batch.labels, reduction="sum").cpu().double()
    loaded.model.train(was_training)
    return Scores(
        metric=METRICS[metric](encoded.labels, predictions.tolist()),
        loss=float(loss) / len(encoded.labels),
        predictions=predictions.tolist(),
    )
