"""Activations that are computed again in the backward pass: a step keeps those of one layer at a time.

Chen, Xu, Zhang and Guestrin 2016 (arXiv 1604.06174). transformers does it, with torch's `checkpoint`, which
gives the second pass the random numbers of the first, so that dropout masks, losses and gradients are the
same.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from momentum_bench.harness.errors import UserError


def checkpoint_activations(model: nn.Module) -> None:
    """Let each layer of a model compute its activations again in the backward pass.

    Args:
        model: of transformers, or one with an adapter around it.

    Raises:
        UserError: the model cannot do it.
    """
    inner = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    name = type(inner).__name__
    if not inner.supports_gradient_checkpointing:
        raise UserError(f"--checkpoint-activations: {name} has no layers that can do this. Leave it out")
    # the second is its name in earlier versions of transformers
    enable = getattr(inner, "activation_checkpointing_enable", None) or inner.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    inner.config.use_cache = False  # keys and values of a first pass would be in the way of the second
    if not n_checkpointed(model):
        raise UserError(f"--checkpoint-activations: no layer of {name} has taken it. Leave it out")


def n_checkpointed(model: nn.Module) -> int:
    """The number of layers whose activations are computed again."""
    layers = (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    return sum(layer.gradient_checkpointing for layer in layers)
