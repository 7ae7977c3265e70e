"""Tests of contractions written as an element-wise product and an operation that adds it up: they have no formula, and are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from rapdarts.cost.count import macs, not_counted
from tests.computes import Computes

IMAGE = (3, 32, 32)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


ADD_UP: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x.sum(-1, keepdim=True, dtype=torch.float64),
    "nansum": lambda x: x.nansum(),
    "mean": lambda x: torch.mean(x, -1),
    "cumsum": lambda x: x.cumsum(-1),
    "trace": lambda x: x[0, 0].trace(),
    "var": lambda x: x.var(-1),
    "std_mean": lambda x: torch.std_mean(x, -1)[0],
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "avg_pool3d": lambda x: F.avg_pool3d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 4),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x, 2),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(-1, (x > 0).long(), x),
    "index_add": lambda x: torch.zeros_like(x).index_add(-1, x[0, 0, 0].long(), x),
    "col2im": lambda x: F.fold(x.view(1, 12, 256), (32, 32), 2, stride=2),
}
NO_SUMS: dict[str, Callable[[Tensor], Any]] = {
    "amax": lambda x: x.amax(-1),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "median": lambda x: x.median(-1)[0],
    "prod": lambda x: x.prod(-1),
    "softmax": lambda x: x.softmax(-1),
}


@pytest.mark.parametrize("name", [*ADD_UP, *NO_SUMS])
def test_a_product_of_elements_that_is_added_up_is_named(name: str) -> None:
    """Whichever operation adds; one that chooses, multiplies or normalises its elements adds up no products."""
    reduce = {**ADD_UP, **NO_SUMS}[name]
    network = Computes(lambda net, x: reduce(x * net.w), w=zeros(32))
    assert not_counted(network, IMAGE) == ({f"mul + {name}": [""]} if name in ADD_UP else {})
    assert not_counted(Computes(lambda net, x: reduce(x), w=zeros(32)), IMAGE) == {}


def half_cleared(x: Tensor) -> Tensor:
    x[..., :16].zero_()
    return x


def halves(x: Tensor) -> Tensor:
    return x[..., :16] + x[..., 16:]


BETWEEN: dict[str, tuple[str, Callable[[Any, Tensor], Tensor]]] = {
    "a quotient": ("div + mean", lambda net, x: (x / net.w).mean()),
    "moved, and a function of it": (
        "mul + mean",
        lambda net, x: F.gelu((x * net.w).permute(0, 3, 1, 2)).clone().mean(1),
    ),
    "flattened": ("mul + mean", lambda net, x: (x * net.w).flatten(2).mean(-1)),
    "of another type": ("mul + sum", lambda net, x: (x * net.w).double().sum(-1)),
    "scaled": ("mul + sum", lambda net, x: (x * net.w * net.one).sum(-1)),
    "masked": ("mul + mean", lambda net, x: (x * net.w).masked_fill(x > 0, 0).mean(-1)),
    "stacked": ("mul + mean", lambda net, x: torch.stack([x, x * net.w]).mean(-1)),
    "a difference of products": ("mul + mean", lambda net, x: (x * net.v - x * net.w).mean(-1)),
    "written": ("mul + sum", lambda net, x: torch.empty_like(x).copy_(x * net.w).sum(-1)),
    "in place": ("mul + cumsum", lambda net, x: x.clone().mul_(net.w).cumsum_(-1)),
    "partly overwritten": ("mul + sum", lambda net, x: half_cleared(x * net.w).sum(-1)),
    "with a tensor's own rows": ("mul + mean", lambda net, x: (x[:, :, None] * x[:, None]).mean((3, 4))),
    "with its own function": ("mul + sum", lambda net, x: (x.unsqueeze(2) * x.sigmoid().unsqueeze(1)).sum((3, 4))),
    "transposed": ("mul + sum", lambda net, x: (x * x.mT).sum(-1)),
    "added to zeros": ("addcmul + sum", lambda net, x: torch.addcmul(torch.zeros_like(x), x, net.w).sum(-1)),
    "added to a product": ("addcdiv + sum", lambda net, x: (x * net.v).addcdiv_(x, net.w).sum(-1)),
    "a constant is added": ("mul + mean", lambda net, x: (x * net.w + net.v).mean(-1)),
    "its parts are added": ("mul + add", lambda net, x: halves(x * net.w)),
    "its elements are added": ("mul + add", lambda net, x: sum((x * net.w).unbind(-1))),
    "on a diagonal": ("mul + sum", lambda net, x: (x * net.w).diagonal(0, 2, 3).sum(-1)),
}
"""The name of a contraction, and a product with something done to it before it is added up."""


@pytest.mark.parametrize("name", BETWEEN)
def test_a_product_is_followed_to_the_sum(name: str) -> None:
    expected, function = BETWEEN[name]
    network = Computes(function, v=zeros(32), w=zeros(32), one=zeros(1))
    assert not_counted(network, IMAGE) == {expected: [""]}
    assert macs(network, IMAGE) == 0


def pooled(function: Callable[[Any, Tensor], Tensor], **parts: Any) -> nn.Module:
    return nn.Sequential(Computes(function, **parts), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


GATES = {
    "squeeze and excitation": pooled(lambda net, x: x * x.mean((2, 3), keepdim=True).sigmoid()),
    "expanded": pooled(lambda net, x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x)),
    "scales of channels": pooled(lambda net, x: x * net.w, w=zeros(3, 1, 1)),
    "SiLU by hand": pooled(lambda net, x: x * x.sigmoid()),
    "SiLU of a part, permuted": pooled(
        lambda net, x: x[..., :16].permute(0, 1, 3, 2) * x[..., :16].permute(0, 1, 3, 2).sigmoid()
    ),
    "of an image and its only copy": Computes(lambda net, x: (x * x[0]).mean((2, 3))),
    "RMS norm by hand": Computes(lambda net, x: x * (x * x).mean(1, keepdim=True).rsqrt() * net.w, w=zeros(3, 1, 1)),
    "residual": pooled(lambda net, x: x + x * net.w, w=zeros(32, 32)),
    "residual, in one operation": pooled(lambda net, x: torch.addcmul(x, x, net.w), w=zeros(32, 32)),
    "squares are added": Computes(lambda net, x: torch.addcmul(net.w, x, x).mean(1), w=zeros(3, 1, 1)),
    "parts with the same scale": Computes(lambda net, x: halves(x * net.w), w=zeros(3, 1, 1)),
    "parts of an image": Computes(lambda net, x: halves(x)),
    "a number": pooled(lambda net, x: x * net.w, w=zeros(1)),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_and_functions_of_one_tensor_may_be_added_up(name: str) -> None:
    assert not_counted(GATES[name], IMAGE) == {}


def test_attention_over_the_pixels_is_named_where_it_is_added_up() -> None:
    """A weighted mean of the pixels contracts them, unlike the scale of a channel."""
    network = pooled(lambda net, x: x * net.map(x).sigmoid(), map=nn.Conv2d(3, 1, 1))
    assert not_counted(network, IMAGE) == {"mul + mean": ["2"]}
    assert macs(network, IMAGE) == 3 * 1024  # those of the convolution


@given(st.data())
def test_only_a_side_on_which_both_factors_vary_is_contracted(data: st.DataObject) -> None:
    """A factor that is constant along all sides of a sum can be taken out of it; the order of sides does not matter."""
    flags = st.lists(st.booleans(), min_size=3, max_size=3)
    left, right, added = data.draw(flags), data.draw(flags), data.draw(flags.filter(any))
    order, copied = data.draw(st.permutations(range(3))), data.draw(st.booleans())

    def contract(net: Any, x: Tensor) -> Tensor:
        product = (x[0] * net.w.expand(3, 5, 7)).permute(order)
        dims = [place for place, side in enumerate(order) if added[side]]
        return (product.contiguous() if copied else product).mean(dims)

    sides = [[side if varies else 1 for side, varies in zip((3, 5, 7), flags, strict=True)] for flags in (left, right)]
    both = any(all(side) for side in zip(left, right, added, strict=True))
    found = not_counted(Computes(contract, w=zeros(*sides[1])), tuple(sides[0]))
    assert found == ({"mul + mean": [""]} if both else {})
