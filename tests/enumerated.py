"""Brute-force enumeration of all genotypes of a small space, as one-hot choices, and of their paths."""

from __future__ import annotations

import itertools
import math

import numpy as np

from rapdarts.architecture.space import SearchSpace


def every_choice(space: SearchSpace) -> np.ndarray:
    """Return all genotypes of a space with all candidates open, (genotypes, kinds, edges, primitives) of bool."""
    columns = np.flatnonzero(space.choosable)
    nodes = []
    for node in range(space.nodes):
        into = range(len(space.edges))[space.edges_into(node)]
        nodes.append(
            [
                list(zip(kept, named, strict=True))
                for kept in itertools.combinations(into, space.edges_kept(node))
                for named in itertools.product(columns, repeat=len(kept))
            ]
        )
    cells = [np.zeros(space.mask.shape[1:], dtype=bool) for _ in range(math.prod(map(len, nodes)))]
    for cell, pairs in zip(cells, itertools.product(*nodes), strict=True):
        cell[tuple(zip(*itertools.chain(*pairs), strict=True))] = True
    # The last kind changes fastest. Choices of different kinds are independent.
    return np.array([np.stack(kinds) for kinds in itertools.product(cells, repeat=len(space.kinds))])


def with_paths(space: SearchSpace, choices: np.ndarray) -> np.ndarray:
    """Return which choices connect the inputs to every output and have the skip-only paths that the space requires, (choices,)."""
    reached = paths(space, choices, [name for name in space.columns if name != "none"]) > 0
    found = reached.all((1, 2))
    if space.skip_paths == "one":
        found &= (paths(space, choices, ["skip_connect"]) == 1).all((1, 2))
    return np.asarray(found)


def paths(space: SearchSpace, choices: np.ndarray, carrying: list[str]) -> np.ndarray:
    """Count the paths from the inputs to each output that use only these primitives, (choices, kinds, outputs).

    The counts are sums of powers of the adjacency matrices.
    """
    carries = choices[..., [space.columns[name] for name in carrying]].any(-1)
    states = space.inputs + space.nodes
    steps = np.zeros((*carries.shape[:2], states, states), dtype=int)
    for edge, (node, source) in enumerate(space.edges):
        steps[..., source, space.inputs + node] = carries[..., edge]
    number = np.stack([np.linalg.matrix_power(steps, length) for length in range(1, states)]).sum(0)
    return np.asarray(number[..., : space.inputs, list(space.outputs)].sum(-2))
