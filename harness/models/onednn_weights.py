"""Linear layers of a model that is scored: weights are laid out for oneDNN once, and not at each product."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from momentum_bench.harness.models.exchanged_forward import exchanged, is_exchanged, own_forward


@contextmanager
def prepacked_weights(model: nn.Module) -> Iterator[None]:
    """Inside, products of fp32 matrices on an x86 processor are oneDNN's; torch alone would use MKL.

    The parameters must not change meanwhile, and no gradients are taken: each weight is copied, at its
    first use, into the blocked order that oneDNN multiplies fastest. The precision is still full, but sums
    are taken in another order, so scores differ by rounding. Nothing changes under autocast, with products
    of less than full precision, on other devices, and in layers whose `forward` is exchanged already.
    """
    modules = model.modules() if _usable() else ()
    layers = [m for m in modules if type(m) is nn.Linear and not is_exchanged(m) and _is_plain(m.weight)]
    with exchanged({layer: _Product() for layer in layers}):
        yield


class _Product:
    """The `forward` of one linear layer."""

    def __init__(self) -> None:
        self._packed: torch.Tensor | None = None

    def __call__(self, layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        if not _is_plain(inputs) or torch.is_autocast_enabled("cpu"):
            own: torch.Tensor = own_forward(layer)(inputs)
            return own
        if self._packed is None:
            n_rows = inputs.numel() // inputs.shape[-1]
            self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), n_rows)
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._packed, layer.bias, "none", [], ""
        )
        return outputs


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _usable() -> bool:
    # a rule and not a measurement, because the same run must give the same bits each time
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and torch.get_float32_matmul_precision() == "highest"
    )
