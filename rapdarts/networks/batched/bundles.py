"""Bundles: feature maps of several states or edges side by side along the channels, in blocks of equal width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rapdarts.networks.batched.layout import Reading

MOST_CHANNELS = 128
"""Of a slot, for which the kernels of a GPU are made: so many fit into the 99 KB of shared memory that a program may have there."""

AMPERE = (8, 0)
"""The first compute capability with as much. Before it there are 64 KB: room for half the channels."""


def for_kernels(x: Tensor, channels: int) -> bool:
    """Whether slots of so many channels in feature maps like `x` are for the Triton kernels."""
    known = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.device.type == "cuda" and known and channels <= _most_channels(x.device) and _has_triton()


@cache
def _most_channels(device: torch.device) -> int:
    return MOST_CHANNELS if torch.cuda.get_device_capability(device) >= AMPERE else MOST_CHANNELS // 2


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


class Bundle:
    """Blocks of channels `x` (n, blocks*C, h, w), and what several chains make of them, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._picked: dict[tuple[int, int], Bundle] = {}
        self._spread: dict[Reading, Spread] = {}

    @cached_property
    def rectified(self) -> Bundle:
        """The bundle behind a ReLU."""
        return Bundle(F.relu(self.x))

    def picked(self, stride: tuple[int, int]) -> Bundle:
        """Every stride-th pixel along both sides, from the first on."""
        if stride not in self._picked:
            pixels = self.x[:, :, :: stride[0], :: stride[1]]
            self._picked[stride] = Bundle(pixels.contiguous(memory_format=torch.channels_last))
        return self._picked[stride]

    def spread(self, reading: Reading) -> Spread:
        """A block for each slot."""
        if reading not in self._spread:
            again = Again(reading)
            x = self.x if reading.plain else _Spread.apply(self.x, again)  # type: ignore[no-untyped-call]
            self._spread[reading] = Spread(x, self.x.detach(), again)
        return self._spread[reading]


@dataclass(frozen=True, eq=False)
class Spread:
    """A block for each slot, `x` (n, slots*C, h, w), of a bundle `source` (n, blocks*C, h, w)."""

    x: Tensor
    source: Tensor
    again: Again


class Again:
    """Spreads a bundle again in the backward pass, once for all chains that read it: only the bundle is kept for it."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._made: Tensor | None = None

    def __call__(self, source: Tensor) -> Tensor:
        if self.reading.plain:
            return source
        if self._made is None:
            self._made = self.reading.spread(source)
        return self._made

    def forget(self) -> None:
        """When all chains have had their turn."""
        self._made = None


class _Spread(torch.autograd.Function):
    """`Reading.spread`, whose gradient is summed by one operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, again: Again) -> Tensor:
        ctx.again = again
        return again.reading.spread(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.again.forget()
        return ctx.again.reading.gather(gradient), None
