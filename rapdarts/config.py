"""Every knob of the product with its unit, default and range, and how an experiment is put together from them.

No torch here: `rapdarts VERB --help` prints these tables before anything heavy is imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapdarts.errors import InputError
from rapdarts.knobs import full_name, knob, load, split_override
from rapdarts.plain_yaml import read_yaml

# --- what an experiment says -------------------------------------------------------------------------------------


@dataclass
class DataConfig:
    """Which images, and how they are read and shaken up."""

    name: str = knob(
        "digits", "data set", choices=("digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "npz", "folder")
    )
    path: str = knob("", "folder or file that holds the data; empty: the download cache", "path")
    download: bool = knob(True, "fetch a missing data set (with a checksum) into the cache")
    fraction: float = knob(1.0, "share of the training images to use, drawn with equal classes", above=0, high=1)
    size: int = knob(0, "side to which pictures in a folder are scaled and cropped; 0: as they are", "pixels", low=0)
    crop: int = knob(4, "random crops out of an image padded by this much", "pixels", low=0)
    flip: bool = knob(True, "random horizontal flips")
    mean: list[float] = knob([], "mean subtracted from each channel (of 0..1); empty: the training set's")
    std: list[float] = knob([], "deviation that divides each channel (of 0..1); empty: the training set's", above=0)


@dataclass
class SkeletonConfig:
    """The deployment skeleton: the network that is priced by the search and built by the retraining."""

    layers: int = knob(20, "depth", "cells", low=1, high=1000)
    channels: int = knob(36, "width of the first cells", "channels", low=1, high=65536)
    stem: str = knob("auto", "first layers; auto: imagenet from 96 pixels on", choices=("auto", "cifar", "imagenet"))


@dataclass
class CostCoefficients:
    """How dear a resource is: 1 weighs the uniform mixture's whole cost like one nat of cross-entropy (thesis Eq. 3.24)."""

    macs: float = knob(0.0, "price on multiply-accumulates", "nats per reference cost", low=0, high=1e6)
    bytes: float = knob(0.0, "price on the bytes of the weights", "nats per reference cost", low=0, high=1e6)


@dataclass
class RandomConfig:
    """The random baseline: genotypes drawn at a given cost and trained by the retraining recipe."""

    count: int = knob(5, "genotypes to draw and train", low=1)
    macs: float = knob(0.0, "the cost they must meet; 0: that of `random.like`, or any", "MACs", low=0)
    like: str = knob("", "genotype file or search run whose MACs they must meet", "path")
    tolerance: float = knob(0.05, "how far their MACs may lie from that", "share", above=0, high=1)


@dataclass
class SearchConfig:
    """The search: stages, the two optimisers, the price, and how the genotype is read off."""

    strategy: str = knob(
        "pdarts", "how to search; sets the defaults of other keys", choices=("pdarts", "darts", "random")
    )
    space: str = knob("darts", "search space: a module of search_spaces")
    primitives: list[str] = knob([], "candidates to search over, out of the space's; empty: all of them")
    layers: list[int] = knob([5, 11, 17], "depth of the supernet, one number a stage", "cells", low=1, high=1000)
    candidates: list[int] = knob([0, 5, 3], "candidates on every edge, one number a stage; 0: all", low=0)
    skip_dropout: list[float] = knob(
        [0.1, 0.4, 0.7], "first dropout rate after skips, one number a stage", low=0, below=1
    )
    channels: int = knob(16, "width of the supernet's first cells", "channels", low=1, high=65536)
    epochs: int = knob(25, "length of a stage", "epochs", low=1)
    warmup_epochs: int = knob(10, "epochs at the start of a stage that train weights only", "epochs", low=0)
    batch: int = knob(96, "batch of both halves", "images", low=2)
    weight_fraction: float = knob(
        0.5, "share of the training set that trains weights; the rest trains alpha", above=0, below=1
    )
    lr: float = knob(0.025, "learning rate of the weights at the start of a stage", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate of the weights that the cosine falls to", low=0, high=1e3)
    momentum: float = knob(0.9, "momentum of the weights", low=0, below=1)
    weight_decay: float = knob(3e-4, "weight decay of the weights", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm of the weights; 0: no limit", low=0)
    alpha_lr: float = knob(6e-4, "learning rate of the architecture parameters (Adam)", above=0, high=1e3)
    alpha_beta1: float = knob(0.5, "Adam's first decay", low=0, below=1)
    alpha_beta2: float = knob(0.999, "Adam's second decay", low=0, below=1)
    alpha_weight_decay: float = knob(1e-3, "weight decay of the architecture parameters", low=0, high=1)
    alpha_clip: float = knob(5.0, "largest gradient norm of the architecture parameters; 0: no limit", low=0)
    alpha_init: float = knob(1e-3, "standard deviation of the first architecture parameters", low=0)
    unrolled: bool = knob(False, "second-order architecture gradient (Liu et al. 2019, Eq. 7)")
    rule: str = knob("pdarts", "how the genotype is read off alpha", choices=("pdarts", "darts"))
    max_skips: int = knob(2, "most skips in the normal cell (rule pdarts)", "edges", low=0)
    cost: CostCoefficients = field(default_factory=CostCoefficients)
    random: RandomConfig = field(default_factory=RandomConfig)


@dataclass
class RetrainConfig:
    """The recipe that trains the derived network; the defaults are P-DARTS' for CIFAR-10."""

    epochs: int = knob(600, "length", "epochs", low=1)
    batch: int = knob(128, "batch", "images", low=2)
    lr: float = knob(0.025, "learning rate at the start", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate that the cosine falls to", low=0, high=1e3)
    momentum: float = knob(0.9, "momentum", low=0, below=1)
    weight_decay: float = knob(3e-4, "weight decay", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm; 0: no limit", low=0)
    drop_path: float = knob(0.3, "drop path rate at the end; it rises linearly from 0", low=0, below=1)
    auxiliary: float = knob(0.4, "weight of the auxiliary head's loss; 0: no such head", low=0)
    cutout: int = knob(16, "side of the square cut out of every image; 0: none", "pixels", low=0)
    label_smoothing: float = knob(0.0, "probability spread over the other classes", low=0, below=1)
    validation_fraction: float = knob(
        0.0, "share of the training set held out to choose `best`; 0: none", low=0, below=1
    )


@dataclass
class Experiment:
    """All that a launch depends on; the run folder keeps it as config.yaml."""

    seed: int = knob(0, "seed of everything random", low=0, high=2**32 - 1)
    device: str = knob("auto", "cpu, cuda, cuda:N, mps; auto: a GPU if there is one")
    threads: int = knob(0, "CPU threads; 0: torch's own choice", low=0)
    save_seconds: float = knob(60.0, "time between two checkpoints", "seconds", low=0)
    data: DataConfig = field(default_factory=DataConfig)
    skeleton: SkeletonConfig = field(default_factory=SkeletonConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)


STRATEGIES: dict[str, dict[str, Any]] = {
    "pdarts": {},
    "darts": {
        "search.layers": [8],
        "search.candidates": [0],
        "search.skip_dropout": [0.0],
        "search.epochs": 50,
        "search.warmup_epochs": 0,
        "search.batch": 64,
        "search.lr_min": 0.001,
        "search.alpha_lr": 3e-4,
        "search.alpha_clip": 0.0,
        "search.rule": "darts",
    },
    "random": {},
}
"""What `search.strategy` presets; keys given beside it win. pdarts: Chen et al. 2019, section 4.2; darts: Liu et al. 2019, appendix A.1."""


# --- what the other verbs take -----------------------------------------------------------------------------------


@dataclass
class Launch:
    """Where a run lives."""

    run: str = knob("", "run folder; empty: a new one under runs/", "path")
    resume: bool = knob(False, "continue the run in that folder")


@dataclass
class DeriveConfig:
    """Reads a genotype off a finished search once more."""

    rule: str = knob("", "how the genotype is read off alpha; empty: the run's", choices=("", "pdarts", "darts"))
    max_skips: int = knob(-1, "most skips in the normal cell (rule pdarts); -1: the run's", "edges", low=-1)
    layers: int = knob(0, "depth of the deployment skeleton; 0: the run's", "cells", low=0, high=1000)
    channels: int = knob(0, "width of the deployment skeleton; 0: the run's", "channels", low=0, high=65536)
    out: str = knob("genotype.json", "file to write", "path")


@dataclass
class EvaluateConfig:
    """Tests a trained network."""

    path: str = knob("", "folder or file that holds the data; empty: where the run found it", "path")
    batch: int = knob(256, "batch", "images", low=1)
    device: str = knob("auto", "cpu, cuda, cuda:N, mps; auto: a GPU if there is one")
    threads: int = knob(0, "CPU threads; 0: torch's own choice", low=0)


@dataclass
class ExportConfig:
    """Writes a genotype in the form that another program reads."""

    to: str = knob("json", "format", choices=("json", "darts"))
    out: str = knob("", "file to write; empty: standard output", "path")


@dataclass
class ReportConfig:
    """Tabulates finished runs."""

    out: str = knob("", "file to write; empty: standard output", "path")


@dataclass
class CountConfig:
    """Counts what a network costs."""

    input: str = knob("", "image as CxHxW; empty: the genotype's own, else 3x32x32")
    classes: int = knob(0, "classes; 0: the genotype's own, else 10", low=0)
    layers: int = knob(0, "depth; 0: the genotype's own, else 20", "cells", low=0, high=1000)
    channels: int = knob(0, "width of the first cells; 0: the genotype's own, else 36", "channels", low=0, high=65536)
    stem: str = knob("", "first layers; empty: the genotype's own", choices=("", "auto", "cifar", "imagenet"))


# --- putting an experiment together ------------------------------------------------------------------------------


def experiment(name_or_path: str, overrides: Sequence[str], section: str) -> Experiment:
    """The experiment a user names (one that ships, or a YAML file), with `key=value` on top.

    Raises InputError for an unknown name, an unreadable file, or a wrong key, type or range.
    """
    from_file = list(read_yaml(experiment_file(name_or_path))) if name_or_path else []
    from_user = [split_override(text) for text in overrides]
    settings: list[tuple[str, Any]] = []
    for group in (from_file, from_user):
        named = [(full_name(Experiment, key, section), value) for key, value in group]
        strategy = dict(named).get("search.strategy")
        # A strategy's presets lie under the keys given beside it, and over everything given before.
        settings += list(STRATEGIES.get(strategy, {}).items()) if isinstance(strategy, str) else []
        settings += named
    config = load(Experiment, settings, section)
    check_experiment(config)
    return config


def check_experiment(config: Experiment) -> None:
    """What no single range can say. Raises InputError."""
    search = config.search
    stages = len(search.layers)
    if not stages:
        raise InputError("search.layers is empty; give one depth a stage.")
    for name in ("candidates", "skip_dropout"):
        if len(getattr(search, name)) != stages:
            raise InputError(
                f"search.{name} has {len(getattr(search, name))} entries but search.layers has {stages}; give one a stage."
            )
    if any(later == 0 for later in search.candidates[1:]):
        raise InputError("search.candidates: only the first stage keeps all (0); later ones give a number.")
    if search.warmup_epochs >= search.epochs:
        raise InputError(
            f"search.warmup_epochs={search.warmup_epochs} leaves no epoch of {search.epochs} to train alpha; make it smaller."
        )
    for section_name, section in (("search", search), ("retrain", config.retrain)):
        if section.lr_min > section.lr:
            raise InputError(
                f"{section_name}.lr_min={section.lr_min} is above {section_name}.lr={section.lr}; make it smaller."
            )
    if len(config.data.mean) != len(config.data.std):
        raise InputError("data.mean and data.std must have the same length; give both, or neither.")


def experiment_folder() -> Path:
    """Where the experiments lie: beside the package in a checkout, inside it once installed."""
    packaged = Path(__file__).parent / "experiments"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "experiments"


def experiment_file(name_or_path: str) -> Path:
    """The YAML file of an experiment. Raises InputError, naming the nearest, for one that is not there."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise InputError(f"there is no experiment file {name_or_path}.")
        return path
    known = sorted(file.stem for file in experiment_folder().glob("*.yaml"))
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.0)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise InputError(
            f"there is no experiment {name_or_path!r}{hint} (of {', '.join(known)}); a file of yours ends in .yaml."
        )
    return experiment_folder() / f"{name_or_path}.yaml"
