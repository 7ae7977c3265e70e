"""Tests of the unrolled gradient against exact double backward, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import Mixing, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.bilevel import Loss, Weights, unrolled_gradient

SETTINGS = [(0.025, 0.0, 0.0), (0.1, 0.9, 0.0), (0.5, 0.9, 3e-4), (0.1, 0.0, 0.5), (0.0, 0.9, 3e-4)]
"""Learning rate, momentum, weight decay."""


def exact(
    train_loss: Loss,
    search_loss: Loss,
    weights: Weights,
    alpha: list[Tensor],
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    velocity: Weights | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the loss, its gradient, and the part of the gradient through the virtual step, by differentiating the step itself."""
    step = torch.autograd.grad(train_loss(weights), list(weights.values()), create_graph=True, allow_unused=True)
    moved = {}
    for (name, w), gradient in zip(weights.items(), step, strict=True):
        old = torch.zeros_like(w) if velocity is None else velocity.get(name, torch.zeros_like(w))
        slope = torch.zeros_like(w) if gradient is None else gradient
        moved[name] = w - lr * (momentum * old + slope + weight_decay * w)
    loss = search_loss(moved)
    whole = torch.autograd.grad(loss, alpha, retain_graph=True)
    direct = torch.autograd.grad(search_loss({name: w.detach() for name, w in moved.items()}), alpha)
    return loss.detach(), list(whole), [a - b for a, b in zip(whole, direct, strict=True)]


def relative_error(found: list[Tensor], expected: list[Tensor], part: list[Tensor]) -> float:
    """Return the distance from the exact gradient, relative to its second-order part, which the finite difference approximates."""
    distance = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
    return float(distance / torch.cat([value.flatten() for value in part]).norm())


class Smooth:
    """A small smooth problem: two layers, two tensors of alpha, one weight only in the search loss, and one in neither loss."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.weights = {
            "first": draw(6, 8).requires_grad_(),
            "second": draw(8, 3).requires_grad_(),
            "late": draw(3).requires_grad_(),
            "idle": draw(2).requires_grad_(),
        }
        self.velocity = {"first": draw(6, 8), "second": draw(8, 3), "idle": draw(2)}
        self.alpha = [draw(8).requires_grad_(), draw(3, 3).requires_grad_()]
        self.data = {half: (draw(20, 6), draw(20, 3)) for half in ("train", "search")}

    def loss(self, half: str) -> Loss:
        x, y = self.data[half]

        def loss(weights: Weights) -> Tensor:
            hidden = torch.tanh(x @ weights["first"]) * torch.softmax(self.alpha[0], 0)
            out = torch.tanh(hidden @ weights["second"]) @ self.alpha[1].sigmoid()
            return (out + (weights["late"] if half == "search" else 0) - y).square().mean()

        return loss

    def given(self) -> tuple[Loss, Loss, Weights, list[Tensor]]:
        return self.loss("train"), self.loss("search"), self.weights, self.alpha


@pytest.mark.parametrize("lr, momentum, weight_decay", SETTINGS)
def test_the_gradient_of_a_smooth_model_is_exact_to_1e_4(lr: float, momentum: float, weight_decay: float) -> None:
    """The tolerance is relative to the second-order part."""
    problem = Smooth()
    for velocity in (None, problem.velocity):
        loss, gradient = unrolled_gradient(*problem.given(), lr, momentum, weight_decay, velocity)
        expected_loss, expected, part = exact(*problem.given(), lr, momentum, weight_decay, velocity)
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12)
        assert not loss.requires_grad
        if lr == 0:
            torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)
        else:
            assert relative_error(gradient, expected, part) < 1e-4


def test_momentum_and_weight_decay_change_the_virtual_step() -> None:
    problem = Smooth()
    losses = {
        unrolled_gradient(*problem.given(), 0.1, momentum, decay, velocity)[0].item()
        for momentum, decay, velocity in [
            (0.0, 0.0, None),
            (0.9, 0.0, problem.velocity),
            (0.9, 0.1, problem.velocity),
            (0.0, 0.1, None),
        ]
    }
    assert len(losses) == 4
    # Without a velocity, momentum has no effect.
    plain = unrolled_gradient(*problem.given(), 0.1, 0.9, 0.0, None)
    assert plain[0].item() in losses


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_gradient_scales_with_the_search_loss(scale: float) -> None:
    """The step of the finite difference is inversely proportional to the norm of the gradient, so the error scales too."""
    problem = Smooth()
    train, search, weights, alpha = problem.given()
    loss, gradient = unrolled_gradient(train, search, weights, alpha, 0.5)
    scaled_loss, scaled = unrolled_gradient(train, lambda moved: scale * search(moved), weights, alpha, 0.5)
    assert scaled_loss.item() == pytest.approx(scale * loss.item(), rel=1e-12)
    for one, other in zip(scaled, gradient, strict=True):
        torch.testing.assert_close(one, scale * other, rtol=1e-9, atol=0)


def test_the_arguments_are_not_changed() -> None:
    problem = Smooth()
    values = {**problem.weights, **{f"v {name}": v for name, v in problem.velocity.items()}}
    values |= {f"alpha {i}": alpha for i, alpha in enumerate(problem.alpha)}
    before = {name: value.detach().clone() for name, value in values.items()}
    unrolled_gradient(*problem.given(), 0.1, 0.9, 3e-4, problem.velocity)
    assert all(torch.equal(value, before[name]) for name, value in values.items())
    assert all(value.grad is None for value in values.values())
    assert all(weight.requires_grad for weight in [*problem.weights.values(), *problem.alpha])


def test_both_sides_of_the_difference_use_the_same_dropout_mask() -> None:
    """Otherwise, the finite difference would measure the difference between two masks."""
    problem = Smooth()

    def seeded(loss: Loss, seeds: Callable[[], Any]) -> Loss:
        def noisy(weights: Weights) -> Tensor:
            seeds()
            mask = torch.rand(6, 8, dtype=torch.float64) < 0.5
            return loss({**weights, "first": weights["first"] * mask})

        return noisy

    train, search, weights, alpha = problem.given()
    torch.manual_seed(7)
    _, gradient = unrolled_gradient(seeded(train, lambda: None), search, weights, alpha, 0.1)
    fixed = seeded(train, lambda: torch.manual_seed(7))
    _, expected, part = exact(fixed, search, weights, alpha, 0.1)
    assert relative_error(gradient, expected, part) < 1e-4


def smooth(module: nn.Module) -> None:
    """Replace every ReLU with SiLU."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.SiLU())
        smooth(child)


@pytest.mark.parametrize(
    "training, dropout, bound",
    [
        # With ReLU, epsilon moves some activations across zero, which double backward does not see.
        (False, 0.0, 0.2),
        # With batch statistics and skip dropout, but with SiLU, only the error of the finite difference remains.
        (True, 0.0, 1e-3),
        (True, 0.5, 1e-3),
    ],
    ids=["evaluation", "training", "training with skip dropout"],
)
def test_the_gradient_of_a_supernet_matches_double_backward(training: bool, dropout: float, bound: float) -> None:
    space = named_space("darts").only(["none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3"])
    torch.manual_seed(0)
    supernet = Supernet(space, Skeleton(3, 4, (1, 8, 8), 3)).double()
    alpha = (0.5 * torch.randn(space.mask.shape, dtype=torch.float64)).requires_grad_()
    images = torch.randn(2, 8, 1, 8, 8, dtype=torch.float64)
    labels = torch.randint(3, (2, 8))
    supernet(images[0], Mixing(torch.softmax(alpha, -1)))  # statistics for evaluation mode
    supernet.train(training)
    supernet.dropout.rate = dropout
    if training:
        smooth(supernet)

    def loss_on(half: int) -> Loss:
        def loss(weights: Weights) -> Tensor:
            mixing = Mixing(torch.softmax(alpha, -1))
            return cross_entropy(functional_call(supernet, dict(weights), (images[half], mixing)), labels[half])

        return loss

    weights = dict(supernet.named_parameters())
    velocity = {name: 0.1 * torch.randn_like(w) for name, w in weights.items()}
    before = {name: w.detach().clone() for name, w in weights.items()}
    given = (loss_on(0), loss_on(1), weights, [alpha], 0.025, 0.9, 3e-4, velocity)
    torch.manual_seed(7)
    loss, gradient = unrolled_gradient(*given)
    torch.manual_seed(7)
    expected_loss, expected, part = exact(*given)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-9)
    assert relative_error(gradient, expected, part) < bound
    assert all(torch.equal(w, before[name]) for name, w in weights.items())
