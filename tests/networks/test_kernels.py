"""The kernels for a GPU, on one or by Triton's interpreter: each against torch's own, and the whole supernet through all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapdarts.networks import blocks, depthwise, stacks
from rapdarts.networks.batched import BatchedSupernet
from rapdarts.networks.blocks import MOST_CHANNELS, Reading
from rapdarts.networks.depthwise import Geometry
from rapdarts.networks.supernet import Supernet
from rapdarts.space import SearchSpace, Skeleton, named_space
from rapdarts.strategy.architecture import Architecture
from rapdarts.training.descent import place
from tests.benchmarks import agreement

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
import triton.language as tl
from triton.runtime import interpreter

from rapdarts.networks.kernels import convolutions, norms, pools

EACH = Reading((0, 0, 1, 1), 2)
"""Two slots for each of two blocks."""


def near(found: Tensor, expected: Tensor, share: float = 2e-6) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= share * float(expected.norm())


def channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def spread(x: Tensor, reading: Reading) -> Tensor:
    return torch.cat([x.chunk(reading.blocks, 1)[block] for block in reading.sources], 1)


@pytest.mark.parametrize(
    ("reading", "inputs", "outputs", "kernel", "geometry", "size"),
    [
        (Reading((0, 0, 0, 1, 1, 1), 2), 16, 16, (3, 3), Geometry((1, 1), (1, 1), (1, 1)), (6, 5)),
        (Reading((0, 1, 1, 0), 2), 5, 7, (5, 5), Geometry((2, 2), (4, 4), (2, 2)), (7, 8)),
        (Reading((0, 0), 1), 4, 4, (5, 5), Geometry((1, 1), (4, 4), (2, 2)), (5, 5)),
        (Reading.own(3), 20, 20, (3, 3), Geometry((2, 2), (1, 1), (1, 1)), (4, 6)),
        (Reading.own(2), 64, 64, (5, 5), Geometry((1, 1), (2, 2), (1, 1)), (3, 3)),
        (Reading((0, 0, 2), 3), 8, 8, (1, 7), Geometry((1, 2), (0, 3), (1, 1)), (4, 9)),
    ],
    ids=["shared blocks", "dilated with a stride", "dilated", "a stride", "wide", "a row, a block that nobody reads"],
)
def test_separable_convolutions(
    reading: Reading, inputs: int, outputs: int, kernel: tuple[int, int], geometry: Geometry, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    slots = len(reading.sources)
    x = torch.randn(2, reading.blocks * inputs, *size, requires_grad=True)
    first = torch.randn(slots * inputs, 1, *kernel, requires_grad=True)
    second = torch.randn(slots * outputs, inputs, 1, 1, requires_grad=True)
    moved = geometry.stride, geometry.padding, geometry.dilation
    between = F.conv2d(spread(x, reading), first, None, *moved, groups=slots * inputs)
    expected = F.conv2d(between, second, groups=slots)
    gradient = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, [x, first, second], gradient)

    image, weights = channels_last(x), (first.detach(), second.detach())
    near(convolutions.forward(image, reading, *weights, geometry), expected.detach())
    given = (channels_last(gradient), image, reading, *weights, geometry)
    for found, wanted in zip(convolutions.backward(*given, True, True), gradients, strict=True):
        assert found is not None
        near(found, wanted)
    assert convolutions.backward(*given, True, False)[1:] == (None, None)


@pytest.fixture
def products_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter (3.9) keeps bfloat16 as its bits, and multiplies matrices of these as whole numbers: it is given float32."""
    builder = interpreter.InterpreterBuilder
    product: Any = builder.create_dot

    def mended(self: Any, *given: Any) -> Any:
        exact = [self.cast_impl(one, tl.float32) if one.dtype.scalar == tl.bfloat16 else one for one in given[:2]]
        return product(self, *exact, *given[2:])

    monkeypatch.setattr(builder, "create_dot", mended)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_kernels_of_half_precision(kind: torch.dtype, products_in_bfloat16: None) -> None:
    """Images in 16 bits, weights and sums in 32: what is off is the rounding of images and results."""
    torch.manual_seed(5)
    x, gradient = torch.randn(2, 8, 5, 5).to(kind), torch.randn(2, 16, 5, 5).to(kind)
    weights = torch.randn(16, 1, 3, 3, requires_grad=True), torch.randn(16, 4, 1, 1, requires_grad=True)
    geometry, scale = Geometry((1, 1), (1, 1), (1, 1)), torch.rand(16) + 0.5
    exact = x.float().requires_grad_()
    between = F.conv2d(spread(exact, EACH), weights[0], padding=1, groups=16)
    expected = F.conv2d(between, weights[1], groups=4)
    wanted = torch.autograd.grad(expected, [exact, *weights], gradient.float())
    given = channels_last(x), EACH, *(weight.detach() for weight in weights), geometry
    found = convolutions.forward(*given)
    assert found.dtype == kind
    gradients = convolutions.backward(channels_last(gradient), *given, True, True)
    for mine, true in zip((found, *gradients), (expected.detach(), *wanted), strict=True):
        assert mine is not None
        near(mine.float(), true, 1e-2)

    normal = F.batch_norm(spread(exact, EACH), None, None, training=True) * scale[None, :, None, None]
    (wanted_x,) = torch.autograd.grad(normal, exact, gradient.float())
    statistics = torch.zeros(16), torch.ones(16)
    found, kept = norms.forward(channels_last(x), EACH, scale, *statistics, 0.1, 1e-5, False)
    to_x, _ = norms.backward(channels_last(gradient), channels_last(x), EACH, scale, kept, False, True)
    assert to_x is not None
    near(found.float(), normal.detach(), 1e-2)
    near(to_x.float(), wanted_x, 1e-2)

    for maximum, pool in ((True, nn.MaxPool2d(3, 1, 1)), (False, nn.AvgPool2d(3, 1, 1, count_include_pad=False))):
        pooled = pool(exact)
        (wanted_x,) = torch.autograd.grad(pooled, exact, gradient[:, :8].float())
        found, which = pools.forward(channels_last(x), 3, 1, 1, maximum)
        assert found.dtype == kind
        near(found.float(), pooled.detach(), 0 if maximum else 1e-2)
        near(pools.backward(channels_last(gradient[:, :8]), x.shape, which, 3, 1, 1).float(), wanted_x, 1e-2)


@pytest.mark.parametrize(
    ("reading", "channels", "size", "relu", "weighed"),
    [
        (EACH, 16, (5, 7), False, True),
        (Reading.own(3), 5, (4, 4), True, False),
        (Reading((1, 0, 1), 3), 64, (9, 9), False, True),
        (Reading((0,), 1), 16, (20, 21), False, False),
    ],
)
def test_norms(
    reading: Reading, channels: int, size: tuple[int, int], relu: bool, weighed: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(norms, "PROGRAMS", 8)  # so that a program has several tiles
    torch.manual_seed(1)
    slots = len(reading.sources)
    # Far from zero: sums of squares must not swallow the deviation.
    x = (torch.randn(3, reading.blocks * channels, *size) * 3 + 50).requires_grad_()
    scale = torch.randn(slots * channels, requires_grad=True)
    mean, var = torch.randn(slots * channels), torch.rand(slots * channels) + 1
    true_mean, true_var = mean.double(), var.double()
    expected = F.batch_norm(spread(x.double(), reading), true_mean, true_var, training=True)
    expected = F.relu(expected) if relu else expected
    expected = expected * scale[None, :, None, None] if weighed else expected
    gradient = torch.randn(expected.shape)
    gradients = torch.autograd.grad(expected, [x, scale] if weighed else [x], gradient.double())

    given = scale.detach() if weighed else None
    found, kept = norms.forward(channels_last(x), reading, given, mean, var, 0.1, 1e-5, relu)
    near(found.double(), expected.detach())
    near(mean.double(), true_mean)
    near(var.double(), true_var)
    to_x, to_scale = norms.backward(channels_last(gradient), channels_last(x), reading, given, kept, relu, for_x=True)
    assert to_x is not None
    near(to_x, gradients[0])
    if weighed:
        near(to_scale, gradients[1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layer", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize(("channels", "size"), [(16, (5, 7)), (5, (6, 6)), (80, (4, 3))])
def test_pools(layer: Any, stride: int, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    x = torch.randn(2, channels, *size, requires_grad=True)
    maximum = layer is nn.MaxPool2d
    expected = layer(3, stride, 1, **({} if maximum else {"count_include_pad": False}))(x)
    gradient = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    found, which = pools.forward(channels_last(x), 3, stride, 1, maximum)
    near(found, expected.detach())
    near(pools.backward(channels_last(gradient), x.shape, which, 3, stride, 1), wanted)


@pytest.mark.parametrize("size", [stacks.WIDEST_POOL, stacks.WIDEST_POOL + 1])
def test_a_window_is_as_wide_as_its_pixels_can_be_told_apart(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "for_kernels", lambda x, channels: True)
    torch.manual_seed(6)
    x = channels_last(torch.randn(1, 4, 12, 12)).requires_grad_()
    layer = nn.MaxPool2d(size, 1, size // 2)
    expected = layer(x)
    gradient = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    found = stacks.pooled(layer, x)
    assert type(found.grad_fn).__name__.startswith("_PoolOnGpu") is (size <= stacks.WIDEST_POOL)
    near(found.detach(), expected.detach())
    near(torch.autograd.grad(found, x, gradient)[0], wanted)


def test_a_maximum_that_is_no_number_stays_one() -> None:
    x = channels_last(torch.randn(1, 4, 5, 5))
    x[0, 1, 2, 2] = float("nan")
    found, _ = pools.forward(x, 3, 1, 1, True)
    assert torch.equal(found.isnan(), F.max_pool2d(x, 3, 1, 1).isnan())


def one_on_each_edge() -> SearchSpace:
    """The space `darts`, narrowed to `none` and one other on each edge: every primitive in both kinds of cell."""
    space = named_space("darts")
    mask = np.zeros_like(space.mask)
    mask[..., 0] = True
    others = len(space.primitives) - 1
    for edge in range(len(space.edges)):
        mask[0, edge, 1 + edge % others] = mask[1, edge, 1 + (3 * edge + 1) % others] = True
    assert mask.any(1).all()
    return space.narrowed(mask)


def test_the_supernet_through_all_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cells, a normal one and two reductions, forward and backward: logits, and each gradient by itself."""
    calls = []

    def watched(module: ModuleType, name: str) -> None:
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, **more: [calls.append(module), kernel(*given, **more)][1])

    for module in (convolutions, norms, pools):
        for name in ("forward", "backward"):
            watched(module, name)
    space = one_on_each_edge()
    torch.manual_seed(3)
    plain = Supernet(space, Skeleton(3, 4, (3, 4, 4), agreement.CLASSES))
    batched = place(BatchedSupernet(plain), torch.device("cpu"))
    architecture, images = Architecture(space, 0.5), torch.randn(4, 3, 4, 4)
    found = []
    for supernet in (plain, batched):
        supernet.dropout.rate = 0.3
        if supernet is batched:
            for module in (depthwise, stacks):
                monkeypatch.setattr(module, "for_kernels", lambda x, channels: True)
        torch.manual_seed(4)
        found.append(agreement.results(supernet, architecture, images))
    off = agreement.differences(found[1], found[0])
    assert max(off.values()) < 1e-3, off
    assert set(calls) == {convolutions, norms, pools}


# --- what a GPU has room for -------------------------------------------------------------------------------------

COMPILED = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from rapdarts.networks.blocks import Reading
from rapdarts.networks.depthwise import Geometry
from rapdarts.networks.kernels import convolutions

class Elsewhere:
    get_current_device = get_current_stream = lambda self, *given: 0
    get_current_target = lambda self: GPUTarget("cuda", 86, 32)

launch = JITFunction.run

def compiled(kernel, *given, warmup, **options):
    print(kernel.__name__, launch(kernel, *given, warmup=True, **options).metadata.shared)

JITFunction.run = compiled
driver.set_active(Elsewhere())
geometry, reading = Geometry((1, 1), (2, 2), (1, 1)), Reading.own(1)
for channels in map(int, sys.argv[1:]):
    image = torch.empty(1, channels, 4, 4).to(memory_format=torch.channels_last)
    weights = torch.empty(channels, 1, 5, 5), torch.empty(channels, channels, 1, 1)
    convolutions.forward(image, reading, *weights, geometry)
    convolutions.backward(image, image, reading, *weights, geometry, True, True)
"""


def test_kernels_fit_into_the_shared_memory_of_a_gpu(tmp_path: Path) -> None:
    """Compiled, not run, for compute capability 8.6 (99 KB a program), in float32: the widest slots, and those of most columns at once."""
    names = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    names.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILED, str(MOST_CHANNELS), "32"]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, env=names, check=True, capture_output=True, text=True)
    kernels = [(name, int(shared)) for name, shared in map(str.split, found.stdout.splitlines())]
    assert [name for name, _ in kernels] == 2 * ["_convolve", "_convolve", "_convolve", "_correlate", "_part"]
    assert 48 * 1024 < max(shared for _, shared in kernels) <= 99 * 1024


@pytest.mark.parametrize(("capability", "most"), [((7, 5), 64), ((8, 0), 128), ((8, 6), 128), ((12, 0), 128)])
def test_older_gpus_have_room_for_narrower_slots(
    capability: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    blocks._most_channels.cache_clear()
    x: Any = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    assert [blocks.for_kernels(x, channels) for channels in (1, most, most + 1)] == [True, True, False]
    blocks._most_channels.cache_clear()
