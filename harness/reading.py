"""What a model says of a batch: the one place where a model is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import FSDPModule

from harness import sharding
from harness.encoding import Batch, Encoded
from harness.errors import first_line
from harness.kinds import References
from harness.models import LoadedModel, max_input_length
from harness.packing import NotPackableError, packed_scores, prepare, restore
from harness.prepacked import prepacked_weights
from harness.ranks import turned_on
from harness.sharding import local

TOLERANCE = 1e-4
"""Packed scores may differ from padded ones by this share of the largest of them, in fp32."""

TRIAL_TEXTS = (
    ("A film that is hard to forget.", "It was seen by many."),
    ("No.", "Why?"),
    ("The plot has holes, the actors are wooden, and still one stays to the end of it.", "Who would not?"),
)


class Reader(torch.nn.Module):
    """`read` as a module, for DDP sums the gradients of what is called through its wrapper alone.

    And FSDP gathers the parameters of what is called so.
    """

    def __init__(self, loaded: LoadedModel):
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded

    def forward(self, batch: Batch) -> torch.Tensor:
        return read(self._loaded, batch).clone()  # FSDP warns of views


def share_batches(loaded: LoadedModel, accelerator: Accelerator) -> LoadedModel:
    """The same model, whose gradients are averaged over the ranks; all ranks call this together.

    Where FSDP is asked for, the model is cut up among them too.

    Raises:
        UserError: it cannot be.
    """
    accelerator.free_memory()  # of the model before this one, which accelerate would keep
    reader = Reader(loaded)
    if not turned_on("FSDP"):
        return dataclasses.replace(loaded, shared=accelerator.prepare_model(reader))
    sharding.shard(reader, loaded.model, accelerator.device, accelerator.num_processes)
    parts = {name: local(value).to("cpu", copy=True) for name, value in loaded.model.state_dict().items()}
    return dataclasses.replace(loaded, pristine=parts, shared=reader, sharded=True)


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


def with_packing(loaded: LoadedModel, tokenizer: Any, is_head: bool) -> LoadedModel:
    """The model taking packed rows, if it then gives the scores that it gives for padded batches.

    That is tried on three pairs of sentences, as the model's tokenizer joins them, in fp32 and without
    dropout. A model that fails is left as it was, with the reason in `why_padded`.
    """
    if loaded.adapter and loaded.adapter.virtual_tokens:
        return dataclasses.replace(loaded, why_padded="virtual tokens stand before each sequence")
    model, before = loaded.model, loaded.model.config._attn_implementation
    was_training, precision = model.training, torch.get_float32_matmul_precision()
    first, second = zip(*TRIAL_TEXTS, strict=True)
    limit = max_input_length(model.config, tokenizer)
    tokens = tokenizer(list(first), list(second), truncation="longest_first", max_length=limit)
    ids = tokens["input_ids"]
    middle_and_last = [[len(of) // 2, len(of) - 1][-1 - i :] for i, of in enumerate(ids)]
    read_at = None if is_head else middle_and_last
    labels = [0] * len(ids)
    references = References(list(labels), None, None)
    trial = Encoded(ids, tokens.get("token_type_ids"), read_at, labels, references, n_truncated=0)
    pad_id, rows = tokenizer.pad_token_id or 0, range(len(ids))
    try:
        model.eval()
        torch.set_float32_matmul_precision("highest")
        with torch.no_grad():
            padded = read(loaded, trial.batch(rows, pad_id, model.device))
        packing = prepare(model)
        with scoring(loaded):
            packed = read(loaded, trial.batch(rows, pad_id, model.device, packing))
        if packed.shape != padded.shape or not bool(padded.std() > 0):
            raise NotPackableError(f"{type(model).__name__}: packed and padded scores cannot be compared")
        if not bool((packed - padded).abs().max() <= TOLERANCE * padded.abs().max()):
            raise NotPackableError(f"{type(model).__name__}: packed scores are not the padded ones")
    except Exception as error:  # whatever a model makes of inputs that it was not written for
        restore(model, before)
        why = (
            str(error)
            if isinstance(error, NotPackableError)
            else f"{type(model).__name__}: {first_line(error)}"
        )
        return dataclasses.replace(loaded, why_padded=why)
    finally:
        model.train(was_training)
        torch.set_float32_matmul_precision(precision)
    return dataclasses.replace(loaded, packing=packing)


def layout_of(loaded: LoadedModel) -> dict[str, int | str]:
    """How batches and parameters are laid out and what of them is computed, for the record."""
    if loaded.sharded and loaded.shared:
        units = sum(isinstance(module, FSDPModule) for module in loaded.shared.modules())
        here = sum(local(parameter).numel() for parameter in loaded.model.parameters())
        return _layout_of_batches(loaded) | {"fsdp2_units": units, "parameters_on_rank_0": here}
    return _layout_of_batches(loaded)


def _layout_of_batches(loaded: LoadedModel) -> dict[str, int | str]:
    if not loaded.why_padded and loaded.packing is None:
        return {"padding": "none", "inputs": "images"}
    if loaded.packing is not None:
        equal = f"as padded within {TOLERANCE:g} of the largest score"
        return {"padding": "none", "packed_scores": equal, "last_layer": loaded.packing.last_layer}
    scores = "at the places read" if loaded.vocabulary_head else "of the whole model"
    return {"padding": "dynamic", "why_padded": loaded.why_padded, "scores": scores}
