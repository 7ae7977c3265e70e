"""Published genotypes by name, each with its paper."""

from __future__ import annotations

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype


def _cell(nodes: str, concat: tuple[int, ...] = (2, 3, 4, 5)) -> Cell:
    """Return a cell from `primitive input` pairs, with commas between pairs and bars between nodes. Nodes may be empty."""
    pairs = [[pair.split() for pair in node.split(",") if pair.strip()] for node in nodes.split("|")]
    return Cell(2, tuple(tuple((primitive, int(source)) for primitive, source in node) for node in pairs), concat)


LITERATURE: dict[str, Genotype] = {
    # NASNet-A: Zoph, Vasudevan, Shlens, Le, "Learning transferable architectures for scalable image recognition", 2018.
    "NASNet": Genotype(
        "nasnet",
        {
            "normal": _cell(
                "sep_conv_5x5 1, sep_conv_3x3 0 | sep_conv_5x5 0, sep_conv_3x3 0 | avg_pool_3x3 1, skip_connect 0"
                "| avg_pool_3x3 0, avg_pool_3x3 0 | sep_conv_3x3 1, skip_connect 1",
                concat=(2, 3, 4, 5, 6),
            ),
            "reduce": _cell(
                "sep_conv_5x5 1, sep_conv_7x7 0 | max_pool_3x3 1, sep_conv_7x7 0 | avg_pool_3x3 1, sep_conv_5x5 0"
                "| skip_connect 3, avg_pool_3x3 2 | sep_conv_3x3 2, max_pool_3x3 1",
                concat=(4, 5, 6),
            ),
        },
    ),
    # AmoebaNet-A: Real, Aggarwal, Huang, Le, "Regularized evolution for image classifier architecture search", 2019.
    "AmoebaNet": Genotype(
        "nasnet",
        {
            "normal": _cell(
                "avg_pool_3x3 0, max_pool_3x3 1 | sep_conv_3x3 0, sep_conv_5x5 2 | sep_conv_3x3 0, avg_pool_3x3 3"
                "| sep_conv_3x3 1, skip_connect 1 | skip_connect 0, avg_pool_3x3 1",
                concat=(4, 5, 6),
            ),
            "reduce": _cell(
                "avg_pool_3x3 0, sep_conv_3x3 1 | max_pool_3x3 0, sep_conv_7x7 2 | sep_conv_7x7 0, avg_pool_3x3 1"
                "| max_pool_3x3 0, max_pool_3x3 1 | conv_7x1_1x7 0, sep_conv_3x3 5",
                concat=(3, 4, 6),
            ),
        },
    ),
    # First order: Liu, Simonyan, Yang, "DARTS: differentiable architecture search", 2019.
    "DARTS_V1": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 1, sep_conv_3x3 0 | skip_connect 0, sep_conv_3x3 1"
                "| skip_connect 0, sep_conv_3x3 1 | sep_conv_3x3 0, skip_connect 2"
            ),
            "reduce": _cell(
                "max_pool_3x3 0, max_pool_3x3 1 | skip_connect 2, max_pool_3x3 0"
                "| max_pool_3x3 0, skip_connect 2 | skip_connect 2, avg_pool_3x3 0"
            ),
        },
    ),
    # Second order: Liu, Simonyan, Yang, "DARTS: differentiable architecture search", 2019.
    "DARTS_V2": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 0, sep_conv_3x3 1 | sep_conv_3x3 0, sep_conv_3x3 1"
                "| sep_conv_3x3 1, skip_connect 0 | skip_connect 0, dil_conv_3x3 2"
            ),
            "reduce": _cell(
                "max_pool_3x3 0, max_pool_3x3 1 | skip_connect 2, max_pool_3x3 1"
                "| max_pool_3x3 0, skip_connect 2 | skip_connect 2, max_pool_3x3 1"
            ),
        },
    ),
    # Chen, Xie, Wu, Tian, "Progressive differentiable architecture search", 2019.
    "PDARTS": Genotype(
        "darts",
        {
            "normal": _cell(
                "skip_connect 0, dil_conv_3x3 1 | skip_connect 0, sep_conv_3x3 1"
                "| sep_conv_3x3 1, sep_conv_3x3 3 | sep_conv_3x3 0, dil_conv_5x5 4"
            ),
            "reduce": _cell(
                "avg_pool_3x3 0, sep_conv_5x5 1 | sep_conv_3x3 0, dil_conv_5x5 2"
                "| max_pool_3x3 0, dil_conv_3x3 1 | dil_conv_3x3 1, dil_conv_5x5 3"
            ),
        },
    ),
    # Xu, Xie, Zhang, Chen, Qi, Tian, Xiong, "PC-DARTS: partial channel connections for memory-efficient architecture
    # search", 2020; the cells found on CIFAR-10.
    "PC_DARTS_cifar": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 1, skip_connect 0 | sep_conv_3x3 0, dil_conv_3x3 1"
                "| sep_conv_5x5 0, sep_conv_3x3 1 | avg_pool_3x3 0, dil_conv_3x3 1"
            ),
            "reduce": _cell(
                "sep_conv_5x5 1, max_pool_3x3 0 | sep_conv_5x5 1, sep_conv_5x5 2"
                "| sep_conv_3x3 0, sep_conv_3x3 3 | sep_conv_3x3 1, sep_conv_3x3 2"
            ),
        },
    ),
    # Threshold 0.85, at most two edges per node, seven searches: Chu, Zhou, Zhang, Li, "Fair DARTS: eliminating unfair
    # advantages in differentiable architecture search", 2020; github.com/xiaomi-automl/FairDARTS, fairdarts/genotypes.py.
    "FairDARTS_a": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 0, sep_conv_5x5 1 | | max_pool_3x3 0 | sep_conv_3x3 0",
                concat=(2, 4, 5),
            ),
            "reduce": _cell(
                "max_pool_3x3 0, avg_pool_3x3 1 | avg_pool_3x3 0, dil_conv_5x5 1"
                "| avg_pool_3x3 0, sep_conv_5x5 1 | skip_connect 0, skip_connect 1"
            ),
        },
    ),
    "FairDARTS_b": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 0, sep_conv_3x3 1 | sep_conv_3x3 1 | dil_conv_3x3 0, sep_conv_5x5 1 | dil_conv_5x5 1"
            ),
            "reduce": _cell(
                "skip_connect 0, dil_conv_3x3 1 | skip_connect 0, dil_conv_3x3 1"
                "| max_pool_3x3 0, sep_conv_3x3 1 | skip_connect 2, max_pool_3x3 0"
            ),
        },
    ),
    "FairDARTS_c": Genotype(
        "darts",
        {
            "normal": _cell(
                "max_pool_3x3 0, sep_conv_5x5 1 | | dil_conv_3x3 0, dil_conv_5x5 2 | sep_conv_3x3 0",
                concat=(2, 4, 5),
            ),
            "reduce": _cell(
                "dil_conv_3x3 1, dil_conv_5x5 0 | dil_conv_3x3 0, sep_conv_3x3 1"
                "| sep_conv_5x5 0, sep_conv_5x5 3 | sep_conv_5x5 0, skip_connect 1"
            ),
        },
    ),
    "FairDARTS_d": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 0, sep_conv_5x5 1 | dil_conv_3x3 1, max_pool_3x3 0"
                "| dil_conv_3x3 0, dil_conv_3x3 1 | sep_conv_3x3 0, dil_conv_5x5 1"
            ),
            "reduce": _cell(
                "max_pool_3x3 0, sep_conv_5x5 1 | avg_pool_3x3 0, dil_conv_5x5 2"
                "| dil_conv_3x3 3, avg_pool_3x3 0 | avg_pool_3x3 0, skip_connect 3"
            ),
        },
    ),
    "FairDARTS_e": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 0, sep_conv_3x3 1 | | dil_conv_3x3 1, dil_conv_3x3 2 | dil_conv_3x3 0, dil_conv_5x5 1",
                concat=(2, 4, 5),
            ),
            "reduce": _cell(
                "max_pool_3x3 1, max_pool_3x3 0 | max_pool_3x3 1, max_pool_3x3 0"
                "| sep_conv_5x5 1, max_pool_3x3 0 | avg_pool_3x3 0, dil_conv_5x5 1"
            ),
        },
    ),
    "FairDARTS_f": Genotype(
        "darts",
        {
            "normal": _cell(
                "max_pool_3x3 0, sep_conv_3x3 1 | dil_conv_3x3 1 | sep_conv_5x5 1 | sep_conv_3x3 0, sep_conv_3x3 1"
            ),
            "reduce": _cell(
                "max_pool_3x3 0, max_pool_3x3 1 | max_pool_3x3 0, dil_conv_3x3 1"
                "| dil_conv_3x3 2, max_pool_3x3 0 | max_pool_3x3 0, sep_conv_3x3 1"
            ),
        },
    ),
    "FairDARTS_g": Genotype(
        "darts",
        {
            "normal": _cell(
                "sep_conv_3x3 0, sep_conv_3x3 1 | | sep_conv_5x5 1 | dil_conv_3x3 0, sep_conv_3x3 1",
                concat=(2, 4, 5),
            ),
            "reduce": _cell(
                "avg_pool_3x3 1, skip_connect 0 | skip_connect 2, max_pool_3x3 1"
                "| sep_conv_5x5 3, max_pool_3x3 0 | dil_conv_3x3 1, dil_conv_3x3 4"
            ),
        },
    ),
}
