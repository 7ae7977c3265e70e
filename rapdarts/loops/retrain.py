"""Retraining: the training of a derived network or a reference network from scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rapdarts.config.experiment import Experiment, RetrainConfig
from rapdarts.data.augment import Augment
from rapdarts.data.batches import Batches, ordered
from rapdarts.data.dataset import DataSet, split
from rapdarts.data.randomness import key
from rapdarts.deploy.blueprint import Blueprint
from rapdarts.deploy.model_file import to_safetensors
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import during
from rapdarts.networks.derived import DerivedNetwork, drop_paths
from rapdarts.networks.layers import remarks_on_pools
from rapdarts.training.class_weights import class_weights
from rapdarts.training.cuda_graph import GraphedStep
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup
from rapdarts.training.ema import EMA
from rapdarts.training.guard import Guard
from rapdarts.training.joint_norms import join_batch_norms, running_statistics
from rapdarts.training.meter import Sum
from rapdarts.training.metrics import Evaluation, evaluate_logits, predict, topk_correct
from rapdarts.training.optimizer import autocast, optimizer_step, set_lr, sgd_for, to_device
from rapdarts.training.run import Run, Stateful
from rapdarts.training.schedules import SCHEDULES, drop_path, warmup
from rapdarts.training.state import check_alike


@dataclass
class Best:
    """The weights with the best score on held-out images, saved together with the score so that the two always match."""

    network: nn.Module
    score: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise ValueError for weights that do not fit the network, which are loaded only at the end of the training."""
        check_alike({"score": self.score, "epoch": self.epoch}, state)
        own, weights = self.network.state_dict(), state["weights"]
        if weights is not None:
            if weights.keys() != own.keys():
                raise ValueError("its weights have other names than those of the network")
            check_alike(own, weights)
        self.score, self.epoch, self.weights = state["score"], state["epoch"], weights


class FinalNetwork:
    """The network that a retraining returns, with the trained weights or their moving average, and its best weights.

    `weights` returns tensors with the shapes of the network's weights and buffers. `validate` takes batches of
    images (n, c, h, w) and labels (n,).
    """

    def __init__(self, network: nn.Module, ema_decay: float) -> None:
        self.ema = EMA(network, ema_decay) if ema_decay else None
        self.network = network if self.ema is None else self.ema.network
        self.best = Best(self.network)

    @property
    def objects(self) -> dict[str, Stateful]:
        """Objects to save in checkpoints, by name, in addition to the trained network and its optimiser."""
        return {"best": self.best} if self.ema is None else {"best": self.best, "average": self.ema}

    def update(self, kept: Tensor) -> None:
        """Update the moving average after a training step, if it was `kept`. Does not synchronise with the device."""
        if self.ema is not None:
            self.ema.update(kept)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the current weights and buffers."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def validate(self, epoch: int, images: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Return the accuracy on held-out images, and store the weights if it is the highest so far."""
        accuracy = evaluate_logits(*predict(self.network.eval(), images)).accuracy
        if accuracy > self.best.score:
            self.best.score, self.best.epoch, self.best.weights = accuracy, epoch, self.weights()
        return accuracy


@dataclass(frozen=True)
class Trained:
    """The network of the last epoch and its result `test`; if best weights were chosen, also `best_weights` and their result `best`.

    `correct` is a mask (n,) of the test images that the network classifies correctly.
    """

    network: nn.Module
    test: Evaluation
    correct: Tensor
    best_weights: dict[str, Tensor] | None
    best: Evaluation | None


def retrain(config: Experiment, blueprint: Blueprint, data: DataSet, run: Run, what: str = "retraining") -> Trained:
    """Train a network from scratch with the recipe in `config.retrain`, and test it once, at the end.

    The network returned has the weights of the last epoch, or their moving average. `what` names the training in progress
    lines. Raises DivergedError if a loss or weight becomes infinite or NaN, and Preempted if a signal stops the run.
    """
    settings, device = config.retrain, data.train.labels.device
    batches, held_out = training_batches(config, data, run.process_group)
    network, final = build_network(config, blueprint, device, run)
    sgd = sgd_for(network, settings.lr, settings.momentum, settings.weight_decay, settings.nesterov)
    drop_rate = torch.zeros((), device=device)
    balance = class_weights(settings.class_weights, data.train.labels, data.classes)
    guard = Guard(network)
    step = training_step(settings, network, final, sgd, drop_rate, batches, run, balance, guard)
    if settings.compile:
        run.screen.say("compiling at the first step; this takes a minute or more")
    # Compiled code and communication between processes cannot be captured in a CUDA graph.
    eager = settings.compile or run.process_group.size > 1
    learners: dict[str, Stateful] = {"network": network, "sgd": sgd, "guard": guard, **final.objects}
    take_step = step if eager else GraphedStep(step, device, run.screen.say, learners.values())

    for epoch in run.epochs(what, settings.epochs, batches.steps, learners):
        lr = SCHEDULES[settings.schedule](epoch, settings.epochs, settings.lr, settings.lr_min)
        lr *= warmup(epoch, settings.warmup_epochs)
        set_lr(sgd, lr)
        rate = drop_path(epoch, settings.epochs, settings.drop_path)
        drop_rate.fill_(rate)
        network.train()

        for images, labels in run.batches(batches):
            run.meter.add_all(take_step(images, labels, batches.size(run.step)))

        facts = {"lr": lr, "drop_path": rate} if isinstance(network, DerivedNetwork) else {"lr": lr}
        if len(held_out):
            validation = ordered(data.train, held_out, settings.batch, batches.augment)
            facts["validation_accuracy"] = final.validate(epoch, run.watching(validation))
        run.log(("train_loss", "train_accuracy", "validation_accuracy"), **facts)

    return evaluate_final(final, lambda: run.watching(ordered(data.test, None, settings.batch, batches.augment)))


def build_network(
    config: Experiment, blueprint: Blueprint, device: torch.device, run: Run
) -> tuple[nn.Module, FinalNetwork]:
    """Return the network to train, initialised from the seed, and the network that the training returns."""
    settings = config.retrain
    torch.manual_seed(key(config.seed, "initial weights"))
    network = to_device(blueprint.build(auxiliary=settings.auxiliary > 0), device)
    for remark in remarks_on_pools(network, device):
        run.screen.say(remark)
    final = FinalNetwork(network, settings.ema)  # before batch norms are joined, because the average is only evaluated
    if run.process_group.size > 1 and settings.joint_norms:
        join_batch_norms(network, run.process_group)
    return network, final


def training_step(
    settings: RetrainConfig,
    network: nn.Module,
    final: FinalNetwork,
    sgd: torch.optim.Optimizer,
    drop_rate: Tensor,
    batches: Batches,
    run: Run,
    balance: Tensor | None,
    guard: Guard | None = None,
) -> Callable[[Tensor, Tensor, int], dict[str, Sum]]:
    """Return a function that takes one training step.

    The function takes this process's part of a batch, images (n, c, h, w) and labels (n,), and the size of the whole batch.
    It returns sums over the whole batch for the record of the epoch, and does not synchronise with the device. `drop_rate`
    is a scalar tensor, the probability of dropping a path, which may change between steps; `balance` holds the weights of
    the classes (classes,), if any. A step that the `guard` (default: a new one) rejects is skipped.
    """
    guard = guard or Guard(network)
    process_group, weights = run.process_group, list(network.parameters())
    forward = torch.compile(network) if settings.compile else network
    paths = network.paths if isinstance(network, DerivedNetwork) and settings.drop_path > 0 else 0
    # Without joint batch norms, every process has its own running statistics, which are averaged after each step.
    statistics = running_statistics(network) if process_group.size > 1 else []

    def step(images: Tensor, labels: Tensor, size: int) -> dict[str, Sum]:
        sgd.zero_grad()  # a failed graph capture may have left gradients
        guard.begin()
        loss, correct = torch.zeros((), device=images.device), torch.zeros((), device=images.device)
        parts = batches.parts(size)
        # Masks are drawn for the images of all processes, so that they do not depend on the number of processes.
        masks = [drop_paths(paths, len(range(part, size, parts)), drop_rate) for part in range(parts)] if paths else []
        if process_group.size > 1:  # dropout layers draw their masks for the images of this process only
            torch.manual_seed(key(run.seed, f"dropout {run.stage}", run.epoch, run.step, process_group.rank))
        for part in range(parts):
            own_masks = [masks[part][:, process_group.rank :: process_group.size]] if paths else []
            with autocast(settings.amp, images):
                outputs = forward(images[part::parts], *own_masks)
            total, main, right = losses(outputs, labels[part::parts], settings, balance)
            (total / size).backward()
            loss, correct = loss + main.detach(), correct + right
        # If the output of a node is not used, the weights of the edges into the node have no gradient.
        gradients = [weight.grad for weight in weights]
        process_group.all_reduce([*gradients, *statistics, loss, correct])
        if statistics:
            torch._foreach_div_(statistics, process_group.size)
        verdict = guard.check("weights", gradients, loss)
        optimizer_step(sgd, weights, gradients, settings.clip, verdict)
        final.update(verdict.kept)
        return verdict.sums({"train_loss": (loss, size), "train_accuracy": (correct, size)})

    return step


def losses(
    outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, settings: RetrainConfig, balance: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss to minimise, the loss of the main head, and the number of correct predictions, summed over the images.

    `outputs` are logits (n, classes) or, with an auxiliary head, a pair of logits; `labels` are (n,). The results are scalars.
    Both heads are trained, but only the main one is kept.
    """
    logits, extra = outputs if isinstance(outputs, tuple) else (outputs, None)
    total = main = summed_loss(logits, labels, settings.label_smoothing, balance)
    if extra is not None:
        total = main + settings.auxiliary * summed_loss(extra, labels, settings.label_smoothing, balance)
    return total, main, (logits.argmax(1) == labels).sum()


@during("testing the network")
def evaluate_final(final: FinalNetwork, test_images: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> Trained:
    """Test the last weights, and the best weights if there are any; the returned network has the last weights.

    `test_images` returns batches of images (n, c, h, w) and labels (n,).
    """
    network, best = final.network.eval(), None
    if final.best.weights is not None:
        last = final.weights()
        network.load_state_dict(final.best.weights)
        best = evaluate_logits(*predict(network, test_images()))
        network.load_state_dict(last)
    logits, labels = predict(network, test_images())
    return Trained(network, evaluate_logits(logits, labels), topk_correct(logits, labels), final.best.weights, best)


def write_network(run: Run, folder: str, trained: Trained, blueprint: Blueprint, data: DataSet) -> None:
    """Write the files of a trained network into its run folder, under the prefix `folder`, such as "trained/1/".

    These are network.safetensors, best.safetensors if the best weights were chosen on held-out images, and genotype.json if
    a genotype describes the network.
    """
    if trained.best_weights is not None:
        run.write(f"{folder}{RunFile.BEST_NETWORK}", to_safetensors(trained.best_weights, blueprint, data))
    run.write(f"{folder}{RunFile.NETWORK}", to_safetensors(trained.network.state_dict(), blueprint, data))
    if "genotype" in blueprint.card:
        run.write(f"{folder}{RunFile.GENOTYPE}", blueprint.card["genotype"])


def summed_loss(logits: Tensor, labels: Tensor, label_smoothing: float, balance: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of logits (n, classes) and labels (n,), summed over the images, as a scalar of at least float32.

    Labels are smoothed as in Szegedy et al. 2016, section 7; classes are weighted by `balance` (classes,), if given.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, labels, balance, reduction="sum", label_smoothing=label_smoothing)


def result(trained: Trained, blueprint: Blueprint, recipe: RetrainConfig, run: Run) -> dict[str, Any]:
    """Return the outcome of a retraining as plain values, for result.json."""
    values = {**trained.test.plain, "costs": blueprint.costs, "seconds": run.seconds(), **blueprint.facts(recipe)}
    return values if trained.best is None else {**values, "best": {**trained.best.plain, "of_epochs": recipe.epochs}}


def training_batches(
    config: Experiment, data: DataSet, process_group: ProcessGroup = SINGLE_PROCESS, share: str = "", whole: int = 0
) -> tuple[Batches, Tensor]:
    """Return the training batches, and the indices (n,) of training images held out to choose the best weights.

    The indices are empty if the validation fraction is 0. If the training images of `data` are only a part of all `whole` training
    images, `share` is the setting that determines the part. Raises InputError if a batch is larger than the set of images it is
    drawn from or too small for the number of processes, or if `compile` is set and processes share batch norms.
    """
    settings, seed = config.retrain, config.seed
    held_out, train = torch.arange(0), torch.arange(len(data.train))
    if settings.validation_fraction > 0:
        fraction, names = settings.validation_fraction, data.class_names
        held_out, train = split(data.train.labels, fraction, seed, "validation", names)
    augment = Augment(
        data.mean,
        data.std,
        config.data.crop,
        config.data.flip,
        settings.cutout,
        settings.jitter,
        settings.smallest_crop,
    )
    together, what = settings.batch * settings.accumulate, "retrain.batch"
    if settings.accumulate > 1:
        what = f"{what}={settings.batch} times retrain.accumulate={settings.accumulate}"
    least = 2 if settings.joint_norms else 2 * process_group.size
    if settings.batch < least:
        raise InputError(
            f"retrain.batch={settings.batch} leaves fewer than 2 images for the batch norms of each of {process_group.size}"
            f" processes; use {least} or more."
        )
    if settings.compile and settings.joint_norms and process_group.size > 1:
        raise InputError(
            "retrain.compile=true cannot compile batch norms that processes share; add retrain.joint_norms=false."
        )
    division = (settings.accumulate, process_group.rank, process_group.size, least)
    kept = f"1 - retrain.validation_fraction={settings.validation_fraction:g}" if settings.validation_fraction else ""
    facts: dict[str, Any] = {"share": share or kept, "whole": whole or len(data.train), "lr": settings.lr}
    return Batches(data.train, train, together, seed, "retrain", augment, what, *division, **facts), held_out
