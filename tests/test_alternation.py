"""The step of a search: the same whichever way the supernet is computed."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor

from rapdarts.config import Experiment, SearchConfig
from rapdarts.cost.expected import price_table
from rapdarts.cost.penalty import Penalty
from rapdarts.loops.search import Halves, alternation
from rapdarts.networks.batched import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.space import Skeleton, named_space
from rapdarts.strategy.architecture import Architecture
from rapdarts.training.data import load
from rapdarts.training.descent import set_lr, weights_optimizer


def alphas_after(steps: int, batched: bool) -> Tensor:
    """alpha after so many alternations on the digits, float64, with a price and with skip dropout."""
    torch.manual_seed(0)
    space = named_space("darts").only(["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
    config = Experiment()
    config = replace(config, search=replace(config.search, batch=8))
    data = load(config.data, torch.device("cpu"), 0)
    skeleton = Skeleton(3, 2, data.image, data.classes)
    plain = Supernet(space, skeleton).double()
    supernet = BatchedSupernet(plain) if batched else plain
    supernet.dropout.rate = 0.1
    architecture = Architecture(space).double()
    sgd = weights_optimizer(supernet, 0.025, 0.9, 3e-4)
    set_lr(sgd, 0.025)
    adam = torch.optim.Adam(architecture.named_parameters(), 6e-3, (0.5, 0.999), weight_decay=1e-3, fused=True)
    penalty = Penalty(price_table(space, skeleton), {**asdict(SearchConfig().cost), "macs": 0.5})
    step = alternation(config.search, supernet, architecture, sgd, adam, penalty)
    batches = Halves.of(data, config).epoch(0)
    for at in range(steps):
        torch.manual_seed(at)
        (images, labels), (search_images, search_labels) = next(batches)
        step(images.double(), labels, search_images.double(), search_labels, True)
    return architecture.alpha.detach()


def test_thirty_steps_with_either_supernet_give_the_same_alphas() -> None:
    plain, batched = alphas_after(50, batched=False), alphas_after(50, batched=True)
    moved = (plain - alphas_after(0, batched=False)).abs()
    assert moved.max() > 0.1  # so far that a difference would show
    assert (plain - batched).abs().max() < 1e-8
