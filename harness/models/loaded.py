"""A model as a run uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from momentum_bench.harness.encoding.packed_rows import Packing


@dataclass(frozen=True)
class Adapter:
    """The adapter that `harness.models.adapters` added to a model.

    Attributes:
        parameters: names of its parameters.
        virtual_tokens: how many of the model's positions it takes up.
        settings: its configuration in the `peft` library, and that library's version.
    """

    parameters: tuple[str, ...]
    virtual_tokens: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: live, on the run's device.
        pristine: its state as it was loaded, on the CPU; every run starts from it.
        new_parameters: names of parameters that are not pre-trained but drawn from a run's seed.
        vocabulary_head: under `prompt` and `causal`, the module that turns hidden states into scores
            of the vocabulary, where it can be asked for some positions alone; else None.
        adapter: the adapter that was added; None: there is none.
        packing: how it takes packed rows; None: batches are padded, and `why_padded` says why.
        shared: under `--data-parallel`, the wrapped module that averages gradients over the ranks.
        sharded: whether each rank has only a part of every parameter (FSDP). Then all computation goes
            through `shared`, on all ranks together, and `pristine` holds this rank's parts.
    """

    model: PreTrainedModel
    pristine: dict[str, torch.Tensor]
    new_parameters: tuple[str, ...]
    vocabulary_head: torch.nn.Module | None
    adapter: Adapter | None = None
    packing: Packing | None = None
    why_padded: str = "not tried"
    shared: torch.nn.Module | None = None
    sharded: bool = False
