"""Genotypes from the literature: each belongs to its space and round-trips through JSON and the DARTS dialect."""

import importlib

import pytest

from rapdarts.architecture.genotype import validate
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype

EVERY = pytest.mark.parametrize("name", LITERATURE)


@EVERY
def test_a_published_genotype_belongs_to_its_space(name: str) -> None:
    genotype = LITERATURE[name]
    space = importlib.import_module(f"search_spaces.{genotype.space}").SPACE
    validate(genotype, space, name)


@EVERY
def test_a_published_genotype_round_trips_through_json_and_darts(name: str) -> None:
    genotype = LITERATURE[name]
    assert parse_genotype(genotype.to_json(), name) == genotype
    assert parse_genotype(genotype.to_darts(), name, genotype.space) == genotype


def test_the_cells_match_the_papers() -> None:
    names = ["NASNet", "AmoebaNet", "DARTS_V1", "DARTS_V2", "PDARTS", "PC_DARTS_cifar"]
    assert list(LITERATURE) == [*names, *(f"FairDARTS_{letter}" for letter in "abcdefg")]
    normal, reduce = (cell.nodes for cell in LITERATURE["PDARTS"].cells.values())
    assert normal[2:] == (
        (("sep_conv_3x3", 1), ("sep_conv_3x3", 3)),
        (("sep_conv_3x3", 0), ("dil_conv_5x5", 4)),
    )
    assert reduce[:2] == (
        (("avg_pool_3x3", 0), ("sep_conv_5x5", 1)),
        (("sep_conv_3x3", 0), ("dil_conv_5x5", 2)),
    )
    assert (
        LITERATURE["DARTS_V2"]
        .to_darts()
        .startswith(
            "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
            "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
            "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        )
    )
    assert LITERATURE["NASNet"].widths == {"normal": 5, "reduce": 3}
    assert LITERATURE["AmoebaNet"].cells["reduce"].concat == (3, 4, 6)
