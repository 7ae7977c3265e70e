"""The published accuracies of NAS-Bench-201: order, exact rows, the best accuracy on each data set, and every row of the original table."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, one_hot, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype
from rapdarts.data import nasbench201
from rapdarts.data.nasbench201 import DATA_SETS, PRIMITIVES, accuracy_table, cell_index, known_accuracies
from tests.genotypes import BENCH, of_nasbench201

TABLE = "nasbench201_accuracy.csv.gz"

# Mean test accuracies in percent after 200 epochs, to four decimals, on CIFAR-10, CIFAR-100 and ImageNet16-120.
ROWS = """
|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|    85.8633  52.9133  26.6333
|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|    93.6600  70.2933  44.0333
|avg_pool_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|    85.7400  54.8667  27.2556
|avg_pool_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|                            86.6167  58.3067  28.0444
|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|            93.4550  70.2200  45.7833
|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|    93.9867  72.8800  47.3111
|skip_connect~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|skip_connect~1|nor_conv_3x3~2|            93.5500  70.9667  44.0667
|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|    93.7600  71.1067  41.4444
|none~0|+|none~0|none~1|+|none~0|none~1|none~2|                                                    10.0000   1.0000   0.8333
|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|    54.2967  15.6067  16.3222
|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|    94.3733  73.2200  46.7111
|skip_connect~0|+|skip_connect~0|skip_connect~1|+|nor_conv_3x3~0|nor_conv_1x1~1|nor_conv_1x1~2|    92.1733  68.3600  40.9333
|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|    94.3633  73.5133  46.3444
|nor_conv_1x1~0|+|none~0|nor_conv_1x1~1|+|none~0|nor_conv_1x1~1|nor_conv_1x1~2|                    86.8233  55.2200  21.4111
"""


def hundredths(percent: str) -> int:
    """Return a percentage in hundredths of a percent, rounded half to even."""
    return int(100 * Decimal(percent).quantize(Decimal("0.01")))


def test_the_axes_match_the_space() -> None:
    assert BENCH.name == nasbench201.SPACE
    assert tuple(BENCH.primitives) == PRIMITIVES
    assert accuracy_table().shape == (len(PRIMITIVES),) * len(BENCH.edges) + (len(DATA_SETS),)
    rng = np.random.default_rng(0)
    for _ in range(50):
        genotype = random_genotype(BENCH, rng)
        assert cell_index(genotype) == tuple(one_hot(BENCH, genotype)[0].argmax(-1))


def test_the_table_is_read_only() -> None:
    table = accuracy_table()
    assert table.dtype == np.uint16 and not table.flags.writeable and table is accuracy_table()
    assert int(table.min()) == 83 and int(table.max()) <= 10_000


@pytest.mark.parametrize("line", ROWS.strip().splitlines(), ids=lambda line: line.split()[0])
def test_known_rows(line: str) -> None:
    text, *percentages = line.split()
    genotype = parse_genotype(text, "text")
    assert known_accuracies(genotype) == dict(
        zip(DATA_SETS, (hundredths(one) / 10_000 for one in percentages), strict=True)
    )


def test_the_best_accuracies_are_the_published_ones() -> None:
    """Dong and Yang 2020 report the optimum of each data set."""
    assert accuracy_table().reshape(15_625, 3).max(axis=0).tolist() == [9437, 7351, 4731]


def test_only_cells_of_the_space_have_accuracies() -> None:
    genotype = parse_genotype(of_nasbench201(PRIMITIVES + PRIMITIVES[:1]), "text")
    assert cell_index(genotype) == (0, 1, 2, 3, 4, 0)
    normal = genotype.cells["normal"]
    turned = Cell(1, tuple(node[::-1] for node in normal.nodes), normal.concat)
    assert cell_index(Genotype("nasbench201", {"normal": turned})) == (0, 1, 2, 3, 4, 0)
    other = Cell(1, ((("sep_conv_3x3", 0),), *normal.nodes[1:]), normal.concat)
    for unknown in (
        replace(genotype, space="mine"),
        replace(genotype, cells={"normal": other}),
        replace(genotype, cells={"normal": Cell(1, normal.nodes[:2], (2,))}),
        replace(genotype, cells={"normal": normal, "reduce": normal}),
        LITERATURE["PDARTS"],
    ):
        assert cell_index(unknown) is None and known_accuracies(unknown) is None


def test_the_attribution_ships_with_the_table() -> None:
    text = Path(nasbench201.__file__).with_name("NASBENCH201.txt").read_text(encoding="utf-8")
    assert all(
        words in text for words in ("X. Dong and Y. Yang", "MIT License", "Permission is hereby granted", "rounded")
    )


@pytest.mark.skipif("RAPDARTS_DATA" not in os.environ, reason="RAPDARTS_DATA is not set to a folder with real data")
def test_every_row_matches_the_benchmark() -> None:
    path = Path(os.environ["RAPDARTS_DATA"]) / TABLE
    if not path.is_file():
        pytest.skip(f"RAPDARTS_DATA contains no {TABLE}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = {row["arch"]: row for row in csv.DictReader(file)}
    assert len(rows) == 15_625
    columns = ("cifar10_test", "cifar100_test", "in16_test")
    every = itertools.product(PRIMITIVES, repeat=6)
    found = [[hundredths(rows[of_nasbench201(names)][column]) for column in columns] for names in every]
    assert accuracy_table().reshape(15_625, 3).tolist() == found
