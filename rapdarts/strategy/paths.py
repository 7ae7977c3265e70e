"""Paths through a derived cell: paths to its outputs, and skip-only paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapdarts.architecture.space import NONE, SKIP, SearchSpace

ONE_SKIP_PATH = "one skip-only path from input to output"
"""Description of the condition skip_paths=one for messages."""


def connected(space: SearchSpace, chosen: np.ndarray) -> bool:
    """Return whether a one-hot choice (kinds, edges, primitives) connects every output of its cells to an input."""
    return unbridged(space, chosen) is None


def unbridged(space: SearchSpace, chosen: np.ndarray) -> np.ndarray | None:
    """Return a mask of choices of which every connected cell contains at least one; None if all outputs are reached.

    The result is that of `not_crossed` for all primitives except none. `chosen` is one-hot (kinds, edges, primitives), and
    the mask has the same shape.
    """
    if not space.derive_none:
        return None
    return not_crossed(space, chosen, [name for name in space.primitives if name != NONE])


def not_crossed(space: SearchSpace, chosen: np.ndarray, carrying: Sequence[str]) -> np.ndarray | None:
    """Return a mask of the choices that would lead from reached to unreached nodes through one of the primitives `carrying`.

    `chosen` is one-hot (kinds, edges, primitives), and the boolean mask has the same shape. It is set only in the first kind
    of cell that has an output not reached by these primitives. Every cell in which all outputs are reached contains at least
    one of the masked choices. Returns None if all outputs are reached.
    """
    carries = np.array([name in carrying for name in space.primitives])
    for kind, cell in enumerate(chosen & carries):
        reached = set(range(space.inputs))
        for (node, source), edge in zip(space.edges, cell, strict=True):
            if source in reached and edge.any():
                reached.add(space.inputs + node)
        if not reached.issuperset(space.outputs):
            leaving = [source in reached and space.inputs + node not in reached for node, source in space.edges]
            crossing = np.zeros(chosen.shape, dtype=bool)
            crossing[kind] = np.outer(leaving, carries)
            return crossing
    return None


def skip_paths(space: SearchSpace, chosen: np.ndarray) -> list[np.ndarray]:
    """Return the skip-only paths from a cell's input to its output, each as a mask of its choices (kinds, edges, primitives).

    The cell must have exactly one input. `chosen` is one-hot (kinds, edges, primitives); the masks are boolean.
    """
    column = space.columns[SKIP]
    to_node: list[list[np.ndarray]] = [[np.zeros(chosen.shape, dtype=bool)], *([] for _ in range(space.nodes))]
    for edge, (node, source) in enumerate(space.edges):
        if chosen[0, edge, column]:
            for path in to_node[source]:
                longer = path.copy()
                longer[0, edge, column] = True
                to_node[space.inputs + node].append(longer)
    return to_node[-1]
