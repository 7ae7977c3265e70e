"""Genotypes in a space: validation, one-hot mixing weights, and random genotypes."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, buildable, one_hot, random_genotype, validate
from rapdarts.architecture.reading import parse_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.errors import InputError
from tests.genotypes import BARS, BENCH, SPACE, fake, genotypes, of_nasbench201, same, with_fewer_edges, without


@given(genotypes())
@settings(max_examples=60, deadline=None)
def test_random_genotypes_are_valid_and_match_their_one_hot_weights(drawn: tuple[SearchSpace, Genotype]) -> None:
    space, genotype = drawn
    validate(genotype, space, "drawn")
    for cell in genotype.cells.values():
        assert cell.concat == space.outputs
    if space.repeat_inputs:
        return
    weights = one_hot(space, genotype)
    assert weights.shape == space.mask.shape and weights.dtype == np.float64
    assert set(np.unique(weights)) <= {0.0, 1.0}
    for kind, of_kind in zip(space.kinds, weights, strict=True):
        for number, node in enumerate(genotype.cells[kind].nodes):
            into = of_kind[space.edges_into(number)]
            chosen = tuple((list(space.primitives)[primitive], source) for source, primitive in np.argwhere(into))
            assert chosen == node and into.sum() == space.edges_kept(number)


def swapped(primitive: str, source: int = 0, space: SearchSpace = SPACE) -> Genotype:
    """Return a genotype that is valid except, possibly, for the first edge of the last node of its reduction cell."""
    node = (("conv", 0), ("skip", 1))
    good = Cell(2, (node,) * space.nodes, tuple(range(2, 2 + space.nodes)))
    bad = replace(good, nodes=(*good.nodes[:-1], ((primitive, source), ("skip", 1))))
    return Genotype("fake", {"normal": good, "reduce": bad})


@pytest.mark.parametrize(
    ("genotype", "fragment"),
    [
        (
            swapped("convv"),
            "reduce, node 2, edge 0: the space fake has no primitive 'convv'; the nearest is conv (choose from pool,",
        ),
        (swapped("CONV "), "'CONV '; the nearest is conv"),
        (swapped("\u0455kip"), "(with U+0455 CYRILLIC SMALL LETTER DZE); the nearest is skip"),
        (swapped("none"), "an edge cannot be none in the space fake; use one of pool, skip, conv"),
        (swapped("conv", 1), "node 2, edge 1: input 1 is used twice"),
        (same(Cell(2, ((("conv", 0),),), (2,))), "has 1 node; the space fake has 3"),
        (same(Cell(1, ((("conv", 0),),) * 3, (1,))), "has 1 input; the space fake has 2"),
        (
            same(Cell(2, ((("conv", 0), ("conv", 1), ("skip", 0)),) * 3, (2,))),
            "node 0 has 3 edges; in the space fake it must have at most 2",
        ),
    ],
)
def test_a_genotype_outside_its_space_gives_a_one_sentence_error(genotype: Genotype, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(genotype, SPACE, "file.json")
    assert fragment in str(caught.value) and str(caught.value).startswith("file.json: cell ")
    with pytest.raises(InputError):
        one_hot(SPACE, genotype)


def test_a_node_may_have_fewer_edges_than_a_search_keeps() -> None:
    """Such a genotype is valid but has no one-hot weights. If a space keeps all edges, none may be missing."""
    full, one = (("conv", 0), ("skip", 1)), (("conv", 1),)
    for nodes, words in [
        (
            (full, one, full),
            "cell normal, node 1 has 1 edge, but mixing weights need 2, the number of edges that a search keeps.",
        ),
        (
            (full, full, ()),
            "cell normal, node 2 has 0 edges, but mixing weights need 2, the number of edges that a search keeps.",
        ),
    ]:
        genotype = same(Cell(2, nodes, tuple(2 + number for number, node in enumerate(nodes) if node)))
        validate(genotype, SPACE, "file")
        with pytest.raises(InputError) as caught:
            one_hot(SPACE, genotype)
        assert str(caught.value) == words
    bars = Genotype("nasbench201", {"normal": Cell(1, ((("none", 0),), (), (("none", 0),)), (3,))})
    with pytest.raises(InputError, match="cell normal, node 1 has 0 edges; in the space nasbench201 it must have 2"):
        validate(bars, BENCH, "file")


def test_a_genotype_must_have_the_kinds_of_its_space() -> None:
    both = same(Cell(1, parse_genotype(BARS, "text").cells["normal"].nodes, (3,)))
    without_reduction = parse_genotype(without("cells.reduce"), "text")
    assert set(without_reduction.cells) == {"normal"}
    for genotype, space, words in [
        (both, BENCH, "file: cell reduce is not allowed; the space nasbench201 has none."),
        (without_reduction, SPACE, "file: cell reduce is missing; the space fake has one."),
        (Genotype("fake", {}), SPACE, "file: cell normal is missing; the space fake has one."),
    ]:
        with pytest.raises(InputError) as caught:
            validate(genotype, space, "file")
        assert str(caught.value) == words
        with pytest.raises(InputError):
            one_hot(space, genotype)


def test_cells_with_one_input_output_their_last_node() -> None:
    good = parse_genotype(of_nasbench201(("none",) * 6), "text")
    validate(good, BENCH, "file")
    assert one_hot(BENCH, good)[0, :, 0].all()
    for concat in ((1, 2, 3), (1,), (2, 3)):
        bad = replace(good, cells={"normal": replace(good.cells["normal"], concat=concat)})
        with pytest.raises(InputError) as caught:
            validate(bad, BENCH, "file")
        words = f"file: cell normal outputs {list(concat)}; in the space nasbench201 it must output [3]."
        assert str(caught.value) == words


def test_an_unknown_primitive_in_the_nasbench201_dialect_is_named() -> None:
    with pytest.raises(
        InputError,
        match="node 0, edge 0: the space nasbench201 has no primitive 'conv'; choose from none, skip_connect, ",
    ):
        validate(parse_genotype(BARS, "file"), BENCH, "file")


def test_none_and_repeated_inputs_are_valid_if_the_space_allows_them() -> None:
    validate(swapped("none"), replace(SPACE, derive_none=True), "file")
    repeating = replace(SPACE, repeat_inputs=True)
    validate(swapped("conv", 1), repeating, "file")
    with pytest.raises(InputError, match="cell reduce, node 2 uses input 1 twice"):
        one_hot(repeating, swapped("conv", 1))


# --- networks that can be built ----------------------------------------------------------------------------------


def built_of(
    nodes: list[list[tuple[str, int]]], space: SearchSpace = SPACE, concat: tuple[int, ...] | None = None
) -> list[Any]:
    """Return the nodes of the genotype to build whose cells have these nodes."""
    cell = Cell(space.inputs, tuple(map(tuple, nodes)), concat or space.outputs[: len(nodes)])
    genotype = Genotype("fake", dict.fromkeys(space.kinds, cell))
    return [list(node) for node in buildable(genotype, space, "file").cells["normal"].nodes]


@given(genotypes() | with_fewer_edges())
@settings(max_examples=60, deadline=None)
def test_every_genotype_of_a_space_can_be_built_as_it_is(drawn: tuple[SearchSpace, Genotype]) -> None:
    space, genotype = drawn
    assert buildable(genotype, space, "file") == genotype


def test_a_network_may_have_other_numbers_of_nodes_and_edges() -> None:
    twice, many = [("conv", 0), ("conv", 0)], [("conv", 0), ("pool", 1), ("skip", 1)]
    for nodes in ([twice], [many, twice], [many] * 6):
        assert built_of(nodes, concat=tuple(range(2, 2 + len(nodes)))) == nodes
        with pytest.raises(InputError):
            validate(
                Genotype("fake", dict.fromkeys(("normal", "reduce"), Cell(2, tuple(map(tuple, nodes)), (2,)))),
                SPACE,
                "file",
            )


def test_none_is_a_missing_edge_unless_the_space_derives_it() -> None:
    nodes = [[("conv", 0), ("none", 1)], [("pool", 0), ("conv", 2)], [("none", 0), ("none", 1)]]
    assert built_of(nodes, concat=(2, 3)) == [[("conv", 0)], [("pool", 0), ("conv", 2)], []]
    assert built_of(nodes, replace(SPACE, derive_none=True), (2, 3)) == nodes
    assert built_of(nodes, fake("pool", "conv", nodes=3), (2, 3))[0] == [("conv", 0)]
    for bad, words in (
        (
            nodes,
            "file: cell normal, node 2 has only none edges, so its output is zero; remove the node from concat and from the ",
        ),
        ([nodes[2], nodes[1]], "file: cell normal, node 0 has only none edges, so its output is zero; "),
    ):
        with pytest.raises(InputError) as refusal:
            built_of(bad, concat=(3,) if bad is not nodes else (2, 4))
        assert str(refusal.value).startswith(words)


def test_networks_that_cannot_be_built_are_refused() -> None:
    pair = (("conv", 0), ("pool", 0))
    two, one = Cell(2, (pair,), (2,)), Cell(1, (pair, pair), (1, 2))
    for cells, space, words in [
        ({"normal": two}, SPACE, "file: cell reduce is missing; the space fake has one."),
        ({"normal": two, "reduce": two}, BENCH, "file: cell reduce is not allowed; the space nasbench201 has none."),
        ({"normal": two}, BENCH, "file: cell normal has 2 inputs; the space nasbench201 has 1."),
        ({"normal": one}, BENCH, "file: cell normal outputs [1, 2]; in the space nasbench201 it must output one node."),
        (
            {"normal": Cell(1, (pair,), (1,))},
            BENCH,
            "file: cell normal, node 0, edge 0: the space nasbench201 has no primitive 'conv'; choose from none, skip_connect, "
            "nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.",
        ),
    ]:
        with pytest.raises(InputError) as refusal:
            buildable(Genotype("fake", cells), space, "file")
        assert str(refusal.value) == words


def test_random_genotypes_are_uniform() -> None:
    rng, draws = np.random.default_rng(0), 3000
    inputs: Counter[tuple[int, ...]] = Counter()
    primitives: Counter[str] = Counter()
    for _ in range(draws):
        node = random_genotype(SPACE, rng).cells["reduce"].nodes[1]
        inputs[tuple(source for _, source in node)] += 1
        primitives.update(primitive for primitive, _ in node)
    assert set(inputs) == {(0, 1), (0, 2), (1, 2)} and set(primitives) == {"pool", "skip", "conv"}
    # Every share is within five standard deviations of one third.
    assert all(abs(count / draws - 1 / 3) < 5 * (2 / 9 / draws) ** 0.5 for count in inputs.values())
    assert all(abs(count / draws / 2 - 1 / 3) < 5 * (2 / 9 / draws / 2) ** 0.5 for count in primitives.values())


def test_random_genotypes_use_only_open_candidates() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random(SPACE.mask.shape) < 0.5
    mask[:, :, 0] = True  # none stays open but is never derived
    mask[:, [0, 1, 3, 4, 7, 8], 3] = True  # every node has two edges with a primitive to derive
    space = SPACE.narrowed(mask)
    for _ in range(200):
        assert np.all(one_hot(space, random_genotype(space, rng)) <= mask)
    mask[1, 0] = [True, False, False, False]
    with pytest.raises(InputError, match=r"cell reduce, node 0 keeps 2 edges in the space \w+, but only 1"):
        random_genotype(SPACE.narrowed(mask), rng)


def test_a_space_with_repeated_inputs_cannot_keep_more_edges_than_inputs() -> None:
    """A node that uses an input twice cannot be distinguished from a mixture of two primitives, so no search could derive it."""
    with pytest.raises(
        InputError, match="keeps 2 edges per node, but its first node has only 1 to choose from; reduce keep"
    ):
        fake("conv", nodes=2, inputs=1, repeat_inputs=True)
