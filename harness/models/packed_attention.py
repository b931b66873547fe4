"""Attention over rows that hold several sequences, where each sequence sees only itself."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from momentum_bench.harness.encoding.packed_rows import Segments
from momentum_bench.harness.models.exchanged_forward import own_forward

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
"""Arguments that models pass to attention functions, and that change nothing in ours."""


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
        padded: tuple[torch.Tensor, None] = sdpa_attention_forward(
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
        return padded
    used = sorted(n for n, v in names.items() if n not in WITHOUT_EFFECT and v is not None and v is not False)
    if used:
        raise NotPackableError(f"{type(module).__name__} uses {', '.join(used)}")
    if attention_mask is not None and attention_mask.numel():
        raise NotPackableError(f"{type(module).__name__} makes a mask of its own")
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    return attend(query, key, value, Attention(segments, False, causal, dropout, scaling)), None


@dataclass(frozen=True)
class Attention:
    """How the sequences of a row attend, each to itself alone.

    Attributes:
        segments: where the sequences lie in the row.
        rows_read: the queries are those of the R rows that are read, and not of all N.
        causal: whether a token sees only itself and those before it.
        dropout: the probability that a weight is dropped.
        scaling: the factor of the products of queries and keys; None: 1 / sqrt(D).
    """

    segments: Segments
    rows_read: bool
    causal: bool
    dropout: float
    scaling: float | None


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: Attention) -> torch.Tensor:
    """Attention of each sequence to itself alone.

    Args:
        query: 1 x heads x N x D, or 1 x heads x R x D where only the rows read are asked for.
        key, value: 1 x heads (or a divisor of their number) x N x D.

    Returns:
        1 x N x heads x D, or 1 x R x heads x D.
    """
    # on a CPU a loop over sequences is as fast as anything; on a GPU it would wait for its many launches
    one_by_one = query.device.type == "cpu" and how.segments.longest is None
    attention = _one_by_one if one_by_one else _side_by_side
    return attention(query, key, value, how).transpose(1, 2)


def _one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: Attention) -> torch.Tensor:
    """A loop over the sequences."""
    lengths, places = how.segments.lengths, how.segments.places
    n_queries = tuple(map(len, places)) if how.rows_read else lengths
    sequences = zip(
        query.split(n_queries, 2), key.split(lengths, 2), value.split(lengths, 2), places, strict=True
    )
    return torch.cat(
        [
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=_seen_from(read, k.shape[2]) if how.causal and how.rows_read else None,
                is_causal=how.causal and not how.rows_read,
                dropout_p=how.dropout,
                scale=how.scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            for q, k, v, read in sequences
        ],
        dim=2,
    )


def _seen_from(places: tuple[int, ...], length: int) -> torch.Tensor | None:
    """The places x length mask of what a causal model sees from there; None: all of it."""
    if places == (length - 1,):
        return None
    return torch.arange(length) <= torch.tensor(places)[:, None]


def _side_by_side(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: Attention
) -> torch.Tensor:
    """All sequences at once, with padding inside of attention alone, where it costs little."""
    to = how.segments.padded(how.rows_read, how.causal)
    n = len(how.segments.lengths)

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
        dropout_p=how.dropout,
        scale=how.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1)[to.read_slots].transpose(0, 1)[None]


# -- last layers --------------------------------------------------------------------------------
# Each takes 1 x N x D and gives R x 1 x D: only keys and values need the rows that are not read. What it
# gives is a copy of those few rows, because FSDP warns of views.

LLAMA_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def all_then_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer of any structure: it computes all rows, and those that are read are kept."""
    if segments is None:
        return own_forward(layer)(hidden, *arguments, **names)
    out = own_forward(layer)(hidden, *arguments, segments=segments, **names)
    if not isinstance(out, torch.Tensor):
        raise NotPackableError(f"{type(layer).__name__} gives more than hidden states")
    return out[0, segments.rows].unsqueeze(1).clone()


def bert_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer that normalises after attention and after its feed-forward part, like BERT's and RoBERTa's."""
    if segments is None:
        return own_forward(layer)(hidden, *arguments, **names)
    own = layer.attention.self
    read = hidden[:, segments.rows]

    def heads(x: torch.Tensor) -> torch.Tensor:
        apart: torch.Tensor = x.unflatten(2, (own.num_attention_heads, own.attention_head_size))
        return apart.transpose(1, 2)

    dropout = own.dropout.p if own.training else 0.0
    query, key, value = heads(own.query(read)), heads(own.key(hidden)), heads(own.value(hidden))
    how = Attention(segments, True, own.is_causal, dropout, own.scaling)
    attended = attend(query, key, value, how).flatten(2)
    middle = layer.attention.output(attended, read)
    return layer.output(layer.intermediate(middle), middle).transpose(0, 1).clone()


def llama_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer that normalises before both of its parts, with rotary positions, like Llama's."""
    if segments is None:
        return own_forward(layer)(hidden, *arguments, **names)
    own, rows = layer.self_attn, segments.rows
    normed = layer.input_layernorm(hidden)

    def heads(x: torch.Tensor) -> torch.Tensor:
        apart: torch.Tensor = x.unflatten(2, (-1, own.head_dim))
        return apart.transpose(1, 2)

    query, key = heads(own.q_proj(normed[:, rows])), heads(own.k_proj(normed))
    rotate = sys.modules[type(own).__module__].apply_rotary_pos_emb
    cos, sin = names["position_embeddings"]
    query = rotate(query, query, cos[:, rows], sin[:, rows])[0]
    key = rotate(key, key, cos, sin)[1]
    dropout = own.attention_dropout if own.training else 0.0
    value = heads(own.v_proj(normed))
    how = Attention(segments, True, own.is_causal, dropout, own.scaling)
    attended = attend(query, key, value, how).flatten(2)
    middle = hidden[:, rows] + own.o_proj(attended)
    return (middle + layer.mlp(layer.post_attention_layernorm(middle))).transpose(0, 1).clone()
