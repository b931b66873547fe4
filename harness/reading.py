"""What a model says of a batch: the one place where a model is called."""

from __future__ import annotations

import torch

from harness.encoding import Batch
from harness.models import LoadedModel


def read(loaded: LoadedModel, batch: Batch) -> torch.Tensor:
    """The scores that are read of a batch, in the order of its sequences and their places.

    Labels, losses and which sequences belong together are none of its concern.

    Returns:
        R x V scores of the vocabulary at the R places of `read_at`; S x L outputs of a head.
    """
    if batch.read_at is None:
        return loaded.model(**batch.inputs).logits
    if loaded.mask_head is None:
        return loaded.model(**batch.inputs).logits[batch.read_at]
    hidden = loaded.model.base_model(**batch.inputs).last_hidden_state
    # the vocabulary's scores at these places alone: at every position they can cost more than the encoder
    return loaded.mask_head(hidden[batch.read_at])
