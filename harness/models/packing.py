"""Batches without padding: the tokens of all sequences in one row, where each sequence sees only itself.

transformers lets us register an attention function (`AttentionInterface`) and a mask function
(`AttentionMaskInterface`). The rest of a model works token by token; it needs only the positions, which
are given. The last layer computes only the rows that are read.

A model changes in two places: its attention function, and the `forward` of its last layer. Both do what
they did before unless a batch brings `segments`, so padded batches still work.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.device_errors import is_of_the_device
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.encoding.packed_rows import Packing
from momentum_bench.harness.errors import first_line
from momentum_bench.harness.models.exchanged_forward import exchange
from momentum_bench.harness.models.forward import read, scoring
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.packed_attention import (
    ATTENTION,
    LLAMA_LAYER,
    NotPackableError,
    all_then_rows,
    attention_by_rows,
    bert_rows,
    llama_rows,
    mask_of_rows,
)
from momentum_bench.harness.models.pretrained import has_segments, max_input_length
from momentum_bench.harness.sharded_tensors import computed_on


def _prepare(model: PreTrainedModel, undo: ExitStack) -> Packing:
    """Give a model our attention and a last layer that leaves out the rows that are not read.

    Whether it then computes the same is for the caller to try.

    Args:
        undo: receives what gives the model its own attention and last layer back.

    Raises:
        NotPackableError: the model has no such attention, or no list of layers.
    """
    base, last = model.base_model, _last_layer(model)
    if last is None:
        raise NotPackableError(f"{type(model).__name__} has no one list of its layers")
    undo.callback(_set_attention_back, model, model.config._attn_implementation)
    AttentionInterface.register(ATTENTION, attention_by_rows)
    AttentionMaskInterface.register(ATTENTION, mask_of_rows)
    try:
        model.set_attn_implementation(ATTENTION)
    except (ValueError, AttributeError) as error:
        raise NotPackableError(
            f"{type(model).__name__} takes no other attention: {first_line(error)}"
        ) from error
    if model.config._attn_implementation != ATTENTION:
        raise NotPackableError(f"{type(model).__name__} does not use transformers' attention interface")
    names = {name for name, _ in last.named_children()}
    attention = {name for name, _ in (getattr(last, "self_attn", None) or torch.nn.Module()).named_children()}
    forward, rows = all_then_rows, "all rows"
    if names == {"attention", "intermediate", "output"} and hasattr(last.attention, "self"):
        forward, rows = bert_rows, "rows read"
    elif names == LLAMA_LAYER and attention == {"q_proj", "k_proj", "v_proj", "o_proj"}:
        forward, rows = llama_rows, "rows read"
    model.config.use_cache = False  # because nothing here reads keys and values a second time
    undo.callback(exchange(last, forward))
    embeddings: Any = getattr(base, "embeddings", None)
    shifted = hasattr(embeddings, "create_position_ids_from_input_ids")  # RoBERTa and its kin
    return Packing(
        first_position=embeddings.padding_idx + 1 if shifted else 0,
        head_place=-1 if hasattr(model, "score") else 0,
        last_layer=rows,
        empty_mask=forward is llama_rows,
    )


def _set_attention_back(model: PreTrainedModel, attention: str) -> None:
    if model.config._attn_implementation == ATTENTION:
        model.set_attn_implementation(attention)


def _last_layer(model: PreTrainedModel) -> Any:
    """The last of the model's layers, or None if not exactly one list of modules can be its layers."""
    n_layers = getattr(model.config, "num_hidden_layers", None)
    lists = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    as_long = [modules for modules in lists if len(modules) == n_layers]
    return as_long[0][-1] if len(as_long) == 1 else None


TOLERANCE = 1e-4
"""Packed scores may differ from padded ones by this share of the largest of them, in fp32."""

TRIAL_TEXTS = (
    ("A film that is hard to forget.", "It was seen by many."),
    ("No.", "Why?"),
    ("The plot has holes, the actors are wooden, and still one stays to the end of it.", "Who would not?"),
)


def with_packing(loaded: LoadedModel, tokenizer: Any, is_head: bool) -> LoadedModel:
    """The model with packed rows, if they give it the scores that padded batches give it.

    The trial takes three pairs of sentences, joined by the model's tokenizer, in fp32 and without dropout.
    A model that fails it takes padded batches as before, and `why_padded` has the reason. An error of the
    device, such as a lack of memory, is no property of the model and is raised.
    """
    if loaded.adapter and loaded.adapter.virtual_tokens:
        return dataclasses.replace(loaded, why_padded="virtual tokens stand before each sequence")
    model = loaded.model
    was_training, precision = model.training, torch.get_float32_matmul_precision()
    first, second = zip(*TRIAL_TEXTS, strict=True)
    limit = max_input_length(model, tokenizer)
    segments = {"return_token_type_ids": True} if has_segments(model) else {}
    tokens = tokenizer(list(first), list(second), truncation="longest_first", max_length=limit, **segments)
    ids = tokens["input_ids"]
    middle_and_last = [[len(row) // 2, len(row) - 1][-1 - i :] for i, row in enumerate(ids)]
    read_at = None if is_head else middle_and_last
    labels = [0] * len(ids)
    references = References(list(labels), None, None)
    trial = Encoded(ids, tokens.get("token_type_ids"), read_at, labels, references, n_truncated=0)
    pad_id, rows = tokenizer.pad_token_id or 0, range(len(ids))
    device = computed_on(next(model.parameters()))
    undo = ExitStack()
    try:
        model.eval()
        torch.set_float32_matmul_precision("highest")
        with torch.no_grad():
            padded = read(loaded, trial.batch(rows, pad_id, device))
        packing = _prepare(model, undo)
        with scoring(loaded):
            packed = read(loaded, trial.batch(rows, pad_id, device, packing))
        if packed.shape != padded.shape or not bool(padded.std() > 0):
            raise NotPackableError(f"{type(model).__name__}: packed and padded scores cannot be compared")
        if not bool((packed - padded).abs().max() <= TOLERANCE * padded.abs().max()):
            raise NotPackableError(f"{type(model).__name__}: packed scores are not the padded ones")
    except Exception as error:  # a model may raise anything for inputs that it was not written for
        undo.close()
        if is_of_the_device(error):
            raise  # it says nothing about the model
        why = (
            str(error)
            if isinstance(error, NotPackableError)
            else f"{type(model).__name__}: {first_line(error)}"
        )
        return dataclasses.replace(loaded, packing=None, why_padded=why)
    finally:
        model.train(was_training)
        torch.set_float32_matmul_precision(precision)
    return dataclasses.replace(loaded, packing=packing)
