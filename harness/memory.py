"""What a batch takes of a device's memory, and what is done where it does not fit."""

from __future__ import annotations

import errno
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
