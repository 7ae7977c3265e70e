"""The corpus: every text is read to the right cells and counts, from a file or on the command line, or rejected with the way out."""

from __future__ import annotations

import json
import random
import re
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rapdarts
from rapdarts.architecture.genotype import Genotype, buildable, random_genotype
from rapdarts.architecture.reading import parse_genotype
from rapdarts.cli.main import main
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from tests.architecture.corpus import (
    BENCH,
    CHANGES,
    FOR_ALL,
    FORMS,
    LATER,
    LIGHT,
    REPEATED,
    TEXTS,
    TWICE,
    Cells,
    G,
    bench_by_hand,
    bench_forms,
    by_hand,
    call,
    console,
    file_of_many,
    log,
    notebook,
    records,
)

DARTS = named_space("darts")


@cache
def counted(line: str, space: str) -> tuple[int, int]:
    """Return parameters and MACs of the network of a genotype; each different genotype is built once."""
    costs = rapdarts.costs(line, space=space)
    return int(costs["params"]), int(costs["macs"])


def counts_of(genotype: Genotype) -> tuple[int, int]:
    built = buildable(genotype, named_space(genotype.space), "the text")
    return counted(built.line, genotype.space)


@pytest.mark.parametrize(
    "cells", list(dict.fromkeys(cells for _, _, cells in TEXTS.values())), ids=lambda cells: f"{cells.params}"
)
def test_the_expected_counts_are_those_by_hand(cells: Cells) -> None:
    assert by_hand(cells) == (cells.params, cells.macs)


def test_the_corpus_is_large_enough() -> None:
    assert len(FORMS) >= 12 and len({text for text, _, _ in TEXTS.values()}) >= 60


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_read_to_the_right_cells_and_counts(name: str, tmp_path: Path) -> None:
    text, member, cells = TEXTS[name]
    path = tmp_path / "found.txt"
    path.write_text(text)
    genotype = rapdarts.read(f"{path}:{member}" if member else path)
    assert {kind: [list(node) for node in cell.nodes] for kind, cell in genotype.cells.items()} == {
        kind: cells.nodes(kind) for kind in ("normal", "reduce")
    }
    assert all(cell.concat == (2, 3, 4, 5) for cell in genotype.cells.values())
    assert genotype.space == "darts"
    assert counts_of(genotype) == (cells.params, cells.macs)


@pytest.mark.parametrize("form", bench_forms(next(iter(BENCH))))
@pytest.mark.parametrize("text", BENCH)
def test_a_string_of_nasbench201_is_read_to_the_right_counts(text: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    path.write_text(bench_forms(text)[form])
    genotype = rapdarts.read(path)
    assert (genotype.space, genotype.to_nasbench201()) == ("nasbench201", text)
    assert counts_of(genotype) == bench_by_hand(*BENCH[text])


ARGUMENTS = (
    "call",
    "of_lists",
    "nested_lists",
    "ordered",
    "as_json_list",
    "in_quotes",
    "nni",
    "config_object",
    "compact",
    "ours",
)


@pytest.mark.parametrize(
    "text", [*(FORMS[form](G) for form in ARGUMENTS), f"best = {call(G)}"], ids=[*ARGUMENTS, "named"]
)
def test_a_text_may_be_an_argument(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", text]) == 0
    assert parse_genotype(capsys.readouterr().out, "out").cells == parse_genotype(call(G), "G").cells


@pytest.mark.parametrize("form", ["bare", "quoted", "in a list", "as lists", "as tuples"])
def test_a_string_of_nasbench201_may_be_an_argument(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = next(iter(BENCH))
    assert main(["export", bench_forms(text)[form].strip(), "to=nasbench201"]) == 0
    assert capsys.readouterr().out.strip() == text


# --- texts that are rejected -------------------------------------------------------------------------------------

PARTS = {kind: G.flat(kind) for kind in ("normal", "reduce")}
STAMP = "11/02 08:15:00 AM"
REFUSED = {
    "a recurrent cell": (
        "ENAS = Genotype(recurrent=[('sigmoid', 0), ('relu', 1)], concat=range(1, 3))",
        "describes a recurrent cell, which rapdarts does not build; use convolutional cells",
    ),
    "no reduction cell": (
        f"Genotype(normal={PARTS['normal']}, normal_concat=range(2, 6), reduce=None, reduce_concat=[2, 3, 4, 5], connects=None)",
        "the field reduce is None; a genotype needs normal, normal_concat, reduce, reduce_concat",
    ),
    "no outputs": (f"{{'normal': {PARTS['normal']}, 'reduce': {PARTS['reduce']}}}", "the field normal_concat is missing"),
    "outputs as a name": (
        call(G).replace("range(2, 6)", "range(2 + steps - multiplier, steps + 2)"),
        "found 'range(2 + steps - multiplier, steps + 2)'; concat must be a list or range(first, end)",
    ),
    "an unknown field": (
        call(G).replace("reduce_concat", "layers=8, reduce_concat"),
        "has the unknown field 'layers'; choose from normal, normal_concat, reduce, reduce_concat; remove any field that does not describe",
    ),
    "an odd number of pairs": (
        call(G).replace("('sep_conv_3x3', 0), ", "", 1),
        "normal has 7 pairs, but a flat list needs two per node up to node 5, the last in concat; put the pairs of each node in a list",
    ),
    "three pairs for each node": (
        call(G).replace(str(G.flat("normal")), str([edge for node in G.nodes("normal") for edge in (*node, node[0])])),
        "normal has 12 pairs, but a flat list needs two per node up to node 5, the last in concat; put the pairs of each node in a list",
    ),
    "an edge to itself": (
        FORMS["node_first"](G).replace("('skip_connect', 3, 0)", "('skip_connect', 3, 3)"),
        "the triple ('skip_connect', 3, 3) of normal names node 3 as its own input; use an earlier node or an input",
    ),
    "a compact tuple with an unknown primitive": (
        FORMS["compact"](G).replace("(1, 6)", "(1, 7)"),
        "normal has the pair (1, 7); its second number must be from 0 to 6 (max_pool_3x3, avg_pool_3x3, ",
    ),
    "a configuration without an edge": (
        re.sub(r"'[^']*:edge_normal_1': '[^']*', ", "", FORMS["config_object"](G)),
        "edge_normal_1 is missing; it must name the primitive of this edge",
    ),
    "a configuration without inputs": (
        re.sub(r"'[^']*:inputs_node_reduce_4': '[^']*', ", "", FORMS["config_object"](G)),
        "inputs_node_reduce_4 is missing; it must name two inputs from 0 to 3, as in 0_1",
    ),
    "many": (
        file_of_many(),
        "contains 9 genotypes: LIGHT (line 8), HEAVY (line 9), OURS (line 10), LATER (line 12), Zoo.first (line 14), table.a (line 15), "
        "table.b (line 15), OURS_V2 (line 18), OTHERS (line 18); select one of them, as in FILE:LIGHT.",
    ),
    "two on a page": (
        f"The first: {call(G)}\n\nThe second is\n{call(REPEATED)} (better)",
        "contains 2 genotypes: first (line 1), line 4; select one of them, as in FILE:first.",
    ),
    "one name in two branches": (
        f"if small:\n    CELL = {call(G)}\nelse:\n    CELL = {call(REPEATED)}\n",
        "contains 2 genotypes: CELL (line 2), CELL (line 4); select one of them, as in FILE:2.",
    ),
    "a page whose last genotype was cut off": (
        f"The first:\n\n    OURS = {call(G)}\n\nand then\n\n    THEIRS = {call(G)[:-20]}\n",
        ", line 7: Genotype( is not closed; select another genotype, as in FILE:OURS.",
    ),
    "a log with one genotype for each cap": (
        f"{STAMP} Restricting skipconnect...\n{STAMP} Number of skip-connect: 3\n{STAMP} {call(G)}\n"
        f"{STAMP} Number of skip-connect: 2\n{STAMP} {call(REPEATED)}\n",
        "is a log with different genotypes, on lines 3 (at most 3 skips), 5 (at most 2 skips); select one by its line, as in FILE:5.",
    ),
    "a log that was cut off": (
        log(G)[: log(G).rindex("reduce=")],
        "line 8 of the log: Genotype( is not closed; select another by its line, as in FILE:3.",
    ),
    "a console that was cut off": (
        console(G)[: console(G).rindex("reduce=")],
        "line 4 of the log: Genotype( is not closed; select another by its line, as in FILE:2.",
    ),
    "arrays": ("[[0.1, 0.2], [0.3, 0.4]]", "contains no genotype; supported formats are rapdarts JSON, Genotype(...) of the DARTS family"),
    "alphas": ('{"format": "rapdarts-alphas", "version": 1, "cells": {}}', "contains no genotype (its format is rapdarts-alphas); "),
    "another program's alphas": (
        json.dumps({"normal": [[0.1] * 8] * 14, "reduce": [[0.1] * 8] * 14}),
        "the field normal_concat is missing",
    ),
    "a program": ("import torch\n\n\ndef main():\n    print(torch.ones(3))\n", "contains no genotype; supported formats are"),
    "a genotype and a branch that assigns its name": (
        f"CELL = {call(G)}\nif late:\n    CELL = {call(REPEATED)}\n",
        "contains 2 genotypes: CELL (line 1), CELL (line 3); select one of them, as in FILE:1.",
    ),
    "one genotype that is changed": (
        f"CELL = {call(G)}\nCELL.normal[0] = ('none', 0)\n",
        "found \"CELL.normal[0] = ('none', 0)\"; line 2 may change this value; print the genotype and pass the output, or select another.",
    ),
    "a changed genotype in Python 2": (
        f"CELL = {call(G)}\nCELL.normal[0] = ('none', 0)\nprint 'x'\n",
        "found \"CELL.normal[0] = ('none', 0)\"; line 2 may change this value; print the genotype and pass the output, or select another.",
    ),
    "a changed genotype in a long text": (
        f"# {'a' * 300_000}\nCELL = {call(G)}\nCELL.reduce.pop()\n",
        "found 'CELL.reduce.pop()'; line 3 may change this value; print the genotype and pass the output, or select another.",
    ),
    "a page with one name for two": (
        f"## One\n\nThe best:\ngenotype = {call(G)}\n## Two\n\ngenotype = {call(LIGHT)}\n",
        "contains 2 genotypes: genotype (line 4), genotype (line 7); select one of them, as in FILE:4.",
    ),
    "a text in Python 2 that assigns a name twice": (
        f"CELL = {call(G)}\nprint 'x'\nCELL = {call(LIGHT)}\n",
        "contains 2 genotypes: CELL (line 1), CELL (line 3); select one of them, as in FILE:1.",
    ),
    "a changed genotype in a notebook": (
        notebook(f"CELL = {call(G)}\n", "CELL.normal[0] = ('none', 0)\n"),
        "found \"CELL.normal[0] = ('none', 0)\"; line 3 may change this value; print the genotype and pass the output, or select another.",
    ),
    "a notebook without a genotype": (notebook("import torch\n"), "contains no genotype; supported formats are"),
    "a set of edges": (
        call(G).replace(str(G.flat("reduce")), "{('skip_connect', 0), ('skip_connect', 1)}"),
        "found \"{('skip_connect', 0), ('skip_connect', 1)}\"; only whole numbers and lists of pairs",
    ),
    "a copy that is changed": (
        f"CELL = {call(G)}\nNEW = copy.deepcopy(CELL)\nNEW.normal[0] = ('none', 0)\n",
        "line 3 may change this value; print the genotype and pass the output, or select another.",
    ),
    "records with one label": (
        records(G, LIGHT, name=["best", "best"]),
        "contains 2 genotypes: genotype (line 1), genotype (line 2); select one of them, as in FILE:1.",
    ),
    "records of one epoch": (
        records(G, LIGHT, epoch=[600, 600]),
        "contains 2 genotypes: genotype (line 1), genotype (line 2); select one of them, as in FILE:1.",
    ),
    "long records with one label": (
        "".join(json.dumps({"genotype": call(one), "notes": "a" * 600_000}) + "\n" for one in (G, LIGHT)),
        "contains 2 genotypes: genotype (line 1), genotype (line 2); select one of them, as in FILE:1.",
    ),
    "a list of records": (
        json.dumps([json.loads(line) for line in records(G, LIGHT, name=["best", "best"]).splitlines()]),
        "contains 2 genotypes: 0.genotype, 1.genotype; select one of them, as in FILE:0.genotype.",
    ),
    "one dotted name": (TWICE, "contains 2 genotypes: a.b#1, a.b#2; select one of them, as in FILE:a.b#1."),
    "prose": ("# A page\n\nWe write `Genotype(...)` for a cell.\n", "contains no genotype: line 3: found '...'; "),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_texts_are_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    text, words = REFUSED[name]
    path = tmp_path / "found.txt"
    path.write_text(text)
    with pytest.raises(InputError) as refusal:
        rapdarts.read(path)
    message = str(refusal.value).removeprefix(str(path))
    assert words in message and message.endswith(".") and "\n" not in message and len(message) < 700


@pytest.mark.parametrize("change", [*CHANGES, *FOR_ALL])
def test_a_genotype_that_may_be_changed_is_refused_with_the_line(change: str) -> None:
    with pytest.raises(
        InputError, match=r"line [5-9] (may|sets) .*; print the genotype and pass the output|found '\*\*given'"
    ):
        parse_genotype(f"{LATER}{change}\n", "file.py", member="OURS")


# --- all forms of random and of damaged texts --------------------------------------------------------------------


def described(genotype: Genotype) -> Cells:
    """Return a genotype of the space of DARTS as the corpus describes it."""
    words = {
        kind: " | ".join(", ".join(f"{name} {source}" for name, source in node) for node in cell.nodes)
        for kind, cell in genotype.cells.items()
    }
    return Cells(**words, params=0, macs=0)


@given(form=st.sampled_from(sorted(FORMS)), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_every_form_of_a_random_genotype_gives_its_cells(form: str, seed: int) -> None:
    genotype = random_genotype(DARTS, np.random.default_rng(seed))
    assert parse_genotype(FORMS[form](described(genotype)), "text").cells == genotype.cells


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_text_gives_a_genotype_or_an_input_error(form: str, tmp_path: Path) -> None:
    text, rng, path = FORMS[form](G), random.Random(0), tmp_path / "found.txt"
    for _ in range(40):
        raw = bytearray(text.encode())
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(raw))
            raw[place : place + rng.randint(0, 3)] = rng.choice(
                [b"", b"(", b"]", b"'", b'"', b"\n", b": ", b"9", b"None", b"|a~0|"]
            )
        path.write_bytes(raw)
        try:
            genotype = rapdarts.read(path)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 900
        else:
            assert parse_genotype(genotype.to_json(), "again") == genotype


HOSTILE = "__import__('pathlib').Path('marker').touch()"


@pytest.mark.parametrize("form", FORMS)
def test_nothing_in_a_text_is_executed(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = FORMS[form](G)
    tag = "!!python/object/apply:os.system ['touch marker']"
    for old, new in (
        ("'sep_conv_3x3'", HOSTILE),
        ('"sep_conv_3x3"', HOSTILE),
        ("range(2, 6)", HOSTILE),
        ("sep_conv_3x3", tag),
    ):
        with suppress(InputError):
            assert rapdarts.read(_written(tmp_path / "found.txt", text.replace(old, new, 1)))
        for whole in (f"{HOSTILE}\n{text}", f"{text}\n{HOSTILE}", f"x: {tag}\n{text}"):
            with suppress(InputError):
                assert rapdarts.read(_written(tmp_path / "found.txt", whole))
    assert [file.name for file in tmp_path.iterdir()] == ["found.txt"]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- long logs ---------------------------------------------------------------------------------------------------


def test_a_long_log_is_read_quickly(tmp_path: Path) -> None:
    """A log of 64 MB, with a genotype after every epoch; the last one is another."""
    stamp = "11/02 08:15:00 AM"
    epoch = (
        "\n".join([f"{stamp} genotype = {call(REPEATED)}", *[f"{stamp} train 050 |####| 1.2e-01 60.1 90.2"] * 150])
        + "\n"
    )
    epochs = 64_000_000 // len(epoch)
    path = _written(tmp_path / "log.txt", epoch * epochs + f"{stamp} genotype = {call(G)}\n")
    began = time.thread_time()
    assert parse_genotype(call(G), "G").cells == rapdarts.read(path).cells
    assert rapdarts.read(path).provenance == {"log": f"line {151 * epochs + 1}, the last of {epochs + 1} genotypes"}
    assert rapdarts.read(f"{path}:152").cells == parse_genotype(call(REPEATED), "G").cells
    assert time.thread_time() - began < 10


@pytest.mark.parametrize(
    "text", ["Genotype(\n" * 1_000_000, "Genotype([(\n" * 190, "x ~0|+| |a~0|" * 300_000, "a" * 5_000_000]
)
def test_a_long_text_without_a_genotype_is_refused_quickly(text: str, tmp_path: Path) -> None:
    path = _written(tmp_path / "text", text)
    began = time.thread_time()
    with pytest.raises(InputError):
        rapdarts.read(path)
    assert time.thread_time() - began < 4
