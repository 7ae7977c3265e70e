"""Checks of the kernels: each family computes a small sample, forward and backward, and torch computes it in float64.

The sample covers what the code of a kernel distinguishes: several slots that read the same block, blocks that no slot
reads, strides, dilation, masks and pending sums. Its values are shifted away from zero, so that every statistic matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rapdarts.networks.batched.kernels import convolutions, norms, pools, sums
from rapdarts.networks.batched.layout import BlockMap, Geometry, Terms

TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 6e-3}
"""Largest relative error (Euclidean norm) of a result, by its type, in a family that does not multiply matrices.

All of them are below 1 %. Sums are in float32, whose error is about 1e-6 here. A result in float16 or bfloat16 is rounded up to
three times to 11 or 8 bits; the error is then about 4e-4 or 3e-3 (3e-3 was measured in bfloat16 on an H200).
"""

TF32_TOLERANCE = 2e-3
"""Largest relative error of convolutions in float32 if torch allows TF32, which rounds factors to 11 bits, as float16 does."""

CHANNELS, SIZE, EPS = 16, (8, 7), 1e-5

Results = Iterator[tuple[str, Tensor, Tensor]]
"""Results of a family: what each result is, as computed by a kernel and by torch; both have the same shape."""


class Sample:
    """Random tensors for a check, always the same and drawn without changing torch's own random numbers."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator().manual_seed(0)

    def images(self, channels: int, size: tuple[int, int] = SIZE, shift: float = 1.0) -> Tensor:
        """Return channels-last images (2, channels, h, w) in the arithmetic of the check."""
        x = torch.randn(2, channels, *size, generator=self.generator) + shift
        return x.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)

    def weights(self, *shape: int) -> Tensor:
        """Return float32 weights of any shape."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def kept(self, *shape: int) -> Tensor:
        """Return a boolean mask of any shape in which most elements are True."""
        return (torch.rand(*shape, generator=self.generator) > 0.3).to(self.device)


def _exact(*tensors: Tensor) -> list[Tensor]:
    """Return copies in float64 that require gradients; each has the shape of its original."""
    return [x.detach().double().requires_grad_() for x in tensors]


def check_convolutions(sample: Sample) -> Results:
    """Check a strided and dilated depthwise convolution, followed by a pointwise one."""
    block_map, geometry = BlockMap((0, 0, 2), 3), Geometry((2, 2), (2, 2), (2, 2))
    slots = len(block_map.sources)
    x = sample.images(block_map.blocks * CHANNELS)
    depthwise, pointwise = sample.weights(slots * CHANNELS, 1, 3, 3), sample.weights(slots * CHANNELS, CHANNELS, 1, 1)
    gradient = sample.images(slots * CHANNELS, geometry.output_size(SIZE, (3, 3)))

    exact = _exact(x, depthwise, pointwise)
    between = F.conv2d(block_map.index_select(exact[0]), exact[1], None, 2, 2, 2, slots * CHANNELS)
    expected = F.conv2d(between, exact[2], groups=slots)
    wanted = torch.autograd.grad(expected, exact, gradient.double())

    yield "output", convolutions.forward(x, block_map, depthwise, pointwise, geometry), expected
    found: Any = convolutions.backward(gradient, x.shape, x, block_map, depthwise, pointwise, geometry)
    for what, ours, true in zip(("input", "depthwise weights", "pointwise weights"), found, wanted, strict=True):
        yield f"gradient for the {what}", ours, true


def check_norms(sample: Sample) -> Results:
    """Check batch norms that are followed by a ReLU, and their running statistics."""
    block_map = BlockMap((0, 0, 2), 3)
    slots = len(block_map.sources)
    x, gradient = sample.images(block_map.blocks * CHANNELS), sample.images(slots * CHANNELS)
    running = sample.weights(slots * CHANNELS), sample.weights(slots * CHANNELS).square() + 1

    (exact,), mean, variance = _exact(x), running[0].double(), running[1].double()
    expected = F.relu(F.batch_norm(block_map.index_select(exact), mean, variance, None, None, True, 0.3, EPS))
    (wanted,) = torch.autograd.grad(expected, exact, gradient.double())

    found, statistics = norms.forward(x, block_map, *running, 0.3, EPS, True)
    yield "output", found, expected
    yield "running mean", running[0], mean
    yield "running variance", running[1], variance
    yield "gradient", norms.backward(gradient, x, block_map, statistics, True), wanted


def check_pools(sample: Sample) -> Results:
    """Check a max pool and an average pool with padding and stride."""
    x, size = sample.images(CHANNELS), (SIZE[0] // 2, SIZE[1] // 2 + 1)
    gradient = sample.images(CHANNELS, size)
    for kind in ("max", "average"):
        (exact,) = _exact(x)
        if kind == "max":
            expected = F.max_pool2d(exact, 3, 2, 1)
        else:  # padded first, because torch's average pool has a wrong gradient on a GPU (see AvgPool)
            counted = F.avg_pool2d(F.pad(torch.ones_like(exact), [1] * 4), 3, 2)
            expected = F.avg_pool2d(F.pad(exact, [1] * 4), 3, 2) / counted
        (wanted,) = torch.autograd.grad(expected, exact, gradient.double())
        found, which = pools.forward(x, 3, 2, 1, kind == "max")
        yield f"{kind} pool", found, expected
        yield f"gradient of the {kind} pool", pools.backward(gradient, x.shape, which, 3, 2, 1), wanted


def check_sums(sample: Sample) -> Results:
    """Check the weighted sums of normalised terms and masked skips at two nodes, which have pending sums."""
    terms = Terms(BlockMap((0, 0, 2), 3), BlockMap((1, 0), 2), (1, 0), (0, 1, 1, 1, 0), 2, 0.1, EPS)
    normed, nodes = len(terms.norms.sources), terms.nodes
    buffer, state = sample.images(terms.norms.blocks * CHANNELS), sample.images(terms.skips.blocks * CHANNELS)
    pending, gradient = sample.images(nodes * CHANNELS), sample.images(nodes * CHANNELS)
    scale, masks = sample.weights(len(terms.into) * CHANNELS), sample.kept(2, 2, *SIZE, CHANNELS)

    exact = _exact(buffer, scale, state)
    norm = terms.norms.index_select(exact[0])
    kept = torch.cat([masks[edge].permute(0, 3, 1, 2) for edge in terms.masks], 1)
    skip = torch.where(kept, terms.skips.index_select(exact[2]), 0.0)
    normalised = F.batch_norm(norm, None, None, training=True, eps=EPS)
    weighted = (torch.cat([normalised, skip], 1) * exact[1][:, None, None]).chunk(len(terms.into), 1)
    totals = list(pending.double().chunk(nodes, 1))
    for node, slot in zip(terms.into, weighted, strict=True):
        totals[node] = totals[node] + slot
    wanted = torch.autograd.grad(torch.cat(totals, 1), exact, gradient.double())

    first, others, statistics = sums.weighted_sum(terms, buffer, state, masks, scale, pending)
    yield "first node", first, totals[0]
    yield "other nodes", others, totals[1]
    variance, mean = torch.var_mean(norm, (0, 2, 3), correction=0)
    pixels = norm.numel() // norm.shape[1]
    yield "mean", statistics[0], mean
    yield "inverse deviation", statistics[1], (variance + EPS).rsqrt()
    yield "variance", statistics[2], variance * (pixels / (pixels - 1))
    to_buffer, to_scale = sums.weighted_sum_backward(terms, gradient, buffer, state, masks, scale, statistics)
    yield "gradient for the norms", to_buffer, wanted[0]
    yield "gradient for the weights of the norms", to_scale[: normed * CHANNELS], wanted[1][: normed * CHANNELS]
    yield "gradient for the weights of the skips", to_scale[normed * CHANNELS :], wanted[1][normed * CHANNELS :]
    yield "gradient for the skips", sums.skips_backward(terms, gradient, masks, scale), wanted[2]


CHECKS: dict[str, Callable[[Sample], Results]] = {
    "convolutions": check_convolutions,
    "norms": check_norms,
    "pools": check_pools,
    "sums": check_sums,
}
"""The check of each family in `layout.FAMILIES`."""


def disagreement(family: str, device: torch.device, dtype: torch.dtype) -> str:
    """Run the check of a family in an arithmetic; return the first result that disagrees with torch's, or an empty string.

    Raises whatever a kernel raises that cannot be compiled or launched.
    """
    with torch.enable_grad():
        for what, found, expected in CHECKS[family](Sample(device, dtype)):
            tolerance = TOLERANCES[found.dtype]
            if family == "convolutions" and torch.backends.cudnn.allow_tf32:
                tolerance = max(tolerance, TF32_TOLERANCE)
            error = float(((found.double() - expected).norm() / expected.norm()).detach())
            if not error <= tolerance:  # or if it is NaN
                return f"{what} is {100 * error:.2g} % off" if math.isfinite(error) else f"{what} is not finite"
    return ""
