"""How torch computes in this process: threads, algorithms, precision of products and convolutions."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.records.schema import RunSpec


def fix_workspace() -> None:
    """Give cuBLAS the workspace with which it can give the same bits every time.

    cuBLAS reads the variable once, when it first works in a process. So every kind of process sets it before
    its first product, whether its runs are to be deterministic or not. Else a run would have other bits in
    a worker than in the process that started it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def use(name: str, device: str) -> None:
    """Set the precision of torch's products of fp32 matrices, and of convolutions, to that of `name`.

    Args:
        name: a key of `PRECISIONS`.
        device: `cpu` or `cuda`.

    Raises:
        UserError: this device does not have the precision.
    """
    wanted = PRECISIONS[name]
    if wanted.device not in (None, device):
        other = "tf32" if device == "cuda" else "medium"
        raise UserError(f"--precision {name} is for {wanted.device}, and this runs on {device}: use {other}")
    torch.set_float32_matmul_precision(wanted.matmul)
    if device == "cuda":
        # torch's own default for convolutions is TF32, whatever it is for products
        set_convolutions("tf32" if wanted.matmul == "high" else "ieee")
    if wanted.matmul != "highest" and not _rounds(device):
        torch.set_float32_matmul_precision("highest")
        raise UserError(
            f"--precision {name}: this {device} device multiplies fp32 matrices in full precision all the "
            f"same (medium needs a CPU with AMX, tf32 a GPU from Ampere on), so the record would be wrong: "
            f"use --precision fp32 or bf16"
        )


def set_convolutions(precision: str) -> None:
    """Set how cuDNN's convolutions round fp32 inputs: `ieee`, not at all, or `tf32`; `none`: as before."""
    cudnn: Any = torch.backends.cudnn
    # The old switch first, because torch refuses to read it where it contradicts the new ones.
    cudnn.allow_tf32 = precision == "tf32"
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = precision


def convolutions() -> str:
    """How cuDNN's convolutions round fp32 inputs now."""
    cudnn: Any = torch.backends.cudnn
    precision: str = cudnn.conv.fp32_precision
    return precision


def _rounds(device: str) -> bool:
    """Whether products of fp32 matrices round their inputs now: 8 or 11 bits make 1 of 1 + 2^-13."""
    finer = torch.full((256, 256), 1 + 2.0**-13, device=device)
    return bool(((finer @ torch.ones_like(finer)) / 256 - 1).max() < 2.0**-14)


def set_arithmetic(spec: RunSpec, accelerator: Accelerator) -> None:
    """Have torch compute as the run asks: threads, algorithms, products of matrices.

    A process keeps these settings, so without this call those of the run before would hold. An operation
    that has no deterministic algorithm, where only these are allowed, raises RuntimeError.

    Raises:
        UserError: the device does not have the run's precision, or the process casts to another one.
    """
    torch.set_num_threads(spec.threads_per_run)
    torch.use_deterministic_algorithms(spec.deterministic is True)
    if accelerator.device.type == "cuda":
        # On H100-class cards torch prefers cuDNN's attention in bf16 without dropout. It makes a plan for
        # each new shape of batch, and our batches have many shapes.
        torch.backends.cuda.enable_cudnn_sdp(False)
    use(spec.precision, accelerator.device.type)
    _check_autocast(spec, accelerator)


def live_autocast(accelerator: Accelerator) -> str | None:
    """The type to which the process casts the inputs of products; None: it does not cast."""
    with accelerator.autocast():
        kind = accelerator.device.type
        if not torch.is_autocast_enabled(kind):
            return None
        return str(torch.get_autocast_dtype(kind)).removeprefix("torch.")


def _check_autocast(spec: RunSpec, accelerator: Accelerator) -> None:
    live = live_autocast(accelerator)
    if live != {"no": None, "bf16": "bfloat16"}[PRECISIONS[spec.precision].autocast]:
        raise UserError(
            f"{spec.label} asks for --precision {spec.precision}, but this process casts to {live}: make its "
            f"accelerator with the precision of its runs"
        )
