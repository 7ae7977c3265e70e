"""What of a pass can be counted, whatever the machine: operators dispatched, bytes kept for the backward pass, memory at its peak."""

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
        # A view computes nothing, and _unsafe_view is one in all but name.
        if not func.is_view and func.overloadpacket is not torch.ops.aten._unsafe_view:
            self.calls[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def operators(run: Callable[[], object]) -> Counter[str]:
    """How often each operator is dispatched while `run` runs, its backward passes included, views left out."""
    with _Operators() as mode:
        run()
    return mode.calls


def saved_bytes(run: Callable[[], object], left_out: Iterable[Tensor]) -> int:
    """Bytes of the different storages that are kept for the backward passes in `run`, but for those of `left_out`."""
    storages: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that no later one gets its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    for tensor in left_out:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in storages.values())


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """How far memory rises above where it stood before `run`, in this process, which should be a fresh one.

    On a GPU what torch has reserved there: a recording keeps its pool between two of its turns, where nothing in it counts
    as allocated. Else the resident memory: what the process has freed before and not handed back is there to be taken again.
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
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark falls to what is resident
    before = _high_water()
    run()
    return _high_water() - before


def _high_water() -> int:
    """The most resident memory of this process so far, in bytes (proc(5): VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)
