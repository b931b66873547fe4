"""Errors of a device: of full memory, and those after which nothing works. This loads torch."""

from __future__ import annotations

import errno

import torch
from accelerate.utils.memory import should_reduce_batch_size

from momentum_bench.harness.errors import UserError, first_line

OF_MEMORY = (
    "std::bad_alloc",
    "STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "HIP error: out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)
"""Messages about a lack of memory, of C++, cuBLAS, cuDNN and drivers, which accelerate does not know. cuBLAS
is not initialised, as a rule, because there is no memory left for its work space."""

OF_A_DEVICE = ("CUDA error", "CUDA driver error", "HIP error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS")


class DeviceLostError(UserError):
    """Nothing works on the device any more, in this process."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or this machine has no memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if not isinstance(error, Exception):
        return False
    known: bool = should_reduce_batch_size(error)
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in OF_MEMORY))


def is_of_the_device(error: BaseException) -> bool:
    """Whether an error speaks of the device, and so says nothing about a model that runs on it."""
    if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OF_A_DEVICE)


def check_device(device: torch.device, error: BaseException) -> None:
    """Find out whether the device still works after an error.

    After some errors CUDA repeats the error at each later call, until the process ends.

    Raises:
        DeviceLostError: a synchronisation fails too.
    """
    if device.type == "cpu":
        return
    try:
        getattr(torch, device.type).synchronize()
    except Exception as repeated:
        raise DeviceLostError(
            f"the device {device} no longer works in this process ({first_line(repeated)}), after the error "
            f"{first_line(error)}. The run is not recorded. Type the same command to go on; if it happens "
            f"again, `nvidia-smi` and the system's log may say what is wrong with the device"
        ) from error
