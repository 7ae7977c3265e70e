"""Every knob of the product with its unit, default and range, and how an experiment is put together from them.

No torch here: `rapdarts VERB --help` prints these tables before anything heavy is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from rapdarts.config.key_values import knob
from rapdarts.config.resources import RESOURCES
from rapdarts.errors import InputError, shorten

MOST_EPOCHS, MOST_IMAGES, MOST_PIXELS, MOST_THREADS = 1e6, 1e6, 65536, 1024
"""Bounds that stop slips of the keyboard, and numbers that torch cannot hold, before anything is started."""

DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
DEVICE_HELP = "cpu, cuda, cuda:N; auto: a GPU if there is one"

DATA_SETS = {
    "digits": "npz",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "mnist": "idx",
    "fashion_mnist": "idx",
    "npz": "npz",
    "folder": "folder",
}
"""Data sets that are known by name, and two forms of a user's own, each with the format that rapdarts.data.readers reads it in."""

RULES = ("auto", "pdarts", "darts", "exact")
"""Rules that derive a genotype: P-DARTS' with a cap on skips, DARTS' without, or the best of all genotypes (with the cap).

`auto` is `exact` where there is a budget, else that of the strategy.
"""


# --- what an experiment says -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are read and shaken up."""

    name: str = knob("digits", "data set; memory: what a program gives", choices=(*DATA_SETS, "memory"))
    path: str = knob("", "folder or file that holds the data; empty: the download cache", "path")
    download: bool = knob(True, "fetch a missing data set (with a checksum) into the cache")
    fraction: float = knob(1.0, "share of the training images to use, drawn with equal classes", above=0, high=1)
    size: int = knob(
        0,
        "side to which pictures in a folder are scaled and cropped; 0: as they are",
        "pixels",
        low=0,
        high=MOST_PIXELS,
    )
    crop: int = knob(4, "random crops out of an image padded by this much; 0: none", "pixels", low=0, high=MOST_PIXELS)
    flip: bool = knob(True, "random horizontal flips")
    mean: list[float] = knob(
        [], "subtracted from each channel (of 0..1); empty: the training set's mean", low=0, high=1
    )
    std: list[float] = knob(
        [], "divides each channel (of 0..1); empty: the training set's deviation", above=0, high=1e3
    )


@dataclass(frozen=True)
class SkeletonConfig:
    """The deployment skeleton: the network that is priced by the search and built by the retraining."""

    layers: int = knob(20, "depth", "cells", low=1, high=1000)
    channels: int = knob(
        36,
        "width of the first cells; auto: the widest whose average cell is within all budgets",
        "channels",
        low=2,
        high=65536,
        auto=0,
    )
    stem: str = knob("auto", "first layers; auto: imagenet from 96 pixels on", choices=("auto", "cifar", "imagenet"))


_PRICES = [
    (resource.name, float, knob(0.0, resource.price, "nats", low=0, high=1e6)) for resource in RESOURCES.values()
]


def budget_knobs(none: float | None = None) -> list[tuple[str, Any, Any]]:
    """(name, type, knob) of every resource that can have a budget, in its unit; `none` is what the word none stands for."""
    return [
        (resource.name, float | None, knob(None, resource.budget, amount=resource.name, none=none))
        for resource in RESOURCES.values()
        if resource.budget
    ]


class CostCoefficients(make_dataclass("Prices", _PRICES, frozen=True)):  # type: ignore[misc]
    """Prices of resources: 1 weighs the uniform mixture's whole cost like one nat of cross-entropy (thesis Eq. 3.24)."""


class BudgetConfig(make_dataclass("Budgets", budget_knobs(), frozen=True)):  # type: ignore[misc]
    """Upper bounds that the genotype meets, whatever it costs in accuracy; empty: none. No coefficient is needed."""


@dataclass(frozen=True)
class HardwareConfig:
    """What arithmetic and memory cost: a file that `search.hardware` names. The defaults are 45 nm at 0.9 V (Horowitz, ISSCC 2014)."""

    name: str = knob("horowitz_45nm", "what to call it")
    mac_8: float = knob(0.23, "a multiply and an add of int8", "pJ", above=0, high=1e12)
    mac_16: float = knob(1.5, "the same in fp16", "pJ", above=0, high=1e12)
    mac_32: float = knob(4.6, "the same in fp32", "pJ", above=0, high=1e12)
    dram_32: float = knob(640.0, "reading 32 bits from DRAM", "pJ", above=0, high=1e12)


@dataclass(frozen=True)
class RandomConfig:
    """The random baseline: genotypes drawn under the conditions of a search, and trained by the retraining recipe."""

    count: int = knob(5, "genotypes to draw and train", low=1, high=1e4)
    macs: float = knob(
        0.0, "the cost they must meet, such as 500M; 0: the budgets, else that of `random.like`, or any", amount="macs"
    )
    like: str = knob(
        "", "search run whose budgets, cap on skips and MACs they keep, or a genotype whose MACs they meet", "path"
    )
    tolerance: float = knob(
        0.05, "how far their MACs may lie from that, where there is no budget", "share", above=0, high=1
    )


@dataclass(frozen=True)
class SearchConfig:
    """The search: stages, the two optimisers, the price, and how the genotype is read off."""

    strategy: str = knob(
        "pdarts", "how to search; sets the defaults of other keys", choices=("pdarts", "darts", "random")
    )
    space: str = knob("darts", "search space: a module of search_spaces")
    primitives: list[str] = knob([], "candidates to search over, out of the space's; empty: all of them")
    layers: list[int] = knob([5, 11, 17], "depth of the supernet, one number a stage", "cells", low=1, high=1000)
    candidates: list[int] = knob([0, 5, 3], "candidates on every edge, one number a stage; 0: all", low=0, high=1000)
    skip_dropout: list[float] = knob(
        [0.1, 0.4, 0.7], "first dropout rate after skips, one number a stage", low=0, below=1
    )
    channels: int = knob(16, "width of the supernet's first cells", "channels", low=2, high=65536)
    epochs: int = knob(25, "length of a stage", "epochs", low=1, high=MOST_EPOCHS)
    warmup_epochs: int = knob(
        10, "start of a stage that trains weights only; shorter than the stage", "epochs", low=0, high=MOST_EPOCHS
    )
    batch: int = knob(96, "batch of both halves", "images", low=2, high=MOST_IMAGES)
    subset: float = knob(
        1.0, "share of the training images that the search looks at, drawn with equal classes", above=0, high=1
    )
    weight_fraction: float = knob(
        0.5, "share of the training set that trains weights; the rest trains alpha", above=0, below=1
    )
    lr: float = knob(0.025, "learning rate of the weights at the start of a stage", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate of the weights that the cosine falls to", low=0, high=1e3)
    momentum: float = knob(0.9, "momentum of the weights", low=0, below=1)
    weight_decay: float = knob(3e-4, "weight decay of the weights", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm of the weights; 0: no limit", low=0, high=1e6)
    alpha_lr: float = knob(6e-4, "learning rate of the architecture parameters (Adam)", above=0, high=1e3)
    alpha_beta1: float = knob(0.5, "Adam's first decay", low=0, below=1)
    alpha_beta2: float = knob(0.999, "Adam's second decay", low=0, below=1)
    alpha_weight_decay: float = knob(1e-3, "weight decay of the architecture parameters", low=0, high=1)
    alpha_clip: float = knob(5.0, "largest gradient norm of the architecture parameters; 0: no limit", low=0, high=1e6)
    alpha_init: float = knob(1e-3, "standard deviation of the first architecture parameters", low=0, high=100)
    supernet: str = knob(
        "batched",
        "how it is computed: all edges that leave a state at once, or each alone, as a reference",
        choices=("batched", "plain"),
    )
    checkpoint: bool = knob(
        False,
        "compute each cell again in the backward pass instead of keeping what is inside: less memory, more time",
    )
    partial_channels: int = knob(
        1,
        "1/K of the channels go through the mixed operations, and edges have weights of their own (PC-DARTS: Xu et al."
        " 2020); 1: all of them",
        low=1,
        high=65536,
    )
    amp: str = knob(
        "none", "arithmetic of the supernet; bf16: bfloat16 where it is safe, for GPUs", choices=("none", "bf16")
    )
    replicas: int = knob(
        1,
        "searches that differ in their seed, one after the other; the genotype is derived from their mean",
        low=1,
        high=100,
    )
    unrolled: bool = knob(False, "second-order architecture gradient (Liu et al. 2019, Eq. 7)")
    rule: str = knob(
        "auto",
        "how the genotype is derived from alpha; auto: exact where there is a budget, else by the strategy",
        choices=RULES,
    )
    max_skips: int = knob(
        -1,
        "most skips in the normal cell (not by the rule darts); auto: the space's",
        "edges",
        low=0,
        high=1000,
        auto=-1,
    )
    derive_none: bool = knob(False, "let edges be derived as none, in spaces whose cells may have it")
    skip_paths: str = knob(
        "auto",
        "number of skip-only paths from a cell's input to its output, by the rule exact; auto: the space's",
        choices=("auto", "any", "one"),
    )
    cost: CostCoefficients = field(default_factory=CostCoefficients)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    spend: float = knob(
        -1.0,
        "lower bound on the use of the budget that binds first, as a share of it; auto: 0.9, and 0 for latency and for"
        " resources with a coefficient",
        low=0,
        high=1,
        auto=-1,
    )
    budget_rate: float = knob(
        0.5, "how fast the price of a budget's resource rises while it is overspent", "nats an epoch", above=0, high=1e6
    )
    precision: int = knob(
        32, "bits of a number in the deployed network (for bytes, traffic, energy)", choices=(32, 16, 8)
    )
    hardware: str = knob("", "energies of your hardware, a YAML file; empty: 45 nm (Horowitz 2014)", "path")
    latency: str = knob("", "latency table that rapdarts measure wrote", "path")
    latency_of: str = knob("", "the device it was measured on, as it says; empty: the one that searches")
    random: RandomConfig = field(default_factory=RandomConfig)


@dataclass(frozen=True)
class RetrainConfig:
    """The recipe that trains the derived network; the defaults are P-DARTS' for CIFAR-10."""

    recipe: str = knob(
        "pdarts",
        "how to train; sets the defaults of other keys",
        choices=("pdarts", "darts", "imagenet_mobile", "fast"),
    )
    epochs: int = knob(600, "length", "epochs", low=1, high=MOST_EPOCHS)
    warmup_epochs: int = knob(
        0, "start in which the learning rate rises to that of the schedule", "epochs", low=0, high=MOST_EPOCHS
    )
    batch: int = knob(128, "batch, over all processes", "images", low=2, high=MOST_IMAGES)
    accumulate: int = knob(1, "batches whose gradients are summed for a step", "batches", low=1, high=10_000)
    lr: float = knob(0.025, "learning rate at the start", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate that the schedule falls to", low=0, high=1e3)
    schedule: str = knob("cosine", "how the learning rate falls, epoch by epoch", choices=("cosine", "linear"))
    momentum: float = knob(0.9, "momentum", low=0, below=1)
    nesterov: bool = knob(False, "Nesterov's momentum")
    weight_decay: float = knob(3e-4, "weight decay", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm; 0: no limit", low=0, high=1e6)
    ema: float = knob(
        0.0,
        "decay of the moving average of the weights, a step; the average is what is shipped; 0: none",
        low=0,
        below=1,
    )
    drop_path: float = knob(0.3, "drop path rate at the end; it rises linearly from 0", low=0, below=1)
    auxiliary: float = knob(0.4, "weight of the auxiliary head's loss; 0: no such head", low=0, high=1e3)
    label_smoothing: float = knob(0.0, "probability spread over all classes", low=0, below=1)
    cutout: int = knob(16, "side of the square cut out of every image; 0: none", "pixels", low=0, high=MOST_PIXELS)
    jitter: float = knob(
        0.0, "how far brightness, contrast and saturation change, and half as far the hue; 0: not at all", low=0, high=1
    )
    smallest_crop: float = knob(
        1.0,
        "random crops of between this share of the image and all of it, scaled to its size; 1: none",
        "share",
        above=0,
        high=1,
    )
    amp: str = knob(
        "none", "arithmetic of the network; bf16: bfloat16 where it is safe, for GPUs", choices=("none", "bf16")
    )
    compile: bool = knob(False, "let torch.compile translate the network: minutes at the start, for long trainings")
    joint_norms: bool = knob(True, "of several processes: batch norms see the images of all, not each those of its own")
    validation_fraction: float = knob(
        0.0, "share of the training set held out to choose `best`; 0: none", low=0, below=1
    )


@dataclass(frozen=True)
class RankConfig:
    """The ranking: the best candidates of finished searches, each trained briefly and compared on training images kept aside."""

    count: int = knob(5, "genotypes to take from the runs, the best of all of them", low=1, high=1000)
    epochs: int = knob(0, "length of a training; 0: the recipe's", "epochs", low=0, high=MOST_EPOCHS)
    seeds: int = knob(
        1, "trainings of each genotype, the first with `seed`, the next with the seed behind it", low=1, high=1000
    )
    train_fraction: float = knob(
        0.5, "share of the training set that trains; on the rest the genotypes are compared", above=0, below=1
    )


@dataclass(frozen=True)
class Experiment:
    """All that a launch depends on; the run folder keeps it as config.yaml."""

    seed: int = knob(0, "seed of everything random", low=0, high=2**32 - 1)
    device: str = knob("auto", DEVICE_HELP)
    threads: int = knob(0, "CPU threads; 0: torch's own choice", low=0, high=MOST_THREADS)
    save_seconds: float = knob(60.0, "time between two checkpoints", "seconds", low=0, high=1e6)
    data: DataConfig = field(default_factory=DataConfig)
    skeleton: SkeletonConfig = field(default_factory=SkeletonConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    rank: RankConfig = field(default_factory=RankConfig)


@dataclass(frozen=True)
class Launch:
    """Where a run lives."""

    run: str = knob("", "run folder; empty: a new one under runs/", "path")
    resume: bool = knob(False, "continue the run in that folder")


# --- putting an experiment together ------------------------------------------------------------------------------


def budget_limits(budget: BudgetConfig) -> dict[str, float]:
    """Return the budgets that are set, by resource, in its unit."""
    return {name: limit for name, limit in vars(budget).items() if limit is not None}


def check_device(name: str) -> None:
    """Raise InputError for what is no name of a device; whether the device exists is not checked."""
    if not DEVICE.fullmatch(name):
        raise InputError(f"device={name} is no device; write auto, cpu, cuda or cuda:N.")


def image_shape(text: str) -> tuple[int, int, int]:
    """Return (channels, height, width) from CxHxW. Raises InputError."""
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})x([0-9]{1,5})", text)
    channels, height, width = map(int, match.groups()) if match else (0, 0, 0)
    if not (channels and height and width):
        raise InputError(f"input={shorten(text)} is not an image; write CxHxW such as 3x32x32.")
    return channels, height, width
