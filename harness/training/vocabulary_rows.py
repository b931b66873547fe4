"""The rows of a vocabulary's tables that a run's training examples reach, trained apart from the others.

A few-shot split reaches some hundred rows of an embedding that has tens of thousands, and a prompt reads
the scores of its label words alone. All other rows have a gradient of exactly 0 at every step. Some
optimizers leave such elements where they are and keep no state for them. They are given the reached rows
alone, which saves the gradient and the update of all others. The norm of the gradient stays the same up to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.models.exchanged_forward import exchanged, own_forward
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.run_parts import RunParts


class UsedElsewhereError(RuntimeError):
    """A table enters the loss in another way than by the `forward` of its own module."""


class _Rows:
    """The rows of one table that are reached, and the `forward` of its module while a run trains.

    Attributes:
        table: V x D, the whole table; scoring reads it.
        rows: R x D, a parameter of its own; training reads it.
    """

    def __init__(self, module: Any, reached: Set[int]):
        self.module = module
        self.table: nn.Parameter = module.weight
        self.reached = torch.tensor(sorted(reached), device=self.table.device)
        self.rows = nn.Parameter(self.table.detach()[self.reached])

    def __call__(self, module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and module.training:
            return self.trained(inputs)
        own: torch.Tensor = own_forward(module)(inputs)
        return own

    def trained(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the module gives for inputs that reach none but these rows."""
        raise NotImplementedError


class _Embedded(_Rows):
    """An embedding: the rows of the tokens that the training examples have."""

    def __init__(self, module: nn.Embedding, reached: Set[int]):
        super().__init__(module, reached)
        n = len(self.reached)
        # A token that no training example has is out of range, which is an error on a CPU. On a GPU such an
        # error would end all work in this process, so there a row of NaN makes the loss show it.
        self.unreached = (
            None
            if self.table.device.type == "cpu"
            else torch.full((1, self.table.shape[1]), torch.nan, device=self.table.device)
        )
        self.place = torch.full((len(self.table),), n, device=self.table.device)
        self.place[self.reached] = torch.arange(n, device=self.table.device)
        # the row that stands for padding has no gradient
        self.padding = next((i for i, t in enumerate(sorted(reached)) if t == module.padding_idx), None)

    def trained(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = self.rows if self.unreached is None else torch.cat([self.rows, self.unreached])
        return functional.embedding(self.place[inputs], rows, padding_idx=self.padding)


class _Scored(_Rows):
    """An output layer: the rows of the label words."""

    def trained(self, inputs: torch.Tensor) -> torch.Tensor:
        bias = None if self.module.bias is None else self.module.bias[self.reached]
        scores = functional.linear(inputs, self.rows, bias)
        # zeros for all other tokens, because nothing reads their scores
        everywhere = scores.new_zeros(*scores.shape[:-1], len(self.table))
        return everywhere.index_copy(-1, self.reached, scores)


class ReachedRows:
    """The tables of a model that are trained in their reached rows alone; there may be none."""

    def __init__(self, tables: Sequence[_Rows]):
        self._tables = tables

    def parameters(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """The model's named parameters, with the reached rows in place of their tables."""
        instead = {id(table.table): table.rows for table in self._tables}
        return [(name, instead.get(id(parameter), parameter)) for name, parameter in model.named_parameters()]

    @torch.no_grad()
    def take(self) -> None:
        """Read the rows from their tables, after something else has set these."""
        for table in self._tables:
            table.rows.copy_(table.table[table.reached])

    @torch.no_grad()
    def write(self) -> None:
        """Write the rows into their tables, before something reads these."""
        for table in self._tables:
            table.table.index_copy_(0, table.reached, table.rows)

    def check(self) -> None:
        """Raises: UsedElsewhereError, if the last backward pass gave a table itself a gradient."""
        for table in self._tables:
            if table.rows.grad is None or table.table.grad is not None:
                raise UsedElsewhereError(f"{type(table.module).__name__} is not the only use of its table")


WHOLE_TABLES = ReachedRows(())
"""All rows of all tables are trained."""


@contextmanager
def reached_rows(spec: RunSpec, parts: RunParts) -> Iterator[ReachedRows]:
    """Inside, the rows that a run reaches are parameters of their own, where that changes no result.

    That is so for an optimizer without state and without weight decay that does not move an element whose
    gradients are 0, and for a table that no other module shares and that one process holds whole.
    """
    entry, train = parts.entry, parts.split.train
    tables: list[_Rows] = []
    if (
        entry is not None
        and entry.still_at_zero
        and not entry.state_tensors(spec.hyperparameters)
        and not spec.weight_decay
        and isinstance(train, Encoded)
        and parts.accelerator.num_processes == 1
        and not parts.loaded.sharded
    ):
        model: Any = parts.loaded.model
        embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
        if _is_apart(embedding, nn.Embedding, model) and not embedding.max_norm:
            # the padding of a batch, if there is any, is looked up too
            tables.append(_Embedded(embedding, {parts.pad_id}.union(*train.input_ids)))
        if train.words is not None and _is_apart(output, nn.Linear, model):
            tables.append(_Scored(output, set(train.words)))
    with exchanged({table.module: table for table in tables}):
        yield ReachedRows(tables)


def _is_apart(module: Any, kind: type[nn.Module], model: nn.Module) -> bool:
    """Whether the module is trained, computes as all modules of its type, and shares its table with none."""
    if type(module) is not kind or not module.weight.requires_grad:
        return False
    names = model.named_parameters(remove_duplicate=False)
    return sum(parameter is module.weight for _, parameter in names) == 1
