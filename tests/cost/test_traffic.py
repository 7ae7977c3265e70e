"""Tests of memory traffic: the same mathematics moves the same bytes, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rapdarts.cost.count import macs, traffic
from rapdarts.cost.peak_memory import peak_memory
from tests.computes import Computes

IMAGE = (3, 32, 32)


class Tokens(nn.Module):
    """A classifier on 64 tokens of 64: patches, self-attention with 4 heads, and a linear layer on their mean."""

    def __init__(self, attention: nn.Module, **options: Any) -> None:
        super().__init__()
        self.patches, self.attention, self.head = nn.Conv2d(3, 64, 4, 4), attention, nn.Linear(64, 10)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if isinstance(self.attention, nn.MultiheadAttention):
            tokens = self.attention(tokens, tokens, tokens, **self.options)[0]
        else:
            tokens = self.attention(tokens)
        return self.head(tokens.mean(1))


class Fused(nn.Module):
    """Self-attention by linear layers and PyTorch's fused function."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.inside(tokens).view(1, 64, 3, 4, 16).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.outside(mixed.transpose(1, 2).reshape(1, 64, 64))


def test_attention_by_hand() -> None:
    """The weights are expanded to one copy for each token, but read once.

    PyTorch adds the bias of the first linear layer separately, because its input is transposed.
    """
    patches, head = 3072 + 64 * 49 + 4096, 64 + 650 + 10
    inside = (4096 + 64 * 192 + 3 * 4096) + (3 * 4096 + 192 + 3 * 4096)
    scores, softmax, mixed = 2 * 4096 + 4 * 4096, 2 * 4 * 4096, 4 * 4096 + 4096 + 4096
    outside, mean = 4096 + 65 * 64 + 4096, 4096 + 64
    expected = 4 * (patches + inside + scores + softmax + mixed + outside + mean + head)
    assert expected == 651_600
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    for network in (Tokens(attention, need_weights=False), Tokens(Fused())):
        assert traffic(network, IMAGE) == expected
        assert macs(network, IMAGE) == 64 * (48 * 64 + 64 * 256 + 2 * 64 * 64) + 640
    weights = 4 * 4096 + 4096  # the mean of the scores over the heads, which is computed although nothing reads it
    assert traffic(Tokens(attention), IMAGE) == expected + 4 * weights


SAME: dict[str, list[nn.Module]] = {
    "instance norm": [
        nn.Sequential(nn.Conv2d(3, 8, 1), norm)
        for norm in (
            nn.InstanceNorm2d(8),
            nn.GroupNorm(8, 8, affine=False),
            nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        )
    ],
    "batch norm": [
        nn.Sequential(nn.Conv2d(3, 8, 1), norm)
        for norm in (nn.BatchNorm2d(8), nn.InstanceNorm2d(8, track_running_stats=True), nn.Identity())
    ],
    "expanded": [
        Computes(lambda net, x: torch.bmm(x[0], net.w.expand(3, 32, 5)), w=torch.zeros(32, 5)),
        Computes(lambda net, x: x @ net.w, w=torch.zeros(32, 5)),
        Computes(lambda net, x: F.linear(x, net.w), w=torch.zeros(5, 32)),
    ],
    "expanded activations": [
        Computes(lambda net, x: torch.bmm(x[0, :1].expand(3, 32, 32), net.w), w=torch.zeros(3, 32, 5)),
        Computes(lambda net, x: torch.bmm(x[0, :1].broadcast_to(3, 32, 32), net.w), w=torch.zeros(3, 32, 5)),
    ],
    "lookups": [
        Computes(lambda net, x: F.embedding(x[0, 0, 0].long(), net.w), w=torch.zeros(1000, 5)),
        Computes(lambda net, x: net.w[x[0, 0, 0].long()], w=torch.zeros(1000, 5)),
        Computes(lambda net, x: net.w.index_select(0, x[0, 0, 0].long()), w=torch.zeros(1000, 5)),
    ],
    "products of an activation with itself": [
        Computes(lambda net, x: x * x),
        Computes(lambda net, x: torch.mul(x, x)),
        Computes(lambda net, x: x * x.view(3, 32, 32)),
        Computes(lambda net, x: x * x.sigmoid()),
        Computes(lambda net, x: x.mT.contiguous() * x.mT),
        Computes(lambda net, x: x.expand(1, 3, 32, 32) / (x.relu() + 1)),
    ],
    "halves": [
        Computes(lambda net, x: torch.mul(*x.chunk(2, -1))),
        Computes(lambda net, x: x[..., :16] * x[..., 16:].sigmoid()),
        Computes(lambda net, x: x[..., ::2] * x[..., 1::2]),
        Computes(lambda net, x: torch.mul(*torch.unsafe_chunk(x, 2, -1))),
        Computes(lambda net, x: x[..., :16].tanh() * x[..., 16:].sigmoid()),
    ],
    "shuffles": [
        Computes(lambda net, x: net.layer(F.pixel_shuffle(x, 2)), layer=nn.Conv2d(2, 3, 1)),
        Computes(
            lambda net, x: net.layer(x.view(1, 2, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(1, 2, 16, 16)),
            layer=nn.Conv2d(2, 3, 1),
        ),
    ],
}
BY_HAND = {
    "instance norm": (3072 + 32 + 8192) + 2 * 8192,  # 110,720 B
    "batch norm": 3072 + 32 + 8192,
    "expanded": 3072 + 160 + 480,
    "expanded activations": 1024 + 480 + 480,
    "lookups": 32 + 160 + 160,
    "products of an activation with itself": 2 * 3072,
    "halves": 3072 + 1536,
    "shuffles": 512 + 9 + 768,
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_mathematics_moves_the_same_bytes(name: str) -> None:
    image = (8, 8, 8) if name == "shuffles" else IMAGE
    assert [traffic(network, image) for network in SAME[name]] == [4 * BY_HAND[name]] * len(SAME[name])


def test_norms_with_their_own_statistics_are_not_in_place() -> None:
    assert [peak_memory(network, IMAGE) for network in SAME["instance norm"]] == [65_536] * 3
    assert [peak_memory(network, IMAGE) for network in SAME["batch norm"]] == [4 * (3072 + 8192)] * 3


def test_an_embedding_reads_at_most_its_table() -> None:
    """A table of 4 rows is read once; a bag reads the rows that it sums."""
    plain = Computes(lambda net, x: F.embedding(x.long(), net.w), w=torch.zeros(4, 2))
    assert traffic(plain, IMAGE) == 4 * (3072 + 4 * 2 + 2 * 3072)
    bag = Computes(lambda net, x: net.bag(x[0, 0].long()), bag=nn.EmbeddingBag(5000, 2, mode="sum"))
    assert traffic(bag, IMAGE) == 4 * (1024 + 1024 * 2 + 32 * 2 + 32)


def test_a_sum_reads_every_term() -> None:
    """So that the cost of an edge of a cell does not depend on what its other edges read."""
    assert traffic(Computes(lambda net, x: x + x), IMAGE) == 4 * 3 * 3072
