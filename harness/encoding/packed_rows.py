"""Sequences side by side in rows, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from momentum_bench.harness.encoding.transfer import sent


@dataclass(frozen=True)
class Packing:
    """How a model takes packed rows.

    Attributes:
        first_position: the position id of a sequence's first token.
        head_place: which token of a sequence a head reads: 0, the first, or -1, the last.
        last_layer: what the last layer computes: "rows read", or "all rows" if its structure is unknown.
        empty_mask: batches bring an attention mask without a number in it. transformers then makes none, and
            does not look for packed rows among the position ids, for which the host would wait.
        steps: the tokens of a row, and those of its longest sequence, are rounded up to multiples of these
            two, so that batches have few shapes; None: nothing is rounded.
    """

    first_position: int
    head_place: int
    last_layer: str
    empty_mask: bool = False
    steps: tuple[int, int] | None = None


@dataclass(frozen=True)
class Segments:
    """Where the S sequences of a row begin and end, and which of their positions are read.

    Attributes:
        lengths: tokens of each sequence.
        places: for each sequence, the positions that are read; R in all.
        longest: the length of padded sequences in attention; None: that of the longest sequence.
        filler: tokens at the row's end that belong to no sequence and are not read.
    """

    lengths: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    device: torch.device
    longest: int | None = None
    filler: int = 0
    _padded: dict[tuple[bool, bool], PaddedAttention] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def rows(self) -> torch.Tensor:
        """The R places in the packed row that are read."""
        starts = accumulate(self.lengths[:-1], initial=0)
        rows = [start + place for start, places in zip(starts, self.places, strict=True) for place in places]
        return sent(torch.tensor(rows), self.device)

    def padded(self, rows_read: bool, causal: bool) -> PaddedAttention:
        """The layout of attention over S padded sequences, with the queries of all rows or of those read."""
        if (rows_read, causal) not in self._padded:
            self._padded[rows_read, causal] = _padded_attention(self, rows_read, causal)
        return self._padded[rows_read, causal]

    def tensors(self, like: Segments) -> list[torch.Tensor]:
        """The tensors on the device that lengths and places determine: those that `like` has made so far."""
        made = [self.padded(*key) for key in like._padded]
        return [self.rows, *(t for p in made for t in (p.query_slots, p.key_slots, p.read_slots, p.mask))]


@dataclass(frozen=True)
class PaddedAttention:
    """Where queries and keys go among S padded sequences, and the S x 1 x queries x keys mask between them.

    Attributes:
        query_slots, key_slots: for each row, its place in S x n_queries or S x n_keys; filler goes to the
            place after the last, which is thrown away.
        read_slots: where each query's result lies; for filler, any place.
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
        read_at: for each sequence, the positions that are read; None: those that a head reads.

    Returns:
        `input_ids`, `position_ids` and, if given, `token_type_ids` (1 x N each), and the row's `segments`;
        with `Packing.empty_mask`, an `attention_mask` of 1 x 1 x 0 x 0.
    """
    lengths = tuple(map(len, input_ids))
    longest, filler = None, 0
    if packing.steps is not None:
        longest, filler = max(lengths) + -max(lengths) % packing.steps[1], -sum(lengths) % packing.steps[0]

    def row(parts: Sequence[Sequence[int]]) -> torch.Tensor:
        values = [value for part in parts for value in part] + filler * [parts[0][0]]
        return sent(torch.tensor([values]), device)

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
    if packing.empty_mask:
        inputs["attention_mask"] = torch.empty(1, 1, 0, 0, device=device)
    return inputs


def _padded_attention(segments: Segments, rows_read: bool, causal: bool) -> PaddedAttention:
    lengths = segments.lengths
    n_keys = segments.longest or max(lengths)
    places = segments.places if rows_read else [range(length) for length in lengths]
    n_queries = max(map(len, places)) if rows_read else n_keys
    filler = 0 if rows_read else segments.filler
    from_where = torch.full((len(lengths), n_queries), n_keys - 1)
    for sequence, positions in enumerate(places):
        from_where[sequence, : len(positions)] = torch.tensor(list(positions))
    seen = (torch.arange(n_keys) < torch.tensor(lengths)[:, None])[:, None, None]
    if causal:
        seen = seen & (torch.arange(n_keys) <= from_where[:, None, :, None])

    def slots(counts: Sequence[int], longest: int, behind: Sequence[int]) -> torch.Tensor:
        taken = [sequence * longest + i for sequence, count in enumerate(counts) for i in range(count)]
        return sent(torch.tensor([*taken, *behind]), segments.device)

    counts = [len(positions) for positions in places]
    return PaddedAttention(
        query_slots=slots(counts, n_queries, filler * [len(lengths) * n_queries]),
        n_queries=n_queries,
        key_slots=slots(lengths, n_keys, segments.filler * [len(lengths) * n_keys]),
        n_keys=n_keys,
        read_slots=slots(counts, n_queries, filler * [0]),
        mask=sent(seen, segments.device),
    )
