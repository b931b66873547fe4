"""What a launcher (`torchrun`, `accelerate launch`) tells this process. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from momentum_bench.harness.errors import UserError

TRUTH_VALUES = ("y", "yes", "t", "true", "on", "1", "n", "no", "f", "false", "off", "0")
"""What accelerate reads as true or false. Another value would end it with a traceback."""

FLAGS = (
    "ACCELERATE_USE_CPU",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "FORK_LAUNCHED",
    "FSDP_OFFLOAD_PARAMS",
)
"""The environment variables that accelerate reads so."""

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")


class Ranks(NamedTuple):
    """The rank of this process (from 0), the number of ranks in all, and its rank on this machine."""

    rank: int
    ranks: int
    local_rank: int


def launched() -> Ranks:
    """What the environment says; a process that no launcher started is rank 0 of 1.

    Raises:
        UserError: a variable holds no number that a launcher could have given, as one that is left over from
            another program may.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, ranks, local_rank, _ = map(_number, names)
    found = Ranks(rank or 0, 1 if ranks is None else ranks, local_rank or 0)
    if found.ranks < 1 or found.rank >= found.ranks:
        raise UserError(
            f"the environment says RANK={found.rank} and WORLD_SIZE={found.ranks}, expected a rank below the "
            f"number of ranks. A launcher sets both; without one: unset RANK WORLD_SIZE LOCAL_RANK"
        )
    return found


def _number(name: str) -> int | None:
    """The whole number in a launcher's variable; None where it is not set."""
    text = os.environ.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UserError(
            f"the environment variable {name} is {text!r}, expected a whole number from 0, as a launcher "
            f"sets it. Without a launcher: unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE"
        )
    return int(text)


def check_flags() -> None:
    """Raises: UserError, where a variable that accelerate reads as true or false is neither."""
    for name in FLAGS:
        text = os.environ.get(name)
        if text is not None and text.lower() not in TRUTH_VALUES:
            raise UserError(
                f"the environment variable {name} is {text!r}, expected true or false: set it to one of "
                f"them, or type unset {name}"
            )


def ranks_here() -> int:
    """How many ranks of the launch run on this machine; all of them, where the launcher does not say.

    Raises:
        UserError: the launcher's variables hold no numbers.
    """
    return _number("LOCAL_WORLD_SIZE") or launched().ranks


def turned_on(plugin: str) -> bool:
    """Whether accelerate's configuration turns on one of its plugins: `FSDP`, `DEEPSPEED` and others."""
    return os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() in ("true", "1")


def lonely_launch() -> str | None:
    """A message if `accelerate launch` was asked for several processes but started only one; else None.

    With `--cpu`, accelerate 1.15 sets up the address for several processes and then starts one process,
    which has no WORLD_SIZE.
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ  # accelerate always sets it
    if not by_accelerate or "MASTER_PORT" not in os.environ or "WORLD_SIZE" in os.environ:
        return None
    return (
        "accelerate launch set up several processes but started this one alone, as it does with --cpu: this "
        "process does all runs. On CPUs use --runs-at-a-time N, or ACCELERATE_USE_CPU=true torchrun "
        "--nproc_per_node N harness/run.py ..."
    )


def by_torchrun() -> bool:
    """Whether torchrun started this process, and so all ranks from 0 on."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def apart() -> Iterator[None]:
    """Hide the other ranks: an object made inside joins no process group and waits for no other rank."""
    hidden = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
