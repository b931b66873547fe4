"""What of this machine's cores and memory this process may use, in a container too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from joblib import cpu_count

from momentum_bench.harness.errors import UserError

OF_THIS_PROCESS = Path("/proc/self/cgroup")
"""Names the control groups of this process. Docker, Kubernetes, Slurm and systemd set their limits."""

GROUPS = Path("/sys/fs/cgroup")
"""Holds the control groups. In a container, its own group may lie at the top, under whatever name."""


class _Files(NamedTuple):
    """Where a version of control groups keeps bytes of memory: allowed, used, and used but easily freed."""

    limit: str
    used: str
    freed: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def usable_cores() -> int:
    """Cores by this process's affinity and its container's quota (`docker run --cpus`), rounded up.

    `LOKY_MAX_CPU_COUNT`, which scikit-learn knows too, is an upper bound.

    Raises:
        UserError: this variable is no number.
    """
    try:
        return int(cpu_count())
    except ValueError:
        raise UserError(
            f"the environment variable LOKY_MAX_CPU_COUNT is {os.environ.get('LOKY_MAX_CPU_COUNT')!r}, "
            f"expected a whole number: set it to one, or type unset LOKY_MAX_CPU_COUNT"
        ) from None


def available_memory() -> int:
    """Bytes of memory that this process and those that it starts may still take.

    That is what the machine has, or what the limit of a container or of a cluster's job leaves, if that is
    less. Copies of files, which the system drops where memory is short, count as free.
    """
    return min([int(psutil.virtual_memory().available), *_left_by_groups()])


def _left_by_groups() -> Iterator[int]:
    """What each control group of this process that has a limit leaves of it."""
    for folder, files in _groups():
        try:
            limit = int((folder / files.limit).read_text())
            used = int((folder / files.used).read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield max(0, limit - used + int(facts[files.freed]))
        except (OSError, ValueError, KeyError):  # there is no limit ("max"), or no such group here
            continue


def _groups() -> Iterator[tuple[Path, _Files]]:
    """Folders of the groups that may limit the memory of this process: its own, and those around them."""
    try:
        lines = OF_THIS_PROCESS.read_text(errors="replace").splitlines()
    except OSError:  # only Linux has it
        return
    for controllers, _, path in (line.partition(":")[2].partition(":") for line in lines):
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):
            if not controllers:
                yield GROUPS / group, _V2
            elif "memory" in controllers.split(","):
                yield GROUPS / "memory" / group, _V1
