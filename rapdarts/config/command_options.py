"""Knobs of the commands that do not start a run, in one dataclass per command, with units, defaults and ranges.

This module does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass, replace
from typing import ClassVar

from rapdarts.config.experiment import (
    DATA_SETS,
    DEVICE_HELP,
    MOST_IMAGES,
    MOST_PIXELS,
    MOST_THREADS,
    RULES,
    BudgetConfig,
    budget_knobs,
)
from rapdarts.config.exports import EXPORTS
from rapdarts.config.key_values import knob
from rapdarts.errors import any_of


class OtherBudgetConfig(make_dataclass("OtherBudgets", budget_knobs(none=math.inf), frozen=True)):  # type: ignore[misc]
    """Budgets for another derivation. An empty value keeps the budget of the run; `none`, stored as infinity, removes it."""

    def over(self, own: BudgetConfig) -> BudgetConfig:
        """Return the budgets of a run, `own`, overridden by those that are set here."""
        asked = {name: limit for name, limit in vars(self).items() if limit is not None}
        return replace(own, **{name: None if limit == math.inf else limit for name, limit in asked.items()})


@dataclass(frozen=True)
class DeriveConfig:
    """Options for deriving another genotype from a finished search."""

    VERB: ClassVar[str] = "derive"

    rule: str = knob(
        "",
        "how the genotype is derived from alpha; empty: as in the run; auto: exact if there is a budget, else the rule of the strategy",
        choices=("", *RULES),
    )
    max_skips: int = knob(
        -1, "largest number of skips in the normal cell; -1: as in the run", "edges", low=-1, high=1000
    )
    skip_paths: str = knob(
        "",
        "number of skip-only paths from a cell's input to its output, for the rule exact; empty: as in the run; auto: as in the space",
        choices=("", "auto", "any", "one"),
    )
    spend: float = knob(
        -1.0,
        "the genotype must use at least this fraction of the budget that binds first; auto: as in the run",
        low=0,
        high=1,
        auto=-1,
    )
    count: int = knob(1, "number of genotypes to list, best first", low=1, high=1000)
    budget: OtherBudgetConfig = field(default_factory=OtherBudgetConfig)
    layers: int = knob(0, "depth of the deployment skeleton; 0: as in the run", "cells", low=0, high=1000)
    channels: int = knob(0, "width of the deployment skeleton; 0: as in the run", "channels", low=0, high=65536)
    precision: int = knob(0, "bits per number in the deployed network; 0: as in the run", choices=(0, 32, 16, 8))
    hardware: str = knob(
        "",
        "YAML file with the energy of each operation on your hardware, or horowitz_45nm; empty: as in the run",
        "path",
    )
    latency: str = knob("", "latency table written by rapdarts measure; empty: as in the run", "path")
    space: str = knob(
        "",
        "search space for the architecture parameters of another program, such as darts (a module of search_spaces); empty: as in the run",
    )
    out: str = knob("", "file to write the genotype to; empty: none", "path")


@dataclass(frozen=True)
class OtherDataConfig:
    """Data for a trained network, instead of the data of its run."""

    name: str = knob("", "data set; empty: as in the run or in EXPERIMENT", choices=("", *DATA_SETS))
    path: str = knob(
        "",
        "folder or file that holds the data; empty: as in the run or in EXPERIMENT, or the download cache if data.name is given",
        "path",
    )
    size: int = knob(
        0,
        "side length to which images in a folder are scaled and cropped; 0: as in the run or in EXPERIMENT, or the network's input size if"
        " data.name is given",
        "pixels",
        low=0,
        high=MOST_PIXELS,
    )
    range: list[float] = knob(
        [],
        "pixel values of black and white, such as 0,1; empty: as in the run or in EXPERIMENT",
        low=-1e9,
        high=1e9,
    )
    layout: str = knob(
        "",
        "channel axis of image arrays; empty: as in the run or in EXPERIMENT",
        choices=("", "auto", "channels_first", "channels_last"),
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """Options for testing a trained network."""

    VERB: ClassVar[str] = "evaluate"

    data: OtherDataConfig = field(default_factory=OtherDataConfig)
    batch: int = knob(256, "batch size", "images", low=1, high=MOST_IMAGES)
    device: str = knob("auto", f"{DEVICE_HELP}; ONNX files run on the CPU")
    threads: int = knob(0, "CPU threads; 0: as in the run", low=0, high=MOST_THREADS)
    timing: bool = knob(
        True, "measure throughput at the batch size `batch` and latency at a batch size of 1, each for about a second"
    )
    plot: str = knob("", "file for a plot of the confusion matrix (.png, .svg or .pdf); empty: none", "path")


@dataclass(frozen=True)
class ExportConfig:
    """Options for writing a genotype or a trained network for other programs."""

    VERB: ClassVar[str] = "export"

    to: str = knob(
        "json",
        f"format; of a genotype: {any_of([name for name, form in EXPORTS.items() if form.of_genotype])}; of a trained network:"
        f" {any_of([name for name, form in EXPORTS.items() if not form.of_genotype])}; default: the genotype as json, also for a"
        " trained network",
        choices=tuple(EXPORTS),
    )
    out: str = knob("", "file to write; empty: standard output, for genotypes only", "path")
    precision: int = knob(32, "bits per number in the file; 8 is for onnx only", choices=(32, 8))
    calibration: int = knob(
        512,
        "number of training images that calibrate the activation ranges of an 8-bit network",
        "images",
        low=1,
        high=MOST_IMAGES,
    )
    licence: str = knob("", "licence of the weights, written to the file or its model card; empty: none")
    data: OtherDataConfig = field(default_factory=OtherDataConfig)


@dataclass(frozen=True)
class ReportConfig:
    """Options for tabulating finished runs."""

    VERB: ClassVar[str] = "report"

    out: str = knob("", "file to write; empty: standard output", "path")


@dataclass(frozen=True)
class CountConfig:
    """Options for counting the costs of networks, or of all networks of a space."""

    VERB: ClassVar[str] = "cost"

    input: str = knob(
        "",
        "image shape as CxHxW, or several shapes for a network with several inputs (3x32x32,5); empty: the network's own,"
        " or 3x32x32 if it has none (filters: 384x13x13)",
    )
    classes: int = knob(0, "number of classes; 0: the network's own, or 10 if it has none", low=0, high=1e6)
    layers: int = knob(
        0,
        "depth of a genotype's network; 0: the genotype's own, or the space's if it has none",
        "cells",
        low=0,
        high=1000,
    )
    channels: int = knob(
        0,
        "width of the first cells of a genotype's network; 0: the genotype's own, or the space's if it has none (filters: 256)",
        "channels",
        low=0,
        high=65536,
    )
    stem: str = knob(
        "", "first layers of a genotype's network; empty: the genotype's own", choices=("", "auto", "cifar", "imagenet")
    )
    precision: int = knob(
        0,
        "bits per number, for bytes, traffic and energy; 0: the genotype's own, or 32 if it has none",
        choices=(0, 32, 16, 8),
    )
    hardware: str = knob(
        "",
        "YAML file with the energies of your hardware, or horowitz_45nm; empty: the genotype's own, or horowitz_45nm if it has none",
        "path",
    )
    rows: str = knob(
        "auto",
        "table of layers; auto: only for a single network, with a row per module if there are too many layers; all: a row per layer;"
        " none: only totals",
        choices=("auto", "all", "none"),
    )
    plot: str = knob("", "file for bar charts of the costs by layer (.png, .svg or .pdf); empty: none", "path")
    space: str = knob("", "search space to count instead of a network: a module of search_spaces")


@dataclass(frozen=True)
class MeasureConfig:
    """Options for measuring the latency of a space's primitives on this device."""

    VERB: ClassVar[str] = "measure"

    space: str = knob("", "search space; empty: the experiment's, or darts if no experiment is given")
    layers: int = knob(
        0,
        "depth of the deployment skeleton; 0: the experiment's, or the space's if no experiment is given",
        "cells",
        low=0,
        high=1000,
    )
    channels: int = knob(
        0,
        "width of the deployment skeleton; 0: the experiment's, or the space's if no experiment is given",
        "channels",
        low=0,
        high=65536,
    )
    input: str = knob("", "image shape as CxHxW; empty: the experiment's, or 3x32x32 if no experiment is given")
    classes: int = knob(0, "number of classes; 0: the experiment's, or 10 if no experiment is given", low=0, high=1e6)
    stem: str = knob(
        "",
        "first layers; empty: the experiment's, or auto if no experiment is given",
        choices=("", "auto", "cifar", "imagenet"),
    )
    device: str = knob("auto", DEVICE_HELP)
    threads: int = knob(1, "CPU threads; 0: torch's default", low=0, high=MOST_THREADS)
    batch: int = knob(1, "batch size of a forward pass", "images", low=1, high=MOST_IMAGES)
    rounds: int = knob(40, "number of repetitions of every measurement", low=4, high=1e5)
    networks: int = knob(
        40, "number of random networks; one half calibrates the table, the other half checks it", low=6, high=400
    )
    seed: int = knob(0, "seed of the random networks", low=0, high=2**32 - 1)
    out: str = knob("latency.json", "file to write the table to", "path")
