"""The DARTS family: genotypes with the fields normal, normal_concat, reduce and reduce_concat.

A cell is a flat list with two edges per node, or a list with one list of edges per node. An edge is either a pair (primitive,
input), in either order and optionally followed by its weight, or a triple that also names its node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rapdarts.architecture.dialects.python_values import python_values
from rapdarts.architecture.dialects.trees import INPUTS, ParsedCells, tree_of
from rapdarts.architecture.dialects.values import Unread, unread_in
from rapdarts.architecture.space import KINDS
from rapdarts.errors import InputError, plural, suggestion
from rapdarts.files.json import as_list, is_whole, quote_value

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
"""Fields of a genotype, in the order used by the DARTS family."""

IDENTITY = (
    "name",
    "id",
    "index",
    "arch_id",
    "search_id",
    "seed",
    "epoch",
    "step",
    "date",
    "time",
    "dataset",
    "comment",
)
ACCURACIES = (
    "accuracy",
    "acc",
    "top1",
    "top5",
    "train_acc",
    "valid_acc",
    "val_acc",
    "test_acc",
    "score",
    "fitness",
    "reward",
)
LOSSES_AND_COSTS = ("loss", "train_loss", "valid_loss", "val_loss", "latency", "params", "flops", "macs")
SILENT = frozenset((*IDENTITY, *ACCURACIES, *LOSSES_AND_COSTS))
"""Fields that do not describe the cells and are ignored."""

MAX_STATE = 1000
CONCAT = "concat must be a list or range(first, end)"


def cells_of_fields(given: Mapping[str, Any], where: str) -> ParsedCells:
    """Return the cells of a genotype from its fields, ignoring fields that are None or do not describe cells.

    Raises InputError.
    """
    fields = {name: value for name, value in given.items() if value is not None and name not in SILENT}
    if "recurrent" in fields:
        raise InputError(f"{where} describes a recurrent cell, which rapdarts does not build; use convolutional cells.")
    for name in fields:
        if name not in FIELDS:
            raise InputError(
                f"{where} has the unknown field {quote_value(name)}; {suggestion(name, FIELDS)}; remove"
                " any field that does not describe the cells."
            )
    for name in FIELDS:
        if name not in fields:
            found = "is None" if name in given else "is missing"
            raise InputError(f"{where}: the field {name} {found}; a genotype needs {', '.join(FIELDS)}.")
    return ParsedCells({kind: _cell(fields[kind], fields[f"{kind}_concat"], kind, where) for kind in KINDS})


def fields_of_sequence(values: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a genotype by name, given their values in the order of FIELDS."""
    names = [*FIELDS, *(f"number {number}" for number in range(len(FIELDS) + 1, len(values) + 1))]
    return dict(zip(names, values, strict=False))


def is_edge(value: Any) -> bool:
    """Return whether a value looks like an edge: a list that begins with a name and a number, in either order."""
    return isinstance(value, list) and len(value) in (2, 3) and {type(value[0]), type(value[1])} == {str, int}


def is_cell(value: Any) -> bool:
    """Return whether a value looks like the edges of a cell: a list of edges, or of lists of edges."""
    if not (isinstance(value, list) and value and isinstance(value[0], list) and value[0]):
        return False
    return is_edge(value[0]) or all(map(is_edge, value[0]))


def _cell(edges: Any, concat: Any, kind: str, where: str) -> dict[str, Any]:
    """Return the tree of a cell. Raises InputError for anything that is not a plain value, and for lists of unclear structure."""
    for value in (edges, concat):
        _refuse_unread(value, where, CONCAT if value is concat else "")
    edges, numbers = as_list(edges, f"{where}: {kind}"), _concat(concat, where)
    if edges and all(isinstance(edge, list) and len(edge) == 3 and is_whole(edge[2]) for edge in edges):
        return _of_triples(edges, numbers, kind, where)
    if edges and all(isinstance(node, list) and all(isinstance(edge, list) for edge in node) for node in edges):
        return tree_of([[_pair(edge) for edge in node] for node in edges], numbers)
    last = max(filter(is_whole, numbers), default=0)  # the last node of a cell is in its output: no other node reads it
    if len(edges) % 2 or INPUTS + len(edges) // 2 - 1 > last > 0:
        pairs = plural(len(edges), "pair")
        raise InputError(
            f"{where}: {kind} has {pairs}, but a flat list needs two per node up to node {last}, the last in concat; put the pairs of"
            " each node in a list."
        )
    nodes = [[_pair(edge) for edge in edges[first : first + 2]] for first in range(0, len(edges), 2)]
    return tree_of(nodes, numbers)


def _pair(edge: Any) -> Any:
    """Return an edge as [primitive, input] without its weight; anything else is returned unchanged and rejected later."""
    if isinstance(edge, list) and len(edge) == 3 and type(edge[2]) is float:
        edge = edge[:2]  # a mixing weight
    turned = isinstance(edge, list) and len(edge) == 2 and is_whole(edge[0]) and isinstance(edge[1], str)
    return edge[::-1] if turned else edge


def _concat(value: Any, where: str) -> list[Any]:
    """Return the numbers of a list, or of a range given as a string."""
    if isinstance(value, str):
        read = python_values(value)
        value = read[0].value if read and isinstance(read[0].value, list) else value
    if isinstance(value, str):
        raise InputError(f"{where}: found {quote_value(value)}; {CONCAT}.")
    return as_list(value, f"{where}: concat")


def _refuse_unread(value: Any, where: str, expected: str = "") -> None:
    found: Unread | None = unread_in(value)
    if found is not None:
        raise InputError(f"{where}: found {quote_value(found.source)}; {expected or found.reason}.")


def _of_triples(edges: list[list[Any]], concat: list[Any], kind: str, where: str) -> dict[str, Any]:
    """Return a cell from triples (primitive, node, input), as in FairDARTS (Chu et al. 2020), or (primitive, input, node).

    Nodes are numbered from 2, after the inputs. The two orders can be told apart because an input always has a
    smaller number than its node.

    A node may have fewer edges than others, or none. A node without edges is left out of the concatenation even
    if `concat` lists it, and edges from such a node are removed: `DCOCell` in the authors' fairdarts/model.py
    (github.com/xiaomi-automl/FairDARTS) outputs only nodes that have edges and ignores inputs from the others.
    """
    nodes: defaultdict[int, list[Any]] = defaultdict(list)
    orders = set()
    for primitive, *numbers in edges:
        shown = quote_value((primitive, *numbers))
        if not all(map(is_whole, numbers)) or not INPUTS <= max(numbers) <= MAX_STATE:
            raise InputError(
                f"{where}: {kind} has the triple {shown}; it must name a primitive, a node from {INPUTS} to {MAX_STATE}, and its input."
            )
        if numbers[0] == numbers[1]:
            raise InputError(
                f"{where}: the triple {shown} of {kind} names node {numbers[0]} as its own input; use an earlier node or an input."
            )
        orders.add(numbers[0] > numbers[1])
        nodes[max(numbers) - INPUTS].append([primitive, min(numbers)])
    if len(orders) > 1:
        raise InputError(
            f"{where}: some triples of {kind} list the node before its input, others after it; use one order for all."
        )
    named = [number - INPUTS for number in concat if is_whole(number) and number <= MAX_STATE]
    cell = [nodes.get(number, []) for number in range(max(*nodes, *named, 0) + 1)]
    empty = [number for number, node in enumerate(cell, INPUTS) if not node]
    for number, node in enumerate(cell, INPUTS):
        kept = [edge for edge in node if edge[1] not in empty]
        if node and not kept:
            raise InputError(f"{where}: node {number} of {kind} reads only nodes without edges; give it another input.")
        node[:] = kept
    return tree_of(cell, [number for number in concat if number not in empty])
