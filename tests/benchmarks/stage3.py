"""`python -m tests.benchmarks.stage3`: the training loss of a small stage 3, and its change under choices in which programs differ.

docs/fidelity.md has the results. A variant changes one or two choices of the search; runs with the same seed are compared in pairs.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any

import numpy as np
import torch

from rapdarts.config.experiment import Experiment
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty
from rapdarts.data.dataset import DataSet, load_dataset
from rapdarts.data.randomness import key
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops.search import alternation, build_stage, priced
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.strategy.progressive import prune
from rapdarts.training.intervals import student
from rapdarts.training.optimizer import set_lr
from rapdarts.training.schedules import cosine, skip_dropout
from tests.benchmarks.turns import say, table

SETTINGS: list[tuple[str, Any]] = [
    ("search.layers", [5]),
    ("search.candidates", [0]),
    ("search.skip_dropout", [0.7]),
    ("search.channels", 4),
    ("search.epochs", 5),
    ("search.warmup_epochs", 2),
    ("search.batch", 24),
    ("search.subset", 0.4),
    ("search.lr", 0.025),
    ("search.alpha_lr", 6e-4),
]
"""A stage 3 that one CPU core trains in half a minute: 240 digits in each half, 10 steps per epoch, and the published optimisers."""

STAGE, SEEDS = 2, 5


@dataclass(frozen=True)
class Choices:
    """Choices that change the training loss without being errors of either program."""

    epochs_ahead: int = 0  # lead of the learning rate: 1 if the scheduler is stepped first, from PyTorch 1.1 on
    dropout: bool = True  # off by default in P-DARTS' program
    in_file_order: bool = False  # the first half of the images trains the weights, whatever their classes
    candidates: int = 0  # added to the seed that draws the remaining candidates
    numbers: int = 0  # added to the seed of initial weights, halves, order and masks


VARIANTS = {
    "learning rate of the next epoch": Choices(epochs_ahead=1),
    "no skip dropout": Choices(dropout=False),
    "no skip dropout, learning rate of the next epoch": Choices(epochs_ahead=1, dropout=False),
    "halves in the order of the files": Choices(in_file_order=True),
    "other candidates": Choices(candidates=100),
    "other initial weights, halves, order and masks": Choices(numbers=100),
}


def train_losses(config: Experiment, data: DataSet, prices: PriceTable, seed: int, choices: Choices) -> list[float]:
    """Train stage 3 with three random candidates per edge; return the mean training loss of each epoch."""
    config, settings = replace(config, seed=seed + choices.numbers), config.search
    space = named_space("darts")
    space = prune(space, np.random.default_rng(seed + choices.candidates).random(space.mask.shape), 3)
    halves = SearchBatches.of(data, config)
    if choices.in_file_order:
        used = torch.cat([halves.train.index, halves.search.index]).sort().values
        first, second = used.tensor_split([len(halves.train.index)])
        halves = replace(halves, train=replace(halves.train, index=first), search=replace(halves.search, index=second))
    supernet, architecture, sgd, adam = build_stage(config, space, data, settings.layers[0], STAGE)
    step = alternation(settings, supernet, architecture, sgd, adam, Penalty(prices, asdict(settings.cost)))
    supernet.train()
    losses = []
    for epoch in range(settings.epochs):
        set_lr(sgd, cosine(epoch + choices.epochs_ahead, settings.epochs, settings.lr))
        rate = settings.skip_dropout[0] if choices.dropout else 0.0
        supernet.dropout.rate = skip_dropout(epoch, settings.epochs, settings.warmup_epochs, rate)
        total, count = 0.0, 0
        for number, (train_batch, search_batch) in enumerate(halves.epoch(epoch)):
            torch.manual_seed(key(config.seed, f"stage {STAGE}", epoch, number))
            loss, images = step(*train_batch, *search_batch, epoch >= settings.warmup_epochs)["train_loss"]
            total, count = total + float(loss), count + images
        losses.append(total / count)
    return losses


def summary(differences: list[float]) -> str:
    """Return the mean and half the width of Student's 95 % interval as text."""
    return f"{mean(differences):+.3f} +- {student(differences):.3f}"


def main() -> int:
    """Print the loss of the last epoch with the choices of the search, and the paired difference of every variant."""
    torch.set_num_threads(1)
    config = resolve_experiment("digits", SETTINGS, "search")
    data = load_dataset(config.data, torch.device("cpu"), 0)
    prices = priced(config, named_space("darts"), data)
    last: dict[str, list[float]] = {}
    for name, choices in {"as it is": Choices(), **VARIANTS}.items():
        say(name)
        last[name] = [train_losses(config, data, prices, seed, choices)[-1] for seed in range(SEEDS)]
    plain = last.pop("as it is")
    print(f"training loss of the last epoch: {summary(plain).lstrip('+')} ({SEEDS} seeds)")
    lines = [["variant", "difference", "by seed"]]
    for name, losses in last.items():
        differences = [loss - ours for loss, ours in zip(losses, plain, strict=True)]
        lines.append([name, summary(differences), " ".join(f"{one:+.2f}" for one in differences)])
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
