"""The scores that a model gives a batch: the one place where a model is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.onednn_weights import prepacked_weights


def packed_scores(model: PreTrainedModel, inputs: dict[str, Any], is_head: bool) -> torch.Tensor:
    """R x V scores of the vocabulary, or S x L outputs of a head, at the read rows of a packed row.

    After its last layer the model sees R sequences of one token each, so its own head does the rest.
    """
    if is_head and (score := getattr(model, "score", None)) is not None:
        # because decoders look for the last token in the input ids, and here it is the only one
        of_all: torch.Tensor = score(model.base_model(**inputs).last_hidden_state)
        return of_all[:, 0]
    scores: torch.Tensor = model(**inputs).logits
    return scores if is_head else scores[:, 0]


@contextmanager
def scoring(loaded: LoadedModel) -> Iterator[None]:
    """Inference mode, with weights laid out for it; under FSDP only without gradients.

    FSDP reuses its tensors in training, where tensors of inference mode would be refused.
    """
    if loaded.sharded:
        with torch.no_grad():
            yield
    else:
        with torch.inference_mode(), prepacked_weights(loaded.model):
            yield


def read(loaded: LoadedModel, batch: Batch) -> torch.Tensor:
    """The scores that are read of a batch, in the order of its sequences and their places.

    It knows nothing of labels, of losses, and of which sequences belong to one example.

    Returns:
        R x V scores of the vocabulary at the R places of `read_at`; S x L outputs of a head.
    """
    if loaded.shared is not None and (loaded.sharded or torch.is_grad_enabled()):
        shared: torch.Tensor = loaded.shared(batch)
        return shared
    if "segments" in batch.inputs:
        return packed_scores(loaded.model, batch.inputs, is_head=batch.read_at is None)
    if batch.read_at is None or loaded.vocabulary_head is None:
        logits: torch.Tensor = loaded.model(**batch.inputs).logits
        return logits if batch.read_at is None else logits[batch.read_at]
    hidden = loaded.model.base_model(**batch.inputs).last_hidden_state
    # at these places alone, because at every position the vocabulary can cost more than the encoder
    scores: torch.Tensor = loaded.vocabulary_head(hidden[batch.read_at])
    return scores
