"""Trees of many tensors as a few long ones: torch.save, torch.isfinite and copies from a GPU take a fixed time per tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rapdarts.errors import ran_out_of_memory

Path = tuple[Any, ...]
"""Keys and positions that lead from a tree of dictionaries and lists to a tensor."""


def pack(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree as three entries: itself with None for each tensor, the paths and shapes of these, and their numbers.

    Numbers of the same type from the same device form one tensor (n,) on the CPU. Tuples are kept as they are.
    """
    groups = list(joined(tree))
    places = [[(path, tuple(tensor.shape)) for path, tensor in group] for group, _ in groups]
    return {"tree": _without_tensors(tree), "places": places, "numbers": [numbers.cpu() for _, numbers in groups]}


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree that was packed, with tensors of their own memory on the CPU. Raises ValueError for anything else."""
    try:
        tree = packed["tree"]
        for places, numbers in zip(packed["places"], packed["numbers"], strict=True):
            parts = numbers.split([math.prod(shape) for _, shape in places])
            for (path, shape), part in zip(places, parts, strict=True):
                holder = tree
                for step in path[:-1]:
                    holder = holder[step]
                holder[path[-1]] = part.reshape(shape).clone()
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if ran_out_of_memory(error):
            raise
        raise ValueError("its tensors do not fit their places") from None
    if not isinstance(tree, dict):
        raise ValueError("it does not contain a dictionary")
    return tree


def joined(tree: Any) -> Iterator[tuple[list[tuple[Path, Tensor]], Tensor]]:
    """Yield the tensors of each type and device, with their paths, and their numbers in one tensor (n,) on that device."""
    groups: dict[tuple[torch.dtype, torch.device], list[tuple[Path, Tensor]]] = {}
    for path, tensor in _tensors(tree, ()):
        groups.setdefault((tensor.dtype, tensor.device), []).append((path, tensor))
    for group in groups.values():
        yield group, torch.cat([tensor.detach().flatten() for _, tensor in group])


def _tensors(tree: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    for name, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ():
        yield from _tensors(value, (*path, name))


def _without_tensors(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _without_tensors(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_without_tensors(value) for value in tree]
    return None if isinstance(tree, Tensor) else tree
