"""A search step and a retraining step in plain arithmetic, without the loops, optimisers, losses and prices of the package.

Only the forward passes of the networks and the tables of prices come from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot

from rapdarts.architecture.space import Mixing, SearchSpace
from rapdarts.config.experiment import RetrainConfig, SearchConfig
from rapdarts.cost.expected import PriceTable

Weights = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]


def cross_entropies(logits: Tensor, labels: Tensor, balance: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of each image, (n,), from logits (n, classes) and labels (n,), weighted by class."""
    classes = logits.shape[1]
    target = (1 - smoothing) * one_hot(labels, classes).double() + smoothing / classes
    log_probabilities = logits - logits.logsumexp(1, keepdim=True)
    return -(target * (1.0 if balance is None else balance) * log_probabilities).sum(1)


def joint_norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all numbers in tensors of any shapes."""
    return math.sqrt(sum(float((tensor**2).sum()) for tensor in tensors))


def clipped(gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
    """Return gradients of any shapes, scaled to a joint norm of at most `largest`; torch adds 1e-6 to the norm."""
    factor = min(1.0, largest / (joint_norm(gradients) + 1e-6))
    return [factor * gradient for gradient in gradients]


@dataclass
class SGD:
    """Stochastic gradient descent with momentum and weight decay; `velocity` maps names to tensors of the weights' shapes."""

    lr: float
    momentum: float
    decay: float
    nesterov: bool = False
    velocity: dict[str, Tensor] = field(default_factory=dict)

    def stepped(self, weights: Weights, gradients: Weights) -> dict[str, Tensor]:
        """Return the weights after a step."""
        moved = {}
        for name, weight in weights.items():
            slope = gradients[name] + self.decay * weight
            old = self.velocity.get(name)
            self.velocity[name] = slope if old is None else self.momentum * old + slope
            direction = slope + self.momentum * self.velocity[name] if self.nesterov else self.velocity[name]
            moved[name] = weight - self.lr * direction
        return moved


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), with weight decay added to the gradient."""

    lr: float
    beta1: float
    beta2: float
    decay: float
    steps: int = 0
    means: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)

    def stepped(self, alpha: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters after a step."""
        self.steps += 1
        slopes = [gradient + self.decay * value for gradient, value in zip(gradients, alpha, strict=True)]
        means = self.means or [torch.zeros_like(value) for value in alpha]
        squares = self.squares or [torch.zeros_like(value) for value in alpha]
        self.means = [self.beta1 * m + (1 - self.beta1) * g for m, g in zip(means, slopes, strict=True)]
        self.squares = [self.beta2 * s + (1 - self.beta2) * g**2 for s, g in zip(squares, slopes, strict=True)]
        moved = []
        for value, mean, square in zip(alpha, self.means, self.squares, strict=True):
            unbiased = mean / (1 - self.beta1**self.steps), square / (1 - self.beta2**self.steps)
            moved.append(value - self.lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8))
        return moved


# --- the search --------------------------------------------------------------------------------------------------


def mixing_of(space: SearchSpace, alpha: Sequence[Tensor]) -> Mixing:
    """Return the softmax of alpha over the open candidates and, with beta, that of beta over the edges into each node."""
    powers = alpha[0].exp() * torch.as_tensor(space.mask)
    weights = powers / powers.sum(-1, keepdim=True)
    if len(alpha) == 1:
        return Mixing(weights)
    powers = alpha[1].exp()
    shares = []
    for node in range(space.nodes):
        into = powers[:, space.edges_into(node)]
        shares.append(into / into.sum(1, keepdim=True))
    return Mixing(weights, torch.cat(shares, 1))


def expected_costs(table: PriceTable, mixing: Mixing) -> Tensor:
    """Return E[cost] (resources,) if each node draws two different edges, one after the other, and each edge a primitive."""
    space, total = table.space, torch.as_tensor(table.fixed)
    weights = mixing.weights if mixing.edges is None else mixing.weights * mixing.edges[..., None]
    for kind in range(len(space.kinds)):
        for node in range(space.nodes):
            edges = [number for number, (into, _) in enumerate(space.edges) if into == node]
            open_ = {edge: weights[kind, edge] * torch.as_tensor(space.choosable) for edge in edges}
            q = {edge: open_[edge].sum() for edge in edges}
            whole = sum(q.values(), torch.zeros((), dtype=torch.float64))
            for edge in edges:
                drawn = q[edge] / whole
                for first in edges:
                    if first != edge:
                        drawn = drawn + q[first] / whole * q[edge] / (whole - q[first])
                prices = torch.as_tensor(table.prices[:, kind, edge])
                total = total + drawn * (prices * open_[edge] / q[edge]).sum(1)
    return total


def price(table: PriceTable, prices: Mapping[str, float], mixing: Mixing) -> Tensor:
    """Return the sum over resources of price x E[cost] / (E[cost] at uniform mixing), a scalar."""
    uniform = Mixing(torch.as_tensor(table.space.mask / table.space.mask.sum(-1, keepdims=True)))
    shares = expected_costs(table, mixing) / expected_costs(table, uniform)
    return sum((value * shares[table.row(name)] for name, value in prices.items()), torch.zeros(()).double())


@dataclass
class SearchStep:
    """The state of a search, and one step of it: first alpha on the search half, then the weights on the training half.

    `supernet` is only used for its forward pass. `prices` are the coefficients of the resources. After a step,
    `norms` holds the norms of the gradients that were clipped.
    """

    settings: SearchConfig
    space: SearchSpace
    supernet: nn.Module
    table: PriceTable
    prices: Mapping[str, float]
    weights: dict[str, Tensor]
    alpha: list[Tensor]
    balance: Tensor | None = None
    norms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.settings
        self.sgd = SGD(given.lr, given.momentum, given.weight_decay)
        self.adam = Adam(given.alpha_lr, given.alpha_beta1, given.alpha_beta2, given.alpha_weight_decay)

    def logits(self, images: Tensor, weights: Weights, alpha: Sequence[Tensor]) -> Tensor:
        return functional_call(self.supernet, dict(weights), (images, mixing_of(self.space, alpha)))

    def loss(self, batch: Batch, weights: Weights, alpha: Sequence[Tensor]) -> Tensor:
        return cross_entropies(self.logits(batch[0], weights, alpha), batch[1], self.balance).mean()

    def take(self, train: Batch, search: Batch, warm: bool) -> dict[str, float]:
        """Take a step, and return the values that the loop records."""
        facts: dict[str, float] = {}
        if warm:
            alpha = [value.requires_grad_() for value in self.alpha]
            task = self.second_order(train, search, facts) if self.settings.unrolled else self.first(search, facts)
            own = price(self.table, self.prices, mixing_of(self.space, alpha))
            slope = torch.autograd.grad(own, alpha)
            facts["task_gradient"], facts["price_gradient"] = joint_norm(task), joint_norm(slope)
            both = [one + other for one, other in zip(task, slope, strict=True)]
            self.norms["alpha"] = joint_norm(both)
            with torch.no_grad():
                self.alpha = self.adam.stepped(alpha, clipped(both, self.settings.alpha_clip))
        alpha = [value.detach() for value in self.alpha]
        weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        logits = self.logits(train[0], weights, alpha)
        loss = cross_entropies(logits, train[1], self.balance).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        self.norms["weights"] = joint_norm(gradients)
        with torch.no_grad():
            scaled = clipped(gradients, self.settings.clip)
            self.weights = self.sgd.stepped(self.weights, dict(zip(weights, scaled, strict=True)))
        return facts | {"train_loss": loss.item(), "train_accuracy": accuracy(logits, train[1])}

    def first(self, search: Batch, facts: dict[str, float]) -> list[Tensor]:
        """Return the gradient of the loss on the search half in alpha, at the current weights."""
        logits = self.logits(search[0], self.weights, self.alpha)
        loss = cross_entropies(logits, search[1], self.balance).mean()
        facts |= {"search_loss": loss.item(), "search_accuracy": accuracy(logits, search[1])}
        return list(torch.autograd.grad(loss, self.alpha))

    def second_order(self, train: Batch, search: Batch, facts: dict[str, float]) -> list[Tensor]:
        """Return the gradient through a virtual step of the weights (Liu et al. 2019, Eq. 7 and 8).

        All three evaluations of the training loss draw the same random numbers.
        """
        settings, names, masks = self.settings, list(self.weights), torch.get_rng_state()
        weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        slopes = torch.autograd.grad(self.loss(train, weights, self.alpha), list(weights.values()))
        moved = {}
        for name, slope in zip(names, slopes, strict=True):
            old = self.sgd.velocity.get(name, torch.zeros_like(slope))
            step = settings.momentum * old + slope + settings.weight_decay * weights[name].detach()
            moved[name] = (weights[name].detach() - settings.lr * step).requires_grad_()
        loss = self.loss(search, moved, self.alpha)
        facts["search_loss"] = loss.item()
        found = torch.autograd.grad(loss, [*self.alpha, *moved.values()])
        direct, vector = found[: len(self.alpha)], found[len(self.alpha) :]
        epsilon, after = 0.01 / joint_norm(vector), torch.get_rng_state()
        sides = []
        for sign in (1, -1):
            near = {
                name: self.weights[name] + sign * epsilon * slope for name, slope in zip(names, vector, strict=True)
            }
            torch.set_rng_state(masks)
            sides.append(torch.autograd.grad(self.loss(train, near, self.alpha), self.alpha))
        torch.set_rng_state(after)
        return [
            one - settings.lr * (plus - minus) / (2 * epsilon) for one, plus, minus in zip(direct, *sides, strict=True)
        ]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest logit is that of their label."""
    return float(np.mean(logits.detach().numpy().argmax(1) == labels.numpy()))


# --- the retraining ----------------------------------------------------------------------------------------------


@dataclass
class RetrainStep:
    """The state of a retraining, and one step of it on a batch in parts; `network` is only used for its forward pass.

    `average` is the moving average of the weights. After a step, `norm` is the norm of the gradient that was clipped.
    """

    settings: RetrainConfig
    network: nn.Module
    paths: int
    drop_rate: float
    weights: dict[str, Tensor]
    balance: Tensor | None = None
    norm: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        given = self.settings
        self.sgd = SGD(given.lr, given.momentum, given.weight_decay, given.nesterov)
        self.average = {name: weight.clone() for name, weight in self.weights.items()}

    def take(self, images: Tensor, labels: Tensor, parts: int) -> dict[str, float]:
        """Take a step, and return the values that the loop records."""
        weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        total, recorded, right = torch.zeros((), dtype=torch.float64), 0.0, 0.0
        pieces = [(images[part::parts], labels[part::parts]) for part in range(parts)]
        drawn = [torch.rand(self.paths, len(some)) for some, _ in pieces] if self.paths else [None] * parts
        for (some, truth), uniform in zip(pieces, drawn, strict=True):
            kept = () if uniform is None else ((uniform >= self.drop_rate).double() / (1 - self.drop_rate),)
            logits, extra = functional_call(self.network, weights, (some, *kept))
            own, other = (
                cross_entropies(one, truth, self.balance, self.settings.label_smoothing).sum()
                for one in (logits, extra)
            )
            total = total + (own + self.settings.auxiliary * other) / len(images)
            recorded, right = recorded + own.item(), right + accuracy(logits, truth) * len(truth)
        gradients = torch.autograd.grad(total, list(weights.values()))
        self.norm = joint_norm(gradients)
        self.steps += 1
        keep = min(self.settings.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            scaled = dict(zip(weights, clipped(gradients, self.settings.clip), strict=True))
            self.weights = self.sgd.stepped(self.weights, scaled)
            self.average = {name: keep * old + (1 - keep) * self.weights[name] for name, old in self.average.items()}
        return {"train_loss": recorded / len(images), "train_accuracy": right / len(images)}


def same(facts: Mapping[str, Any], expected: Mapping[str, float], places: Callable[[float], Any]) -> None:
    """Assert that the sums that a loop returned have the expected means, within the tolerance that `places` adds."""
    assert {name: float(total) / float(count) for name, (total, count) in facts.items()} == {
        name: places(value) for name, value in expected.items()
    }
