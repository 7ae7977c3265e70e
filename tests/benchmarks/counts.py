"""Counts of a pass that do not depend on the speed of a machine: operators, bytes kept for the backward pass, peak memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A view computes nothing, and neither does _unsafe_view.
        if not func.is_view and func.overloadpacket is not torch.ops.aten._unsafe_view:
            self.calls[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def operators(run: Callable[[], object]) -> Counter[str]:
    """Count the dispatches of each operator in `run`, backward passes included, views excluded."""
    with _Operators() as mode:
        run()
    return mode.calls


def saved_bytes(run: Callable[[], object], left_out: Iterable[Tensor]) -> int:
    """Return the bytes of the distinct storages kept for the backward passes in `run`, except those of `left_out`."""
    storages: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that no later storage gets its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    for tensor in left_out:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in storages.values())


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the bytes by which the memory of this process, which should be a new one, rises during `run`.

    On a GPU, this is the memory reserved by torch, because the pool of a CUDA graph does not count as allocated between two
    replays. On a CPU, it is resident memory; the reuse of memory that was freed but not returned to the system is not counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device) - before
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak to the current level
    before = _high_water()
    run()
    return _high_water() - before


def _high_water() -> int:
    """Return the peak resident memory of this process so far, in bytes (proc(5): VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)
