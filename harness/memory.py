"""What is done where a batch does not fit the memory of its device or of this machine."""

from __future__ import annotations

import errno
from collections.abc import Iterator
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
