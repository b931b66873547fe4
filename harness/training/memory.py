"""How much memory a batch takes, and what happens when there is not enough."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from momentum_bench.harness.device_errors import is_out_of_memory


class BatchTooLargeError(MemoryError):
    """There was no memory for a part of a batch, forward and backward; smaller parts may fit."""


@contextmanager
def memory_of_a_batch() -> Iterator[None]:
    """Raises: BatchTooLargeError, if memory runs out inside."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise BatchTooLargeError(*str(error).splitlines()[:1]) from error
        raise


def saved_bytes(forward: Callable[[], torch.Tensor], parameters: Iterable[torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the parameters: its activations."""
    storages: dict[int, int] = {}  # by address, because views share one

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        result = forward()
    for parameter in parameters:
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    del result  # only now, so that nothing was freed before, and no address was given away twice
    return sum(storages.values())


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees; returns whether the C library does so (glibc does).

    By default glibc hands large blocks back to the system at once. A training step then pays for its
    gradients and activations again, page by page. No result changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, LARGEST))
