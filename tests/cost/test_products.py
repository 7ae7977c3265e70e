"""Tests of products: their MACs by hand, those of weights alone, complex numbers, and operations that have no formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import rapdarts
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.hardware import HardwareConfig
from rapdarts.cost.count import activations, count, macs, not_counted, params, traffic
from rapdarts.cost.expected import price_table
from rapdarts.cost.layers import network_costs, rows_of
from rapdarts.cost.trace import trace
from rapdarts.deploy.user_network import UserNetwork
from rapdarts.networks.primitives import choose
from rapdarts.reports.costs import describe_networks
from tests.computes import Computes

IMAGE = (3, 32, 32)


def zeros(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def rows(x: Tensor, count: int, width: int) -> Tensor:
    """Return `count` rows of `width` pixels."""
    return x.flatten()[: count * width].view(count, width)


def attend(net: Any, x: Tensor) -> Tensor:
    tokens = x.view(1024, 16)
    return torch.softmax(tokens @ net.query, 0) @ tokens


BY_HAND: dict[str, tuple[nn.Module, tuple[int, int, int], int]] = {
    "mv": (Computes(lambda net, x: x.flatten(1) @ net.w, w=zeros(3072)), IMAGE, 3072),
    "dot": (Computes(lambda net, x: x.flatten() @ net.w, w=zeros(3072)), IMAGE, 3072),
    "vdot": (Computes(lambda net, x: torch.vdot(x.flatten(), net.w), w=zeros(3072)), IMAGE, 3072),
    "two activations": (Computes(lambda net, x: x.flatten() @ x.flatten()), IMAGE, 3072),
    "addmv": (Computes(lambda net, x: torch.addmv(net.b, x[0, 0], net.w), b=zeros(32), w=zeros(32)), IMAGE, 32 * 32),
    "addr": (Computes(lambda net, x: torch.addr(x[0, 0], x[0, 0, 0], net.w), w=zeros(32)), IMAGE, 32 * 32),
    "addmm": (
        Computes(lambda net, x: torch.addmm(net.b, x[0, 0], net.w), b=zeros(5), w=zeros(32, 5)),
        IMAGE,
        32 * 32 * 5,
    ),
    "addbmm": (
        Computes(lambda net, x: torch.addbmm(net.b, x[0], net.w), b=zeros(5), w=zeros(3, 32, 5)),
        IMAGE,
        3 * 32 * 32 * 5,
    ),
    "baddbmm": (
        Computes(lambda net, x: torch.baddbmm(net.b, x[0], net.w), b=zeros(5), w=zeros(3, 32, 5)),
        IMAGE,
        3 * 32 * 32 * 5,
    ),
    "bilinear, one row": (
        Computes(lambda net, x: net.layer(rows(x, 1, 64), rows(x, 1, 64)), layer=nn.Bilinear(64, 64, 10)),
        IMAGE,
        64 * 64 * 10 + 64 * 10,
    ),
    "bilinear, three rows": (
        Computes(lambda net, x: net.layer(rows(x, 3, 5), rows(x, 3, 7)), layer=nn.Bilinear(5, 7, 2)),
        IMAGE,
        3 * (5 * 7 * 2 + 7 * 2),
    ),
    "attention pooling": (Computes(attend, query=zeros(16)), (16, 32, 32), 2 * 16 * 1024),
    "einsum": (Computes(lambda net, x: torch.einsum("nchw,cd->ndhw", x, net.w), w=zeros(3, 8)), IMAGE, 3 * 8 * 1024),
    "inner": (Computes(lambda net, x: torch.inner(x, net.w), w=zeros(5, 32)), IMAGE, 3 * 32 * 32 * 5),
    "tensordot": (Computes(lambda net, x: torch.tensordot(x, net.w, 1), w=zeros(32, 5)), IMAGE, 3 * 32 * 32 * 5),
    "multi_dot": (
        Computes(lambda net, x: torch.linalg.multi_dot([x[0, 0], net.v, net.w]), v=zeros(32, 4), w=zeros(4, 32)),
        IMAGE,
        2 * 32 * 32 * 4,
    ),
    "conv_tbc": (
        Computes(lambda net, x: torch.conv_tbc(x[0], net.w, net.b), w=zeros(3, 32, 4), b=zeros(4)),
        IMAGE,
        1 * 32 * 4 * 3 * 32,  # one step of 32 rows is left of three by a kernel of three
    ),
    "int8": (
        Computes(
            lambda net, x: torch._int_mm(
                x[0, 0].to(torch.int8), torch.zeros(32, 8, dtype=torch.int8, device=x.device)
            ).float()
        ),
        IMAGE,
        32 * 32 * 8,
    ),
    "transposed convolution": (nn.ConvTranspose2d(3, 8, 2, 2), IMAGE, 1024 * 3 * 8 * 4),
    "LSTM": (
        Computes(lambda net, x: net.layer(x[:, 0])[0], layer=nn.LSTM(32, 4, batch_first=True)),
        IMAGE,
        32 * 16 * (32 + 4),
    ),
    "GRU": (
        Computes(lambda net, x: net.layer(x[:, 0])[0], layer=nn.GRU(32, 4, batch_first=True)),
        IMAGE,
        32 * 12 * (32 + 4),
    ),
    "LSTM, one step": (
        Computes(lambda net, x: net.cell(x[0, 0])[0], cell=nn.LSTMCell(32, 4)),
        IMAGE,
        32 * 16 * (32 + 4),
    ),
    "RNN from a given state": (
        Computes(
            lambda net, x: net.layer(x[0], torch.ones(1, 32, 4, device=x.device))[0],
            layer=nn.RNN(32, 4, bias=False),
        ),
        IMAGE,
        3 * 32 * 4 * (32 + 4),
    ),
    "weights alone": (
        Computes(lambda net, x: F.linear(x, net.a @ net.b @ net.c), a=zeros(8, 4), b=zeros(4, 4), c=zeros(4, 32)),
        IMAGE,
        24_576,  # 96 rows x 32 x 8
    ),
    "weights alone, added": (
        Computes(lambda net, x: torch.addmm(x[0, 0], net.a, net.b), a=zeros(32, 4), b=zeros(4, 32)),
        IMAGE,
        0,
    ),
    "spectral norm": (nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)), IMAGE, 900 * 8 * 27),
    "elements": (Computes(lambda net, x: x * net.w + x * x, w=zeros(3, 1, 1)), IMAGE, 0),
    "complex linear": (
        Computes(lambda net, x: net.layer(x.to(torch.complex64)).abs(), layer=nn.Linear(32, 8, dtype=torch.complex64)),
        IMAGE,
        4 * 96 * 32 * 8,
    ),
    "complex convolution": (
        Computes(
            lambda net, x: net.layer(x.to(torch.complex64)).abs(), layer=nn.Conv2d(3, 8, 1, dtype=torch.complex64)
        ),
        IMAGE,
        4 * 1024 * 3 * 8,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_macs_by_hand(name: str) -> None:
    network, image, expected = BY_HAND[name]
    assert macs(network, image) == expected
    assert not_counted(network, image) == {}


@given(*[st.integers(2, 5)] * 4)  # einsum multiplies by a side of 1 without a sum
def test_a_product_has_the_same_macs_however_it_is_written(batch: int, n: int, k: int, m: int) -> None:
    spellings: list[Callable[[Any, Tensor], Tensor]] = [
        lambda net, x: x[0] @ net.w,
        lambda net, x: torch.bmm(x[0], net.w.expand(batch, k, m)),
        lambda net, x: torch.einsum("bnk,km->bnm", x[0], net.w),
        lambda net, x: F.linear(x[0], net.w.T),
        lambda net, x: torch.baddbmm(torch.zeros((), device=x.device), x[0], net.w.expand(batch, k, m)),
        lambda net, x: torch.addbmm(torch.zeros((), device=x.device), x[0], net.w.expand(batch, k, m)),
        lambda net, x: torch.stack([x[0] @ column for column in net.w.T.unbind()], -1),
        lambda net, x: torch.stack([torch.addmm(x.new_zeros(()), row, net.w) for row in x[0].unbind()]),
    ]
    for spelling in spellings:
        assert macs(Computes(spelling, w=zeros(k, m)), (batch, n, k)) == batch * n * k * m


def test_constants_are_weights() -> None:
    """A product of weights is read as one weight, and its parameters belong to the layer that reads it."""
    network, image, _ = BY_HAND["weights alone"]
    (op,) = [op for op in trace(network, image).ops if op.macs]
    assert (op.kind, op.weights, op.parameters) == ("linear", 8 * 32, ("a", "b", "c"))
    assert traffic(network, image) == 4 * (3072 + 256 + 768)
    assert [(row.kind, row.params, row.macs) for row in rows_of(network, trace(network, image).ops)] == [
        ("linear", 32 + 16 + 128, 24_576)
    ]


def test_a_table_made_of_nothing_is_a_constant() -> None:
    """A mask or the positions of a sequence cost nothing, whether they are stored or made anew."""

    def masked(net: Any, x: Tensor) -> Tensor:
        mask = torch.ones(32, 32, device=x.device).tril()
        return x + net.table(torch.arange(32, device=x.device)) * mask

    table = nn.Embedding(32, 32)
    for make in (torch.zeros, torch.ones):
        places = Computes(lambda net, x, make=make: x + net.layer(make(32, 4, device=x.device)), layer=nn.Linear(4, 32))
        assert macs(places, IMAGE) == 0
    stored = Computes(lambda net, x: x + net.table.weight, table=table)
    assert count(Computes(masked, table=table), IMAGE) == count(stored, IMAGE)


def test_writing_into_a_constant_makes_it_an_activation() -> None:
    def padded(net: Any, x: Tensor) -> Tensor:
        wide = x.new_zeros(1, 5, 32, 32)
        wide[:, :3] = x
        return net.layer(wide)

    network = Computes(padded, layer=nn.Conv2d(5, 4, 1, bias=False))
    (conv,) = [op for op in trace(network, IMAGE).ops if op.kind == "conv"]
    assert (conv.macs, conv.weights, conv.reads[0][1]) == (5 * 4 * 1024, 20, 5 * 1024)


def test_complex_numbers_count_as_two() -> None:
    network, image, _ = BY_HAND["complex linear"]
    assert params(network, image) == 2 * (32 * 8 + 8)
    assert activations(network, image) == 2 * 96 * 8
    linear, absolute = 2 * 3072 + 2 * 264 + 2 * 768, 2 * 768 + 768
    assert traffic(network, image) == 4 * (linear + absolute)
    assert sum(row.params for row in rows_of(network, trace(network, image).ops)) == 528


# --- operations without a formula --------------------------------------------------------------------------------


class Warp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, self.field(x).permute(0, 2, 3, 1), align_corners=False)


UNKNOWN: dict[str, tuple[nn.Module, dict[str, list[str]]]] = {
    "grid_sample": (nn.Sequential(Warp(), Warp()), {"grid_sampler_2d": ["0", "1"]}),
    "sum of a product": (Computes(lambda net, x: (x * net.w).sum(-1), w=zeros(32)), {"mul + sum": [""]}),
    "vecdot": (Computes(lambda net, x: torch.linalg.vecdot(x, net.w), w=zeros(32)), {"mul + sum": [""]}),
    "fft": (Computes(lambda net, x: torch.fft.rfft2(x).abs()), {"_fft_r2c": [""]}),
    "inverse": (Computes(lambda net, x: torch.linalg.inv(x)), {"linalg_inv_ex": [""]}),
    "cross": (
        Computes(lambda net, x: torch.linalg.cross(x, net.w, dim=1), w=zeros(1, 3, 32, 32)),
        {"linalg_cross": [""]},
    ),
    "cdist": (
        Computes(lambda net, x: torch.cdist(x, net.w, compute_mode="donot_use_mm_for_euclid_dist"), w=zeros(5, 32)),
        {"_cdist_forward": [""]},
    ),
    "bag with weights": (
        Computes(
            lambda net, x: net.bag(x[0, 0].long(), per_sample_weights=x[0, 1]), bag=nn.EmbeddingBag(9, 4, mode="sum")
        ),
        {"_embedding_bag_forward_only": ["bag"]},
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_operations_without_a_formula_are_named(name: str) -> None:
    network, expected = UNKNOWN[name]
    assert not_counted(network, IMAGE) == expected


def test_they_are_named_in_the_table_and_in_json() -> None:
    network = UNKNOWN["grid_sample"][0]
    counted = network_costs(UserNetwork("warps", network, IMAGE), 32, HardwareConfig())
    assert counted.to_json()["not_counted"] == {"grid_sampler_2d": ["0", "1"]}
    line = "not counted in the macs of warps (no formula): grid_sampler_2d in 0, 1"
    assert line in describe_networks([counted], "auto").splitlines()
    costs = rapdarts.costs(network)
    assert costs.not_counted == {"grid_sampler_2d": ["0", "1"]}
    assert repr(costs).splitlines()[-1].split() == [
        "grid_sampler_2d,",
        "not",
        "in",
        "macs",
        "2",
        "layers",
        "(no",
        "formula)",
    ]
    assert rapdarts.costs("lenet").not_counted == {}


def test_a_search_is_told_of_them() -> None:
    primitives = choose("none", "skip_connect") | {
        "warp": lambda channels, stride, affine: _strided_warp(channels, stride)
    }
    space = SearchSpace("mine", primitives)
    notes = price_table(space, Skeleton(3, 4, (3, 8, 8), 10)).notes
    assert notes == ("the MACs of warp do not include operations without a formula: grid_sampler_2d",)


def _strided_warp(channels: int, stride: int) -> nn.Module:
    grid = nn.Conv2d(channels, 2, 1, stride)
    return Computes(lambda net, x: F.grid_sample(x, net.grid(x).permute(0, 2, 3, 1), align_corners=False), grid=grid)


KNOWN = nn.ModuleDict(
    {
        "norms": nn.Sequential(nn.GroupNorm(1, 3), nn.InstanceNorm2d(3, affine=True), nn.LayerNorm(32), nn.RMSNorm(32)),
        "activations": nn.Sequential(nn.PReLU(), nn.GLU(-1), nn.GELU(), nn.Softmax(1), nn.LocalResponseNorm(2)),
        "pools": nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4), nn.Upsample(scale_factor=2, mode="bilinear")),
        "attention": nn.TransformerEncoderLayer(32, 4, 8, batch_first=True),
        "moves": Computes(lambda net, x: torch.cat([x, x.flip(1)], 1).roll(1, 0).masked_fill(x[:, :1] > 0, 1.0)),
        "scatter": Computes(lambda net, x: x.scatter_add(1, (x > 0).long(), x).index_add(1, x[0, 0, 0, :3].long(), x)),
        "where": Computes(lambda net, x: torch.where(x > 0, x, net.w * x).maximum(x).lerp(x, 0.5), w=zeros(32)),
    }
)


@pytest.mark.parametrize("name", KNOWN)
def test_operations_that_multiply_no_tensors_are_not_named(name: str) -> None:
    network = KNOWN[name]
    network = Computes(lambda net, x: net.inside(x[0]), inside=network) if name == "attention" else network
    assert not_counted(network, IMAGE) == {}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta").eval()(torch.empty(1, *IMAGE, device="meta"))
    assert macs(network, IMAGE) == counter.get_total_flops() // 2
