"""How torch computes in this process: threads, algorithms, precision of matrix products."""

from __future__ import annotations

import os

import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.records.schema import (
    RunSpec,
)


def choose_algorithms(deterministic: bool) -> None:
    """Let torch use any algorithms, or only those that give the same bits every time.

    An operation without such an algorithm raises RuntimeError. cuBLAS also needs a fixed workspace: it
    reads the variable when it first works in a process.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def use(name: str, device: str) -> None:
    """Set the precision of torch's products of fp32 matrices to that of `name`.

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
    if wanted.matmul != "highest" and not _rounds(device):
        torch.set_float32_matmul_precision("highest")
        raise UserError(
            f"--precision {name}: this {device} device multiplies fp32 matrices in full precision all the "
            f"same (medium needs a CPU with AMX, tf32 a GPU from Ampere on), so the record would be wrong: "
            f"use --precision fp32 or bf16"
        )


def _rounds(device: str) -> bool:
    """Whether products of fp32 matrices round their inputs now: 8 or 11 bits make 1 of 1 + 2^-13."""
    finer = torch.full((256, 256), 1 + 2.0**-13, device=device)
    return bool(((finer @ torch.ones_like(finer)) / 256 - 1).max() < 2.0**-14)


def set_arithmetic(spec: RunSpec, device: torch.device) -> None:
    """Have torch compute as the run asks: threads, algorithms, products of matrices.

    A process keeps these settings, so without this call those of the run before would hold.

    Raises:
        UserError: the device does not have the run's precision.
    """
    torch.set_num_threads(spec.threads_per_run)
    choose_algorithms(deterministic=spec.deterministic is True)
    use(spec.precision, device.type)
