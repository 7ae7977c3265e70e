"""A cell of a genotype: its inputs, its nodes with their edges, and the nodes that its output concatenates."""

from __future__ import annotations

from dataclasses import dataclass

from rapdarts.errors import InputError
from rapdarts.files.json import is_whole, quote_value

MAX_NODES = 100


Node = tuple[tuple[str, int], ...]
"""The edges into a node, as (primitive, input) pairs. A node without edges is not used by its cell."""


@dataclass(frozen=True)
class Cell:
    """A cell. Its inputs are numbered from 0, followed by its nodes; `concat` lists the nodes in the output.

    A node without edges computes nothing, so it can be neither the input of an edge nor part of the output. Raises
    InputError, naming the faulty part, if the cell is invalid or cyclic.
    """

    inputs: int
    nodes: tuple[Node, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (is_whole(self.inputs) and 1 <= self.inputs <= MAX_NODES):
            raise InputError(f"inputs must be a whole number from 1 to {MAX_NODES}, not {quote_value(self.inputs)}.")
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise InputError(f"nodes has {len(self.nodes)} entries; a cell has 1 to {MAX_NODES} nodes.")
        end = self.inputs + len(self.nodes)
        for number, node in enumerate(self.nodes):
            own = self.inputs + number
            for position, (primitive, source) in enumerate(node):
                edge = f"node {number}, edge {position}"
                if not isinstance(primitive, str) or not primitive:
                    raise InputError(f"{edge}: the primitive must be a name, not {quote_value(primitive)}.")
                if not is_whole(source):
                    reason = "not a whole number"
                elif source < 0:
                    reason = "negative"
                elif source >= own:
                    later = "a later node" if source < end else "not in the cell"
                    reason = "the node itself" if source == own else later
                elif self.empty(source):
                    raise InputError(
                        f"{edge}: the input {source} is node {source - self.inputs}, which has no edges; choose a different input."
                    )
                else:
                    continue
                raise InputError(f"{edge}: the input {quote_value(source)} is {reason}; use {_span(0, own - 1)}.")
        allowed = _span(self.inputs, end - 1)
        if not self.concat:
            raise InputError(f"concat is empty; it must list at least one node ({allowed}).")
        for source in self.concat:
            if not (is_whole(source) and self.inputs <= source < end):
                raise InputError(f"concat lists {quote_value(source)}, which is not a node; use {allowed}.")
            if self.empty(source):
                raise InputError(
                    f"concat lists {source}, but node {source - self.inputs} has no edges; remove it from concat."
                )
        if len(set(self.concat)) != len(self.concat):
            raise InputError("concat lists a node twice; list each node once.")

    def empty(self, source: int) -> bool:
        """Return whether input number `source` is a node without edges."""
        return source >= self.inputs and not self.nodes[source - self.inputs]


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
