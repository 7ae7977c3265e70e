"""Bundles: the feature maps of several states or edges, concatenated along the channels in blocks of equal width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rapdarts.networks.batched.layout import FAMILIES, BlockMap

MOST_CHANNELS = 128
"""Maximum number of channels of a slot in a kernel, limited by the 99 KB of shared memory that a program may use."""

AMPERE = (8, 0)
"""Lowest compute capability with this much shared memory; earlier GPUs have 64 KB, which is enough for half the channels."""


def use_kernels(x: Tensor, channels: int) -> bool:
    """Return True if Triton kernels can process slots of `channels` channels in feature maps like `x` (n, blocks*C, h, w)."""
    known = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.device.type == "cuda" and known and channels <= _most_channels(x.device) and has_triton()


@cache
def _most_channels(device: torch.device) -> int:
    return MOST_CHANNELS if torch.cuda.get_device_capability(device) >= AMPERE else MOST_CHANNELS // 2


@cache
def has_triton() -> bool:
    """Return True if Triton is installed."""
    return find_spec("triton") is not None


class Bundle:
    """Blocks of channels `x` (n, blocks*C, h, w), and cached tensors derived from them that several chains share.

    Operations on the bundle may use the `kernels` of these families.
    """

    def __init__(self, x: Tensor, kernels: frozenset[str] = FAMILIES) -> None:
        self.x, self.kernels = x, kernels
        self._subsampled: dict[tuple[int, int], Bundle] = {}
        self._selected: dict[BlockMap, SlotInputs] = {}

    def uses(self, family: str, channels: int) -> bool:
        """Return True if kernels of a family process slots of `channels` channels; otherwise, torch's operations do."""
        return family in self.kernels and use_kernels(self.x, channels)

    @cached_property
    def rectified(self) -> Bundle:
        """The bundle after a ReLU."""
        return Bundle(F.relu(self.x), self.kernels)

    def subsampled(self, stride: tuple[int, int]) -> Bundle:
        """Return the bundle of every `stride`-th row and column, starting with the first."""
        if stride not in self._subsampled:
            pixels = self.x[:, :, :: stride[0], :: stride[1]]
            self._subsampled[stride] = Bundle(pixels.contiguous(memory_format=torch.channels_last), self.kernels)
        return self._subsampled[stride]

    def index_select(self, block_map: BlockMap) -> SlotInputs:
        """Return the block that each slot reads."""
        if block_map not in self._selected:
            selection = RecomputedSelection(block_map)
            x = self.x if block_map.is_identity else _IndexSelect.apply(self.x, selection)  # type: ignore[no-untyped-call]
            self._selected[block_map] = SlotInputs(x, self.x.detach(), selection)
        return self._selected[block_map]


@dataclass(frozen=True, eq=False)
class SlotInputs:
    """The block that each slot reads: `x` (n, slots*C, h, w), selected from a bundle `source` (n, blocks*C, h, w)."""

    x: Tensor
    source: Tensor
    selection: RecomputedSelection


class RecomputedSelection:
    """A selection of blocks of a bundle (n, blocks*C, h, w), recomputed in the backward pass so that only the bundle is saved.

    The result (n, slots*C, h, w) is computed once for all chains that read it.
    """

    def __init__(self, block_map: BlockMap) -> None:
        self.block_map = block_map
        self._result: Tensor | None = None

    def __call__(self, source: Tensor) -> Tensor:
        if self.block_map.is_identity:
            return source
        if self._result is None:
            self._result = self.block_map.index_select(source)
        return self._result

    def clear(self) -> None:
        """Free the result; call this once all chains have used it."""
        self._result = None


class _IndexSelect(torch.autograd.Function):
    """`BlockMap.index_select`, with a gradient that is summed in one operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, selection: RecomputedSelection) -> Tensor:
        ctx.selection = selection
        return selection.block_map.index_select(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.selection.clear()
        return ctx.selection.block_map.index_add(gradient), None
