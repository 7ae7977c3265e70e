"""The moving average of weights, compared with its recursion computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rapdarts.training.ema import EMA


def moved(network: nn.Module, step: int) -> None:
    """Give a network new weights and new batch norm statistics."""
    torch.manual_seed(step)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn_like(weight))
    network(torch.randn(8, 3, 4, 4) + step)


@pytest.mark.parametrize("decay", [0.5, 0.15, 0.999])
def test_weights_follow_the_recursion(decay: float) -> None:
    """Running statistics and counters are copied from the last step."""
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    ema = EMA(network, decay)
    expected = {name: value.detach().clone().double() for name, value in network.named_parameters()}
    for step in range(1, 8):
        moved(network, step)
        ema.update(torch.tensor(True))
        keep = min(decay, (1 + step) / (10 + step))
        for name, value in network.named_parameters():
            expected[name] = keep * expected[name] + (1 - keep) * value.double()
    found = ema.network.state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].double(), weight, rtol=1e-5, atol=1e-6)
    for name, buffer in network.named_buffers():
        assert torch.equal(found[name], buffer)
    assert ema.updates == 7


def test_the_average_is_independent_of_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).train()
    ema = EMA(network, 0.9)
    assert not ema.network.training and network.training
    assert not any(weight.requires_grad for weight in ema.network.parameters())
    assert all(weight.requires_grad for weight in network.parameters())
    moved(network, 1)
    assert not torch.equal(ema.network[0].weight, network[0].weight)


def test_networks_without_batch_norms_can_be_averaged() -> None:
    network = nn.Linear(2, 1)
    ema = EMA(network, 0.5)
    ema.update(torch.tensor(True))
    assert torch.equal(ema.network.weight, network.weight)


def test_the_average_resumes_from_its_state() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    ema = EMA(network, 0.9)
    moved(network, 1)
    ema.update(torch.tensor(True))
    state = {name: value.clone() for name, value in ema.state_dict().items()}
    other = EMA(network, 0.9)
    other.load_state_dict(state)
    moved(network, 2)
    ema.update(torch.tensor(True))
    other.update(torch.tensor(True))
    for name, value in ema.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
