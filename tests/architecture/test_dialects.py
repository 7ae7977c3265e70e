"""Genotypes of other programs: published genotypes, round trips, and invalid texts."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.dialects.nni import NNI_OLD_NAMES
from rapdarts.architecture.genotype import Genotype, random_genotype, validate
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype, read_genotype
from rapdarts.cli.main import main
from rapdarts.config.command_options import CountConfig
from rapdarts.config.experiment import RetrainConfig
from rapdarts.deploy.network_costs import genotype_at
from rapdarts.errors import InputError
from search_spaces.darts import SPACE
from tests.genotypes import assert_refused_in_one_sentence
from tests.thinned import thinned

PDARTS, DARTS_V2 = LITERATURE["PDARTS"], LITERATURE["DARTS_V2"]
drawn = st.builds(lambda seed: random_genotype(SPACE, np.random.default_rng(seed)), st.integers(0, 2**32))
short = st.builds(thinned, drawn, st.integers(0, 2**32))


def triples(genotype: Genotype, node_first: bool) -> str:
    """Return the genotype as text, with a triple for every edge."""
    parts = []
    for kind, cell in genotype.cells.items():
        edges = [
            (primitive, 2 + number, source) if node_first else (primitive, source, 2 + number)
            for number, node in enumerate(cell.nodes)
            for primitive, source in node
        ]
        parts.append(f"{kind}={edges}, {kind}_concat={list(cell.concat)}")
    return f"Genotype({', '.join(parts)})"


def nni(genotype: Genotype, as_list: bool) -> dict[str, Any]:
    """Return the dictionary with which NNI freezes its DARTS model space."""
    tree: dict[str, Any] = {"width": 16, "num_cells": 8}
    for kind, cell in genotype.cells.items():
        for number, node in enumerate(cell.nodes):
            for slot, (primitive, source) in enumerate(node):
                tree[f"{kind}/op_{2 + number}_{slot}"] = primitive
                tree[f"{kind}/input_{2 + number}_{slot}"] = [source] if as_list else source
    return tree


def older_nni(genotype: Genotype, by_name: bool) -> dict[str, Any]:
    """Return the dictionary that NNI's older DARTS example exports."""
    names = {ours: theirs for theirs, ours in NNI_OLD_NAMES.items()}
    tree: dict[str, Any] = {}
    for kind, cell in genotype.cells.items():
        for number, node in enumerate(cell.nodes):
            here = f"{kind}_n{2 + number}"
            tree |= {f"{here}_p{source}": [] for source in range(2 + number)}
            tree |= {f"{here}_p{source}": names[primitive] for primitive, source in node}
            tree[f"{here}_switch"] = [f"{here}_p{source}" if by_name else source for _, source in node]
    return tree


@given(genotype=drawn, flag=st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_dialect_gives_the_same_cells(genotype: Genotype, flag: bool) -> None:
    texts = [triples(genotype, flag), f"best = {triples(genotype, flag)}"]
    for tree in (nni(genotype, flag), older_nni(genotype, flag)):
        texts += [json.dumps(tree), repr(tree), f"exported_arch = {tree!r}", f"# from NNI\n{tree!r}"]
    for text in texts:
        assert parse_genotype(text, "file") == genotype, text
        assert parse_genotype(text, "file", "other").space == "other"


# --- nodes with fewer edges --------------------------------------------------------------------------------------

FAIRDARTS = {
    "FairDARTS_a": "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), "
        "('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), "
        "('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0), "
        "('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), ('skip_connect', 5, 1)], reduce_concat=range(2, 6))",
    "FairDARTS_b": "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('sep_conv_3x3', 3, 1), "
        "('dil_conv_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6), "
        "reduce=[('skip_connect', 2, 0), ('dil_conv_3x3', 2, 1), ('skip_connect', 3, 0), ('dil_conv_3x3', 3, 1), "
        "('max_pool_3x3', 4, 0), ('sep_conv_3x3', 4, 1), ('skip_connect', 5, 2), "
        "('max_pool_3x3', 5, 0)], reduce_concat=range(2, 6))",
    "FairDARTS_c": "Genotype(normal=[('max_pool_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('dil_conv_3x3', 4, 0), "
        "('dil_conv_5x5', 4, 2), ('skip_connect', 5, 3), ('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), "
        "reduce=[('dil_conv_3x3', 2, 1), ('dil_conv_5x5', 2, 0), ('dil_conv_3x3', 3, 0), ('sep_conv_3x3', 3, 1), "
        "('sep_conv_5x5', 4, 0), ('sep_conv_5x5', 4, 3), ('sep_conv_5x5', 5, 0), "
        "('skip_connect', 5, 1)], reduce_concat=range(2, 6))",
    "FairDARTS_d": "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('dil_conv_3x3', 3, 1), "
        "('max_pool_3x3', 3, 0), ('dil_conv_3x3', 4, 0), ('dil_conv_3x3', 4, 1), ('sep_conv_3x3', 5, 0), "
        "('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), "
        "('sep_conv_5x5', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 2), ('dil_conv_3x3', 4, 3), "
        "('avg_pool_3x3', 4, 0), ('avg_pool_3x3', 5, 0), ('skip_connect', 5, 3)], reduce_concat=range(2, 6))",
    "FairDARTS_e": "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('dil_conv_3x3', 4, 1), "
        "('dil_conv_3x3', 4, 2), ('dil_conv_3x3', 5, 0), ('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6), "
        "reduce=[('max_pool_3x3', 2, 1), ('max_pool_3x3', 2, 0), ('max_pool_3x3', 3, 1), ('max_pool_3x3', 3, 0), "
        "('sep_conv_5x5', 4, 1), ('max_pool_3x3', 4, 0), ('avg_pool_3x3', 5, 0), "
        "('dil_conv_5x5', 5, 1)], reduce_concat=range(2, 6))",
    "FairDARTS_f": "Genotype(normal=[('max_pool_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('dil_conv_3x3', 3, 1), "
        "('sep_conv_5x5', 4, 1), ('sep_conv_3x3', 5, 0), ('sep_conv_3x3', 5, 1)], normal_concat=range(2, 6), "
        "reduce=[('max_pool_3x3', 2, 0), ('max_pool_3x3', 2, 1), ('max_pool_3x3', 3, 0), ('dil_conv_3x3', 3, 1), "
        "('dil_conv_3x3', 4, 2), ('max_pool_3x3', 4, 0), ('max_pool_3x3', 5, 0), "
        "('sep_conv_3x3', 5, 1)], reduce_concat=range(2, 6))",
    "FairDARTS_g": "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('skip_connect', 4, 3), "
        "('sep_conv_5x5', 4, 1), ('dil_conv_3x3', 5, 0), ('sep_conv_3x3', 5, 1)], normal_concat=range(2, 6), "
        "reduce=[('avg_pool_3x3', 2, 1), ('skip_connect', 2, 0), ('skip_connect', 3, 2), ('max_pool_3x3', 3, 1), "
        "('sep_conv_5x5', 4, 3), ('max_pool_3x3', 4, 0), ('dil_conv_3x3', 5, 1), "
        "('dil_conv_3x3', 5, 4)], reduce_concat=range(2, 6))",
}  # fmt: skip
"""Copied from fairdarts/genotypes.py of github.com/xiaomi-automl/FairDARTS."""


@pytest.mark.parametrize("name", FAIRDARTS)
def test_published_fairdarts_genotypes_are_parsed_and_written(name: str) -> None:
    genotype = parse_genotype(f"{name} = {FAIRDARTS[name]}", "file")
    assert genotype == LITERATURE[name]
    validate(genotype, SPACE, name)
    assert parse_genotype(genotype.to_darts(), "again") == genotype
    if name == "FairDARTS_d":  # two edges per node: pairs are enough
        assert genotype.to_darts().startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ")
        return
    normal, reduce = FAIRDARTS[name].split(" reduce=")
    # The normal cells of c and g have no edge into node 3.
    normal = re.sub(r"\('skip_connect', [45], 3\), ", "", normal)
    assert genotype.to_darts() == f"{normal} reduce={reduce}"


@given(genotype=short, flag=st.booleans())
@settings(max_examples=60, deadline=None)
def test_triples_allow_nodes_with_fewer_edges(genotype: Genotype, flag: bool) -> None:
    assert parse_genotype(genotype.to_darts(), "file") == genotype
    text = re.sub(r"concat=\[[^]]*\]", "concat=range(2, 6)", triples(genotype, flag))
    assert parse_genotype(text, "file") == genotype
    validate(genotype, SPACE, "file")


def test_edges_from_a_node_without_edges_are_left_out() -> None:
    """FairDARTS' own `DCOCell` leaves them out too. Here, the last node of the reduction cell has no edges either."""
    text = (
        "Genotype(normal=[('max_pool_3x3', 3, 0), ('skip_connect', 4, 2), ('max_pool_3x3', 4, 1), ('skip_connect', 5, 4)],"
        " normal_concat=[5, 2, 3], reduce=[('max_pool_3x3', 2, 0), ('skip_connect', 3, 2), ('max_pool_3x3', 4, 1)],"
        " reduce_concat=range(2, 6))"
    )
    pool, skip = "max_pool_3x3", "skip_connect"
    normal = Cell(2, ((), ((pool, 0),), ((pool, 1),), ((skip, 4),)), (5, 3))
    reduce = Cell(2, (((pool, 0),), ((skip, 2),), ((pool, 1),), ()), (2, 3, 4))
    genotype = parse_genotype(text, "file")
    assert genotype.cells == {"normal": normal, "reduce": reduce}
    validate(genotype, SPACE, "file")
    written = genotype.to_darts()
    assert "normal_concat=[5, 3, 2]" in written and "reduce_concat=range(2, 6)" in written
    assert parse_genotype(written, "file") == genotype


def test_a_cell_whose_last_node_is_unused_is_written_as_triples() -> None:
    """A flat list of pairs for it would be refused: it may have another number of pairs for each node."""
    nodes = ((("skip_connect", 0), ("skip_connect", 1)), (("sep_conv_3x3", 0), ("sep_conv_3x3", 2)))
    genotype = Genotype("darts", dict.fromkeys(("normal", "reduce"), Cell(2, nodes, (2,))))
    assert "('sep_conv_3x3', 3, 2)], normal_concat=range(2, 3)" in genotype.to_darts()
    assert parse_genotype(genotype.to_darts(), "file") == genotype


def test_edges_keep_their_order_in_the_file() -> None:
    turned = older_nni(PDARTS, by_name=True)
    turned["normal_n2_switch"].reverse()
    assert parse_genotype(json.dumps(turned), "file").cells["normal"].nodes[0] == PDARTS.cells["normal"].nodes[0][::-1]


# --- logs --------------------------------------------------------------------------------------------------------


def log_of(genotypes: list[Genotype], called: str = "genotype = ", stamp: str = "05/17 09:12:01 PM") -> str:
    lines = ["Experiment dir : search-EXP-20190517", f"{stamp} gpu device = 0"]
    for epoch, genotype in enumerate(genotypes):
        lines += [
            f"{stamp} epoch {epoch} lr 2.5e-02",
            f"{stamp} {called}{genotype.to_darts()}",
            f"{stamp} train_acc 90.1",
        ]
    return "\n".join(lines)


@pytest.mark.parametrize("stamp", ["05/17 09:12:01 PM", "2019-05-17 21:12:01,123", "[2019-05-17 21:12:01] INFO -"])
def test_the_last_epoch_of_a_log_is_used(stamp: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.txt"
    path.write_text(log_of([DARTS_V2, DARTS_V2, PDARTS], stamp=stamp))
    found = read_genotype(path)
    assert found.cells == PDARTS.cells
    assert found.provenance == {"log": "line 10, the last of 3 genotypes"}
    assert repr(found).startswith("Genotype of the space darts, line 10, the last of 3 genotypes\n")
    assert main(["cost", str(path), "rows=none"]) == 0
    assert capsys.readouterr().out.startswith(f"{path} (line 10, the last of 3 genotypes): 20 cells x 36 channels, ")
    assert genotype_at(found, None, CountConfig()).remarks(RetrainConfig())[:2] == [
        "using the genotype on line 10, the last of 3 genotypes",
        "building 20 cells x 36 channels with the cifar stem; to change the skeleton, set skeleton.KEY=...",
    ]
    one = log_of([PDARTS], stamp=stamp).splitlines()[3]
    assert parse_genotype(one, "line").cells == PDARTS.cells


def test_a_log_that_ends_with_different_genotypes_is_refused() -> None:
    stamp = "06/05 10:00:00 AM"
    text = "\n".join(
        [
            f"{stamp} {PDARTS.to_darts()}",
            f"{stamp} Restricting skipconnect...",
            f"{stamp} Number of skip-connect: 1",
            f"{stamp} {DARTS_V2.to_darts()}",
        ]
    )
    with pytest.raises(
        InputError,
        match=r"different genotypes, on lines 1, 4 \(at most 1 skips\); select one by its line, as in FILE:4",
    ):
        parse_genotype(text, "log.txt")
    assert parse_genotype(text.replace(DARTS_V2.to_darts(), PDARTS.to_darts()), "log.txt").cells == PDARTS.cells


def test_a_comment_with_a_time_is_not_a_log() -> None:
    text = f"# found at 09:12:01, better than Genotype(normal=[])\n{PDARTS.to_darts()}\n"
    assert parse_genotype(text, "file").cells == PDARTS.cells


# --- invalid texts -----------------------------------------------------------------------------------------------


def newer(**changes: Any) -> str:
    """Return NNI's dictionary of DARTS_V2 as JSON, with entries replaced, or removed if None."""
    tree = {**nni(DARTS_V2, False), **{key.replace("__", "/"): value for key, value in changes.items()}}
    return json.dumps({key: value for key, value in tree.items() if value is not None})


def older(**changes: Any) -> str:
    tree = {**older_nni(DARTS_V2, True), **changes}
    return json.dumps({key: value for key, value in tree.items() if value is not None})


GOOD = "Genotype(normal=[('a', 2, 0), ('b', 2, 1)], normal_concat=[2], reduce=[('a', 2, 0), ('b', 2, 1)], reduce_concat=[2])"
STAMP = "05/17 09:12:01 PM genotype = "
WRONG = {
    "two orders": (GOOD.replace("('b', 2, 1)", "('b', 1, 2)", 1), "others after it; use one order for all"),
    "a self-loop": (GOOD.replace("('b', 2, 1)", "('b', 2, 2)", 1), "the triple ('b', 2, 2) of normal names node 2 as its own input"),
    "from inputs to inputs": (GOOD.replace("('b', 2, 1)", "('b', 1, 0)", 1), "the triple ('b', 1, 0); it must name"),
    "a node number as an expression": (GOOD.replace("('b', 2, 1)", "('b', 10**9, 1)", 1), "found '10**9'"),
    "a node number out of range": (GOOD.replace("('b', 2, 1)", "('b', 1000000000, 1)", 1), "from 2 to 1000"),
    "too many nodes": (GOOD.replace("('b', 2, 1)", "('b', 900, 1)", 1), "nodes has 899 entries"),
    "an edge between empty nodes": (GOOD.replace("('b', 2, 1)", "('b', 4, 3)", 1), "node 4 of normal reads only nodes without edges"),
    "an empty output": (GOOD.replace("[2]", "[3]", 1), "cell normal, concat is empty"),
    "a negative input": (GOOD.replace("('b', 2, 1)", "('b', 2, -1)", 1), "the input -1 is negative"),
    "a string as node": (GOOD.replace("('b', 2, 1)", "('b', '2', 1)", 1), "the triple ('b', '2', 1)"),
    "a number as primitive": (GOOD.replace("'b'", "7", 1), "the primitive must be a name, not 7"),
    "pairs among triples": (GOOD.replace("('b', 2, 1)", "('b', 1)", 1), "must be a pair [primitive, input], not ['a', 2, 0]"),
    "NNI without an input": (newer(normal__input_3_1=None), "one of normal/op_3_1 and normal/input_3_1 is missing"),
    "NNI without a node": (newer(normal__op_3_0=None, normal__op_3_1=None, normal__input_3_0=None, normal__input_3_1=None),
        "the normal cell has the nodes [2, 4, 5]; NNI numbers them from 2 without gaps"),
    "NNI without a cell": (json.dumps({key: value for key, value in nni(DARTS_V2, False).items() if key[0] != "r"}),
        "the reduce cell has the nodes []"),
    "NNI with an unknown key": (newer(normal__operator_2_0="none"), "the key 'normal/operator_2_0' is not one of NNI's"),
    "NNI with two inputs": (newer(normal__input_2_0=[0, 1]), "the input [0, 1] is not a whole number"),
    "NNI with a string as input": (newer(normal__input_2_0="0"), "the input '0' is not a whole number"),
    "NNI with a cycle": (newer(normal__input_2_0=3), "the input 3 is a later node"),
    "NNI with a self-loop": (newer(normal__input_2_0=2), "the input 2 is the node itself"),
    "NNI with primitives by number": (older(normal_n2_p0=3), "normal_n2_p0 must be the name of a primitive, not 3"),
    "NNI with primitives by mask": (older(normal_n2_p0=[False, True]), "must be the name of a primitive, not [False, True]"),
    "NNI's switch names an edge of another node": (older(normal_n2_switch=["normal_n3_p0"]),
        "names 'normal_n3_p0', which is not an edge of the node"),
    "NNI's switch names a missing edge": (older(normal_n2_switch=[9]), "names 9, which is not an edge"),
    "NNI's switch names a switch": (older(normal_n2_switch=["normal_n2_switch"]), "which is not an edge of the node"),
    "NNI's switch is not a list": (older(normal_n2_switch="normal_n2_p0"), "normal_n2_switch must be a list"),
    "NNI's switch is empty": (older(normal_n2_switch=[]),
        "node 2 of normal has 0 edges, but others have 2; in NNI all nodes have the same number of edges"),
    "NNI without an edge": (newer(normal__op_3_1=None, normal__input_3_1=None), "node 3 of normal has 1 edge, but others have 2"),
    "both NNI formats": (json.dumps({**nni(PDARTS, False), **older_nni(PDARTS, False)}), "is not one of NNI's, such as normal_n2_p0"),
    "a key twice": ("{'normal/op_2_0': 'a', 'normal/op_2_0': 'b'}", "every key of a dictionary must be a name or a number and occur once"),
    "a number as key": ("x = {2: 'a'}", "file.json contains no genotype; supported formats are"),
    "an unpacked dictionary": ("x = {**{'normal/op_2_0': 'a'}}", "every key of a dictionary must be a name"),
    "a call": (repr(nni(DARTS_V2, False)).replace("'sep_conv_3x3'", "__import__('os').system('touch hacked')", 1),
        "cell normal, node 0, edge 0: the primitive must be a name, not __import__('os').system('touch hacked')"),
    "another dictionary": ("{'normal': 'a'}", "file.json contains no genotype; supported formats are"),
    "other JSON": ('{"normal": "a"}', "supported formats are rapdarts JSON, Genotype(...)"),
    "another call": ("CNAS = Genotype.from_arch(normal_arch=[])", "supported formats are rapdarts JSON"),
    "a hostile log": (f"{STAMP}Genotype(normal=__import__('os').system('touch hacked'))", "the field normal_concat is missing"),
    "a hostile pair in a log": (STAMP + PDARTS.to_darts().replace("'skip_connect'", "open('hacked', 'w')", 1), "found"),
    "a truncated log": (STAMP + PDARTS.to_darts()[:-4], "Genotype( is not closed"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_text_gives_a_one_sentence_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused_in_one_sentence(*WRONG[name])
    assert not list(tmp_path.iterdir())


def test_primitives_must_belong_to_the_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nni.json"
    path.write_text(newer(normal__op_2_0="\u0455kip_connect"))
    assert main(["cost", str(path)]) == 2
    assert "U+0455" in capsys.readouterr().err
    path.write_text(newer())
    assert main(["cost", str(path), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert main(["cost", "DARTS_V2", "--json"]) == 0
    assert ours["params"] == json.loads(capsys.readouterr().out)["params"]


def test_all_nodes_of_an_nni_cell_are_concatenated() -> None:
    assert parse_genotype(newer(), "file").cells["normal"] == Cell(2, DARTS_V2.cells["normal"].nodes, (2, 3, 4, 5))


@pytest.mark.parametrize(
    "text",
    [
        "12:00 " + "a" * 900_000,
        "12:00 a" + " " * 900_000,
        "12:00 Genotype(\n" * 60_000,
        "12:00 a = Genotype(x)\n" * 40_000,
    ],
    ids=["a word", "spaces", "unclosed calls", "calls"],
)
def test_a_long_log_is_refused_quickly(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(InputError):
        parse_genotype(text, "file")
    assert time.thread_time() - began < 2
