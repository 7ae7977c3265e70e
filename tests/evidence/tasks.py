"""Tasks of the evidence: their images, the experiment of a search and, for banks, the band and the recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import DataConfig, SearchConfig
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.prices import prices
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy.space_lookup import named_space
from tests.evidence.store import WORK

Settings = dict[str, Any]

THREE_BY_THREE = ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]


@dataclass(frozen=True)
class Task:
    """A data set at half its resolution, a deployment skeleton and a search; a bank also has a budget and a recipe.

    `settings` are the keys of the experiment. `macs` is the upper bound of the bank's band, or 0 if the task has no bank.
    """

    data: str
    image: tuple[int, int, int]
    settings: Settings
    macs: float = 0.0
    recipe: Settings = field(default_factory=dict)

    def experiment(self, **keys: Any) -> Settings:
        """Return the experiment as a mapping of dotted keys; `keys` override it."""
        return {"threads": 1, "data.name": "npz", "data.path": str(images_of(self.data)), **self.settings, **keys}

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, in which none is never derived."""
        space = named_space(self.settings["search.space"]).deriving_none(False)
        names = self.settings.get("search.primitives")
        return space.only(names) if names else space

    @cached_property
    def table(self) -> PriceTable:
        """The prices at the deployment skeleton."""
        layers, channels = self.settings["skeleton.layers"], self.settings["skeleton.channels"]
        return prices(SearchConfig(), self.space, Skeleton(layers, channels, self.image, 10))


BANK: Settings = {
    "skeleton.layers": 4,
    "skeleton.channels": 8,
    "search.strategy": "darts",
    "search.space": "darts",
    "search.primitives": THREE_BY_THREE,
    "search.channels": 4,
    "search.layers": [4],
    "search.candidates": [0],
    "search.skip_dropout": [0.0],
    "search.subset": 0.4,
    "search.epochs": 8,
    "search.warmup_epochs": 0,
    "search.batch": 16,
    "search.lr": 0.05,
    "search.alpha_lr": 0.01,
}
"""Settings of the skeleton and the search of a bank."""

RECIPE: Settings = {
    "retrain.epochs": 8,
    "retrain.batch": 64,
    "retrain.lr": 0.1,
    "retrain.drop_path": 0.0,
    "retrain.auxiliary": 0.0,
    "retrain.cutout": 0,
}
"""Settings of the training of a bank's cells."""

TASKS = {
    "nasbench201": Task(
        "cifar10",
        (3, 16, 16),
        {
            "data.crop": 2,
            "data.fraction": 0.05,
            "skeleton.layers": 17,
            "skeleton.channels": 16,
            "search.strategy": "darts",
            "search.space": "nasbench201",
            "search.channels": 8,
            "search.layers": [5],
            "search.candidates": [0],
            "search.skip_dropout": [0.0],
            "search.epochs": 8,
            "search.warmup_epochs": 0,
            "search.batch": 32,
            "search.lr": 0.025,
            "search.lr_min": 0.001,
            "search.alpha_lr": 0.01,
        },
    ),
    "cifar16": Task("cifar10", (3, 16, 16), {**BANK, "data.crop": 2, "data.fraction": 0.1}, 1.3e6, RECIPE),
    "fashion14": Task("fashion_mnist", (1, 14, 14), {**BANK, "data.crop": 1, "data.fraction": 0.05}, 1.0e6, RECIPE),
}
# The same images and searches with other budgets, for the section on satisficing.
TASKS |= {f"fashion14-{macs // 1000}k": replace(TASKS["fashion14"], macs=macs) for macs in (700_000, 1_400_000)}


def images_of(name: str) -> Path:
    """Return the .npz file of a data set at half its resolution; write it first if it does not exist.

    The original images come from the folder RAPDARTS_DATA, or are downloaded and verified by checksum.
    """
    file = WORK / f"{name}_half.npz"
    if not file.exists():
        path = _original(name)
        data = load_dataset(DataConfig(name=name, path=path), torch.device("cpu"), seed=0)
        arrays: dict[str, np.ndarray] = {}
        for half, images in (("train", data.train), ("test", data.test)):
            pixels = images.fetch(torch.arange(len(images))).numpy()
            arrays[f"x_{half}"], arrays[f"y_{half}"] = halved(pixels), images.labels.numpy()
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)
    return file


def halved(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 images (n, c, h, w) at half their resolution, (n, c, h // 2, w // 2).

    Every 2 x 2 pixels are averaged and rounded, halves to even; an odd last row or column is left out.
    """
    n, channels, height, width = pixels.shape
    blocks = pixels[:, :, : height // 2 * 2, : width // 2 * 2].reshape(n, channels, height // 2, 2, width // 2, 2)
    return np.rint(blocks.mean((3, 5), dtype=np.float32)).astype(np.uint8)


def _original(name: str) -> str:
    folder = Path(os.environ.get("RAPDARTS_DATA", ""))
    places = {"cifar10": "cifar-10-batches-bin", "fashion_mnist": "fashion-mnist"}
    place = folder / places[name]
    return str(place) if os.environ.get("RAPDARTS_DATA") and place.is_dir() else ""
