"""What a batch takes of a device's memory, and what is done where it does not fit."""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate.utils.memory import should_reduce_batch_size

OTHER_WORDS = ("std::bad_alloc", "STATUS_ALLOC_FAILED")
"""Of C++ on this machine, and of cuBLAS and cuDNN, which accelerate does not know."""


class BatchTooLargeError(MemoryError):
    """There was no memory for a part of a batch, forward and backward; smaller parts may fit."""


@contextmanager
def memory_of_a_batch() -> Iterator[None]:
    """Raises: BatchTooLargeError, where memory ran out inside."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise BatchTooLargeError(*str(error).splitlines()[:1]) from error
        raise


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device or this machine has no memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or should_reduce_batch_size(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OTHER_WORDS)


def saved_bytes(forward: Callable[[], torch.Tensor], parameters: Iterable[torch.Tensor]) -> int:
    """Bytes of what a forward pass keeps for its backward pass, parameters aside: its activations."""
    storages: dict[int, int] = {}  # by address, for views share one

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        result = forward()
    for parameter in parameters:
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    del result  # until here nothing that was saved was freed, and no address given to something else
    return sum(storages.values())


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory in this process; says whether the C library agreed (glibc does).

    By default glibc hands large blocks back to the system at once, and a training step pays for
    getting its gradients and activations again, page by page. Nothing that is computed changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, LARGEST))
