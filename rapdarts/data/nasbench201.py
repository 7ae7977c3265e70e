"""Published test accuracies of all 15,625 cells of NAS-Bench-201 (Dong and Yang 2020), which ship with the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from rapdarts.architecture.dialects.nasbench import BENCH_EDGE
from rapdarts.architecture.genotype import Genotype
from rapdarts.errors import InputError

SPACE = "nasbench201"
"""Name of the search space of these cells."""

PRIMITIVES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Candidates of an edge, in the order of the search space and of the first six axes of `accuracy_table`."""

DATA_SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}
"""Data sets in the order of the last axis of `accuracy_table`, from names in JSON to names in text."""

TRAINING = "200 epochs, 15 cells + 2 residual blocks x 16 channels, mean over its seeds"
"""Training of the networks in NAS-Bench-201, as text (Dong and Yang 2020, section 2; one to three seeds per network)."""


@cache
def accuracy_table() -> np.ndarray:
    """Return the test accuracies of all cells in hundredths of a percent, (5, 5, 5, 5, 5, 5, 3) of uint16, read-only.

    The first six axes are the edges in the order of `SearchSpace.edges`, indexed by PRIMITIVES; the last is DATA_SETS.
    `accuracy_table()[cell_index(genotype)]` are the three accuracies of a cell, and `accuracy_table().reshape(15_625, 3)`
    has one row per cell. The networks were trained by the authors of NAS-Bench-201 (TRAINING); NASBENCH201.txt lists the
    changes made to their table.
    """
    with np.load(Path(__file__).with_name("nasbench201.npz"), allow_pickle=False) as stored:
        table: np.ndarray = stored["test_accuracy"]
    table.setflags(write=False)  # every caller gets the same array
    return table


def cell_index(genotype: Genotype) -> tuple[int, ...] | None:
    """Return the index of a genotype's cell in `accuracy_table`: for each edge, the position of its primitive in PRIMITIVES.

    Returns None for a genotype of another space, or with a cell that NAS-Bench-201 does not contain.
    """
    if genotype.space != SPACE:
        return None
    try:
        names = [name for name, _ in BENCH_EDGE.findall(genotype.to_nasbench201())]
    except InputError:  # a cell with a different shape
        return None
    return tuple(map(PRIMITIVES.index, names)) if set(names) <= set(PRIMITIVES) else None


def known_accuracies(genotype: Genotype) -> dict[str, float] | None:
    """Return the published test accuracies of a genotype's cell, 0 to 1, by data set (DATA_SETS), or None if there are none.

    The accuracies are those of the networks in NAS-Bench-201 (TRAINING), regardless of the genotype's own skeleton.
    """
    index = cell_index(genotype)
    if index is None:
        return None
    return {name: int(hundredths) / 10_000 for name, hundredths in zip(DATA_SETS, accuracy_table()[index], strict=True)}
