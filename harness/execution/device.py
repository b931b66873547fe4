"""What device this process has, whether this torch can use it, and what is surprising about it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from momentum_bench.harness.errors import UserError

NVIDIA = Path("/proc/driver/nvidia/version")
"""It is there where the driver of an NVIDIA GPU is loaded."""


def check_device_type(found: str, wanted: str | None) -> None:
    """Raises: UserError, if the process runs on another type of device than was asked for."""
    if wanted not in (None, found):
        raise UserError(
            f"--device {wanted}: this process runs on {found}. {_why_no_gpu()}. Type --device {found}, or "
            f"leave --device out"
        )


def check_usable(device: torch.device) -> None:
    """Compare a GPU with what this torch was built for.

    A build holds the code of some generations of cards (`sm_75`), which later cards of the same number run
    too. It may hold code that the driver compiles for any later card (`compute_90`).

    Raises:
        UserError: this torch has no code for the card.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    for name in built:
        kind, digits = re.fullmatch(r"(sm|compute)_(\d+)[a-z]?", name).groups()  # type: ignore[union-attr]
        of_build = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and of_build[0] == major and of_build[1] <= minor:
            return
        if kind == "compute" and of_build <= (major, minor):
            return
    raise UserError(
        f"this GPU is a {torch.cuda.get_device_name(device)} (sm_{major}{minor}), and torch "
        f"{torch.__version__} has code for {', '.join(built)} alone: install a torch that was built for the "
        f"card, or type --device cpu"
    )


def device_line(device: torch.device, was_asked_for: bool) -> str:
    """One line that says what runs on what; a surprise is a warning.

    Args:
        was_asked_for: whether the user chose the device.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"device: {device}, {name}, torch {torch.__version__}"
    if device.type != "cpu":
        return f"device: {device}, torch {torch.__version__}; --device cpu uses the CPU"
    if not was_asked_for and NVIDIA.exists():
        return (
            f"warning: this machine has an NVIDIA GPU, and the runs are on the CPU. {_why_no_gpu()}. To use "
            f"the CPU without this warning, type --device cpu"
        )
    return f"device: cpu, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def _why_no_gpu() -> str:
    """What may keep this torch from a GPU."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} was built without CUDA"
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} finds no GPU that it can use: the driver may be older than CUDA "
            f"{torch.version.cuda} needs, or CUDA_VISIBLE_DEVICES may hide the card"
        )
    return "ACCELERATE_USE_CPU may be set"
