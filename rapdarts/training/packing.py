"""Trees of many tensors as a few long ones: torch.save, torch.isfinite and copies from a GPU take a fixed time per tensor or object."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rapdarts.errors import ran_out_of_memory
from rapdarts.files.json import Fault, strict_loads

Path = tuple[Any, ...]
"""Keys and positions that lead from a tree of dictionaries and lists to a tensor."""


def pack(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree as three entries: itself with None for each tensor, the paths and shapes of these as JSON, and their numbers.

    Numbers of the same type from the same device form one tensor (n,) on the CPU. Tuples are kept as they are. Raises ValueError for a
    tensor under a key that is neither a text nor a number.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[tuple[Path, Tensor]]] = {}
    for path, tensor in _tensors(tree, ()):
        groups.setdefault((tensor.dtype, tensor.device), []).append((path, tensor))
    places = [[(path, tuple(tensor.shape)) for path, tensor in group] for group in groups.values()]
    numbers = [torch.cat([tensor.detach().flatten() for _, tensor in group]).cpu() for group in groups.values()]
    try:
        return {"tree": _without_tensors(tree), "places": json.dumps(places), "numbers": numbers}
    except TypeError:
        raise ValueError("a tensor has a key that is neither a text nor a number") from None


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree that was packed, with tensors of their own memory on the CPU; it is completed in place.

    Raises ValueError for anything that `pack` does not return.
    """
    try:
        tree = packed["tree"]
        for places, numbers in zip(strict_loads(packed["places"]), packed["numbers"], strict=True):
            parts = numbers.split([math.prod(shape) for _, shape in places])
            for (path, shape), part in zip(places, parts, strict=True):
                holder = tree
                for step in path[:-1]:
                    holder = holder[step]
                holder[path[-1]] = part.reshape(shape).clone()
    except (AttributeError, Fault, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if ran_out_of_memory(error):
            raise
        raise ValueError("its tensors do not fit their places") from None
    if not isinstance(tree, dict):
        raise ValueError("it does not contain a dictionary")
    return tree


def not_finite(packed: Mapping[str, Any], entry: str) -> str:
    """Return the dotted name, within an entry of a packed tree, of a tensor that contains NaN or infinity, or an empty string."""
    for number, numbers in enumerate(packed["numbers"]):
        if not numbers.is_floating_point() or bool(torch.isfinite(numbers).all()):
            continue
        places = json.loads(packed["places"])[number]
        for (path, _), part in zip(places, numbers.split([math.prod(shape) for _, shape in places]), strict=True):
            if path[0] == entry and not bool(torch.isfinite(part).all()):
                return ".".join(map(str, path[1:]))
    return ""


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
