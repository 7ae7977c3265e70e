"""Memory that a step needs, determined without allocating it, by running the step on torch's meta device.

On this device, operations compute shapes and allocate nothing. Tensors are counted from their creation to their release. A
single run is enough for all batch sizes, because its batch is very large: dividing a tensor's bytes by the batch gives the bytes
per image as the quotient, and the bytes that do not depend on the batch as the remainder.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")

BATCH = 2**32
"""Number of images in a batch on the meta device, larger than the size in bytes of any tensor that does not depend on the batch."""


@dataclass(frozen=True)
class Footprint:
    """Live bytes at the possible peaks of a step, each as (bytes independent of the batch, bytes per image)."""

    moments: tuple[tuple[int, int], ...]

    def bytes(self, batch: int) -> int:
        """Return the maximum number of bytes alive at the same time."""
        return max(fixed + batch * each for fixed, each in self.moments)

    def largest_batch(self, free: int) -> int:
        """Return the largest batch for which `free` bytes are enough; 0 if there is none."""
        if self.bytes(0) > free:
            return 0
        return min(((free - fixed) // each for fixed, each in self.moments if each), default=BATCH)


def footprint(step: Callable[[], object], resident: Iterable[Tensor] = ()) -> Footprint:
    """Return the footprint of `step`, which computes on meta tensors with a batch of BATCH images.

    The `resident` tensors, of any shape, are alive throughout.
    """
    with Alive() as alive:
        for tensor in resident:
            alive.track(tensor)
        step()
    moments: list[tuple[int, int]] = []
    for each, fixed in sorted(((each, fixed) for fixed, each in alive.moments), reverse=True):
        if not moments or fixed > moments[-1][0]:  # otherwise, a moment in the list is at least as large in both
            moments.append((fixed, each))
    return Footprint(tuple(moments))


class Alive(TorchDispatchMode):
    """Mode that counts live storages, from their allocation until the last tensor that uses them is released."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fixed = self.each = 0
        self.moments: set[tuple[int, int]] = set()
        self._sizes: dict[weakref.ref[Any], tuple[int, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = _SHAPES.get(func, func)(*args, **(kwargs or {}))
        if func.is_view:  # nothing is allocated
            return output
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, Tensor):
                self.track(tensor)
        return output

    def track(self, tensor: Tensor) -> None:
        """Count the storage of a tensor of any shape, unless it is already counted."""
        storage = tensor.untyped_storage()
        known = weakref.ref(storage, self._gone)
        if known in self._sizes:
            return
        each, fixed = self._sizes[known] = divmod(storage.nbytes(), BATCH)
        self.each, self.fixed = self.each + each, self.fixed + fixed
        self.moments.add((self.fixed, self.each))

    def _gone(self, known: weakref.ref[Any]) -> None:
        each, fixed = self._sizes.pop(known)
        self.each, self.fixed = self.each - each, self.fixed - fixed


def _batch_norm(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(x), *(x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))


def _batch_norm_backward(gradient: Tensor, x: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
    for_x, *for_parameters = args[-1]
    of_channels = [x.new_empty(x.shape[1], dtype=torch.float32) if wanted else None for wanted in for_parameters]
    return torch.empty_like(x) if for_x else None, *of_channels


_SHAPES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.native_batch_norm_backward.default: _batch_norm_backward,
    torch.ops.aten.linalg_vector_norm.default: lambda x, *_: x.new_empty(()),
}
"""Functions that return the outputs of these operations on the meta device.

Torch's own versions run a dozen operations each, and would take most of the time of an estimate.
"""


class LowerPrecision(TorchFunctionMode):
    """Mode that runs convolutions and linear layers in bfloat16, like autocast, which the meta device does not support."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, F.conv_transpose2d, F.linear):
            args = [x.bfloat16() if isinstance(x, Tensor) else x for x in args]
        return func(*args, **(kwargs or {}))


def lower_precision(network: nn.Module) -> None:
    """Make the layers of a network compute in bfloat16 wherever they are called, including when a cell is recomputed."""

    def in_bfloat16(forward: Callable[..., Any], *args: Any) -> Any:
        with LowerPrecision():
            return forward(*args)

    for layer in network.modules():
        if not any(layer.children()):
            layer.forward = partial(in_bfloat16, layer.forward)
