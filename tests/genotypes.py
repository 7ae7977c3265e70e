"""Genotypes for tests: small spaces, a valid text in each format, and functions that change the JSON text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.reading import parse_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.errors import InputError
from search_spaces import nasbench201
from tests.thinned import thinned


def no_module(channels: int, stride: int, affine: bool) -> Any:
    """Placeholder primitive; the spaces of this module build no networks."""


def fake(*names: str, **facts: Any) -> SearchSpace:
    return SearchSpace("fake", {name: no_module for name in names}, **facts)


SPACE, BENCH = fake("none", "pool", "skip", "conv", nodes=3), nasbench201.SPACE


SPACES = [
    BENCH,
    SPACE,
    fake("none", "pool", "skip", "conv"),
    fake("none", "conv", nodes=3, inputs=1, keep=None, derive_none=True),
    fake("pool", "conv", nodes=5, repeat_inputs=True),
    fake("pool", "conv", nodes=2, keep=3),
]


CELL = {"inputs": 2, "nodes": [[["conv", 0], ["skip", 1]], [["conv", 0], ["pool", 2]]], "concat": [2, 3]}


TREE = {
    "format": "rapdarts-genotype",
    "version": 1,
    "space": "fake",
    "cells": {"normal": CELL, "reduce": CELL},
    "skeleton": {"layers": 20, "channels": 36, "stem": "cifar", "image": [3, 32, 32], "classes": 10},
    "costs": {"macs": 532174464, "latency": 1.5e-3},
    "provenance": {"seed": 1, "versions": {"torch": "2.13.0"}, "notes": [None, True, "ä"]},
}


VALID = json.dumps(TREE, indent=1)


DARTS = (
    "Genotype(normal=[('conv', 0), ('skip', 1)], normal_concat=range(2, 3), "
    "reduce=[('pool', 0), ('pool', 1)], reduce_concat=[2])"
)


BARS = "|conv~0|+|conv~0|none~1|+|skip~0|conv~1|pool~2|"


def genotypes(spaces: list[SearchSpace] = SPACES) -> st.SearchStrategy[tuple[SearchSpace, Genotype]]:
    return st.builds(
        lambda space, seed: (space, random_genotype(space, np.random.default_rng(seed))),
        st.sampled_from(spaces),
        st.integers(0, 2**32),
    )


def with_fewer_edges(spaces: list[SearchSpace] = SPACES) -> st.SearchStrategy[tuple[SearchSpace, Genotype]]:
    """Return a strategy for genotypes whose nodes may lack edges."""
    return st.builds(lambda drawn, seed: (drawn[0], thinned(drawn[1], seed)), genotypes(spaces), st.integers(0, 2**32))


def located(path: str) -> tuple[Any, Any, Any]:
    """Return a copy of TREE, the container of the entry at a dotted path, and the last step of the path."""
    tree = parent = json.loads(VALID)
    *steps, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for step in steps:
        parent = parent[step]
    return tree, parent, last


def changed(path: str, value: Any) -> str:
    """Return VALID with the value at a dotted path replaced."""
    tree, parent, last = located(path)
    parent[last] = value
    return json.dumps(tree)


def without(path: str) -> str:
    """Return VALID without the entry at a dotted path."""
    tree, parent, last = located(path)
    del parent[last]
    return json.dumps(tree)


def of_nasbench201(names: tuple[str, ...]) -> str:
    first, *second = [f"{name}~{source}" for name, (_, source) in zip(names, BENCH.edges, strict=True)]
    return f"|{first}|+|{'|'.join(second[:2])}|+|{'|'.join(second[2:])}|"


def same(cell: Cell) -> Genotype:
    return Genotype("fake", {"normal": cell, "reduce": cell})


def assert_refused_in_one_sentence(text: str, fragment: str) -> None:
    """Assert that a text is rejected with a short sentence that begins with the file name and contains `fragment`."""
    with pytest.raises(InputError) as caught:
        parse_genotype(text, "file.json")
    message = str(caught.value)
    assert fragment in message and message.startswith("file.json") and message.endswith(".")
    assert "\n" not in message and len(message) < 500
