"""Linear layers of a model that is scored: weights are laid out for oneDNN once, not at each product."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def prepacked_weights(model: nn.Module) -> Iterator[None]:
    """Inside, products of fp32 matrices on an x86 processor are oneDNN's, which torch else has MKL do.

    The parameters must not change meanwhile, and no gradients are taken: each weight is copied, at its
    first use, into the blocked order that oneDNN multiplies fastest. In full precision still; sums are
    taken in another order, so scores differ by rounding. Under autocast, with products of less than full
    precision, and on other devices all is as it was.
    """
    modules = model.modules() if _usable() else ()
    layers: list[Any] = [
        m for m in modules if type(m) is nn.Linear and "forward" not in vars(m) and _is_plain(m.weight)
    ]
    for layer in layers:
        layer.forward = _Product(layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward")


class _Product:
    """The `forward` of one linear layer."""

    def __init__(self, layer: nn.Linear):
        self._layer = layer
        self._packed: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = self._layer.weight, self._layer.bias
        if not _is_plain(inputs) or torch.is_autocast_enabled("cpu"):
            return nn.functional.linear(inputs, weight, bias)
        if self._packed is None:
            n_rows = inputs.numel() // inputs.shape[-1]
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), n_rows)
        return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, bias, "none", [], "")


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _usable() -> bool:
    # a rule and no measurement: the same run must give the same bits each time
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and torch.get_float32_matmul_precision() == "highest"
    )
