"""The device that trains, and the settings of a process that trains on it."""

from __future__ import annotations

import ctypes

import torch

from rapdarts.config.experiment import check_device
from rapdarts.errors import DeviceError

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of glibc's mallopt (malloc.h)."""


def device_named(name: str, threads: int) -> torch.device:
    """Return the device of this name, and set the CPU threads if they are not 0. Raises DeviceError if it is not there.

    A GPU with a number becomes torch's current one: Triton's kernels, unlike torch's, run there and not where their tensors are.
    """
    check_device(name)
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError, ValueError):
        raise DeviceError(f"device={name} is not there; take device=cpu or device=auto.") from None
    return device


def training_device(name: str, threads: int) -> torch.device:
    """Return the same, and prepare the process to train on it."""
    device = device_named(name, threads)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees: a training step asks for the same gigabytes again at once.

    Otherwise glibc returns every large tensor to the system, and each page of the next one is fetched and zeroed
    anew (docs/performance.md has the times). Returns whether the C library has these settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
