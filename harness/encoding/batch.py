"""Tokenised examples and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.packed_rows import Packing, packed_inputs
from momentum_bench.harness.encoding.transfer import sent


@dataclass(frozen=True)
class Encoded:
    """Token ids of the sequences of n examples, each at its own length (nothing is padded here).

    An example is one sequence, or several consecutive ones: its candidates, each scored alone.

    Attributes:
        input_ids, token_type_ids: a list for each sequence; the second is None if all are 0.
        read_at: for each sequence, the positions whose vocabulary scores are read (the mask, or those
            before the tokens of a candidate); None if a head reads the sequence.
        labels: n classes in logit order, numbers of a regression, or positions of right candidates.
        references: what predictions of the n examples are scored against.
        n_truncated: examples with a text that was cut.
        targets: for each sequence, the token after each of its `read_at`; None if the scores of other
            tokens (`words`) are read.
        candidates: how many consecutive sequences belong to each example; None: one each.
        words: the token of each class, in logit order, if their scores at the one place of `read_at` are
            the scores of the classes; else None.
    """

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None
    read_at: list[list[int]] | None
    labels: list[int] | list[float]
    references: References
    n_truncated: int
    targets: list[list[int]] | None = None
    candidates: list[int] | None = None
    words: list[int] | None = None

    def batch(
        self, rows: Sequence[int], pad_id: int, device: torch.device, packing: Packing | None = None
    ) -> Batch:
        """The examples at `rows` on `device`: packed into one row, or padded to the longest sequence.

        Args:
            pad_id: the token that pads; it does not change the scores.
            packing: how the model takes packed rows; None: pad.
        """
        counts = None if self.candidates is None else [self.candidates[row] for row in rows]
        sequences = list(rows) if counts is None else [i for row in rows for i in self.sequences[row]]

        def padded(ids: list[list[int]], value: int) -> torch.Tensor:
            tensors = [torch.tensor(ids[i]) for i in sequences]
            stacked = torch.nn.utils.rnn.pad_sequence(tensors, True, value)
            return sent(stacked, device)

        types, places = self.token_type_ids, self.read_at
        if packing is not None:
            inputs = packed_inputs(
                [self.input_ids[i] for i in sequences],
                None if types is None else [types[i] for i in sequences],
                None if places is None else [places[i] for i in sequences],
                packing,
                device,
            )
        else:
            lengths = torch.tensor([len(self.input_ids[i]) for i in sequences])
            mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
            inputs = {"input_ids": padded(self.input_ids, pad_id), "attention_mask": sent(mask, device)}
            if types is not None:
                inputs["token_type_ids"] = padded(types, 0)
        read_at = None
        if places is not None:
            pairs = [(at, position) for at, i in enumerate(sequences) for position in places[i]]
            at, position = sent(torch.tensor(pairs), device).unbind(dim=1)
            read_at = (at, position)
        targets = None
        if self.targets is not None:
            targets = sent(torch.tensor([token for i in sequences for token in self.targets[i]]), device)
        return Batch(
            inputs=inputs,
            read_at=read_at,
            targets=targets,
            candidates=counts,
            words=None if self.words is None else sent(torch.tensor(self.words), device),
            labels=sent(torch.tensor([self.labels[row] for row in rows]), device),
        )

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each example's longest sequence."""
        if self.candidates is None:
            return [len(ids) for ids in self.input_ids]
        return [max(len(self.input_ids[i]) for i in sequences) for sequences in self.sequences]

    @cached_property
    def sequences(self) -> list[range]:
        """For each example, the positions of its sequences."""
        counts = self.candidates if self.candidates is not None else [1] * len(self.input_ids)
        return [range(end - n, end) for end, n in zip(accumulate(counts), counts, strict=True)]


@dataclass(frozen=True)
class Batch:
    """The inputs of a model for B examples of S sequences, and what is read from it, on one device.

    Attributes:
        inputs: the model's inputs by name: S x T, padded, or 1 x N with the `segments` of the row.
        read_at: the R places that are read, as their sequences (R) and the positions there (R), in
            the order of the sequences; None for a head.
        targets: the token whose score is read at each place (R), if there are candidates; else None.
        candidates: how many consecutive sequences each example has; None: one each.
        words: the C tokens whose scores at the one place of an example are those of its classes, or None.
        labels: the label of each example (B).
    """

    inputs: dict[str, Any]
    read_at: tuple[torch.Tensor, torch.Tensor] | None
    targets: torch.Tensor | None
    candidates: list[int] | None
    words: torch.Tensor | None
    labels: torch.Tensor
