"""The training device, and the process settings for training on it."""

from __future__ import annotations

import ctypes

import torch

from rapdarts.config.experiment import check_device
from rapdarts.errors import DeviceError

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameter numbers of glibc's mallopt (malloc.h)."""


def device_named(name: str, threads: int) -> torch.device:
    """Return the device of this name, and set the number of CPU threads unless it is 0. Raises DeviceError if it is not available.

    A GPU with an index becomes torch's current device: Triton, unlike torch, launches its kernels on the current device
    and not on the device of their tensors.
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
        raise DeviceError(f"device={name} is not available; use device=cpu or device=auto.") from None
    return device


def training_device(name: str, threads: int) -> torch.device:
    """Return the device of this name, as `device_named` does, and prepare the process to train on it."""
    device = device_named(name, threads)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> bool:
    """Make this process keep the memory it frees, because every training step allocates the same gigabytes again.

    Otherwise, glibc returns every large tensor to the system, which maps and zeroes each page of the next tensor again
    (docs/performance.md has the timings). Returns whether the C library supports these settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
