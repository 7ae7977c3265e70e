"""Reading genotypes: round trips through all dialects, and invalid, hostile or damaged texts and files."""

import gzip
import itertools
import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, validate
from rapdarts.architecture.reading import parse_genotype, parse_genotype_json, read_genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.errors import InputError
from tests.genotypes import (
    BARS,
    BENCH,
    CELL,
    DARTS,
    SPACES,
    VALID,
    assert_refused_in_one_sentence,
    changed,
    genotypes,
    of_nasbench201,
    same,
    with_fewer_edges,
    without,
)

# --- round trips -------------------------------------------------------------------------------------------------


@given(genotypes() | with_fewer_edges())
@settings(max_examples=120, deadline=None)
def test_a_genotype_round_trips_through_json(drawn: tuple[SearchSpace, Genotype]) -> None:
    genotype = replace(
        drawn[1],
        skeleton=Skeleton(8, 16, (1, 8, 8), 10),
        costs={"macs": 7, "energy": 0.1},
        provenance={"seed": [1, {"a": None}]},
    )
    text = genotype.to_json()
    assert json.loads(text)["version"] == 1
    assert parse_genotype(text, "file") == genotype
    assert parse_genotype(text, "file").to_json() == text
    line = genotype.line
    assert "\n" not in line and parse_genotype(line, "file", genotype.space).cells == genotype.cells


TWO_INPUTS = [space for space in SPACES if space.inputs == 2]


@given(genotypes(TWO_INPUTS) | with_fewer_edges(TWO_INPUTS))
@settings(max_examples=120, deadline=None)
def test_a_genotype_round_trips_through_the_darts_dialect(drawn: tuple[SearchSpace, Genotype]) -> None:
    space, genotype = drawn
    assert parse_genotype(genotype.to_darts(), "file", space.name) == genotype
    assert parse_genotype(f"best = {genotype.to_darts()}\n", "file", space.name) == genotype


EVERY_BENCH = {of_nasbench201(names) for names in itertools.product(BENCH.primitives, repeat=6)}


def test_every_architecture_round_trips_through_the_nasbench201_dialect() -> None:
    assert len(EVERY_BENCH) == 15_625
    for text in EVERY_BENCH:
        genotype = parse_genotype(text, "file")
        validate(genotype, BENCH, "file")
        assert genotype.to_nasbench201() == text


@pytest.mark.skipif("RAPDARTS_DATA" not in os.environ, reason="RAPDARTS_DATA is not set")
def test_our_architectures_match_the_benchmark() -> None:
    path = Path(os.environ["RAPDARTS_DATA"]) / "nasbench201_accuracy.csv.gz"
    if not path.is_file():
        pytest.skip("there is no nasbench201_accuracy.csv.gz in RAPDARTS_DATA")
    head, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    column = head.split(",").index("arch")
    assert {row.split(",")[column] for row in rows} == EVERY_BENCH


def test_a_nasbench201_string_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "genotype.txt"
    path.write_text(f"\n {BARS} \n")
    genotype = read_genotype(path, "other")
    nodes = ((("conv", 0),), (("conv", 0), ("none", 1)), (("skip", 0), ("conv", 1), ("pool", 2)))
    assert genotype == Genotype("nasbench201", {"normal": Cell(1, nodes, (3,))})
    assert genotype.to_nasbench201() == genotype.line == BARS
    # The edges of a node may be in any order in JSON; this dialect orders them by input.
    turned = Genotype("nasbench201", {"normal": Cell(1, tuple(node[::-1] for node in nodes), (3,))})
    assert turned.to_nasbench201() == BARS


def test_cells_of_another_shape_cannot_be_written_in_the_nasbench201_dialect() -> None:
    nodes = (*parse_genotype(BARS, "text").cells["normal"].nodes, (("conv", 0), ("conv", 1), ("conv", 2), ("conv", 3)))
    named = [((name, 0),) for name in ("a b", "a|b", "a+b", "a~b")]
    wrong = [
        {},
        {"reduce": Cell(1, nodes[:3], (3,))},
        {"normal": Cell(1, nodes[:3], (3,)), "reduce": Cell(1, nodes[:3], (3,))},
        {"normal": Cell(1, nodes[:3], (1, 2, 3))},
        {"normal": Cell(1, nodes[:3], (2,))},
        {"normal": Cell(1, nodes[:2], (2,))},
        {"normal": Cell(1, nodes, (4,))},
        {"normal": Cell(1, nodes, (3,))},
        {"normal": Cell(2, nodes[:3], (3,))},
        {"normal": Cell(1, (*nodes[:2], nodes[2][:2]), (3,))},
        {"normal": Cell(1, (*nodes[:2], (*nodes[2][:2], ("conv", 1))), (3,))},
        {"normal": Cell(1, (nodes[0], (("none~0|none", 1),), nodes[2]), (3,))},
        *({"normal": Cell(1, (node, *nodes[1:3]), (3,))} for node in named),
    ]
    for cells in wrong:
        with pytest.raises(InputError, match="cannot be written in the NAS-Bench-201 dialect"):
            Genotype("nasbench201", cells).to_nasbench201()


def test_a_written_file_has_a_line_per_node_and_is_read_back(tmp_path: Path) -> None:
    genotype = parse_genotype_json(VALID, "text")
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json())
    assert read_genotype(path) == genotype
    assert genotype.widths == {"normal": 2, "reduce": 2}
    assert '\n        [["conv", 0], ["skip", 1]],\n        [["conv", 0], ["pool", 2]]\n' in genotype.to_json()
    assert genotype.to_json().endswith("}\n")


@pytest.mark.parametrize(
    "text",
    [
        DARTS,
        "  \n\n  " + DARTS,
        "# found by a search\nDARTS = " + DARTS + "  # best",
        DARTS.replace("'", '"').replace("(2, 3)", "(2,\n 3)"),
        DARTS.replace("('conv', 0)", "['conv', 0]").replace("('pool', 1)]", "('pool', 1),]"),
        DARTS.replace("[('conv', 0), ('skip', 1)]", "(('conv', 0), ('skip', 1))").replace("[2]", "(2,)"),
    ],
)
def test_variants_of_the_darts_dialect_are_equivalent(text: str) -> None:
    assert parse_genotype(text, "file") == Genotype(
        "darts",
        {
            "normal": Cell(2, ((("conv", 0), ("skip", 1)),), (2,)),
            "reduce": Cell(2, ((("pool", 0), ("pool", 1)),), (2,)),
        },
    )


def test_the_skeleton_is_optional_and_edges_and_concat_keep_their_order() -> None:
    bare = (
        without("skeleton").replace("[2, 3]", "[3, 2]").replace('["conv", 0], ["skip", 1]', '["skip", 1], ["conv", 0]')
    )
    cell = parse_genotype(bare, "file").cells["normal"]
    assert parse_genotype(bare, "file").skeleton is None
    assert cell.concat == (3, 2) and cell.nodes[0] == (("skip", 1), ("conv", 0))


def test_cells_of_another_shape_cannot_be_written_in_the_darts_dialect() -> None:
    with pytest.raises(InputError, match="DARTS dialect"):
        same(Cell(1, ((("conv", 0),) * 2,), (1,))).to_darts()
    with pytest.raises(InputError, match="the reduce cell cannot be written in the DARTS dialect"):
        parse_genotype(without("cells.reduce"), "file").to_darts()
    with pytest.raises(InputError, match="the normal cell cannot be written in the DARTS dialect"):
        parse_genotype(BARS, "file").to_darts()


# --- invalid and hostile texts -----------------------------------------------------------------------------------

EDGE = "cells.normal.nodes.1.1"
DEEP = "[" * 100_000
WRONG = {
    "empty": ("  \n", "is empty"),
    "a list": ("[1, 2]", "contains no genotype; supported formats are"),
    "a string": ('"genotype"', "contains no genotype; supported formats are"),
    "truncated": (VALID[:-40], "not JSON"),
    "two values": (VALID + "{}", "Extra data"),
    "line and column": ('{\n "format": oops}', "line 2, column 12"),
    "no format": (without("format"), "format must be"),
    "another format": (changed("format", "onnx"), "not 'onnx'"),
    "newer version": (changed("version", 2), "this release reads only version 1"),
    "version 0": (changed("version", 0), "version must be 1"),
    "version true": (changed("version", True), "version must be 1, not True"),
    "version 1.0": (changed("version", 1.0), "version must be 1, not 1.0"),
    "no cells": (without("cells"), "the field cells is missing"),
    "no space": (without("space"), "the field space is missing"),
    "a path as space": (changed("space", "../../etc/x"), "space must be a name"),
    "space with a newline": (changed("space", "darts\n"), "space must be a name"),
    "unknown field": (changed("cels", {}), "the nearest is cells"),
    "unknown kind": (changed("cells.normale", CELL), "the nearest is normal"),
    "missing kind": (without("cells.normal"), "the field normal is missing"),
    "cells is a list": (changed("cells", []), "cells must be an object"),
    "cell is null": (changed("cells.reduce", None), "cell reduce must be an object"),
    "no concat": (without("cells.normal.concat"), "cell normal: the field concat is missing"),
    "unknown field in a cell": (changed("cells.normal.node", 1), "the nearest is nodes"),
    "inputs 0": (changed("cells.normal.inputs", 0), "inputs must be a whole number from 1"),
    "inputs true": (changed("cells.normal.inputs", True), "not True"),
    "nodes is a number": (changed("cells.normal.nodes", 4), "nodes must be a list"),
    "no nodes": (changed("cells.normal.nodes", []), "1 to 100 nodes"),
    "too many nodes": (changed("cells.normal.nodes", [[["conv", 0]]] * 101), "nodes has 101 entries"),
    "empty node in the output": (
        changed("cells.reduce.nodes.1", []),
        "cell reduce, concat lists 3, but node 1 has no edges",
    ),
    "empty node as input": (
        changed("cells.reduce.nodes.0", []),
        "cell reduce, node 1, edge 1: the input 2 is node 0, which has no edges",
    ),
    "empty nodes": (changed("cells.reduce.nodes", [[], []]), "concat lists 2, but node 0 has no edges"),
    "node is a string": (changed("cells.normal.nodes.0", "conv"), "node 0 must be a list"),
    "edge with one item": (changed(EDGE, ["conv"]), "node 1, edge 1 must be a pair"),
    "edge with three items": (changed(EDGE, ["conv", 0, 1]), "must be a pair"),
    "edge is a string": (changed(EDGE, "c0"), "must be a pair"),
    "primitive and input swapped": (changed(EDGE, [0, "conv"]), "the primitive must be a name, not 0"),
    "empty primitive": (changed(EDGE, ["", 0]), "the primitive must be a name"),
    "negative input": (
        changed(EDGE, ["conv", -1]),
        "normal, node 1, edge 1: the input -1 is negative; use 0 to 2",
    ),
    "self-loop": (changed(EDGE, ["conv", 3]), "is the node itself"),
    "cycle": (changed("cells.normal.nodes.0.0", ["conv", 3]), "the input 3 is a later node; use 0 to 1"),
    "missing input": (changed(EDGE, ["conv", 9]), "not in the cell"),
    "fractional input": (changed(EDGE, ["conv", 1.0]), "the input 1.0 is not a whole number"),
    "true as input": (changed(EDGE, ["conv", True]), "the input True is not a whole number"),
    "string as input": (changed(EDGE, ["conv", "1"]), "the input '1' is not a whole number"),
    "concat empty": (changed("cells.normal.concat", []), "concat is empty"),
    "concat with a repeated node": (changed("cells.normal.concat", [2, 2]), "a node twice"),
    "concat of an input": (
        changed("cells.normal.concat", [1, 2]),
        "concat lists 1, which is not a node; use 2 to 3",
    ),
    "concat of a missing node": (changed("cells.normal.concat", [2, 4]), "concat lists 4"),
    "concat of a list": (changed("cells.normal.concat", [[2]]), "concat lists [2]"),
    "concat is a number": (changed("cells.normal.concat", 2), "concat must be a list"),
    "unknown field in the skeleton": (changed("skeleton.depth", 3), "skeleton: there is no field 'depth'"),
    "missing field in the skeleton": (without("skeleton.image"), "the field image is missing"),
    "image with two sizes": (changed("skeleton.image", [32, 32]), "[channels, height, width]"),
    "image with a string": (changed("skeleton.image", [3, "32", 32]), "not '32'"),
    "no layers": (changed("skeleton.layers", 0), "layers takes whole numbers from 1 to 1000"),
    "true as channels": (changed("skeleton.channels", True), "not True"),
    "too many classes": (changed("skeleton.classes", 10**12), "classes"),
    "unknown stem": (changed("skeleton.stem", ["cifar"]), "stem must be cifar or imagenet"),
    "string as cost": (changed("costs.macs", "532M"), "costs: 'macs' must be a number"),
    "true as cost": (changed("costs.macs", True), "must be a number, not True"),
    "provenance is a list": (changed("provenance", []), "provenance must be an object"),
    "duplicate key": (
        VALID.replace('"space"', '"version": 1,\n "space"'),
        "line 4, column 2: the key 'version' is repeated",
    ),
    "escaped duplicate key": (VALID.replace('"space"', '"vers\\u0069on": 2, "space"'), "is repeated"),
    "nan": (VALID.replace("0.0015", "NaN"), "NaN is not a finite number"),
    "infinity": (VALID.replace("0.0015", "-Infinity"), "-Infinity is not a finite number"),
    "1e999": (VALID.replace("0.0015", "-1e999"), "is too large"),
    "19 digits": (VALID.replace("532174464", "1" * 19), "more than 18 digits"),
    "5000 digits": (VALID.replace("532174464", "1" * 5000), "more than 18 digits"),
    "deep list": (DEEP, "nested deeper than 50"),
    "deep value": (changed("provenance.notes", json.loads("[" * 60 + "]" * 60)), "nested deeper than 50"),
    "deep object": ('{"a":' * 100_000, "nested deeper than 50"),
    "too large": (VALID.replace("{", "{" + " " * 1_000_000, 1), "more than 1,000,000 characters are only searched"),
    "a surrogate": (VALID.replace('"fake"', r'"\ud800"'), "space must be a name"),
    "long name": (VALID.replace('"format"', '"' + "f" * 100_000 + '": 1, "format"'), "..."),
    # the DARTS dialect
    "import": ("__import__('os').system('touch hacked')", "found \"__import__('os').system('touch hacked')\""),
    "import within": (DARTS.replace("range(2, 3)", "__import__('os').getpid()"), "concat must be a list or range"),
    "call as pair": (DARTS.replace("('conv', 0)", "eval('1')"), "found \"eval('1')\""),
    "f-string": (DARTS.replace("'conv'", "f'{print(1)}'"), "found \"f'{print(1)}'\""),
    "a name": (DARTS.replace("'conv'", "conv"), "found 'conv'"),
    "bytes": (DARTS.replace("'conv'", "b'conv'"), "found \"b'conv'\""),
    "comprehension": (DARTS.replace("[2]", "[i for i in range(9**9)]"), "found '[i for i"),
    "a sum": (DARTS.replace("[2]", "[1 + 1]"), "found '1 + 1'"),
    "True": (DARTS.replace("('conv', 0)", "('conv', False)"), "the input False is not a whole number"),
    "a float": (DARTS.replace("('conv', 0)", "('conv', 0.0)"), "the input 0.0 is not a whole number"),
    "two genotypes": (
        f"{DARTS}\n\n{DARTS.replace('conv', 'pool')}",
        "contains 2 genotypes: line 1, line 3; select one of them, as in FILE:1",
    ),
    "another call": (DARTS.replace("Genotype", "Namespace"), 'found "Namespace(normal'),
    "too few unnamed fields": ("Genotype([('conv', 0), ('conv', 1)])", "the field normal_concat is missing"),
    "a field by name and by position": (DARTS.replace("(normal=", "([], normal="), "has the field normal twice"),
    "unpacked fields": ("Genotype(**{})", "named once"),
    "repeated field": (DARTS.replace("reduce=", "normal="), "named once"),
    "missing field": ("Genotype(normal=[])", "the field normal_concat is missing"),
    "unknown field of Genotype": (DARTS.replace("reduce=", "reduction="), "the nearest is reduce"),
    "odd number of pairs": (DARTS.replace(", ('skip', 1)", ""), "normal has 1 pair"),
    "no pairs": (DARTS.replace("[('pool', 0), ('pool', 1)]", "[]"), "cell reduce, nodes has 0 entries"),
    "self-loop in a pair": (
        DARTS.replace("('conv', 0)", "('conv', 2)"),
        "normal, node 0, edge 0: the input 2 is the node itself",
    ),
    "negative input in a pair": (DARTS.replace("('conv', 0)", "('conv', -1)"), "the input -1 is negative"),
    "expression in a range": (DARTS.replace("range(2, 3)", "range(0, 10**9)"), "10**9"),
    "long range": (DARTS.replace("range(2, 3)", "range(0, 1000000000)"), "concat must be a list or range"),
    "empty range": (DARTS.replace("range(2, 3)", "range(3, 2)"), "concat is empty"),
    "range with step 0": (DARTS.replace("range(2, 3)", "range(2, 3, 0)"), "concat must be a list or range"),
    "concat is a string": (DARTS.replace("range(2, 3)", "'23'"), "concat must be a list"),
    "not closed": (DARTS[:-1], "Genotype( is not closed"),
    "only a comment": ("# nothing", "contains no genotype; supported formats are"),
    "a word": ("null", "found 'null'"),
    "NUL character": (DARTS + "\0", "is not UTF-8 text (it contains NUL characters); save it as UTF-8"),
    "many nots": ("not " * 15_000 + "x", "contains no genotype"),
    "many brackets": ("x" + "(" * 30_000, "contains no genotype"),
    "calls of calls": ("x" + "()" * 20_000, "contains no genotype"),
    "many calls of calls": ("x" + "()" * 400_000, "contains no genotype"),
    "many sums": ("1" + "+1" * 400_000, "contains no genotype"),
    "lists in lists in lists": (
        "\n".join(["a0 = 'Genotype('", *(f"a{n} = [a{n - 1}]" for n in range(1, 3000))]),
        "contains no genotype",
    ),
    "a list of lists of lists": (
        "\n".join(["a0 = 'a'", *(f"a{n} = [a{n - 1}, a{n - 1}]" for n in range(1, 60))]),
        "contains no genotype",
    ),
    # the NAS-Bench-201 dialect
    "a bar": ("|", "contains no genotype; supported formats are"),
    "an edge": ("|a~0|", "found 1 node in '|a~0|'; the NAS-Bench-201 dialect needs 3, joined by +"),
    "two nodes": ("|conv~0|+|conv~0|conv~1|", "found 2 nodes"),
    "four nodes": (f"{BARS}+|conv~0|", "found 4 nodes"),
    "two cells": (
        f"{BARS}\n{BARS.replace('skip', 'pool')}",
        "contains 2 genotypes: line 1, line 2; select one of them",
    ),
    "an open end": (BARS[:-1], "node 2: found '|skip~0|conv~1|pool~2'; its edges must be enclosed in bars"),
    "no bars": (
        BARS.replace("|conv~0|none~1|", "conv~0"),
        "node 1: found 'conv~0'; its edges must be enclosed in bars",
    ),
    "one bar": (BARS.replace("|conv~0|none~1|", "|"), "node 1: found '|'; its edges must be enclosed in bars"),
    "a space": (BARS.replace("+|skip", "+ |skip"), "node 2: found ' |skip~0|conv~1|pool~2|'; its edges"),
    "an edge too few": (
        BARS.replace("|none~1|", "|"),
        "node 1: found 1 edge in '|conv~0|'; this node must have 2 in the NAS-Bench-201",
    ),
    "an edge too many": (BARS.replace("|conv~0|+", "|conv~0|conv~0|+", 1), "node 0: found 2 edges"),
    "nodes swapped": ("|a~0|b~1|+|a~0|+|a~0|a~1|a~2|", "node 0: found 2 edges"),
    "an empty edge": (BARS.replace("none~1", ""), "node 1, edge 1: found ''; expected primitive~input, as in none~1"),
    "no input": (BARS.replace("none~1", "none"), "node 1, edge 1: found 'none'"),
    "no primitive": (BARS.replace("none~1", "~1"), "found '~1'"),
    "another input": (BARS.replace("none~1", "none~0"), "node 1, edge 1: found 'none~0'; expected"),
    "the node itself as input": (BARS.replace("none~1", "none~2"), "found 'none~2'"),
    "a negative input": (BARS.replace("none~1", "none~-1"), "found 'none~-1'"),
    "a long input": (BARS.replace("none~1", "none~" + "1" * 5000), "found 'none~111"),
    "a leading zero": (BARS.replace("none~1", "none~01"), "found 'none~01'"),
    "non-ASCII digits": (BARS.replace("none~1", "none~\u0661"), "found 'none~\u0661'"),
    "two inputs": (BARS.replace("none~1", "none~0~1"), "found 'none~0~1'"),
    "space in a name": (BARS.replace("none~1", "no ne~1"), "found 'no ne~1'"),
    "line break in a name": (BARS.replace("none~1", "no\nne~1"), "found 'no\\nne~1'"),
    "a long name": (BARS.replace("none~1", "n" * 100_000), "found 'nnn"),
    "JSON at the end": (BARS + VALID, "node 2: found '|skip~0|conv~1|pool~2|{"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_text_gives_a_one_sentence_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused_in_one_sentence(*WRONG[name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        (VALID.encode("utf-16"), "not UTF-8"),
        (VALID.encode("utf-16-le"), "not UTF-8"),
        (VALID.replace("1.5", "\xff").encode("latin-1") + b"\xff", "not UTF-8"),
        (b"", "is empty"),
        (b" " * 1_000_001, "is empty"),
        (b"\x80\x04\x95cos\nsystem\n", "is a binary file, not text"),
    ],
)
def test_an_invalid_file_is_refused(raw: bytes, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=fragment):
        read_genotype(path)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = ["fifo", "loop", ".", "absent", "x" * 300, "nul\0", "absent/under"]
    for path in [*(tmp_path / name for name in names), Path(os.devnull)]:
        with pytest.raises(InputError):
            read_genotype(path)


@pytest.mark.parametrize("text", [VALID, parse_genotype_json(VALID, "text").to_json(), DARTS, BARS])
def test_damaged_bytes_give_a_genotype_or_an_input_error(text: str, tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "genotype"
    for _ in range(1000):
        raw = bytearray(text.encode())
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(raw))
            match rng.randrange(4):
                case 0:
                    raw[place] = rng.randrange(256)
                case 1:
                    raw[place] = rng.choice(b"[]{}(),:\"'\\-0123456789 \ntfnNIe.")
                case 2:
                    del raw[place : place + rng.randint(1, 20)]
                case 3:
                    raw[place:place] = raw[: rng.randint(1, 20)]
        path.write_bytes(raw)
        try:
            genotype = read_genotype(path)
        except InputError:
            continue
        assert parse_genotype(genotype.to_json(), "again") == genotype
