"""Known test accuracies of all 15,625 cells of NAS-Bench-201 (Dong and Yang 2020), which ship with the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from rapdarts.architecture.dialects import BENCH_EDGE
from rapdarts.architecture.genotype import Genotype
from rapdarts.errors import InputError

SPACE = "nasbench201"
"""Name of the search space whose cells are known."""

PRIMITIVES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Candidates of an edge, in the order of that space and of the first six axes of `accuracy_table`."""

DATA_SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}
"""Data sets in the order of the last axis of `accuracy_table`: name in our JSON, and name in text."""

TRAINING = "200 epochs, 15 cells + 2 residual blocks x 16 channels, mean over its seeds"
"""How NAS-Bench-201 trained its networks, for text (Dong and Yang 2020, section 2; one to three seeds a network)."""


@cache
def accuracy_table() -> np.ndarray:
    """Return the test accuracies of all cells in hundredths of a percent, (5, 5, 5, 5, 5, 5, 3) of uint16, read-only.

    The first six axes are the edges in the order of `SearchSpace.edges`, indexed by PRIMITIVES; the last is DATA_SETS.
    `accuracy_table()[cell_index(genotype)]` are the three of one cell, and `accuracy_table().reshape(15_625, 3)` has a
    row for each. Networks were trained by NAS-Bench-201 itself (TRAINING); NASBENCH201.txt says what was changed.
    """
    with np.load(Path(__file__).with_name("nasbench201.npz"), allow_pickle=False) as stored:
        table: np.ndarray = stored["test_accuracy"]
    table.setflags(write=False)  # every caller gets the same array
    return table


def cell_index(genotype: Genotype) -> tuple[int, ...] | None:
    """Return the index of a genotype's cell in `accuracy_table`: for each edge, the position of its primitive in PRIMITIVES.

    None for a genotype of another space, or whose cell NAS-Bench-201 does not have.
    """
    if genotype.space != SPACE:
        return None
    try:
        names = [name for name, _ in BENCH_EDGE.findall(genotype.to_nasbench201())]
    except InputError:  # a cell of another shape
        return None
    return tuple(map(PRIMITIVES.index, names)) if set(names) <= set(PRIMITIVES) else None


def known_accuracies(genotype: Genotype) -> dict[str, float] | None:
    """Return the known test accuracies of a genotype's cell, 0 to 1, by data set (DATA_SETS); None where there are none.

    They belong to the networks that NAS-Bench-201 trained (TRAINING), whatever the genotype's own skeleton.
    """
    index = cell_index(genotype)
    if index is None:
        return None
    return {name: int(hundredths) / 10_000 for name, hundredths in zip(DATA_SETS, accuracy_table()[index], strict=True)}
