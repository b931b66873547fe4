"""What a model says of a batch: the one place where a model is called."""

from __future__ import annotations

from dataclasses import replace

import torch
from accelerate import Accelerator

from harness.encoding import Batch
from harness.models import LoadedModel


class Reader(torch.nn.Module):
    """`read` as a module, for DDP sums the gradients of what is called through its wrapper alone."""

    def __init__(self, loaded: LoadedModel):
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded

    def forward(self, batch: Batch) -> torch.Tensor:
        return read(self._loaded, batch)


def share_batches(loaded: LoadedModel, accelerator: Accelerator) -> LoadedModel:
    """The same model, whose gradients are averaged over the ranks; all ranks call this together."""
    accelerator.free_memory()  # of the model before this one, which accelerate would keep
    return replace(loaded, shared=accelerator.prepare_model(Reader(loaded)))


def read(loaded: LoadedModel, batch: Batch) -> torch.Tensor:
    """The scores that are read of a batch, in the order of its sequences and their places.

    Labels, losses and which sequences belong together are none of its concern.

    Returns:
        R x V scores of the vocabulary at the R places of `read_at`; S x L outputs of a head.
    """
    if loaded.shared is not None and torch.is_grad_enabled():
        return loaded.shared(batch)
    if batch.read_at is None:
        return loaded.model(**batch.inputs).logits
    if loaded.mask_head is None:
        return loaded.model(**batch.inputs).logits[batch.read_at]
    hidden = loaded.model.base_model(**batch.inputs).last_hidden_state
    # the vocabulary's scores at these places alone: at every position they can cost more than the encoder
    return loaded.mask_head(hidden[batch.read_at])
