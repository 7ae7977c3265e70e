"""Dialects of NAS-Bench-201 (strings such as |none~0|+..., and lists) and NAS-Bench-301 (ConfigSpace dictionaries, compact tuples)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rapdarts.architecture.dialects.trees import INPUTS, ParsedCells, tree_of
from rapdarts.architecture.space import KINDS
from rapdarts.errors import InputError, plural
from rapdarts.files.json import is_whole, quote_value

BENCH_NODES, BENCH_EDGE = 3, re.compile(r"([^\s|+~]+)~([0-9]+)")
"""Number of nodes in a cell, not counting its input, and the pattern for an edge, primitive~input."""
BENCH_BEGIN = re.compile(r"\s*\|[^\s|]*~")


def cells_of_bars(text: str, where: str) -> ParsedCells:
    """Return the cell in a string such as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|`.

    The cell has three nodes, each with an edge from the cell's input (0) and one from every earlier node, in that order.
    Raises InputError.
    """
    parts = text.strip().split("+")
    if len(parts) != BENCH_NODES:
        raise InputError(
            f"{where}: found {plural(len(parts), 'node')} in {quote_value(text.strip())}; the NAS-Bench-201 dialect needs {BENCH_NODES},"
            " joined by +."
        )
    nodes = []
    for number, part in enumerate(parts):
        first, *edges, last = part.split("|") if part.count("|") > 1 else (part, "")
        if first or last:
            raise InputError(
                f"{where}, node {number}: found {quote_value(part)}; its edges must be enclosed in bars, as in |none~0|."
            )
        if len(edges) != number + 1:
            raise InputError(
                f"{where}, node {number}: found {plural(len(edges), 'edge')} in {quote_value(part)}; this node must have"
                f" {number + 1} in the NAS-Bench-201 dialect."
            )
        node = []
        for source, edge in enumerate(edges):
            found = BENCH_EDGE.fullmatch(edge)
            if not found or found[2] != str(source):
                raise InputError(
                    f"{where}, node {number}, edge {source}: found {quote_value(edge)}; expected primitive~input, as in none~{source}."
                )
            node.append([found[1], source])
        nodes.append(node)
    return _bench_cell(nodes)


def is_bars(value: Any) -> bool:
    """Return whether a value looks like a NAS-Bench-201 string, valid or not."""
    return isinstance(value, str) and BENCH_BEGIN.match(value) is not None


def is_bench_cell(value: Any) -> bool:
    """Return whether a value is a NAS-Bench-201 cell given as lists: three nodes with one, two and three pairs (primitive, input)."""
    return (
        isinstance(value, list)
        and [len(node) if isinstance(node, list) else 0 for node in value] == [1, 2, 3]
        and all(
            isinstance(edge, list) and len(edge) == 2 and isinstance(edge[0], str) and edge[1] == source
            for node in value
            for source, edge in enumerate(node)
        )
    )


def cells_of_bench_lists(value: list[Any], where: str) -> ParsedCells:
    """Return the cell given as three lists of pairs (primitive, input)."""
    return _bench_cell(value)


def _bench_cell(nodes: list[list[Any]]) -> ParsedCells:
    return ParsedCells({"normal": tree_of(nodes, [BENCH_NODES], inputs=1)}, "nasbench201")


# --- NAS-Bench-301 -------------------------------------------------------------------------------------------------

PRIMITIVES = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Primitives of the DARTS space except none, in the order of their numbers in compact tuples."""

NODES, EDGES = 4, 8
"""Number of nodes and number of edges in a cell of NAS-Bench-301."""

CONFIG_KEY = re.compile(r"(?:.*:)?(?P<what>edge|inputs_node)_(?P<kind>normal|reduce)_(?P<number>[0-9]{1,3})")


def is_config(tree: Mapping[str, Any]) -> bool:
    """Return whether a dictionary has keys of the ConfigSpace of NAS-Bench-301."""
    return any(isinstance(key, str) and CONFIG_KEY.fullmatch(key) for key in tree)


def cells_of_config(tree: Mapping[str, Any], where: str) -> ParsedCells:
    """Return the cells of a ConfigSpace dictionary, with keys such as `NetworkSelectorDatasetInfo:darts:edge_normal_0`.

    `inputs_node_normal_3` names the two inputs of node 3, as in "0_2"; the first node is 2, and its inputs are 0 and 1.
    `edge_normal_K` is the primitive of edge K; edges are numbered node by node. Raises InputError.
    """
    found: dict[tuple[str, str, int], Any] = {}
    for key, value in tree.items():
        place = CONFIG_KEY.fullmatch(key)
        if place:
            name = place["what"], place["kind"], int(place["number"])
            if name in found:
                raise InputError(f"{where}: two keys end in {'_'.join(map(str, name))}; keep one.")
            found[name] = value
    cells = {}
    for kind in KINDS:
        nodes, first = [], 0
        for number in range(INPUTS, INPUTS + NODES):
            nodes.append(
                [_chosen(found, kind, source, first, where) for source in _sources(found, kind, number, where)]
            )
            first += number
        cells[kind] = tree_of(nodes, [*range(INPUTS, INPUTS + NODES)])
    return ParsedCells(cells)


def _sources(found: Mapping[tuple[str, str, int], Any], kind: str, number: int, where: str) -> list[int]:
    """Return the inputs of a node."""
    given = found.get(("inputs_node", kind, number), "0_1" if number == INPUTS else None)
    texts = [str(part) for part in given] if isinstance(given, list) else str(given).split("_")
    sources = [int(text) for text in texts if re.fullmatch("[0-9]{1,3}", text)]
    if given is None or len(sources) != len(texts) or any(source >= number for source in sources):
        problem = "is missing" if given is None else f"is {quote_value(given)}"
        raise InputError(
            f"{where}: inputs_node_{kind}_{number} {problem}; it must name two inputs from 0 to {number - 1}, as in 0_1."
        )
    return sources


def _chosen(found: Mapping[tuple[str, str, int], Any], kind: str, source: int, first: int, where: str) -> list[Any]:
    """Return the edge from the input `source` of a node; the node's edges are numbered from `first`."""
    name = found.get(("edge", kind, first + source))
    if not isinstance(name, str):
        problem = "is missing" if name is None else f"is {quote_value(name)}"
        raise InputError(f"{where}: edge_{kind}_{first + source} {problem}; it must name the primitive of this edge.")
    return [name, source]


def is_compact(value: Any) -> bool:
    """Return whether a value is a compact tuple: two cells of eight pairs of numbers."""
    return (
        isinstance(value, list)
        and len(value) == len(KINDS)
        and all(isinstance(cell, list) and len(cell) == EDGES for cell in value)
        and all(
            isinstance(edge, list) and len(edge) == 2 and all(map(is_whole, edge)) for cell in value for edge in cell
        )
    )


def cells_of_compact(value: list[list[list[int]]], where: str) -> ParsedCells:
    """Return the cells of a compact tuple: pairs (input, primitive number), two per node. Raises InputError."""
    for kind, cell in zip(KINDS, value, strict=True):
        for source, number in cell:
            if not 0 <= number < len(PRIMITIVES):
                raise InputError(
                    f"{where}: {kind} has the pair {quote_value((source, number))}; its second number must be from 0 to"
                    f" {len(PRIMITIVES) - 1} ({', '.join(PRIMITIVES)})."
                )
    cells = {}
    for kind, cell in zip(KINDS, value, strict=True):
        edges = [[PRIMITIVES[number], source] for source, number in cell]
        cells[kind] = tree_of([edges[at : at + 2] for at in range(0, EDGES, 2)], [*range(INPUTS, INPUTS + NODES)])
    return ParsedCells(cells)
