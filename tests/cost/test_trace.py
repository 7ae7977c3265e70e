"""Tests of the trace of a forward pass: it agrees with other counters, names layers that fail, and does not change networks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.cost.count import macs
from rapdarts.cost.layers import second_opinion
from rapdarts.cost.recorder import Op
from rapdarts.cost.trace import remembering, trace
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.networks.reference import REFERENCE

Image = tuple[int, int, int]
IMAGE = (3, 16, 16)


def derived(name: str) -> DerivedNetwork:
    """Return a small network of a genotype from the literature."""
    genotype = LITERATURE[name]
    return DerivedNetwork(genotype, named_space(genotype.space), Skeleton(3, 4, IMAGE, 10))


class Attention(nn.Module):
    """Self-attention over the patches of an image: products of two activations, with copies and views of them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        seen, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head((tokens + seen).mean(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Image]] = {
    **{name: (lambda name=name: derived(name), IMAGE) for name in ("PDARTS", "AmoebaNet")},
    **{
        name: (lambda name=name, image=image: REFERENCE[name].build(image, 10), image)
        for name, image in {
            "lenet": (1, 28, 28),
            "small_alexnet": (3, 28, 28),
            "googlenet_28": (3, 28, 28),
            "resnet18": (3, 64, 48),
            "mobilenet_v2": (3, 64, 64),
            "shufflenet_v1": (3, 64, 64),
            "densenet121": (3, 64, 64),
        }.items()
    },
}


def built(name: str) -> tuple[nn.Module, Image]:
    make, image = NETWORKS[name]
    with torch.device("meta"):
        return make().eval(), image


# --- other counters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_half_of_pytorchs_flops(name: str) -> None:
    network, image = built(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *image, device="meta"))
    assert macs(network, image) == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_match_thop(name: str) -> None:
    network, image = built(name)
    assert macs(network, image) == second_opinion(network, image)


def test_macs_of_attention_by_hand() -> None:
    network = Attention().eval()
    ops = trace(network, IMAGE).ops
    by_kind = {kind: sum(op.macs for op in ops if op.kind == kind) for kind in ("conv", "linear", "matmul")}
    assert by_kind == {"conv": 16 * 8 * 3 * 16, "linear": 16 * 8 * (24 + 8) + 80, "matmul": 2 * 16 * 16 * 8}
    assert trace(network.double(), IMAGE).sizes == trace(Attention(), IMAGE).sizes


# --- the record --------------------------------------------------------------------------------------------------


def test_operations_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten())
    network.append(nn.Linear(36, 5))
    run = trace(network, (3, 8, 8))
    conv, norm, relu, pool, view, linear = run.ops
    assert conv == Op(
        "convolution",
        "conv",
        "0",
        4 * 36 * 27,
        4 * 27 + 4,
        ("0.weight", "0.bias"),
        ((0, 192),),
        1,
        (1, 4, 6, 6),
        False,
    )
    assert [op.kind for op in run.ops] == ["conv", "norm", "relu", "pool", "other", "linear"]
    assert [op.free for op in run.ops] == [False, True, True, False, True, False]
    assert norm.writes == relu.writes == conv.writes  # folded
    assert norm.parameters == ("1.weight", "1.bias", "1.running_mean", "1.running_var")
    assert pool.reads == ((conv.writes, 144),) and pool.size == 36
    assert view.writes == pool.writes
    assert set(linear.parameters) == {"5.weight", "5.bias"} and linear.macs == 180
    assert run.output == linear.writes
    assert run.sizes == {0: 192, conv.writes: 144, pool.writes: 36, linear.writes: 5}


def test_shapes_and_types_match_those_of_a_forward_pass() -> None:
    """Operations whose kernels are skipped have outputs of the shape and type that PyTorch would give them."""

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = [x > 0, x.isnan(), torch.where(x > 0.5, x, -x), x.half(), x.argmax(1), x * x.new_ones(3, 1, 1)]
            seen += [x.transpose(1, 3).contiguous(), x.mean(), x.mean((1, -1)), x.mean(2, keepdim=True)]
            seen += [torch.cat([x, x], -1), torch.stack([x, x]), F.gelu(x), x.masked_fill(x > 1, 0.0), x.bool() & True]
            self.seen = [(one.shape, one.dtype, one.is_contiguous()) for one in seen]
            return x

    network = Odd()
    network(torch.zeros(1, 3, 4, 5))
    expected = network.seen
    trace(network, (3, 4, 5))
    assert network.seen == expected


def test_a_network_is_traced_once_within_remembering() -> None:
    network = nn.Conv2d(3, 4, 3)
    assert trace(network, IMAGE) is not trace(network, IMAGE)
    with remembering():
        assert trace(network, IMAGE) is trace(network, IMAGE)
        assert trace(network, (3, 5, 5)) is not trace(network, IMAGE)


# --- unchanged networks, and errors ------------------------------------------------------------------------------


def test_tracing_does_not_change_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 2, 1))
    network[1].eval()
    network[0].weight.requires_grad_(False)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    attributes = [set(vars(module)) for module in network.modules()]
    for _ in range(2):
        trace(network, (3, 8, 8))
        assert second_opinion(network, (3, 8, 8)) == macs(network, (3, 8, 8))
    with pytest.raises(InputError):
        trace(network, (4, 8, 8))
    assert [module.training for module in network] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [set(vars(module)) for module in network.modules()] == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not network[0].weight.requires_grad and network[0].bias.requires_grad and network[0].bias.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 6, 6)


class Root(nn.Module):
    """A network whose submodule `inside` fails."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.first, self.inside = nn.Conv2d(3, 4, 3), nn.ModuleList([inside])

    def forward(self, x: Tensor) -> Tensor:
        return self.inside[0](self.first(x))


class Values(nn.Module):
    """A module that needs the values of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    "network, words",
    [
        (Root(nn.Conv2d(5, 4, 1)), r"layer inside.0 \(Conv2d\) fails on an image of 3x16x16: .*channel"),
        (Root(nn.Sequential(nn.Flatten(), nn.Linear(9, 2))), r"layer inside.0.1 \(Linear\) fails .* 784"),
        (Root(Values()), r"layer inside.0 \(Values\) fails"),
        (
            Root(Raises()),
            r"layer inside.0 \(Raises\) fails on an image of 3x16x16: first line. Pass an input of another shape"
            r" \(input=CxHxW; in Python, image=\(C, H, W\)\), or fix the network\.$",
        ),
        (Raises(), r"layer|the network \(Raises\) fails"),
        (nn.LSTM(16, 4), r"the network \(LSTM\)"),
    ],
    ids=["channels", "size", "values", "raises", "root", "tuple"],
)
def test_errors_name_the_layer_that_fails(network: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        trace(network, IMAGE)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
