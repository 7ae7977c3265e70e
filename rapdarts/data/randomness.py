"""Random numbers as pure functions of (seed, stream, epoch, index), without a state to save, so a run can resume at any step.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") used as a
counter-based hash: every number is the hash of its position, independent of earlier draws and of the device.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def key(seed: int, stream: str, *counters: int) -> int:
    """Return a 63-bit seed for `torch.manual_seed`, for one position in one stream."""
    text = ":".join([str(seed), stream, *map(str, counters)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform_draws(seed: int, stream: str, epoch: int, index: Tensor, draws: int) -> Tensor:
    """Return numbers in [0, 1), (n, draws) float32, one row for each entry of `index` (n,) int64, on the device of `index`."""
    counters = index[:, None] * draws + torch.arange(draws, device=index.device)
    bits = _splitmix64(counters, key(seed, stream, epoch))
    return (_shift_right(bits, 40)).to(torch.float32) * 2.0**-24


def permutation(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """Return a random order of n items, (n,) int64 on the CPU."""
    bits = _splitmix64(torch.arange(n), key(seed, stream, epoch))
    return torch.argsort(bits, stable=True)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Return x >> by for 64 unsigned bits; PyTorch's own shift extends the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _splitmix64(counter: Tensor, start: int) -> Tensor:
    z = start + (counter + 1) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


def _signed(bits: int) -> int:
    """Return the 64 bits as a signed int64."""
    return bits - (1 << 64) if bits >> 63 else bits
