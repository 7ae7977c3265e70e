"""Dialect of NNI: the dictionaries that its DARTS examples export."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rapdarts.architecture.dialects.trees import INPUTS, ParsedCells, tree_of
from rapdarts.architecture.space import KINDS
from rapdarts.errors import InputError, plural
from rapdarts.files.json import as_list, quote_value

NNI_KEY = re.compile(r"(?P<kind>normal|reduce)/(?P<what>op|input)_(?P<node>[0-9]{1,3})_(?P<slot>[0-9]{1,3})")
NNI_SIZES = ("depth", "num_cells", "width")
"""Sizes that the model space of NNI 2.8 and later may add. They do not determine a skeleton and are ignored."""

NNI_OLD_KEY = re.compile(r"(?P<kind>normal|reduce)_n(?P<node>[0-9]{1,3})_(?:p(?P<input>[0-9]{1,3})|switch)")
NNI_OLD_NAMES = {
    "maxpool": "max_pool_3x3",
    "avgpool": "avg_pool_3x3",
    "skipconnect": "skip_connect",
    "sepconv3x3": "sep_conv_3x3",
    "sepconv5x5": "sep_conv_5x5",
    "dilconv3x3": "dil_conv_3x3",
    "dilconv5x5": "dil_conv_5x5",
}
"""Names of primitives in NNI's older DARTS example, mapped to ours."""


def is_nni(tree: Mapping[str, Any]) -> bool:
    """Return whether an object has a key in one of NNI's formats."""
    return any(isinstance(key, str) and (NNI_KEY.fullmatch(key) or NNI_OLD_KEY.fullmatch(key)) for key in tree)


def cells_of_nni(tree: Mapping[str, Any], where: str) -> ParsedCells:
    """Return the cells in a dictionary that NNI exports.

    NNI 2.8 and later write `"normal/op_2_0": "sep_conv_3x3", "normal/input_2_0": 1` for every edge. A key names the cell,
    the node (numbered from 2, after the inputs) and the edge. The input may be given as a list of one number. Earlier versions write
    `"normal_n2_p0": "sepconv3x3"` for every possible edge, and list the kept edges under `"normal_n2_switch"`. All nodes
    have the same number of edges and all are concatenated, as in NNI's DARTS space. Raises InputError.
    """
    older = any(NNI_OLD_KEY.fullmatch(key) for key in tree)
    edges = _older_nni(tree, where) if older else _nni(tree, where)
    cells = {}
    for kind in KINDS:
        nodes = [edges[place] for place in sorted(edges) if place[0] == kind]
        numbers = [node for cell, node in sorted(edges) if cell == kind]
        if not nodes or numbers != list(range(INPUTS, INPUTS + len(nodes))):
            raise InputError(
                f"{where}: the {kind} cell has the nodes {quote_value(numbers)}; NNI numbers them from {INPUTS} without gaps."
            )
        cells[kind] = tree_of(nodes, numbers)
    most = max(map(len, edges.values()))
    for (kind, node), found in edges.items():
        if len(found) < most:
            raise InputError(
                f"{where}: node {node} of {kind} has {plural(len(found), 'edge')}, but others have {most}; in NNI all nodes have"
                " the same number of edges."
            )
    return ParsedCells(cells)


def _nni(tree: Mapping[str, Any], where: str) -> dict[tuple[str, int], list[Any]]:
    """Return the edges by (cell, node), from the newer keys."""
    found: defaultdict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for key, value in tree.items():
        place = NNI_KEY.fullmatch(key)
        if place:
            found[place["kind"], int(place["node"])].setdefault(int(place["slot"]), {})[place["what"]] = value
        elif key not in NNI_SIZES:
            raise InputError(
                f"{where}: the key {quote_value(key)} is not one of NNI's, such as normal/op_2_0 and normal/input_2_0; remove it."
            )
    edges: dict[tuple[str, int], list[Any]] = {}
    for (kind, node), slots in found.items():
        edges[kind, node] = []
        for slot in sorted(slots):
            name, source = slots[slot].get("op"), slots[slot].get("input")
            if isinstance(source, list) and len(source) == 1:
                (source,) = source
            if name is None or source is None:
                raise InputError(
                    f"{where}: one of {kind}/op_{node}_{slot} and {kind}/input_{node}_{slot} is missing; add it."
                )
            edges[kind, node].append([name, source])
    return edges


def _older_nni(tree: Mapping[str, Any], where: str) -> dict[tuple[str, int], list[Any]]:
    """Return the edges by (cell, node), from the older keys; a node's edges are in the order of its switch list."""
    edges: dict[tuple[str, int], list[Any]] = {}
    for key, value in tree.items():
        place = NNI_OLD_KEY.fullmatch(key)
        if not place:
            raise InputError(
                f"{where}: the key {quote_value(key)} is not one of NNI's, such as normal_n2_p0 and normal_n2_switch; remove it."
            )
        if place["input"] is not None:
            continue
        kind, node = place["kind"], int(place["node"])
        edges[kind, node] = []
        for chosen in as_list(value, f"{where}: {key}"):
            edge = chosen if isinstance(chosen, str) else f"{kind}_n{node}_p{chosen}"
            source = NNI_OLD_KEY.fullmatch(edge)
            if edge not in tree or not source or source["input"] is None or not edge.startswith(f"{kind}_n{node}_"):
                raise InputError(f"{where}: {key} names {quote_value(chosen)}, which is not an edge of the node.")
            name = tree[edge]
            if not isinstance(name, str):
                raise InputError(
                    f"{where}: {edge} must be the name of a primitive, not {quote_value(name)}; the file does not contain"
                    " the list of primitives that a number refers to."
                )
            edges[kind, node].append([NNI_OLD_NAMES.get(name, name), int(source["input"])])
    return edges
