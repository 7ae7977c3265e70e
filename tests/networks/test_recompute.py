"""Activation checkpointing: the results are bit-identical, and far less is saved for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.bilevel import unrolled_gradient
from rapdarts.training.optimizer import frozen, to_device

SKELETON = Skeleton(3, 4, (3, 8, 8), 10)
DEVICE = torch.device("cpu")
LABELS = torch.tensor([3, 1, 4, 1])
SPACES = {
    "darts": named_space("darts").only(["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"]),
    "filters": named_space("filters").only(["skip_connect", "conv_3x3", "bottleneck_3x3", "factorized_5x5"]),
    "nasbench201": named_space("nasbench201"),
}


def supernet_of(name: str, space: SearchSpace, checkpoint: bool) -> Supernet | BatchedSupernet:
    torch.manual_seed(0)
    plain = Supernet(space, SKELETON)
    supernet = to_device(plain if name == "plain" else BatchedSupernet(plain), DEVICE)
    supernet.checkpoint = checkpoint
    supernet.dropout.rate = 0.4
    return supernet


def images() -> Tensor:
    return torch.randn(4, *SKELETON.image, generator=torch.Generator().manual_seed(5))


def uniform(space: SearchSpace) -> Tensor:
    return torch.softmax(torch.randn(space.mask.shape, generator=torch.Generator().manual_seed(6)), -1)


Supernets = Supernet | BatchedSupernet


def weight_step(supernet: Supernets, mixing: Tensor) -> list[Tensor]:
    """Return the loss and the gradients of a weight step."""
    loss = cross_entropy(supernet(images(), Mixing(mixing)), LABELS)
    return [loss, *torch.autograd.grad(loss, list(supernet.parameters()))]


def architecture_step(supernet: Supernets, mixing: Tensor) -> list[Tensor]:
    """Return the loss and the gradient of an architecture step, in which the weights are frozen in the forward pass only."""
    mixing.requires_grad_()
    with frozen(supernet):
        logits = supernet(images(), Mixing(mixing))
    loss = cross_entropy(logits, LABELS)
    return [loss, *torch.autograd.grad(loss, [mixing])]


def unrolled_step(supernet: Supernets, mixing: Tensor) -> list[Tensor]:
    """Return the loss and the second-order gradient, whose backward passes see other weights than the forward passes."""
    mixing.requires_grad_()

    def loss_on(weights: object) -> Tensor:
        return cross_entropy(functional_call(supernet, dict(weights), (images(), Mixing(mixing))), LABELS)  # type: ignore[call-overload]

    loss, gradients = unrolled_gradient(loss_on, loss_on, dict(supernet.named_parameters()), [mixing], 0.5)
    return [loss, *gradients]


@pytest.mark.parametrize("step", [weight_step, architecture_step, unrolled_step])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ["plain", "batched"])
def test_results_are_bit_identical(name: str, space: str, step: Callable[[Supernets, Tensor], list[Tensor]]) -> None:
    """Compare loss, gradients, statistics and the state of the random generator, with skip dropout."""
    found = []
    for checkpoint in (False, True):
        supernet = supernet_of(name, SPACES[space], checkpoint)
        torch.manual_seed(1)
        results = step(supernet, uniform(SPACES[space]))
        found.append([*results, torch.get_rng_state(), *supernet.state_dict().values()])
    for without, with_checkpoint in zip(*found, strict=True):
        assert torch.equal(without, with_checkpoint)


def test_a_users_module_counts_a_batch_once() -> None:
    """The module has a batch norm without momentum, which counts its batches, and its own counter of images."""

    class Counter(nn.Module):
        seen: Tensor

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(channels, momentum=None)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(len(x))
            return self.norm(x)

    def own(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), Counter(channels), nn.Dropout(0.5))

    darts = SPACES["darts"]
    space = replace(darts, primitives={"own": own, "skip_connect": darts.primitives["skip_connect"]}, candidates=())
    found = []
    for checkpoint in (False, True):
        supernet = supernet_of("plain", space, checkpoint)
        torch.manual_seed(1)
        results = [*weight_step(supernet, uniform(space)), torch.get_rng_state()]
        found.append([*results, *supernet.state_dict().values()])
    for without, with_checkpoint in zip(*found, strict=True):
        assert torch.equal(without, with_checkpoint)
    assert supernet.state_dict()["cells.0.edges.0.ops.own.1.seen"] == len(LABELS)


def saved_bytes(supernet: Supernets, mixing: Tensor) -> int:
    """Return the bytes that a forward pass saves for the backward pass, excluding the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in supernet.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        supernet(images(), Mixing(mixing))
    return sum(sizes.values())


@pytest.mark.parametrize(("name", "factor"), [("plain", 20), ("batched", 10)])
def test_little_is_saved(name: str, factor: float) -> None:
    space = SPACES["darts"]
    without, with_checkpoint = (
        saved_bytes(supernet_of(name, space, checkpoint), uniform(space)) for checkpoint in (False, True)
    )
    assert with_checkpoint * factor < without


@pytest.mark.parametrize("name", ["plain", "batched"])
def test_nothing_is_saved_without_gradients(name: str) -> None:
    space = SPACES["darts"]
    supernets = [supernet_of(name, space, checkpoint).eval() for checkpoint in (False, True)]
    with torch.no_grad():
        without, with_checkpoint = (supernet(images(), Mixing(uniform(space))) for supernet in supernets)
    assert torch.equal(without, with_checkpoint)
    assert not with_checkpoint.requires_grad
