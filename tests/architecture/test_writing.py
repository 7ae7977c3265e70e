"""Export of genotypes: every format can express every genotype of its space, and formats that rapdarts also reads round-trip."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype, parse_genotype_json
from rapdarts.architecture.space import SearchSpace
from rapdarts.architecture.writing import FORMATS
from rapdarts.config.command_options import ExportConfig
from rapdarts.config.exports import EXPORTS
from rapdarts.config.key_values import keys
from rapdarts.deploy.runtimes import EXTRAS
from rapdarts.deploy.verify import RUNTIMES
from rapdarts.errors import InputError
from search_spaces import darts, nasbench201
from tests.thinned import thinned

DARTS = {name: genotype for name, genotype in LITERATURE.items() if genotype.space == "darts"}


def drawn(space: SearchSpace) -> st.SearchStrategy[Genotype]:
    return st.builds(lambda seed: random_genotype(space, np.random.default_rng(seed)), st.integers(0, 2**32))


genotypes = (
    st.sampled_from(list(DARTS.values()))
    | drawn(darts.SPACE)
    | st.builds(thinned, drawn(darts.SPACE), st.integers(0, 2**32))
)
bench = drawn(nasbench201.SPACE)
OTHERS = {"darts": "nasbench201", "nasbench201": "darts"}
"""Formats that can express only one of these spaces, each with the space that it rejects."""


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_every_format_can_express_every_genotype_of_its_space(form: str, data: st.DataObject) -> None:
    genotype = data.draw(genotypes | bench)
    if genotype.space == OTHERS.get(form):
        with pytest.raises(InputError, match="cannot be written"):
            FORMATS[form](genotype)
        return
    text = FORMATS[form](genotype)
    assert text.strip() and text.endswith("\n") and not text.endswith("\n\n")
    assert text == FORMATS[form](parse_genotype(genotype.to_json(), "here"))


@settings(deadline=None)
@given(genotype=genotypes, other=bench)
def test_written_genotypes_are_read_back(genotype: Genotype, other: Genotype) -> None:
    assert parse_genotype_json(FORMATS["json"](genotype), "here") == genotype
    assert parse_genotype(FORMATS["darts"](genotype), "here", genotype.space).cells == genotype.cells
    assert parse_genotype_json(FORMATS["json"](other), "here") == other
    assert parse_genotype(FORMATS["nasbench201"](other), "here") == other


def test_every_format_has_one_writer() -> None:
    of_genotypes = [name for name, form in EXPORTS.items() if form.of_genotype]
    of_networks = [name for name, form in EXPORTS.items() if not form.of_genotype]
    assert of_genotypes == list(FORMATS) and of_networks == ["safetensors", *RUNTIMES]
    assert not set(FORMATS) & {"safetensors", *RUNTIMES}
    assert list(EXPORTS) == [*of_genotypes, *of_networks]  # the order in the help of to=
    known = {key.name for key in keys(ExportConfig)} - {"to", "out"}
    assert all(form.name == name and set(form.keys) <= known for name, form in EXPORTS.items())
    assert {key for form in EXPORTS.values() for key in form.keys} == known
    assert {form.extra for form in EXPORTS.values()} == {"", *EXTRAS}


def test_a_nasnet_genotype_can_be_drawn() -> None:
    assert "<svg " in FORMATS["svg"](LITERATURE["NASNet"])


QUOTED = r'"(?:[^"\\]|\\.)*"'
DOT = re.compile(
    rf"(\w+)(?: -> (\w+))?(?: \[((?:\w+=(?:{QUOTED}|\w+)(?:, )?)+)\])?|(\w+)=(?:{QUOTED}|\w+)|subgraph (\w+) {{|}}"
)
"""A line inside a DOT graph that we write: a node or an edge with attributes, a graph attribute, or the start or end of a cluster."""


@pytest.mark.parametrize("name", ["PDARTS", "NASNet", "FairDARTS_a"])
def test_dot_has_an_arrow_for_every_edge_and_grey_boxes_for_empty_nodes(name: str) -> None:
    genotype = LITERATURE[name]
    first, *lines, last = FORMATS["dot"](genotype).splitlines()
    assert (first, last) == ("digraph genotype {", "}")
    found = [DOT.fullmatch(line.strip()) for line in lines]
    assert all(found)
    arrows = sorted((match[1], match[2], (match[3] or "").split('"')[1]) for match in found if match and match[2])
    expected = []
    for kind, cell in genotype.cells.items():
        for number, node in enumerate(cell.nodes):
            expected += [
                (f"{kind}_{source}", f"{kind}_{cell.inputs + number}", primitive) for primitive, source in node
            ]
        expected += [(f"{kind}_{source}", f"{kind}_output", "#b4bcc8") for source in cell.concat]
    assert arrows == sorted(expected)
    grey = {match[1] for match in found if match and "fontcolor" in (match[3] or "") and not match[2]}
    assert grey == ({"normal_3"} if name == "FairDARTS_a" else set())


def test_names_are_escaped_in_dot() -> None:
    cell = Cell(1, ((('a"] evil [x="\\', 0), ("a\nb", 0)),), (1,))
    lines = FORMATS["dot"](Genotype("darts", {"normal": cell})).splitlines()
    assert all(DOT.fullmatch(line.strip()) for line in lines[1:-1])
    assert any(r'label="a\"] evil [x=\"\\"' in line for line in lines)
