"""The training device, and the process settings for training on it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

import torch

from rapdarts.config.experiment import check_device
from rapdarts.errors import DeviceError

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
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
    (docs/performance.md has the timings). Returns whether the C library supports these settings. Settings made in the environment
    are not changed.
    """
    global _keeps
    _keeps = _keeps or _set({MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1})
    return _keeps


def return_freed_memory() -> None:
    """Undo `keep_freed_memory`, and return the free memory to the system.

    The earlier settings cannot be read. glibc adapts its own defaults to the tensors that a process frees; they are set to the
    values that it then reaches.
    """
    global _keeps
    if _keeps:
        _keeps = False
        _set({MMAP_MAX: 65536, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26})
        ctypes.CDLL(None).malloc_trim(0)


def _set(parameters: Mapping[int, int]) -> bool:
    """Set parameters of glibc's allocator; return False if it is another one, or if the environment sets any of them."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return all([mallopt(number, value) for number, value in parameters.items()])


_keeps = False
"""True from `keep_freed_memory` to `return_freed_memory`."""
