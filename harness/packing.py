"""Batches without padding: the tokens of all sequences in one row, each attending to its own alone.

transformers lets a function of ours take the place of its attention (`AttentionInterface`) and of its
masks (`AttentionMaskInterface`); all else of a model works token by token and needs no change but the
positions, which are given. Of the last layer only the rows are computed that are read.

A model is changed in two places: its attention function, and the `forward` of its last layer. Both do
what they did before unless a batch brings `segments`, so padded batches still work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.errors import first_line

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


@dataclass(frozen=True)
class Packing:
    """How a model takes packed rows.

    Attributes:
        first_position: the position id of a sequence's first token.
        head_place: where a head reads a sequence: 0, its first token, or -1, its last.
        last_layer: "rows read", or "all rows" where its structure is not one of those known here.
        steps: tokens of a row, and those of its longest sequence, are rounded up to multiples of these
            two, so that batches have few shapes; None: they are as long as they are.
    """

    first_position: int
    head_place: int
    last_layer: str
    steps: tuple[int, int] | None = None


@dataclass(frozen=True)
class Segments:
    """Where the S sequences of a row begin and end, and which of their rows are read.

    Attributes:
        lengths: tokens of each sequence.
        places: of each sequence, the positions that are read; R in all.
        longest: the length that attention over padded sequences has; None: that of the longest.
        filler: tokens at the row's end that belong to no sequence, and of which nothing is read.
    """

    lengths: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    device: torch.device
    longest: int | None = None
    filler: int = 0
    _padded: dict[tuple[bool, bool], PaddedAttention] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def rows(self) -> torch.Tensor:
        """R places in the packed row."""
        starts = accumulate(self.lengths[:-1], initial=0)
        rows = [start + place for start, places in zip(starts, self.places, strict=True) for place in places]
        return torch.tensor(rows).to(self.device, non_blocking=True)

    def padded(self, rows_read: bool, causal: bool) -> PaddedAttention:
        """The same for attention over S padded sequences, with the queries of all rows or those read."""
        if (rows_read, causal) not in self._padded:
            self._padded[rows_read, causal] = _padded_attention(self, rows_read, causal)
        return self._padded[rows_read, causal]

    def tensors(self, like: Segments) -> list[torch.Tensor]:
        """All on the device that follows from lengths and places, as far as `like` has been asked for it."""
        asked = [self.padded(*key) for key in like._padded]
        return [self.rows, *(t for p in asked for t in (p.query_slots, p.key_slots, p.read_slots, p.mask))]


@dataclass(frozen=True)
class PaddedAttention:
    """Where queries and keys go among S padded sequences, and the S x 1 x queries x keys mask between them.

    Attributes:
        query_slots, key_slots: of each row, its place in S x n_queries or S x n_keys, or the one behind
            the last, where nobody looks, for filler.
        read_slots: where each query's result lies; of filler, any.
    """

    query_slots: torch.Tensor
    n_queries: int
    key_slots: torch.Tensor
    n_keys: int
    read_slots: torch.Tensor
    mask: torch.Tensor


def packed_inputs(
    input_ids: Sequence[list[int]],
    token_type_ids: Sequence[list[int]] | None,
    read_at: Sequence[Sequence[int]] | None,
    packing: Packing,
    device: torch.device,
) -> dict[str, Any]:
    """The model's inputs for S sequences as one row.

    Args:
        read_at: the positions that are read of each sequence; None: those that a head reads.
    """

    lengths = tuple(map(len, input_ids))
    longest, filler = None, 0
    if packing.steps is not None:
        longest, filler = max(lengths) + -max(lengths) % packing.steps[1], -sum(lengths) % packing.steps[0]

    def row(of: Sequence[Sequence[int]]) -> torch.Tensor:
        values = [value for values in of for value in values] + filler * [of[0][0]]
        return torch.tensor([values]).to(device, non_blocking=True)

    if read_at is None:
        read_at = [[packing.head_place % length] for length in lengths]
    first = packing.first_position
    inputs: dict[str, Any] = {
        "input_ids": row(input_ids),
        "position_ids": row([range(first, first + length) for length in lengths]),
        "segments": Segments(lengths, tuple(map(tuple, read_at)), device, longest, filler),
    }
    if token_type_ids is not None:
        inputs["token_type_ids"] = row(token_type_ids)
    return inputs


def packed_scores(model: PreTrainedModel, inputs: dict[str, Any], is_head: bool) -> torch.Tensor:
    """R x V scores of the vocabulary, or S x L outputs of a head, at the rows that `inputs` has read.

    Behind its last layer the model sees R sequences of one token each, so its own head does the rest.
    """
    if is_head and (score := getattr(model, "score", None)) is not None:
        # decoders look for the last token by the input ids; here it is the only one
        return score(model.base_model(**inputs).last_hidden_state)[:, 0]
    scores = model(**inputs).logits
    return scores if is_head else scores[:, 0]


def prepare(model: PreTrainedModel) -> Packing:
    """Give a model our attention and a last layer that leaves out the rows that are not read.

    Whether it then computes the same is for the caller to try.

    Raises:
        NotPackableError: the model has no such attention, or no list of layers.
    """
    base, last = model.base_model, _last_layer(model)
    if last is None:
        raise NotPackableError(f"{type(model).__name__} has no one list of its layers")
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, _mask)
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
    forward, rows = _all_then_rows, "all rows"
    if names == {"attention", "intermediate", "output"} and hasattr(last.attention, "self"):
        forward, rows = _bert_rows, "rows read"
    elif names == LLAMA_LAYER and attention == {"q_proj", "k_proj", "v_proj", "o_proj"}:
        forward, rows = _llama_rows, "rows read"
    model.config.use_cache = False  # of keys and values, which nothing here reads twice
    last.forward = MethodType(forward, last)  # a method, so that a deep copy is bound to the copy
    embeddings: Any = getattr(base, "embeddings", None)
    shifted = hasattr(embeddings, "create_position_ids_from_input_ids")  # RoBERTa and its kin
    return Packing(
        first_position=embeddings.padding_idx + 1 if shifted else 0,
        head_place=-1 if hasattr(model, "score") else 0,
        last_layer=rows,
    )


def restore(model: PreTrainedModel, attention: str) -> None:
    """Undo `prepare`: the model's own last layer, and the attention function of that name."""
    if last := _last_layer(model):
        last.__dict__.pop("forward", None)
    if model.config._attn_implementation == ATTENTION:
        model.set_attn_implementation(attention)


def _last_layer(model: PreTrainedModel) -> Any:
    """The last of the model's layers, or None where no list of modules is plainly that of its layers."""
    n_layers = getattr(model.config, "num_hidden_layers", None)
    stacks = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    of_layers = [stack for stack in stacks if len(stack) == n_layers]
    return of_layers[0][-1] if len(of_layers) == 1 else None


# -- attention ----------------------------------------------------------------------------------


def _mask(*arguments: Any, attention_mask: torch.Tensor | None = None, **names: Any) -> torch.Tensor | None:
    """No mask for a packed row, which comes without an attention mask; SDPA's own for a padded batch."""
    return None if attention_mask is None else sdpa_mask(*arguments, attention_mask=attention_mask, **names)


def _attention(
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


def _padded_attention(segments: Segments, rows_read: bool, causal: bool) -> PaddedAttention:
    lengths = segments.lengths
    n_keys = segments.longest or max(lengths)
    places = segments.places if rows_read else [range(length) for length in lengths]
    n_queries = max(map(len, places)) if rows_read else n_keys
    filler = 0 if rows_read else segments.filler
    from_where = torch.full((len(lengths), n_queries), n_keys - 1)
    for sequence, of in enumerate(places):
        from_where[sequence, : len(of)] = torch.tensor(list(of))
    seen = (torch.arange(n_keys) < torch.tensor(lengths)[:, None])[:, None, None]
    if causal:
        seen = seen & (torch.arange(n_keys) <= from_where[:, None, :, None])

    def slots(counts: Sequence[int], longest: int, behind: Sequence[int]) -> torch.Tensor:
        of = [sequence * longest + i for sequence, count in enumerate(counts) for i in range(count)]
        return torch.tensor([*of, *behind]).to(segments.device, non_blocking=True)

    counts = [len(of) for of in places]
    return PaddedAttention(
        query_slots=slots(counts, n_queries, filler * [len(lengths) * n_queries]),
        n_queries=n_queries,
        key_slots=slots(lengths, n_keys, segments.filler * [len(lengths) * n_keys]),
        n_keys=n_keys,
        read_slots=slots(counts, n_queries, filler * [0]),
        mask=seen.to(segments.device, non_blocking=True),
    )


# -- last layers --------------------------------------------------------------------------------
# Each takes 1 x N x D and gives R x 1 x D: only keys and values need the rows that are not read. What it
# gives is a copy of those few rows, for FSDP warns of views.

LLAMA_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def _all_then_rows(
    layer: Any, hidden: torch.Tensor, *arguments: Any, segments: Segments | None = None, **names: Any
) -> Any:
    """A layer of any structure: all rows are computed, those read are kept."""
    if segments is None:
        return type(layer).forward(layer, hidden, *arguments, **names)
    out = type(layer).forward(layer, hidden, *arguments, segments=segments, **names)
    if not isinstance(out, torch.Tensor):
        raise NotPackableError(f"{type(layer).__name__} gives more than hidden states")
    return out[0, segments.rows].unsqueeze(1).clone()


def _bert_rows(
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


def _llama_rows(
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
