"""Attention over rows that hold several sequences, each of which sees only itself."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from momentum_bench.harness.encoding.packed_rows import Segments

ATTENTION = "packed"
"""The name of our attention function in transformers, and in records."""

WITHOUT_EFFECT = {
    "cache_position",
    "output_attentions",
    "position_embeddings",
    "position_ids",
    "token_type_ids",
    "use_cache",
}
"""What models pass on to attention functions that changes nothing in ours."""


class NotPackableError(ValueError):
    """A model that cannot take a batch as one row; the message says why."""


# -- attention ----------------------------------------------------------------------------------


def mask_of_rows(
    *arguments: Any, attention_mask: torch.Tensor | None = None, **names: Any
) -> torch.Tensor | None:
    """No mask for a packed row, which comes without an attention mask; SDPA's own for a padded batch."""
    return None if attention_mask is None else sdpa_mask(*arguments, attention_mask=attention_mask, **names)


def attention_by_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    segments: Segments | None = None,
    **names: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface: 1 x heads x N x D in, 1 x N x heads x D out."""
    if segments is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **names,
        )
    used = sorted(n for n, v in names.items() if n not in WITHOUT_EFFECT and v is not None and v is not False)
    if used:
        raise NotPackableError(f"{type(module).__name__} uses {', '.join(used)}")
    if attention_mask is not None:
        raise NotPackableError(f"{type(module).__name__} makes a mask of its own")
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    return attend(query, key, value, segments, False, causal, dropout, scaling), None


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    rows_read: bool,
    causal: bool,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attention of each sequence to itself alone: 1 x heads x N x D in, 1 x N x heads x D out.

    Args:
        rows_read: the queries are those of the R rows that are read, and not of all N.
    """
    # on a CPU a loop over sequences is as fast as anything; on a GPU it would be bound by its launches
    one_by_one = query.device.type == "cpu" and segments.longest is None
    own = _one_by_one if one_by_one else _side_by_side
    return own(query, key, value, segments, rows_read, causal, dropout, scaling).transpose(1, 2)


def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    rows_read: bool,
    causal: bool,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    lengths = segments.lengths
    n_queries = tuple(map(len, segments.places)) if rows_read else lengths
    parts = zip(
        query.split(n_queries, 2),
        key.split(lengths, 2),
        value.split(lengths, 2),
        segments.places,
        strict=True,
    )
    return torch.cat(
        [
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=_seen_from(places, k.shape[2]) if causal and rows_read else None,
                is_causal=causal and not rows_read,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            for q, k, v, places in parts
        ],
        dim=2,
    )


def _seen_from(places: tuple[int, ...], length: int) -> torch.Tensor | None:
    """The places x length mask of what a causal model sees from there; None: all of it."""
    if places == (length - 1,):
        return None
    return torch.arange(length) <= torch.tensor(places)[:, None]


def _side_by_side(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    rows_read: bool,
    causal: bool,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """The same with padding inside of attention only, where it costs little."""
    to = segments.padded(rows_read, causal)
    n = len(segments.lengths)

    def spread(x: torch.Tensor, slots: torch.Tensor, longest: int) -> torch.Tensor:
        _, heads, _, width = x.shape
        empty = x.new_zeros(n * longest + 1, heads, width)
        filled = empty.index_copy(0, slots, x[0].transpose(0, 1))[:-1]
        return filled.view(n, longest, heads, width).transpose(1, 2)

    out = scaled_dot_product_attention(
        spread(query, to.query_slots, to.n_queries),
        spread(key, to.key_slots, to.n_keys),
        spread(value, to.key_slots, to.n_keys),
        attn_mask=to.mask,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1)[to.read_slots].transpose(0, 1)[None]


# -- last layers --------------------------------------------------------------------------------
# Each takes 1 x N x D and gives R x 1 x D: only keys and values need the rows that are not read. What it
# gives is a copy of those few rows, for FSDP warns of views.

LLAMA_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def all_then_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer of any structure: all rows are computed, those read are kept."""
    if segments is None:
        return type(layer).forward(layer, hidden, *arguments, **names)
    out = type(layer).forward(layer, hidden, *arguments, segments=segments, **names)
    if not isinstance(out, torch.Tensor):
        raise NotPackableError(f"{type(layer).__name__} gives more than hidden states")
    return out[0, segments.rows].unsqueeze(1).clone()


def bert_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer with its norms behind, as BERT and RoBERTa have it."""
    if segments is None:
        return type(layer).forward(layer, hidden, *arguments, **names)
    own = layer.attention.self
    read = hidden[:, segments.rows]

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (own.num_attention_heads, own.attention_head_size)).transpose(1, 2)

    dropout = own.dropout.p if own.training else 0.0
    query, key, value = heads(own.query(read)), heads(own.key(hidden)), heads(own.value(hidden))
    attended = attend(query, key, value, segments, True, own.is_causal, dropout, own.scaling).flatten(2)
    middle = layer.attention.output(attended, read)
    return layer.output(layer.intermediate(middle), middle).transpose(0, 1).clone()


def llama_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer with its norms in front and rotary positions, as Llama has it."""
    if segments is None:
        return type(layer).forward(layer, hidden, *arguments, **names)
    own, rows = layer.self_attn, segments.rows
    normed = layer.input_layernorm(hidden)

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (-1, own.head_dim)).transpose(1, 2)

    query, key = heads(own.q_proj(normed[:, rows])), heads(own.k_proj(normed))
    rotate = sys.modules[type(own).__module__].apply_rotary_pos_emb
    cos, sin = names["position_embeddings"]
    query = rotate(query, query, cos[:, rows], sin[:, rows])[0]
    key = rotate(key, key, cos, sin)[1]
    dropout = own.attention_dropout if own.training else 0.0
    value = heads(own.v_proj(normed))
    attended = attend(query, key, value, segments, True, own.is_causal, dropout, own.scaling).flatten(2)
    middle = hidden[:, rows] + own.o_proj(attended)
    return (middle + layer.mlp(layer.post_attention_layernorm(middle))).transpose(0, 1).clone()
