"""What a model says of a batch: the one place where a model is called."""

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
    """R x V scores of the vocabulary, or S x L outputs of a head, at the rows that `inputs` has read.

    Behind its last layer the model sees R sequences of one token each, so its own head does the rest.
    """
    if is_head and (score := getattr(model, "score", None)) is not None:
        # decoders look for the last token by the input ids; here it is the only one
        return score(model.base_model(**inputs).last_hidden_state)[:, 0]
    scores = model(**inputs).logits
    return scores if is_head else scores[:, 0]


@contextmanager
def scoring(loaded: LoadedModel) -> Iterator[None]:
    """Inference mode with weights laid out for it, or what comes next to it where FSDP keeps the tensors."""
    if loaded.sharded:
        with torch.no_grad():
            yield
    else:
        with torch.inference_mode(), prepacked_weights(loaded.model):
            yield


def read(loaded: LoadedModel, batch: Batch) -> torch.Tensor:
    """The scores that are read of a batch, in the order of its sequences and their places.

    Labels, losses and which sequences belong together are none of its concern.

    Returns:
        R x V scores of the vocabulary at the R places of `read_at`; S x L outputs of a head.
    """
    if loaded.shared is not None and (loaded.sharded or torch.is_grad_enabled()):
        return loaded.shared(batch)
    if "segments" in batch.inputs:
        return packed_scores(loaded.model, batch.inputs, is_head=batch.read_at is None)
    if batch.read_at is None:
        return loaded.model(**batch.inputs).logits
    if loaded.vocabulary_head is None:
        return loaded.model(**batch.inputs).logits[batch.read_at]
    hidden = loaded.model.base_model(**batch.inputs).last_hidden_state
    # the vocabulary's scores at these places alone: at every position they can cost more than the encoder
    return loaded.vocabulary_head(hidden[batch.read_at])
