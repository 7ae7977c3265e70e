"""Representations of a genotype: lines in a terminal and a drawing in a notebook."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.drawing import MAX_EDGES, draw
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from search_spaces import nasbench201


def test_repr_has_a_line_per_node() -> None:
    found = replace(
        LITERATURE["DARTS_V2"],
        skeleton=Skeleton(20, 36, (3, 32, 32), 10),
        costs={"macs": 528_871_680, "params": 3_349_342, "energy": 0.00278},
    )
    assert repr(found) == "\n".join(
        [
            "Genotype of the space darts",
            "  20 layers, 36 channels, cifar stem, images 3x32x32, 10 classes",
            "  normal  2 = sep_conv_3x3(0) + sep_conv_3x3(1)",
            "          3 = sep_conv_3x3(0) + sep_conv_3x3(1)",
            "          4 = sep_conv_3x3(1) + skip_connect(0)",
            "          5 = skip_connect(0) + dil_conv_3x3(2)",
            "          output = 2, 3, 4, 5",
            "  reduce  2 = max_pool_3x3(0) + max_pool_3x3(1)",
            "          3 = skip_connect(2) + max_pool_3x3(1)",
            "          4 = max_pool_3x3(0) + skip_connect(2)",
            "          5 = skip_connect(2) + max_pool_3x3(1)",
            "          output = 2, 3, 4, 5",
            "  macs 528,871,680, params 3,349,342, energy 0.00278",
        ]
    )


def test_repr_leaves_out_missing_parts() -> None:
    cell = Cell(1, ((("none", 0),), (), (("skip_connect", 1), ("none", 0))), (3,))
    assert repr(Genotype("mine", {"normal": cell})).splitlines() == [
        "Genotype of the space mine",
        "  normal  1 = none(0)",
        "          2 = no edge",
        "          3 = skip_connect(1) + none(0)",
        "          output = 3",
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    shown = repr(Genotype("a\x1b[31m", {"normal": Cell(1, ((("b\nc", 0),),), (1,))}, costs={"\x07": 1}))
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 4


@pytest.mark.parametrize("name", LITERATURE)
def test_genotypes_compare_by_value(name: str) -> None:
    found = LITERATURE[name]
    again = replace(found)
    assert again is not found and again == found
    assert replace(found, space="other") != found
    for cell in found.cells.values():
        assert repr(found).count("output = ") == len(found.cells)
        for node in cell.nodes:
            assert " + ".join(f"{primitive}({source})" for primitive, source in node) in repr(found)


def test_a_notebook_shows_the_drawing() -> None:
    found = random_genotype(nasbench201.SPACE, np.random.default_rng(0))
    svg = found._repr_svg_()
    assert svg == draw(found)
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 (our own text)


def test_a_notebook_shows_text_if_a_cell_has_too_many_edges() -> None:
    cell = Cell(1, ((("skip_connect", 0),) * (MAX_EDGES + 1),), (1,))
    assert Genotype("mine", {"normal": cell})._repr_svg_() is None
