"""What a launcher (`torchrun`, `accelerate launch`) says of this process. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")


class Ranks(NamedTuple):
    """This process's rank (from 0) of how many on all machines, and its rank on its own machine."""

    rank: int
    ranks: int
    local_rank: int


def launched() -> Ranks:
    """What the environment says; a process that no launcher started is rank 0 of 1."""
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    return Ranks(*(int(os.environ.get(name, default)) for name, default in names.items()))


def ranks_here() -> int:
    """How many ranks of the launch run on this machine; all of them, where the launcher does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", launched().ranks))


def turned_on(plugin: str) -> bool:
    """Whether accelerate's configuration turns on one of its plugins: `FSDP`, `DEEPSPEED` and others."""
    return os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() in ("true", "1")


def lonely_launch() -> str | None:
    """What to say where `accelerate launch` was asked for several processes but started one; else None.

    With `--cpu`, accelerate 1.15 prepares the meeting point of several processes and then starts one,
    which has no WORLD_SIZE.
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ  # which it sets always
    if not by_accelerate or "MASTER_PORT" not in os.environ or "WORLD_SIZE" in os.environ:
        return None
    return (
        "accelerate launch set up several processes but started this one alone, as it does with --cpu: all "
        "runs are its own. On CPUs use --runs-at-a-time N, or ACCELERATE_USE_CPU=true torchrun "
        "--nproc_per_node N harness/run.py ..."
    )


@contextmanager
def apart() -> Iterator[None]:
    """Hide the other ranks: what is made meanwhile joins no process group and waits for nobody."""
    hidden = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
