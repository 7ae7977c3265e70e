"""The knobs of the commands that start no run: each dataclass is one command's, with units, defaults and ranges.

No torch here, as in `config`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass, replace

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


class OtherBudgetConfig(make_dataclass("OtherBudgets", budget_knobs(none=math.inf), frozen=True)):  # type: ignore[misc]
    """The budgets of another derivation, where they are not the run's; empty: the run's, none: lifted (kept as infinity)."""

    def over(self, own: BudgetConfig) -> BudgetConfig:
        """The budgets of a run with these over them."""
        asked = {name: limit for name, limit in vars(self).items() if limit is not None}
        return replace(own, **{name: None if limit == math.inf else limit for name, limit in asked.items()})


@dataclass(frozen=True)
class DeriveConfig:
    """Options of another derivation from a finished search."""

    rule: str = knob(
        "",
        "how the genotype is derived from alpha; empty: the run's; auto: exact where there is a budget, else by the strategy",
        choices=("", *RULES),
    )
    max_skips: int = knob(-1, "most skips in the normal cell; -1: the run's", "edges", low=-1, high=1000)
    skip_paths: str = knob(
        "",
        "number of skip-only paths from a cell's input to its output, by the rule exact; empty: the run's; auto: the space's",
        choices=("", "auto", "any", "one"),
    )
    spend: float = knob(
        -1.0, "share of a budget that the genotype uses at least; auto: the run's", low=0, high=1, auto=-1
    )
    count: int = knob(1, "how many genotypes to list, best first", low=1, high=1000)
    budget: OtherBudgetConfig = field(default_factory=OtherBudgetConfig)
    layers: int = knob(0, "depth of the deployment skeleton; 0: the run's", "cells", low=0, high=1000)
    channels: int = knob(0, "width of the deployment skeleton; 0: the run's", "channels", low=0, high=65536)
    precision: int = knob(0, "bits of a number in the deployed network; 0: the run's", choices=(0, 32, 16, 8))
    hardware: str = knob("", "energies of your hardware, a YAML file; empty: the run's", "path")
    latency: str = knob("", "latency table that rapdarts measure wrote; empty: the run's", "path")
    out: str = knob("", "file to write the genotype to; empty: none", "path")


@dataclass(frozen=True)
class OtherDataConfig:
    """The images that a trained network meets, where they are not those of its run."""

    name: str = knob("", "data set; empty: the run's, or the experiment's", choices=("", *DATA_SETS))
    path: str = knob("", "folder or file that holds the data; empty: where the run found it", "path")
    size: int = knob(
        0,
        "side to which pictures in a folder are scaled and cropped; 0: the run's, with data.name= the network's",
        "pixels",
        low=0,
        high=MOST_PIXELS,
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """Tests a trained network."""

    data: OtherDataConfig = field(default_factory=OtherDataConfig)
    batch: int = knob(256, "batch", "images", low=1, high=MOST_IMAGES)
    device: str = knob("auto", f"{DEVICE_HELP}; ONNX files run on the CPU")
    threads: int = knob(0, "CPU threads; 0: the run's", low=0, high=MOST_THREADS)
    timing: bool = knob(True, "measure throughput at the batch and latency at a batch of one, for about a second each")
    plot: str = knob("", "picture of the confusion matrix to write, .png, .svg or .pdf; empty: none", "path")


@dataclass(frozen=True)
class ExportConfig:
    """Writes a genotype, or a trained network, in the form that another program reads."""

    to: str = knob(
        "json",
        "format: the first five are of a genotype, the others of a trained network",
        choices=tuple(EXPORTS),
    )
    out: str = knob("", "file to write; empty: standard output, of a genotype only", "path")
    precision: int = knob(32, "bits of a number in the file; 8 belongs to onnx", choices=(32, 8))
    calibration: int = knob(
        512, "training images that set the ranges of an 8-bit network", "images", low=1, high=MOST_IMAGES
    )
    licence: str = knob("", "licence of the weights, which the file or its card is to carry; empty: none")
    data: OtherDataConfig = field(default_factory=OtherDataConfig)


@dataclass(frozen=True)
class ReportConfig:
    """Tabulates finished runs."""

    out: str = knob("", "file to write; empty: standard output", "path")


@dataclass(frozen=True)
class CountConfig:
    """Counts what networks cost, or all networks of a space."""

    input: str = knob("", "image as CxHxW; empty: the network's own, else 3x32x32; of filters 384x13x13")
    classes: int = knob(0, "classes; 0: the network's own, else 10", low=0, high=1e6)
    layers: int = knob(0, "depth of a genotype's network; 0: its own, else the space's", "cells", low=0, high=1000)
    channels: int = knob(
        0, "width of its first cells; 0: its own, else the space's; of filters 256", "channels", low=0, high=65536
    )
    stem: str = knob("", "its first layers; empty: its own", choices=("", "auto", "cifar", "imagenet"))
    precision: int = knob(
        0, "bits of a number, for bytes, traffic and energy; 0: the genotype's own, else 32", choices=(0, 32, 16, 8)
    )
    hardware: str = knob(
        "", "energies of your hardware, a YAML file; empty: the genotype's own, else 45 nm (Horowitz 2014)", "path"
    )
    rows: str = knob(
        "auto",
        "rows by layer; auto: of one network, many of them by module; none: totals",
        choices=("auto", "all", "none"),
    )
    plot: str = knob("", "picture to write, .png, .svg or .pdf: bar charts by layer", "path")
    space: str = knob("", "instead of a network, the search space to count: a module of search_spaces")


@dataclass(frozen=True)
class MeasureConfig:
    """Measures what the primitives of a space take on the device at hand."""

    space: str = knob("", "search space; empty: the experiment's, else darts")
    layers: int = knob(
        0, "depth of the deployment skeleton; 0: the experiment's, else the space's", "cells", low=0, high=1000
    )
    channels: int = knob(0, "width of its first cells; 0: likewise", "channels", low=0, high=65536)
    input: str = knob("", "image as CxHxW; empty: that of the experiment's data, else 3x32x32")
    classes: int = knob(0, "classes; 0: those of the experiment's data, else 10", low=0, high=1e6)
    stem: str = knob("", "first layers; empty: the experiment's, else auto", choices=("", "auto", "cifar", "imagenet"))
    device: str = knob("auto", DEVICE_HELP)
    threads: int = knob(1, "CPU threads; 0: torch's own choice", low=0, high=MOST_THREADS)
    batch: int = knob(1, "images in a forward pass", "images", low=1, high=MOST_IMAGES)
    rounds: int = knob(40, "how often all is measured anew", low=4, high=1e5)
    networks: int = knob(40, "random networks: one half calibrates the table, the other checks it", low=6, high=400)
    seed: int = knob(0, "seed of the random networks", low=0, high=2**32 - 1)
    out: str = knob("latency.json", "file to write the table to", "path")
