"""Every knob of an experiment, with its unit, default and range.

This module does not import torch, so that `rapdarts VERB --help` can list the knobs quickly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

from rapdarts.config.finding import FindConfig
from rapdarts.config.key_values import knob
from rapdarts.config.random_baseline import RandomConfig
from rapdarts.config.relaxation import RELAXATIONS, RelaxationConfig
from rapdarts.config.resources import RESOURCES
from rapdarts.errors import InputError, shorten

MOST_EPOCHS, MOST_IMAGES, MOST_PIXELS, MOST_THREADS = 1e6, 1e6, 65536, 1024
"""Upper bounds, so that typos and numbers that torch cannot represent are rejected before a run starts."""

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
"""Values of data.name, each with its format in rapdarts.data.readers; `npz` and `folder` are for your own data."""

PLACED = ("npz", "folder")
"""Values of data.name for your own data, identified by data.path."""

RULES = ("auto", "pdarts", "darts", "exact")
"""Rules for deriving a genotype. `pdarts` caps the number of skips, `darts` does not, and `exact` finds the best of all genotypes
under the cap.

`auto` means `exact` if there is a budget, else the rule of the strategy.
"""


# --- the sections of an experiment -------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataConfig:
    """The images, and how they are read and augmented."""

    name: str = knob("digits", "data set; memory: data passed by a program", choices=(*DATA_SETS, "memory"))
    path: str = knob("", "folder or file that holds the data; empty: the download cache", "path")
    download: bool = knob(True, "download a missing data set into the cache and verify its checksum")
    fraction: float = knob(1.0, "fraction of the training images to use, the same for each class", above=0, high=1)
    size: int = knob(
        0,
        "side length to which images in a folder are scaled and cropped; 0: unchanged",
        "pixels",
        low=0,
        high=MOST_PIXELS,
    )
    range: list[float] = knob(
        [],
        "pixel values of black and white, such as 0,1; values outside this range are clipped; empty: inferred from the training images",
        low=-1e9,
        high=1e9,
    )
    layout: str = knob(
        "auto",
        "channel axis of image arrays; auto: inferred from the sizes of the axes",
        choices=("auto", "channels_first", "channels_last"),
    )
    crop: int = knob(4, "padding of images before random crops; 0: no crops", "pixels", low=0, high=MOST_PIXELS)
    flip: bool = knob(True, "random horizontal flips")
    mean: list[float] = knob([], "mean subtracted from each channel (0..1); empty: the training set's", low=0, high=1)
    std: list[float] = knob(
        [], "standard deviation by which each channel is divided (0..1); empty: the training set's", above=0, high=1e3
    )

    @property
    def called(self) -> str:
        """Name of the user's file or folder of images, or name of the data set."""
        return Path(self.path).stem if self.name in PLACED and self.path else self.name


@dataclass(frozen=True)
class SkeletonConfig:
    """The deployment skeleton: depth, width and stem of the network that the search prices and the retraining builds."""

    layers: int = knob(20, "depth", "cells", low=1, high=1000)
    channels: int = knob(
        36,
        "width of the first cells; auto: the widest network whose average cell fits the budgets",
        "channels",
        low=2,
        high=65536,
        auto=0,
    )
    stem: str = knob(
        "auto",
        "first layers; auto: imagenet for images of at least 96x96 pixels, else cifar",
        choices=("auto", "cifar", "imagenet"),
    )


_PRICES = [
    (resource.name, float, knob(0.0, resource.price, "nats", low=0, high=1e6)) for resource in RESOURCES.values()
]


def budget_knobs(none: float | None = None) -> list[tuple[str, Any, Any]]:
    """Return (name, type, knob) for every budget, in the unit of its resource; `none` is the value stored for the word none."""
    return [
        (resource.name, float | None, knob(None, resource.budget, amount=resource.name, none=none))
        for resource in RESOURCES.values()
        if resource.budget
    ]


class CostCoefficients(make_dataclass("Prices", _PRICES, frozen=True)):  # type: ignore[misc]
    """Prices of resources: at a price of 1, the cost of the uniform mixture adds one nat to the loss for alpha."""


class BudgetConfig(make_dataclass("Budgets", budget_knobs(), frozen=True)):  # type: ignore[misc]
    """Upper bounds that the genotype always meets, even at the expense of accuracy; empty: no budget. A budget needs no price."""


@dataclass(frozen=True)
class SearchConfig:
    """The search: stages, the two optimisers, prices and budgets, and how the genotype is derived."""

    strategy: str = knob(
        "pdarts", "search method; sets the defaults of other keys", choices=("pdarts", "darts", "random")
    )
    space: str = knob("darts", "search space: a module of search_spaces")
    primitives: list[str] = knob([], "subset of the space's primitives to search over; empty: all")
    layers: list[int] = knob([5, 11, 17], "depth of the supernet, one value per stage", "cells", low=1, high=1000)
    candidates: list[int] = knob(
        [0, 5, 3], "number of candidates on every edge, one value per stage; 0: all", low=0, high=1000
    )
    skip_dropout: list[float] = knob(
        [0.1, 0.4, 0.7], "initial dropout rate after skips, one value per stage", low=0, below=1
    )
    channels: int = knob(16, "width of the supernet's first cells", "channels", low=2, high=65536)
    epochs: int = knob(25, "length of each stage", "epochs", low=1, high=MOST_EPOCHS)
    warmup_epochs: int = knob(
        10,
        "number of epochs at the start of each stage that train only weights; must be below search.epochs",
        "epochs",
        low=0,
        high=MOST_EPOCHS,
    )
    class_weights: str = knob(
        "none", "weights of the classes in the loss; balanced: all classes count equally", choices=("none", "balanced")
    )
    batch: int = knob(
        96, "batch size, both for training weights and for training alpha", "images", low=2, high=MOST_IMAGES
    )
    subset: float = knob(
        1.0, "fraction of the training images that the search uses, the same for each class", above=0, high=1
    )
    weight_fraction: float = knob(
        0.5, "fraction of the training set that trains weights; the rest trains alpha", above=0, below=1
    )
    lr: float = knob(0.025, "learning rate of the weights at the start of each stage", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate of the weights at the end of the cosine schedule", low=0, high=1e3)
    momentum: float = knob(0.9, "momentum of the weights", low=0, below=1)
    weight_decay: float = knob(3e-4, "weight decay of the weights", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm of the weights; 0: no limit", low=0, high=1e6)
    alpha_lr: float = knob(6e-4, "learning rate of the architecture parameters (Adam)", above=0, high=1e3)
    alpha_beta1: float = knob(0.5, "Adam's beta1 for the architecture parameters", low=0, below=1)
    alpha_beta2: float = knob(0.999, "Adam's beta2 for the architecture parameters", low=0, below=1)
    alpha_weight_decay: float = knob(1e-3, "weight decay of the architecture parameters", low=0, high=1)
    alpha_clip: float = knob(5.0, "largest gradient norm of the architecture parameters; 0: no limit", low=0, high=1e6)
    alpha_init: float = knob(1e-3, "standard deviation of the initial architecture parameters", low=0, high=100)
    relaxation: str = knob(
        "softmax", "how alpha is mapped to mixing weights; docs/search.md compares the methods", choices=RELAXATIONS
    )
    relax: RelaxationConfig = field(default_factory=RelaxationConfig)
    supernet: str = knob(
        "batched",
        "how the supernet is computed; batched: all edges from a state at once; plain: one edge at a time, as a reference",
        choices=("batched", "plain"),
    )
    kernels: str = knob(
        "auto",
        "kernels of the batched supernet on a GPU; auto: Triton kernels that pass a check on this GPU, torch's operations in place of"
        " the others; triton: Triton kernels, or an error; torch: only torch's operations",
        choices=("auto", "torch", "triton"),
    )
    checkpoint: bool = knob(
        False,
        "recompute each cell in the backward pass instead of storing its activations: less memory, more time",
    )
    partial_channels: int = knob(
        1,
        "K: mixed operations compute only 1/K of the channels, and edges get weights (PC-DARTS, Xu et al. 2020); 1: all channels",
        low=1,
        high=65536,
    )
    amp: str = knob(
        "none",
        "precision of the supernet's arithmetic; bf16: bfloat16 where it is safe, for GPUs",
        choices=("none", "bf16"),
    )
    replicas: int = knob(
        1,
        "number of searches with different seeds, run one after the other; the genotype is derived from the mean of their mixing weights",
        low=1,
        high=100,
    )
    unrolled: bool = knob(False, "second-order architecture gradient (Liu et al. 2019, Eq. 7)")
    rule: str = knob(
        "auto",
        "how the genotype is derived from alpha; auto: exact if there is a budget, else the rule of the strategy",
        choices=RULES,
    )
    max_skips: int = knob(
        -1,
        "largest number of skips in the normal cell (ignored by the rule darts); auto: as in the space",
        "edges",
        low=0,
        high=1000,
        auto=-1,
    )
    derive_none: bool = knob(False, "allow the primitive none on derived edges, in spaces that permit it")
    skip_paths: str = knob(
        "auto",
        "number of skip-only paths from a cell's input to its output, for the rule exact; auto: as in the space",
        choices=("auto", "any", "one"),
    )
    cost: CostCoefficients = field(default_factory=CostCoefficients)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    spend: float = knob(
        -1.0,
        "the genotype must use at least this fraction of the budget that binds first; auto: 0.9, or 0 for latency and for"
        " resources with a price in search.cost",
        low=0,
        high=1,
        auto=-1,
    )
    budget_rate: float = knob(
        0.5, "how fast the price of a resource rises while its budget is exceeded", "nats per epoch", above=0, high=1e6
    )
    precision: int = knob(
        32, "bits per number in the deployed network (for bytes, traffic and energy)", choices=(32, 16, 8)
    )
    hardware: str = knob(
        "", "YAML file with the energy of each operation on your hardware; empty: horowitz_45nm (Horowitz 2014)", "path"
    )
    latency: str = knob("", "latency table written by rapdarts measure", "path")
    latency_of: str = knob("", "device of the latency table; empty: the device that runs the search")
    random: RandomConfig = field(default_factory=RandomConfig)


@dataclass(frozen=True)
class RetrainConfig:
    """The recipe that trains the derived network, by default the recipe of P-DARTS for CIFAR-10."""

    recipe: str = knob(
        "pdarts",
        "training recipe; sets the defaults of other keys",
        choices=("pdarts", "darts", "imagenet_mobile", "fast"),
    )
    epochs: int = knob(600, "length of the training", "epochs", low=1, high=MOST_EPOCHS)
    warmup_epochs: int = knob(
        0, "number of epochs in which the learning rate rises to the schedule", "epochs", low=0, high=MOST_EPOCHS
    )
    batch: int = knob(128, "batch size, over all processes", "images", low=2, high=MOST_IMAGES)
    accumulate: int = knob(
        1, "number of batches whose gradients are summed in each step", "batches", low=1, high=10_000
    )
    lr: float = knob(0.025, "learning rate at the start of the schedule", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate at the end of the schedule", low=0, high=1e3)
    schedule: str = knob("cosine", "how the learning rate decays from epoch to epoch", choices=("cosine", "linear"))
    momentum: float = knob(0.9, "momentum", low=0, below=1)
    nesterov: bool = knob(False, "use Nesterov momentum")
    weight_decay: float = knob(3e-4, "weight decay", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm; 0: no limit", low=0, high=1e6)
    ema: float = knob(
        0.0,
        "decay per step of a moving average of the weights, which becomes the trained network; 0: no average",
        low=0,
        below=1,
    )
    drop_path: float = knob(0.3, "drop path rate at the end of the training; rises linearly from 0", low=0, below=1)
    auxiliary: float = knob(0.4, "weight of the auxiliary head's loss; 0: no auxiliary head", low=0, high=1e3)
    class_weights: str = knob(
        "none", "weights of the classes in the loss; balanced: all classes count equally", choices=("none", "balanced")
    )
    label_smoothing: float = knob(0.0, "label smoothing: probability spread over all classes", low=0, below=1)
    cutout: int = knob(16, "side of the square cut out of each image; 0: none", "pixels", low=0, high=MOST_PIXELS)
    jitter: float = knob(
        0.0,
        "largest relative change of brightness, contrast and saturation; the hue is rotated by up to half as much; 0: no jitter",
        low=0,
        high=1,
    )
    smallest_crop: float = knob(
        1.0,
        "smallest fraction of the image's area that a random crop keeps before it is scaled to the image's size; 1: off",
        "fraction",
        above=0,
        high=1,
    )
    amp: str = knob(
        "none",
        "precision of the network's arithmetic; bf16: bfloat16 where it is safe, for GPUs",
        choices=("none", "bf16"),
    )
    compile: bool = knob(
        False,
        "compile the network with torch.compile; adds minutes at the start, so it pays off only in long trainings",
    )
    joint_norms: bool = knob(
        True, "with several processes, compute batch norms over the images of all processes, not separately in each"
    )
    validation_fraction: float = knob(
        0.0, "fraction of the training set held out to choose best.safetensors; 0: nothing is held out", low=0, below=1
    )


@dataclass(frozen=True)
class RankConfig:
    """The ranking: the best candidates of finished searches, each trained briefly and compared on held-out training images."""

    count: int = knob(
        5,
        "number of candidates to train, the best of all searches; genotypes that you name are trained too",
        low=1,
        high=1000,
    )
    epochs: int = knob(0, "length of each training; 0: the recipe's", "epochs", low=0, high=MOST_EPOCHS)
    seeds: int = knob(1, "number of trainings per genotype, with consecutive seeds from `seed`", low=1, high=1000)
    train_fraction: float = knob(
        0.5, "fraction of the training set to train on; the genotypes are compared on the rest", above=0, below=1
    )


@dataclass(frozen=True)
class Experiment:
    """All settings of a run, saved in its folder as config.yaml."""

    seed: int = knob(0, "seed of all random numbers", low=0, high=2**32 - 1)
    device: str = knob("auto", DEVICE_HELP)
    threads: int = knob(0, "CPU threads; 0: torch's default", low=0, high=MOST_THREADS)
    save_seconds: float = knob(60.0, "time between checkpoints", "seconds", low=0, high=1e6)
    data: DataConfig = field(default_factory=DataConfig)
    skeleton: SkeletonConfig = field(default_factory=SkeletonConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    find: FindConfig = field(default_factory=FindConfig)


@dataclass(frozen=True)
class Launch:
    """The folder of a run, and whether to resume the run in it."""

    run: str = knob("", "run folder; empty: a new one under runs/", "path")
    resume: bool = knob(False, "resume the run in the folder given by run=")


# --- checks of single values -------------------------------------------------------------------------------------


def budget_limits(budget: BudgetConfig) -> dict[str, float]:
    """Return the budgets that are set, by resource, each in the unit of its resource."""
    return {name: limit for name, limit in vars(budget).items() if limit is not None}


def check_device(name: str) -> None:
    """Raise InputError unless `name` is the name of a device; does not check that the device exists."""
    if not DEVICE.fullmatch(name):
        raise InputError(f"device={name} is not a device; write auto, cpu, cuda or cuda:N.")


def image_shape(text: str) -> tuple[int, int, int]:
    """Return (channels, height, width) from CxHxW. Raises InputError."""
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})x([0-9]{1,5})", text)
    channels, height, width = map(int, match.groups()) if match else (0, 0, 0)
    if not (channels and height and width):
        raise InputError(f"input={shorten(text)} is not an image shape; write CxHxW, such as 3x32x32.")
    return channels, height, width
