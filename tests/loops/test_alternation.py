"""The step of a search, which gives the same results with the plain and the batched supernet."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment, SearchConfig
from rapdarts.cost.expected import price_table
from rapdarts.cost.penalty import Penalty
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops.search import alternation, second_order
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.primitives import PRIMITIVES
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.optimizer import set_lr, sgd_for
from tests.networks.batched.test_supernet import blur

BLURRED = SearchSpace("blurred", {name: PRIMITIVES[name] for name in ("none", "skip_connect")} | {"blur": blur})


def alphas_after(steps: int, batched: bool) -> Tensor:
    """Return alpha after `steps` alternations on the digits in float64, with all primitives of darts, a price and skip dropout."""
    torch.manual_seed(0)
    space = named_space("darts")
    config = Experiment()
    config = replace(config, search=replace(config.search, batch=8))
    data = load_dataset(config.data, torch.device("cpu"), 0)
    skeleton = Skeleton(3, 2, data.image, data.classes)
    plain = Supernet(space, skeleton).double()
    supernet = BatchedSupernet(plain) if batched else plain
    supernet.dropout.rate = 0.1
    architecture = Architecture(space).double()
    sgd = sgd_for(supernet, 0.025, 0.9, 3e-4)
    set_lr(sgd, 0.025)
    adam = torch.optim.Adam(architecture.named_parameters(), 1.5e-2, (0.5, 0.999), weight_decay=1e-3, fused=True)
    penalty = Penalty(price_table(space, skeleton), {**asdict(SearchConfig().cost), "macs": 0.5})
    step = alternation(config.search, supernet, architecture, sgd, adam, penalty)
    batches = SearchBatches.of(data, config).epoch(0)
    for at in range(steps):
        torch.manual_seed(at)
        (images, labels), (search_images, search_labels) = next(batches)
        step(images.double(), labels, search_images.double(), search_labels, True)
    return architecture.alpha.detach()


@pytest.mark.parametrize("steps", [10, pytest.param(50, marks=pytest.mark.proof)])
def test_steps_with_either_supernet_give_the_same_alphas(steps: int) -> None:
    plain, batched = alphas_after(steps, batched=False), alphas_after(steps, batched=True)
    moved = (plain - alphas_after(0, batched=False)).abs()
    assert moved.max() > 0.1  # far enough for a difference to show
    assert (plain - batched).abs().max() < 1e-8


# --- the second-order gradient -----------------------------------------------------------------------------------


def batches_of(size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 8, 8, dtype=torch.float64, generator=generator)
    return images, torch.arange(size) % 3


def looked_ahead(
    supernet: Supernet | BatchedSupernet, space: SearchSpace, weight_steps: int
) -> tuple[Tensor, list[Tensor]]:
    """Return the search loss and alpha's gradient after a virtual step, following real weight steps that build up momentum."""
    torch.manual_seed(1)
    architecture = Architecture(space, 0.5).double()
    sgd = sgd_for(supernet, 0.125, 0.9, 0.5)
    set_lr(sgd, 0.125)
    supernet.train()
    train, search = batches_of(6, 2), batches_of(5, 3)
    weights = [weight for weight in supernet.parameters() if weight.requires_grad]
    for _ in range(weight_steps):
        loss = cross_entropy(supernet(train[0], architecture().detach()), train[1])
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            weight.grad = gradient
        sgd.step()
    torch.manual_seed(4)
    return second_order(supernet, architecture, sgd, train, search)


@pytest.mark.parametrize("rate", [pytest.param(0.0, marks=pytest.mark.proof), 0.3])
@pytest.mark.parametrize("space", [named_space("darts"), BLURRED], ids=lambda space: str(space.name))
def test_the_second_order_gradient_is_the_same_with_either_supernet(space: SearchSpace, rate: float) -> None:
    torch.manual_seed(0)
    plain = Supernet(space, Skeleton(3, 4, (1, 8, 8), 3)).double()
    pair: list[Supernet | BatchedSupernet] = [plain, BatchedSupernet(plain)]
    found = []
    for supernet in pair:
        supernet.dropout.rate = rate
        found.append(looked_ahead(supernet, space, weight_steps=2))
    (loss, gradients), (our_loss, our_gradients) = found
    assert abs(our_loss - loss) <= 1e-10 * abs(loss)
    for ours, theirs in zip(our_gradients, gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@pytest.mark.parametrize("batched", [False, True], ids=["plain", "batched"])
def test_the_virtual_step_does_not_move_untrained_parameters(batched: bool) -> None:
    """The loss is computed after a step of the trained weights, with a weight decay of 0.5; the filters of `blur` do not change."""
    torch.manual_seed(0)
    supernet: Supernet | BatchedSupernet = Supernet(BLURRED, Skeleton(3, 4, (1, 8, 8), 3)).double()
    supernet = BatchedSupernet(supernet) if batched else supernet  # type: ignore[arg-type]
    learned = {name: weight for name, weight in supernet.named_parameters() if weight.requires_grad}
    assert len(learned) < len(list(supernet.parameters()))
    torch.manual_seed(1)
    mixing = Architecture(BLURRED, 0.5).double()().detach()
    found, _ = looked_ahead(deepcopy(supernet), BLURRED, weight_steps=0)

    def loss(batch: tuple[Tensor, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(supernet, dict(weights), (batch[0], mixing)), batch[1])

    gradients = torch.autograd.grad(loss(batches_of(6, 2), learned), list(learned.values()))
    moved = {
        name: weight - 0.125 * (gradient + 0.5 * weight)
        for (name, weight), gradient in zip(learned.items(), gradients, strict=True)
    }
    assert abs(found - loss(batches_of(5, 3), moved)) < 1e-12
