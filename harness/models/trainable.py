"""Which parameters a run trains: all of them, all but a frozen part, or those of an adapter."""

from __future__ import annotations

import re

import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.loaded import LoadedModel


def choose_trainable(loaded: LoadedModel, method: str, peft: str | None, freeze: str | None) -> None:
    """Set `requires_grad` of every parameter of a model.

    Parameters that were not pre-trained are always trained, because frozen they would stay random. With an
    adapter, only the adapter is trained, and under `head` the classifier. Frozen embeddings are the
    tables of tokens, positions and segments; a frozen encoder is everything below the head.

    Args:
        method, peft, freeze: as in a `RunSpec`.

    Raises:
        UserError: nothing is left to train.
    """
    model = loaded.model
    encoder = set(model.base_model.parameters())
    tables = {
        p for m in model.base_model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()
    }
    always = set(loaded.new_parameters) | set(loaded.adapter.parameters if loaded.adapter else ())
    for name, parameter in model.named_parameters():
        frozen = (
            (peft is not None and (parameter in encoder or method != "head"))
            or (freeze == "encoder" and parameter in encoder)
            or (freeze == "embeddings" and parameter in tables)
        )
        parameter.requires_grad_(name in always or not frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            f"--freeze {freeze} leaves nothing of {type(model).__name__} to train under --method "
            f"{method}: its head has no parameters of its own. Use --freeze embeddings, or --peft lora"
        )


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a run changes: trained parameters, and the running statistics of batch norms."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    statistics = {
        f"{module}.{name}" if module else name: value
        for module, norm in model.named_modules()
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm)
        for name, value in norm.named_buffers(recurse=False)
        if value.is_floating_point()
    }
    return parameters | statistics


def trained_parameters(model: torch.nn.Module) -> tuple[str, ...] | None:
    """Names of the trained parameters, with `*` for the numbers of layers; None if all are trained."""
    named = list(model.named_parameters())
    if all(parameter.requires_grad for _, parameter in named):
        return None
    return tuple(sorted({numbers_hidden(name) for name, p in named if p.requires_grad}))


def numbers_hidden(name: str) -> str:
    """A parameter's name with `*` for the numbers of layers."""
    return re.sub(r"\.\d+(?=\.)", ".*", name)
