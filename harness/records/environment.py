"""The software and hardware of a run, for its record. Nothing here names a person, a host or a path."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from momentum_bench.harness import __version__

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn")
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS")
CPUINFO = Path("/proc/cpuinfo")
CPU_MODEL = ("vendor_id", "cpu family", "model", "stepping", "model name", "CPU implementer", "CPU part")
"""What Linux says of a processor's model: x86 in the first five, ARM in the last two."""


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions, processor, device names, and the environment variables that can change rounding."""
    import torch

    facts = {"momentum_bench": __version__, "git_commit": _git_commit()}
    facts |= {name: metadata.version(name) for name in PACKAGES}
    facts |= {"python": platform.python_version(), "system": platform.system()}
    facts |= {"machine": platform.machine(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    facts |= {"processor": _processor()}
    if torch.cuda.is_available():
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda or ""}
    elif torch.backends.mps.is_available():
        facts |= {"gpu": f"Apple {platform.machine()} by MPS"}
    return facts | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _processor(cpuinfo: Path = CPUINFO) -> str:
    """The model of the processor, or "unknown".

    Libraries choose their matrix products by it, so two models with the same instructions may round
    differently.
    """
    told = first_core(cpuinfo)
    if told is None:
        return platform.processor() or "unknown"
    return ", ".join(f"{name} {told[name]}" for name in CPU_MODEL if told.get(name)) or "unknown"


def first_core(cpuinfo: Path = CPUINFO) -> dict[str, str] | None:
    """What Linux, which tells Python the architecture alone, says of the first core; None: another system."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return None
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _git_commit() -> str:
    """The commit of the checkout, with `+` if tracked files differ from it; "none" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "none"
    try:
        # in a container the checkout often belongs to another user, and git refuses it without this; the code
        # that lies in it is running already
        git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return commit.stdout.strip() + ("+" if changed else "")
