"""The retraining: a network, that of a genotype or a reference, from fresh weights, on the whole training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rapdarts.blueprint import Blueprint
from rapdarts.config import Experiment, RetrainConfig
from rapdarts.evaluate import Accuracy, accuracy
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.trained import to_safetensors
from rapdarts.training.augment import Augment
from rapdarts.training.data import Batches, DataSet, ordered, split
from rapdarts.training.descent import descend, place, set_lr, weights_optimizer
from rapdarts.training.randomness import key
from rapdarts.training.run import Run, Stateful
from rapdarts.training.schedules import cosine, drop_path


@dataclass
class Best:
    """The weights that did best on held-out images, with their score: saved together, so that they never disagree."""

    score: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.epoch, self.weights = state["score"], state["epoch"], state["weights"]


@dataclass(frozen=True)
class Trained:
    """What a retraining ends with: the network of the last epoch, its test accuracy, and that of `best` where one was chosen."""

    network: nn.Module
    test: Accuracy
    best: Accuracy | None


def retrain(
    config: Experiment, blueprint: Blueprint, data: DataSet, run: Run, folder: str = "", what: str = "retrain"
) -> Trained:
    """Train a network from scratch (recipe of Chen et al. 2019, section 4.3); the last weights are the result.

    Writes network.safetensors, and best.safetensors where a validation fraction was held out to choose it, into
    `folder` (a prefix such as "first/") of the run; `what` is what the progress calls it. The test set is looked at
    once, at the end. Raises DivergedError if a number stops being finite, Preempted if a signal asked to stop.
    """
    settings, device = config.retrain, data.train.labels.device
    batches, held_out = training_batches(config, data)

    torch.manual_seed(key(config.seed, "initial weights"))
    network = place(blueprint.build(auxiliary=settings.auxiliary > 0), device)
    weights, best = list(network.parameters()), Best()
    sgd = weights_optimizer(network, settings.lr, settings.momentum, settings.weight_decay)

    learners: dict[str, Stateful] = {"network": network, "sgd": sgd, "best": best}
    for epoch in run.epochs(what, settings.epochs, batches.steps, learners, carries=["network", "best"]):
        lr = cosine(epoch, settings.epochs, settings.lr, settings.lr_min)
        set_lr(sgd, lr)
        set_drop_path(network, drop_path(epoch, settings.epochs, settings.drop_path))
        network.train()

        for images, labels in run.batches(batches):
            # Both heads are trained; only the first is kept.
            outputs = network(images)
            logits, extra = outputs if isinstance(outputs, tuple) else (outputs, None)
            loss = cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            total = loss
            if extra is not None:
                total = loss + settings.auxiliary * cross_entropy(
                    extra, labels, label_smoothing=settings.label_smoothing
                )
            # A cell may leave a node out of its output: such weights have no gradient.
            descend(sgd, weights, torch.autograd.grad(total, weights, allow_unused=True), settings.clip)
            run.meter.add("train_loss", loss * len(labels), len(labels))
            run.meter.add("train_accuracy", (logits.argmax(1) == labels).sum(), len(labels))

        facts = {"lr": lr}
        if len(held_out):
            validation = accuracy(network, ordered(data.train, held_out, settings.batch, batches.augment))
            facts["validation_accuracy"] = validation.share
            if validation.share > best.score:
                best.score, best.epoch = validation.share, epoch
                best.weights = {name: value.clone() for name, value in network.state_dict().items()}
        run.log(("train_loss", "train_accuracy", "validation_accuracy"), **facts)

    def test() -> Accuracy:
        return accuracy(network, ordered(data.test, None, settings.batch, batches.augment))

    last = {name: value.clone() for name, value in network.state_dict().items()}
    best_accuracy = None
    if best.weights is not None:
        network.load_state_dict(best.weights)
        best_accuracy = test()
        run.write(f"{folder}best.safetensors", to_safetensors(best.weights, blueprint, data))
        network.load_state_dict(last)
    run.write(f"{folder}network.safetensors", to_safetensors(last, blueprint, data))
    if "genotype" in blueprint.card:
        run.write(f"{folder}genotype.json", blueprint.card["genotype"])
    return Trained(network.eval(), test(), best_accuracy)


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Drops paths at a rate, where there are paths to drop: in networks of genotypes."""
    if isinstance(network, DerivedNetwork):
        network.drop_path = rate


def result(trained: Trained, blueprint: Blueprint, recipe: RetrainConfig, run: Run) -> dict[str, Any]:
    """What a retraining reached, as plain values for result.json."""

    def plain(found: Accuracy) -> dict[str, Any]:
        return {
            "test_accuracy": found.share,
            "standard_error": found.standard_error,
            "n": found.n,
            "test_loss": found.loss,
        }

    values = {**plain(trained.test), "costs": blueprint.costs, "seconds": run.seconds(), **blueprint.facts(recipe)}
    return values if trained.best is None else {**values, "best": plain(trained.best)}


def training_batches(config: Experiment, data: DataSet) -> tuple[Batches, Tensor]:
    """The batches to train on, and the indices of the training set that are held out to choose `best` (none at a fraction of 0).

    Raises InputError if a batch is larger than what it is drawn from.
    """
    settings, seed = config.retrain, config.seed
    held_out, train = torch.arange(0), torch.arange(len(data.train))
    if settings.validation_fraction > 0:
        held_out, train = split(data.train.labels, settings.validation_fraction, seed, "validation")
    augment = Augment(data.mean, data.std, config.data.crop, config.data.flip, settings.cutout)
    return Batches(data.train, train, settings.batch, seed, "retrain", augment, "retrain.batch"), held_out
