"""The moving average of weights, by its own numbers."""

from __future__ import annotations

import torch
from torch import nn

from rapdarts.training.average import Average


def test_weights_are_averaged_as_the_formula_says() -> None:
    """A share of min(decay, (1 + t) / (10 + t)) is kept at step t = 1, 2, ...; the cap binds from the third step on here."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, decay=0.3)
    expected = 0.0
    for step, weight in enumerate((1.0, -2.0, 4.0, 8.0), 1):
        nn.init.constant_(network.weight, weight)
        average.update()
        keep = min(0.3, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * weight
        torch.testing.assert_close(average.network.weight, torch.tensor([[expected]]), rtol=1e-6, atol=0)
    assert keep == 0.3 > 2 / 11
    assert not average.network.weight.requires_grad


def test_statistics_are_taken_as_they_stand() -> None:
    network = nn.BatchNorm2d(2)
    average = Average(network, decay=0.9)
    network.train()(torch.randn(4, 2, 3, 3) + 5)
    average.update()
    assert torch.equal(average.network.running_mean, network.running_mean)
    assert torch.equal(average.network.running_var, network.running_var)
    assert average.network.num_batches_tracked == 1
