"""Primitives: the contract that all of them fulfil, and the structure of each."""

from __future__ import annotations

import copy
import pkgutil
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import search_spaces
from rapdarts.architecture.space import NONE, SKIP, Factory
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.layers import AvgPool, FactorizedReduce, remarks_on_pools
from rapdarts.networks.primitives import PRIMITIVES
from rapdarts.networks.reference import REFERENCE

SIZES = [(8, 8), (7, 5), (6, 9)]


def every_primitive() -> dict[str, Factory]:
    """Return the primitives of PRIMITIVES and of every space, each once; the keys of a space's own primitives begin with its name."""
    found = dict(PRIMITIVES)
    for module in pkgutil.iter_modules(search_spaces.__path__):
        for name, factory in named_space(module.name).primitives.items():
            if found.get(name) is not factory:
                found[f"{module.name}: {name}"] = factory
    return found


EVERY = every_primitive()


# --- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("primitive", EVERY)
def test_primitive_contract(primitive: str, stride: int, affine: bool) -> None:
    factory, name = EVERY[primitive], primitive.split(": ")[-1]
    for channels in (4, 5, 16):
        torch.manual_seed(channels)
        op = factory(channels, stride, affine)
        norms = [module for module in op.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(norm.affine is affine for norm in norms)
        # In the supernet, all primitives except `none` and the identity are normalised.
        if not affine and name != NONE and (name, stride) != (SKIP, 1):
            assert norms

        for height, width in SIZES:
            # The shape is right, and the input is unchanged: all edges that leave a state read the same tensor.
            x = torch.randn(2, channels, height, width)
            given = x.clone().requires_grad_()
            y = op(given)
            assert y.shape == (2, channels, -(-height // stride), -(-width // stride)), (channels, height, width)
            assert y.isfinite().all()
            assert torch.equal(given, x)

            # The input and every weight have a gradient; with `none`, that of the input is zero.
            (y * torch.randn(y.shape)).sum().backward()
            assert given.grad is not None and given.grad.isfinite().all()
            assert bool(given.grad.any()) is (name != NONE)
            for weight in op.parameters():
                assert weight.grad is not None and weight.grad.isfinite().all()
                # In a bottleneck of one channel, the norm removes the scale: a weight's gradient may be zero.
                assert weight.grad.any() or channels < 16
                weight.grad = None
            if name == NONE:
                assert not y.any()

        # A copy gives the same output and shares no tensor.
        twin = copy.deepcopy(op)
        assert torch.equal(twin(x), op(x))
        assert not {id(value) for value in twin.state_dict(keep_vars=True).values()} & {
            id(value) for value in op.state_dict(keep_vars=True).values()
        }

    # On the meta device, the module and the shape are the same.
    with torch.device("meta"):
        weightless = factory(16, stride, affine)
    assert all(value.is_meta for value in weightless.state_dict().values())
    assert {key: value.shape for key, value in weightless.state_dict().items()} == {
        key: value.shape for key, value in op.state_dict().items()
    }
    assert weightless(x.to("meta")).shape == y.shape


# --- structure ---------------------------------------------------------------------------------------------------


def layers(module: nn.Module) -> list[str]:
    """Return the layers in order; a convolution is `inputs>outputs kernel`, with its stride, dilation and groups unless they are 1."""
    found = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is None
            parts = [f"{layer.in_channels}>{layer.out_channels} {layer.kernel_size[0]}x{layer.kernel_size[1]}"]
            parts += [f"stride {layer.stride[0]}x{layer.stride[1]}"] if layer.stride != (1, 1) else []
            parts += [f"dilation {layer.dilation[0]}x{layer.dilation[1]}"] if layer.dilation != (1, 1) else []
            parts += [f"groups {layer.groups}"] if layer.groups != 1 else []
            found.append(", ".join(parts))
        elif not list(layer.children()):
            found.append({"BatchNorm2d": "norm", "ReLU": "relu"}.get(type(layer).__name__, type(layer).__name__))
    return found


def separable(kernel: str, stride: str) -> list[str]:
    return ["relu", f"16>16 {kernel}{stride}, groups 16", "16>16 1x1", "norm"]


STRIDED = ", stride 2x2"
AT_STRIDE_2 = {
    "none": ["Zero"],
    "max_pool_3x3": ["MaxPool2d"],
    "avg_pool_3x3": ["AvgPool"],
    "skip_connect": ["relu", "16>8 1x1", "16>8 1x1", "norm"],  # subsampled without a strided convolution
    "nor_conv_1x1": ["AvgPool2d", "relu", "16>16 1x1", "norm"],  # likewise, by a 1x1 pool
    "nor_conv_3x3": ["relu", "16>16 3x3, stride 2x2", "norm"],
    "conv_3x3": ["relu", "16>16 3x3, stride 2x2", "norm"],
    "conv_5x5": ["relu", "16>16 5x5, stride 2x2", "norm"],
    "sep_conv_3x3": separable("3x3", STRIDED) + separable("3x3", ""),
    "sep_conv_5x5": separable("5x5", STRIDED) + separable("5x5", ""),
    "sep_conv_7x7": separable("7x7", STRIDED) + separable("7x7", ""),
    "dil_conv_3x3": separable("3x3", STRIDED + ", dilation 2x2"),
    "dil_conv_5x5": separable("5x5", STRIDED + ", dilation 2x2"),
    "bottleneck_3x3": ["relu", "16>4 1x1", "norm", "relu", "4>4 3x3, stride 2x2", "norm", "relu", "4>16 1x1", "norm"],
    "bottleneck_5x5": ["relu", "16>4 1x1", "norm", "relu", "4>4 5x5, stride 2x2", "norm", "relu", "4>16 1x1", "norm"],
    "factorized_3x3": ["relu", "16>16 3x1, stride 2x1", "norm", "relu", "16>16 1x3, stride 1x2", "norm"],
    "factorized_5x5": ["relu", "16>16 5x1, stride 2x1", "norm", "relu", "16>16 1x5, stride 1x2", "norm"],
    "conv_7x1_1x7": ["relu", "16>16 1x7, stride 1x2", "16>16 7x1, stride 2x1", "norm"],
}


def test_every_primitive_has_an_expected_structure() -> None:
    assert set(AT_STRIDE_2) == set(PRIMITIVES)


@pytest.mark.parametrize("name", AT_STRIDE_2)
def test_structure(name: str) -> None:
    expected = AT_STRIDE_2[name]
    assert layers(PRIMITIVES[name](16, 2, True)) == expected
    pools = ["norm"] if "pool" in name else []  # only the supernet normalises them
    assert layers(PRIMITIVES[name](16, 2, False)) == expected + pools
    # At stride 1, only the stride is missing; a skip is then an identity, and nothing is subsampled.
    plain = [re.sub(r", stride \dx\d", "", layer) for layer in expected[name == "nor_conv_1x1" :]]
    assert layers(PRIMITIVES[name](16, 1, True)) == (["Identity"] if name == "skip_connect" else plain)


@pytest.mark.parametrize("channels, narrow", [(1, 1), (3, 1), (4, 1), (5, 1), (8, 2), (19, 4)])
def test_bottleneck_width(channels: int, narrow: int) -> None:
    convolutions = [layer for layer in layers(PRIMITIVES["bottleneck_3x3"](channels, 1, True)) if ">" in layer]
    assert convolutions == [f"{channels}>{narrow} 1x1", f"{narrow}>{narrow} 3x3", f"{narrow}>{channels} 1x1"]


def test_pools_ignore_the_padding() -> None:
    constant = torch.full((1, 4, 7, 6), -3.0)
    for name in ("avg_pool_3x3", "max_pool_3x3"):
        for stride in (1, 2):
            assert (PRIMITIVES[name](4, stride, True)(constant) == -3.0).all()


def test_none_is_zero_for_large_inputs() -> None:
    assert torch.equal(PRIMITIVES["none"](4, 2, True)(torch.full((2, 4, 5, 5), 1e30)), torch.zeros(2, 4, 3, 3))


# --- receptive fields --------------------------------------------------------------------------------------------


def pixels_read(op: nn.Module, size: tuple[int, int], places: tuple[slice, slice]) -> Tensor:
    """Return a mask (h, w) of the input pixels that the outputs at `places` depend on."""
    torch.manual_seed(0)
    for weight in op.parameters():
        weight.detach().abs_()  # so that no ReLU outputs zero
    x = torch.rand(64, 16, *size).requires_grad_()
    op.eval()(x)[:, :, places[0], places[1]].sum().backward()
    assert x.grad is not None
    return x.grad.sum((0, 1)) > 0


GRIDS = {
    "max_pool_3x3": range(-1, 2),
    "avg_pool_3x3": range(-1, 2),
    "skip_connect": range(0, 1),
    "nor_conv_1x1": range(0, 1),
    "nor_conv_3x3": range(-1, 2),
    "conv_3x3": range(-1, 2),
    "conv_5x5": range(-2, 3),
    "sep_conv_3x3": range(-2, 3),
    "sep_conv_5x5": range(-4, 5),
    "sep_conv_7x7": range(-6, 7),
    "dil_conv_3x3": range(-2, 3, 2),
    "dil_conv_5x5": range(-4, 5, 2),
    "bottleneck_3x3": range(-1, 2),
    "bottleneck_5x5": range(-2, 3),
    "factorized_3x3": range(-1, 2),
    "factorized_5x5": range(-2, 3),
    "conv_7x1_1x7": range(-3, 4),
}


@pytest.mark.parametrize("name", GRIDS)
def test_receptive_field(name: str) -> None:
    expected = torch.zeros(15, 15, dtype=torch.bool)
    for row in GRIDS[name]:
        for column in GRIDS[name]:
            expected[7 + row, 7 + column] = True
    centre = (slice(7, 8), slice(7, 8))
    assert torch.equal(pixels_read(PRIMITIVES[name](16, 1, True), (15, 15), centre), expected)


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (6, 5), (1, 1)])
def test_strided_1x1_convolution_equals_a_manual_computation(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    op: Any = PRIMITIVES["nor_conv_1x1"](4, 2, True).double().eval()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x.relu(), op[2].weight, stride=2) / (1 + op[3].eps) ** 0.5
    torch.testing.assert_close(op(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (6, 5)])
def test_factorized_reduce_reads_even_and_odd_pixels(size: tuple[int, int]) -> None:
    """Half of the channels read the pixels with even coordinates, the other half those with odd ones; no pixel is read twice."""
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    everywhere = (slice(None), slice(None))
    read = pixels_read(FactorizedReduce(16, 16, affine=True), size, everywhere)
    assert torch.equal(read, rows % 2 == columns % 2)


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (6, 5), (1, 1)])
def test_factorized_reduce_equals_a_manual_computation(size: tuple[int, int]) -> None:
    height, width = size
    torch.manual_seed(0)
    op = FactorizedReduce(4, 5, affine=True).double().eval()
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    assert (op.halves.even.out_channels, op.halves.odd.out_channels) == (2, 3)

    expected = torch.zeros(2, 5, -(-height // 2), -(-width // 2), dtype=torch.float64)
    for row in range(0, height, 2):
        for column in range(0, width, 2):
            even = x[:, :, row, column].relu()
            expected[:, :2, row // 2, column // 2] = even @ op.halves.even.weight[:, :, 0, 0].T
            if row + 1 < height and column + 1 < width:
                odd = x[:, :, row + 1, column + 1].relu()
                expected[:, 2:, row // 2, column // 2] = odd @ op.halves.odd.weight[:, :, 0, 0].T
    expected /= (1 + op.norm.eps) ** 0.5
    torch.testing.assert_close(op(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("counted", [True, False])
def test_average_pool_with_explicit_padding_is_equal(stride: int, counted: bool) -> None:
    """A GPU runs `padded_first` because the gradient of torch's padded pool is wrong there."""
    torch.manual_seed(0)
    pool = AvgPool(3, stride, 1, count_include_pad=counted)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    expected, found = pool(x), pool.padded_first(x)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(expected)
    (expected_gradient,), (found_gradient,) = (torch.autograd.grad(y, x, gradient) for y in (expected, found))
    torch.testing.assert_close(found_gradient, expected_gradient)


def test_on_a_gpu_a_warning_names_a_pool_with_a_wrong_gradient() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for padding in (1, (1, 0)):
        network = nn.Sequential(nn.ReLU(), nn.ModuleDict({"mine": nn.AvgPool2d(3, 1, padding)}))
        (warning,) = remarks_on_pools(network, gpu)
        assert "padded images on a GPU (PyTorch issue 188344), and the layer 1.mine uses it; use" in warning
        assert remarks_on_pools(network, cpu) == []
    for pool in (AvgPool(3, 1, 1), nn.AvgPool2d(2), nn.AvgPool2d(2, 2, (0, 0))):
        assert remarks_on_pools(nn.Sequential(pool), gpu) == []


def test_our_primitives_and_networks_have_no_pool_with_a_wrong_gradient() -> None:
    with torch.device("meta"):
        networks = [factory(4, stride, True) for factory in EVERY.values() for stride in (1, 2)]
        networks += [reference.build(reference.image, 10) for reference in REFERENCE.values()]
    assert remarks_on_pools(nn.ModuleList(networks), torch.device("cuda")) == []
