"""GPU kernels, on a GPU or in Triton's interpreter, compared with torch; a supernet that uses them is compared with the plain one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.batched import bundles, stacks
from rapdarts.networks.batched.bundles import MOST_CHANNELS, Bundle
from rapdarts.networks.batched.layout import BlockMap, Geometry, Terms
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.primitives import choose
from tests.benchmarks.agreement import under_plain_names
from tests.networks.batched.test_supernet import edges_of, narrowed, pair_of, weights_of

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
from rapdarts.networks.batched.kernels import convolutions, norms, pools, sums

TWO_EACH = BlockMap((0, 0, 1, 1), 2)
"""Two slots for each of two blocks."""


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


def channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def index_select(x: Tensor, block_map: BlockMap) -> Tensor:
    return torch.cat([x.chunk(block_map.blocks, 1)[block] for block in block_map.sources], 1)


@pytest.mark.parametrize(
    ("block_map", "inputs", "outputs", "kernel", "geometry", "size"),
    [
        (BlockMap((0, 0, 0, 1, 1, 1), 2), 16, 16, (3, 3), Geometry((1, 1), (1, 1), (1, 1)), (6, 5)),
        (BlockMap((0, 1, 1, 0), 2), 5, 7, (5, 5), Geometry((2, 2), (4, 4), (2, 2)), (7, 8)),
        (BlockMap((0, 0), 1), 4, 4, (5, 5), Geometry((1, 1), (4, 4), (2, 2)), (5, 5)),
        (BlockMap.identity(3), 20, 20, (3, 3), Geometry((2, 2), (1, 1), (1, 1)), (4, 6)),
        (BlockMap.identity(2), 64, 64, (5, 5), Geometry((1, 1), (2, 2), (1, 1)), (3, 3)),
        (BlockMap((0, 0, 2), 3), 8, 8, (1, 7), Geometry((1, 2), (0, 3), (1, 1)), (4, 9)),
    ],
    ids=["shared blocks", "dilated and strided", "dilated", "strided", "wide", "1x7 kernel, unread block"],
)
def test_separable_convolution_kernels_equal_torch(
    block_map: BlockMap, inputs: int, outputs: int, kernel: tuple[int, int], geometry: Geometry, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    slots = len(block_map.sources)
    x = torch.randn(2, block_map.blocks * inputs, *size, requires_grad=True)
    first = torch.randn(slots * inputs, 1, *kernel, requires_grad=True)
    second = torch.randn(slots * outputs, inputs, 1, 1, requires_grad=True)
    moved = geometry.stride, geometry.padding, geometry.dilation
    between = F.conv2d(index_select(x, block_map), first, None, *moved, groups=slots * inputs)
    expected = F.conv2d(between, second, groups=slots)
    gradient = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, [x, first, second], gradient)

    image, weights = channels_last(x), (first.detach(), second.detach())
    assert_near(convolutions.forward(image, block_map, *weights, geometry), expected.detach())
    given = (block_map, *weights, geometry)
    for found, expected in zip(
        convolutions.backward(channels_last(gradient), x.shape, image, *given), gradients, strict=True
    ):
        assert found is not None
        assert_near(found, expected)
    assert convolutions.backward(channels_last(gradient), x.shape, None, *given)[1:] == (None, None)
    assert convolutions.backward(channels_last(gradient), None, image, *given)[0] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_kernels_in_half_precision(dtype: torch.dtype, bfloat16: None) -> None:
    """Images have 16 bits, but weights and sums have 32 bits, so errors come only from rounding images and results."""
    torch.manual_seed(5)
    x, gradient = torch.randn(2, 8, 5, 5).to(dtype), torch.randn(2, 16, 5, 5).to(dtype)
    weights = torch.randn(16, 1, 3, 3, requires_grad=True), torch.randn(16, 4, 1, 1, requires_grad=True)
    geometry, scale = Geometry((1, 1), (1, 1), (1, 1)), torch.rand(16) + 0.5
    exact = x.float().requires_grad_()
    between = F.conv2d(index_select(exact, TWO_EACH), weights[0], padding=1, groups=16)
    expected = F.conv2d(between, weights[1], groups=4)
    wanted = torch.autograd.grad(expected, [exact, *weights], gradient.float())
    given = channels_last(x), TWO_EACH, *(weight.detach() for weight in weights), geometry
    found = convolutions.forward(*given)
    assert found.dtype == dtype
    gradients = convolutions.backward(channels_last(gradient), x.shape, *given)
    for ours, true in zip((found, *gradients), (expected.detach(), *wanted), strict=True):
        assert ours is not None
        assert_near(ours.float(), true, 1e-2)

    normal = F.batch_norm(index_select(exact, TWO_EACH), None, None, training=True) * scale[None, :, None, None]
    (wanted_x,) = torch.autograd.grad(normal, exact, gradient.float())
    terms = Terms(TWO_EACH, BlockMap((), 2), (), (0, 1, 2, 3), 4, 0.1, 1e-5)
    first, others, kept = sums.weighted_sum(terms, channels_last(x), channels_last(x), None, scale, None)
    to_x, _ = sums.weighted_sum_backward(terms, channels_last(gradient), channels_last(x), None, None, scale, kept)
    assert_near(torch.cat([first, others], 1).float(), normal.detach(), 1e-2)
    assert_near(to_x.float(), wanted_x, 1e-2)

    for maximum, pool in ((True, nn.MaxPool2d(3, 1, 1)), (False, nn.AvgPool2d(3, 1, 1, count_include_pad=False))):
        pooled = pool(exact)
        (wanted_x,) = torch.autograd.grad(pooled, exact, gradient[:, :8].float())
        found, which = pools.forward(channels_last(x), 3, 1, 1, maximum)
        assert found.dtype == dtype
        assert_near(found.float(), pooled.detach(), 0 if maximum else 1e-2)
        assert_near(pools.backward(channels_last(gradient[:, :8]), x.shape, which, 3, 1, 1).float(), wanted_x, 1e-2)


BLOCK_MAPS = [
    (TWO_EACH, 16, (5, 7)),
    (BlockMap.identity(3), 5, (4, 4)),
    (BlockMap((1, 0, 1), 3), 64, (9, 9)),
    (BlockMap((0,), 1), 16, (20, 21)),
]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("block_map", "channels", "size"), BLOCK_MAPS)
def test_norm_kernels_equal_torch(
    block_map: BlockMap, channels: int, size: tuple[int, int], relu: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(norms, "PROGRAMS", 8)  # so that a program has several tiles
    torch.manual_seed(1)
    slots = len(block_map.sources)
    # The mean is far from zero, but the variance must not be lost in the sums of squares.
    x = (torch.randn(3, block_map.blocks * channels, *size) * 3 + 50).requires_grad_()
    mean, var = torch.randn(slots * channels), torch.rand(slots * channels) + 1
    true_mean, true_var = mean.double(), var.double()
    expected = F.batch_norm(index_select(x.double(), block_map), true_mean, true_var, training=True)
    expected = F.relu(expected) if relu else expected
    gradient = torch.randn(expected.shape)
    (wanted,) = torch.autograd.grad(expected, x, gradient.double())

    found, kept = norms.forward(channels_last(x), block_map, mean, var, 0.1, 1e-5, relu)
    assert_near(found.double(), expected.detach())
    assert_near(mean.double(), true_mean)
    assert_near(var.double(), true_var)
    assert_near(norms.backward(channels_last(gradient), channels_last(x), block_map, kept, relu), wanted)


@pytest.mark.parametrize("rest", ["nothing", "pending", "pending and skips", "masked skips"])
@pytest.mark.parametrize(("block_map", "channels", "size"), BLOCK_MAPS)
def test_weighted_sum_kernels_equal_torch(
    block_map: BlockMap, channels: int, size: tuple[int, int], rest: str, monkeypatch: Any
) -> None:
    """There are three nodes: the second has at most one norm, and the third has only skips."""
    monkeypatch.setattr(norms, "PROGRAMS", 8)
    torch.manual_seed(1)
    normed, nodes = len(block_map.sources), 3
    skips = BlockMap((1, 1, 0) if "skips" in rest else (), 2)
    into = (*(int(slot == 1) for slot in range(normed)), *((2, 0, 2) if skips.sources else ()))
    masks = torch.rand(5, 3, *size, channels) > 0.4 if rest == "masked skips" else None
    edges = (4, 0, 2) if skips.sources else ()
    terms = Terms(block_map, skips, edges, into, nodes, 0.1, 1e-5)
    buffer = (torch.randn(3, block_map.blocks * channels, *size) * 3 + 50).requires_grad_()
    state = torch.randn(3, 2 * channels, *size, requires_grad=True)
    scale = torch.randn(len(into) * channels, requires_grad=True)
    pending = torch.randn(3, nodes * channels, *size) if "pending" in rest else None

    mean, var = torch.zeros(normed * channels).double(), torch.zeros(normed * channels).double()
    normal = F.batch_norm(index_select(buffer.double(), block_map), mean, var, training=True, momentum=1.0)
    slots = [*normal.chunk(normed, 1), *(state.double().chunk(2, 1)[block] for block in skips.sources)]
    if masks is not None:
        slots[normed:] = [
            torch.where(masks[edge].permute(0, 3, 1, 2), slot, 0.0)
            for edge, slot in zip(edges, slots[normed:], strict=True)
        ]
    before = torch.zeros(3, nodes * channels, *size) if pending is None else pending
    totals = list(before.double().chunk(nodes, 1))
    for node, slot, weight in zip(into, slots, scale.chunk(len(into)), strict=True):
        totals[node] = totals[node] + slot * weight[None, :, None, None]
    expected, gradient = torch.cat(totals, 1), torch.randn(before.shape)
    wanted = torch.autograd.grad(expected, [buffer, scale, state], gradient.double(), allow_unused=True)

    given = [channels_last(buffer), channels_last(state), masks, scale.detach()]
    first, others, kept = sums.weighted_sum(terms, *given, None if pending is None else channels_last(pending))
    assert first.shape[1] == channels
    assert_near(torch.cat([first, others], 1).double(), expected.detach())
    assert_near(kept[0].double(), mean)
    assert_near(kept[2].double(), var)
    gradient = channels_last(gradient)
    found = sums.weighted_sum_backward(terms, gradient, *given, kept)
    for ours, true in zip(found, wanted, strict=False):
        assert_near(ours, true)
    to_buffer, to_scale = sums.weighted_sum_backward(terms, gradient, given[0], None, masks, given[3], kept)
    assert_near(to_buffer, wanted[0])
    assert_near(to_scale, wanted[1][: normed * channels])
    if skips.sources:
        assert_near(sums.skips_backward(terms, gradient, masks, given[3]), wanted[2])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layer", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize(("channels", "size"), [(16, (5, 7)), (5, (6, 6)), (80, (4, 3))])
def test_pool_kernels_equal_torch(layer: Any, stride: int, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    x = torch.randn(2, channels, *size, requires_grad=True)
    maximum = layer is nn.MaxPool2d
    expected = layer(3, stride, 1, **({} if maximum else {"count_include_pad": False}))(x)
    gradient = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    found, which = pools.forward(channels_last(x), 3, stride, 1, maximum)
    assert_near(found, expected.detach())
    assert_near(pools.backward(channels_last(gradient), x.shape, which, 3, stride, 1), wanted)


@pytest.mark.parametrize("size", [stacks.WIDEST_POOL, stacks.WIDEST_POOL + 1])
def test_pools_wider_than_the_kernels_support_are_left_to_torch(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "use_kernels", lambda x, channels: True)
    torch.manual_seed(6)
    x = channels_last(torch.randn(1, 4, 12, 12)).requires_grad_()
    layer = nn.MaxPool2d(size, 1, size // 2)
    expected = layer(x)
    gradient = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    found = stacks.apply_weightless(layer, Bundle(x))
    assert type(found.grad_fn).__name__.startswith("_PoolOnGpu") is (size <= stacks.WIDEST_POOL)
    assert_near(found.detach(), expected.detach())
    assert_near(torch.autograd.grad(found, x, gradient)[0], wanted)


def test_max_pool_propagates_nan() -> None:
    x = channels_last(torch.randn(1, 4, 5, 5))
    x[0, 1, 2, 2] = float("nan")
    found, _ = pools.forward(x, 3, 1, 1, True)
    assert torch.equal(found.isnan(), F.max_pool2d(x, 3, 1, 1).isnan())


def test_norm_propagates_nan() -> None:
    """This holds after a ReLU too; otherwise, the loss would be finite and hide the NaN."""
    x = channels_last(torch.randn(2, 8, 4, 4))
    x[0, 3, 1, 1] = float("nan")
    for relu in (False, True):
        mean, var = torch.zeros(8), torch.ones(8)
        found, _ = norms.forward(x, BlockMap.identity(2), mean, var, 0.1, 1e-5, relu)
        nan = torch.arange(8) == 3
        assert torch.equal(found.isnan().all((0, 2, 3)), nan) and torch.equal(found.isnan().any((0, 2, 3)), nan)
        assert torch.equal(mean.isnan(), nan) and torch.equal(var.isnan(), nan)


def one_on_each_edge() -> SearchSpace:
    """Return `darts` narrowed to `none` and one other primitive on each edge, with every primitive in both kinds of cell."""
    space = named_space("darts")
    mask = np.zeros_like(space.mask)
    mask[..., 0] = True
    others = len(space.primitives) - 1
    for edge in range(len(space.edges)):
        mask[0, edge, 1 + edge % others] = mask[1, edge, 1 + (3 * edge + 1) % others] = True
    assert mask.any(1).all()
    return space.narrowed(mask)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Use kernels wherever they apply, with or without a GPU; return the names of those launched so far."""
    names: list[str] = []
    kernel: Any = type(norms._moments)
    run = kernel.run
    monkeypatch.setattr(
        kernel, "run", lambda self, *given, **more: [names.append(self.fn.__name__), run(self, *given, **more)][1]
    )
    monkeypatch.setattr(bundles, "use_kernels", lambda x, channels: x.dtype == torch.float32)
    return names


OPS = ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]


@pytest.mark.parametrize(
    ("keep", "partial", "edge_weights", "rate"),
    [
        pytest.param(6, 1, True, 0.4, marks=pytest.mark.proof),
        pytest.param(2, 1, False, 0.0, marks=pytest.mark.proof),
        (3, 2, True, 0.3),
    ],
    ids=["all, dropout, edge weights", "two per edge", "three, dropout, half of the channels"],
)
def test_supernet_with_all_kernels_equals_the_plain_one(
    keep: int, partial: int, edge_weights: bool, rate: float, launched: list[str]
) -> None:
    space = narrowed(SearchSpace("small", choose(*OPS), nodes=2), keep)
    assert_same_with_kernels(space, partial, edge_weights, rate)
    expected = "_convolve _correlate _pool _pool_backward _normalise _sum_terms _reduce _input_gradient _skip_gradient"
    assert set(expected.split()) <= set(launched)


@pytest.mark.parametrize("same_eps", [True, False])
def test_kernels_with_user_defined_primitives(same_eps: bool, launched: list[str]) -> None:
    """Covers a skip with a norm, norms of different eps, and torch layers, whose outputs are copied into the buffer of an edge group."""

    def conv_bn(channels: int, stride: int, affine: bool) -> nn.Module:
        norm = nn.BatchNorm2d(channels, affine=affine, eps=1e-5 if same_eps else 1e-2)
        return nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1, bias=False), norm)

    def without_norm(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Conv2d(channels, channels, 1, stride)

    own = {"skip_connect": conv_bn, "conv": conv_bn, "plain": without_norm, **choose("max_pool_3x3")}
    assert_same_with_kernels(SearchSpace("own", own, nodes=2), 1, False, 0.4)
    assert ("_sum_terms" in launched) is same_eps


@pytest.mark.proof
def test_kernels_with_every_primitive_of_darts(launched: list[str]) -> None:
    assert_same_with_kernels(one_on_each_edge(), 1, False, 0.3)
    assert "_correlate" in launched and "_skip_gradient" in launched


def assert_same_with_kernels(space: SearchSpace, partial: int, edge_weights: bool, rate: float) -> None:
    """Compare logits, gradients and running statistics with those of the plain supernet in float64.

    The network has one normal cell and two reduction cells.
    """
    skeleton = Skeleton(3, 4, (3, 4, 4), 3)
    plain, other = pair_of(space, skeleton, rate, partial=partial)
    assert isinstance(other, BatchedSupernet)
    other.float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(3, *skeleton.image, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found: list[dict[str, Tensor]] = []
    for network, dtype in ((plain, torch.float64), (other, torch.float32)):
        torch.manual_seed(1)
        given = {
            "images": images.to(dtype).requires_grad_(),
            "alpha": weights_of(space).to(dtype).detach().requires_grad_(),
        }
        if edge_weights:
            given["beta"] = edges_of(space).to(dtype).detach().requires_grad_()
        logits = network(given["images"], Mixing(given["alpha"], given.get("beta")))
        weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        gradients = torch.autograd.grad(logits.square().sum(), [*given.values(), *weights.values()])
        named = dict(zip([*given, *weights], gradients, strict=True))
        of_weights = {name: named[name] for name in weights}
        if network is other:
            of_weights = under_plain_names(other, of_weights)
        statistics = (other.plain_state() if network is other else network.state_dict()).items()
        found.append(
            {"logits": logits.detach(), **{name: named[name] for name in given}}
            | {name: of_weights[name] for name, _ in plain.named_parameters()}
            | {name: tensor for name, tensor in statistics if "running_" in name}
        )
    for name, expected in found[0].items():
        ours = found[1][name].double()
        assert (ours - expected).norm() <= 2e-4 * expected.norm() + 1e-6, name


# --- shared memory --------------------------------------------------------------------------------------------------

COMPILED = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from rapdarts.networks.batched.layout import Geometry, BlockMap
from rapdarts.networks.batched.kernels import convolutions

class OtherGpu:
    get_current_device = get_current_stream = lambda self, *given: 0
    get_current_target = lambda self: GPUTarget("cuda", 86, 32)

launch = JITFunction.run

def compiled(kernel, *given, warmup, **options):
    print(kernel.__name__, launch(kernel, *given, warmup=True, **options).metadata.shared)

JITFunction.run = compiled
driver.set_active(OtherGpu())
geometry, block_map = Geometry((1, 1), (2, 2), (1, 1)), BlockMap.identity(1)
for channels in map(int, sys.argv[1:]):
    image = torch.empty(1, channels, 4, 4).to(memory_format=torch.channels_last)
    weights = torch.empty(channels, 1, 5, 5), torch.empty(channels, channels, 1, 1)
    convolutions.forward(image, block_map, *weights, geometry)
    convolutions.backward(image, image.shape, image, block_map, *weights, geometry)
"""


@pytest.mark.proof
def test_kernels_fit_into_the_shared_memory_of_a_gpu(tmp_path: Path) -> None:
    """Compile the kernels, without running them, for compute capability 8.6 (99 KB per program) in float32.

    This covers the widest slots and those whose kernels process the most columns at once.
    """
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILED, str(MOST_CHANNELS), "32"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
    kernels = [(name, int(shared)) for name, shared in map(str.split, done.stdout.splitlines())]
    assert [name for name, _ in kernels] == 2 * ["_convolve", "_convolve", "_convolve", "_correlate", "_split_gradient"]
    assert 48 * 1024 < max(shared for _, shared in kernels) <= 99 * 1024


@pytest.mark.parametrize(("capability", "most"), [((7, 5), 64), ((8, 0), 128), ((8, 6), 128), ((12, 0), 128)])
def test_older_gpus_are_limited_to_narrower_slots(
    capability: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    bundles._most_channels.cache_clear()
    x: Any = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    assert [bundles.use_kernels(x, channels) for channels in (1, most, most + 1)] == [True, True, False]
    bundles._most_channels.cache_clear()
