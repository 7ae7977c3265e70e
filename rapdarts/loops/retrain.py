"""The retraining: a network, that of a genotype or a reference, from fresh weights, on the whole training set."""

from __future__ import annotations

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
from rapdarts.errors import DivergedError, InputError
from rapdarts.files.run_files import RunFile
from rapdarts.networks.derived import DerivedNetwork, drop_paths
from rapdarts.networks.layers import remarks_on_pools
from rapdarts.training.cuda_graph import GraphedStep
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup, join_batch_norms, running_statistics
from rapdarts.training.ema import EMA
from rapdarts.training.metrics import Evaluation, evaluate_logits, predict, topk_correct
from rapdarts.training.optimizer import autocast, optimizer_step, set_lr, sgd_for, to_device
from rapdarts.training.run import Run, Stateful, Sum
from rapdarts.training.schedules import SCHEDULES, drop_path, warmup


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
    """What a retraining ends with: the network of the last epoch, its test accuracy, and that of `best` where one was chosen.

    `right` says of each test image (n,) whether the network tells it.
    """

    network: nn.Module
    test: Evaluation
    right: Tensor
    best: Evaluation | None


def retrain(
    config: Experiment, blueprint: Blueprint, data: DataSet, run: Run, folder: str = "", what: str = "retraining"
) -> Trained:
    """Train a network from scratch by the recipe of `config.retrain`; the last weights, or their average, are the result.

    Writes network.safetensors, and best.safetensors where a validation fraction was held out to choose it, into
    `folder` (a prefix such as "first/") of the run; `what` is what the progress calls it. The test set is looked at
    once, at the end. Raises DivergedError if a number stops being finite, Preempted if a signal asked to stop.
    """
    settings, device = config.retrain, data.train.labels.device
    process_group = run.process_group
    batches, held_out = training_batches(config, data, process_group)

    torch.manual_seed(key(config.seed, "initial weights"))
    network = to_device(blueprint.build(auxiliary=settings.auxiliary > 0), device)
    for remark in remarks_on_pools(network, device):
        run.screen.say(remark)
    average = EMA(network, settings.ema) if settings.ema else None
    statistics: list[Tensor] = []  # which every process has its own of, and all take the mean after a step
    if process_group.size > 1 and settings.joint_norms:
        join_batch_norms(network, process_group)
    elif process_group.size > 1:
        statistics = running_statistics(network)
    shipped = network if average is None else average.network
    weights, best = list(network.parameters()), Best()
    sgd = sgd_for(network, settings.lr, settings.momentum, settings.weight_decay, settings.nesterov)
    paths = network.paths if isinstance(network, DerivedNetwork) and settings.drop_path > 0 else 0
    drop_rate = torch.zeros((), device=device)
    forward = torch.compile(network) if settings.compile else network
    if settings.compile:
        run.screen.say("compiling at the first step, which takes a minute or more")

    def step(images: Tensor, labels: Tensor, size: int) -> dict[str, Sum]:
        """One step on this process's share of `size` images; gives sums over all of them. Nothing in it waits for the device."""
        sgd.zero_grad()  # a recording that failed half-way leaves some
        loss, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        parts = batches.parts(size)
        # Drawn for the images of all processes, so that each has what one process alone would draw for its own.
        drawn = [drop_paths(paths, len(range(part, size, parts)), drop_rate) for part in range(parts)] if paths else []
        if process_group.size > 1:  # what layers draw themselves, they draw for their own images
            torch.manual_seed(key(run.seed, f"dropout {run.stage}", run.epoch, run.step, process_group.rank))
        for part in range(parts):
            x, y = images[part::parts], labels[part::parts]
            kept = [drawn[part][:, process_group.rank :: process_group.size]] if paths else []
            with autocast(settings.amp, x):
                outputs = forward(x, *kept)
            # Both heads are trained; only the first is kept.
            logits, extra = outputs if isinstance(outputs, tuple) else (outputs, None)
            total = main = summed_loss(logits, y, settings.label_smoothing)
            if extra is not None:
                total = main + settings.auxiliary * summed_loss(extra, y, settings.label_smoothing)
            (total / size).backward()
            loss, correct = loss + main.detach(), correct + (logits.argmax(1) == y).sum()
        # A cell may leave a node out of its output: such weights have no gradient.
        gradients = [weight.grad for weight in weights]
        process_group.all_reduce([*gradients, *statistics, loss, correct])
        if statistics:
            torch._foreach_div_(statistics, process_group.size)
        optimizer_step(sgd, weights, gradients, settings.clip)
        if average is not None:
            average.update()
        return {"train_loss": (loss, size), "train_accuracy": (correct, size)}

    # What torch.compile made is not recorded, nor what processes say to each other.
    plain = settings.compile or process_group.size > 1
    take = step if plain else GraphedStep(step, device, run.screen.say)

    learners: dict[str, Stateful] = {"network": network, "sgd": sgd, "best": best}
    learners |= {} if average is None else {"average": average}
    for epoch in run.epochs(what, settings.epochs, batches.steps, learners):
        lr = SCHEDULES[settings.schedule](epoch, settings.epochs, settings.lr, settings.lr_min)
        lr *= warmup(epoch, settings.warmup_epochs)
        set_lr(sgd, lr)
        drop_rate.fill_(drop_path(epoch, settings.epochs, settings.drop_path))
        network.train()

        for images, labels in run.batches(batches):
            run.meter.add_all(take(images, labels, batches.size(run.step)))

        facts = {"lr": lr}
        if len(held_out):
            seen = ordered(data.train, held_out, settings.batch, batches.augment)
            validation = evaluate_logits(*predict(shipped.eval(), seen))
            facts["validation_accuracy"] = validation.accuracy
            if validation.accuracy > best.score:
                best.score, best.epoch = validation.accuracy, epoch
                best.weights = {name: value.clone() for name, value in shipped.state_dict().items()}
        run.log(("train_loss", "train_accuracy", "validation_accuracy"), **facts)

    def test() -> tuple[Tensor, Tensor]:
        return predict(shipped.eval(), ordered(data.test, None, settings.batch, batches.augment))

    last = {name: value.clone() for name, value in shipped.state_dict().items()}
    best_accuracy = None
    if best.weights is not None:
        shipped.load_state_dict(best.weights)
        best_accuracy = evaluate_logits(*test())
        run.write(f"{folder}{RunFile.BEST_NETWORK}", to_safetensors(best.weights, blueprint, data))
        shipped.load_state_dict(last)
    run.write(f"{folder}{RunFile.NETWORK}", to_safetensors(last, blueprint, data))
    if "genotype" in blueprint.card:
        run.write(f"{folder}{RunFile.GENOTYPE}", blueprint.card["genotype"])
    logits, labels = test()
    return Trained(shipped, evaluate_logits(logits, labels), topk_correct(logits, labels), best_accuracy)


def all_diverged(networks: int, recipe: RetrainConfig) -> DivergedError:
    """Where of several networks not one could be trained."""
    return DivergedError(
        f"none of the {networks} networks could be trained: all diverged at retrain.lr={recipe.lr:g}."
        " Lower it, and begin anew with run=PATH."
    )


def summed_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy (n, classes), (n,) in float32, summed over the images; smoothed as by Szegedy et al. 2016, section 7."""
    return cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)


def result(trained: Trained, blueprint: Blueprint, recipe: RetrainConfig, run: Run) -> dict[str, Any]:
    """What a retraining reached, as plain values for result.json."""
    values = {**trained.test.plain, "costs": blueprint.costs, "seconds": run.seconds(), **blueprint.facts(recipe)}
    return values if trained.best is None else {**values, "best": trained.best.plain}


def training_batches(
    config: Experiment, data: DataSet, process_group: ProcessGroup = SINGLE_PROCESS
) -> tuple[Batches, Tensor]:
    """The batches to train on, and the indices of the training set that are held out to choose `best` (none at a fraction of 0).

    Raises InputError if a batch is larger than what it is drawn from, too small for so many processes, or joint batch
    norms are to be compiled.
    """
    settings, seed = config.retrain, config.seed
    held_out, train = torch.arange(0), torch.arange(len(data.train))
    if settings.validation_fraction > 0:
        held_out, train = split(data.train.labels, settings.validation_fraction, seed, "validation")
    augment = Augment(
        data.mean,
        data.std,
        config.data.crop,
        config.data.flip,
        settings.cutout,
        settings.jitter,
        settings.smallest_crop,
    )
    whole, what = settings.batch * settings.accumulate, "retrain.batch"
    if settings.accumulate > 1:
        what = f"{what}={settings.batch} times retrain.accumulate={settings.accumulate}"
    least = 2 if settings.joint_norms else 2 * process_group.size
    if settings.batch < least:
        raise InputError(
            f"retrain.batch={settings.batch} leaves less than 2 images for the batch norms of each of {process_group.size} processes;"
            f" take {least} or more."
        )
    if settings.compile and settings.joint_norms and process_group.size > 1:
        raise InputError(
            "retrain.compile=true cannot translate batch norms that processes share; add retrain.joint_norms=false."
        )
    share = (settings.accumulate, process_group.rank, process_group.size, least)
    return Batches(data.train, train, whole, seed, "retrain", augment, what, *share), held_out
