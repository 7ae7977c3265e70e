"""Architecture parameters from another program: an array (edges, primitives) for each kind of cell, in a .npz, .json or .pt file."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.space import SearchSpace
from rapdarts.data.archives import open_zip, read_npz
from rapdarts.errors import InputError, any_of
from rapdarts.files.json import Fault, strict_loads
from rapdarts.files.regular import open_regular, read_bytes
from rapdarts.files.text import read_text
from rapdarts.strategy.alphas import MAX_FILE_BYTES
from rapdarts.strategy.relaxation import Architecture

ARCHIVES, CHECKPOINTS = (".npz",), (".pt", ".pth", ".ckpt")
NAME = re.compile(
    r"(?:.*[./])?_?(?P<edge>betas?_)?(?:alphas?_|arch_)?(?P<kind>normal|reduce)(?:_alphas?)?(?:\.(?P<part>\d{1,3}))?",
    re.I,
)
"""Pattern for the names of arrays: alphas_normal, normal, arch.alpha_reduce.0 (for one node) or, for edge weights, betas_reduce."""
POSITION = re.compile(r"(?:.*[./])?(?:arr_)?(?P<place>[01])")
"""Pattern for the positions of arrays without names, in a list or a file from numpy.savez; the normal cell comes first."""
MAX_CHECKPOINT_BYTES, MOST_TENSORS = 10**10, 50_000
MOST_NUMBERS, MOST_IN_ALL = 100_000, 20_000_000
"""Maximum number of values in an array, and in a whole file. Larger arrays are skipped; a list may be stored once and used many times."""
COST_IN_LIST = 20
"""Time that a value in a list takes, compared with a value in a tensor."""
DEEPEST = 8


def is_foreign(path: Path) -> bool:
    """Return whether a file is from another program, judging by its suffix or, for JSON, by its fields."""
    if path.suffix.lower() != ".json":
        return True
    try:
        tree = json.loads(read_bytes(path, most=MAX_FILE_BYTES))
    except (InputError, ValueError, RecursionError):
        return False
    return isinstance(tree, list) or (isinstance(tree, dict) and "format" not in tree and "cells" not in tree)


def read_arrays(path: Path, space: SearchSpace) -> Architecture:
    """Read an architecture from a file with an array (edges, primitives) of parameters for each kind of cell of a space.

    Rows are edges and columns are primitives, both in the order of the space. Raises InputError if the arrays do not fit the
    space.
    """
    arrays = _arrays(path)
    alpha = np.stack([_of_kind(arrays, kind, space, path) for kind in space.kinds])
    betas = [_edge_weights(arrays, kind, space, path) for kind in space.kinds]
    given = [beta for beta in betas if beta is not None]
    if given and len(given) < len(betas):
        raise InputError(
            f"{path} has edge weights (beta) for only one kind of cell; add those of the other kind, or remove them."
        )
    architecture = Architecture(space, edge_normalization=bool(given))
    state = {"alpha": torch.as_tensor(alpha).float()}
    architecture.load_state_dict(state | ({"beta": torch.as_tensor(np.stack(given)).float()} if given else {}))
    return architecture


def fitting(path: Path, spaces: Mapping[str, SearchSpace]) -> str:
    """Return text such as "space=darts or space=filters" with the spaces that the arrays in a file fit; empty if they fit none."""
    arrays = _arrays(path)
    names = []
    for name, space in spaces.items():
        try:
            _ = [_of_kind(arrays, kind, space, path) for kind in space.kinds]
        except InputError:
            continue
        names.append(f"space={name}")
    return any_of(names) if names else ""


def _of_kind(arrays: Mapping[str, np.ndarray], kind: str, space: SearchSpace, path: Path) -> np.ndarray:
    """Return alpha of a kind of cell, (edges, primitives) float64. Raises InputError."""
    wanted = len(space.edges), len(space.primitives)
    parts = {name: array for name, array in arrays.items() if _named(name, kind, edge=False)}
    if not parts:
        place = str(space.kinds.index(kind))
        parts = {
            name: array for name, array in arrays.items() if (at := POSITION.fullmatch(name)) and at["place"] == place
        }
    if not parts and len(arrays) == len(space.kinds) == 1:
        parts = dict(arrays)
    alpha = _joined(parts)
    if alpha is None or alpha.shape != wanted:
        found = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:6]) or "none"
        raise InputError(
            f"{path} needs an array of shape {wanted} for the {kind} cell of the space {space.name}, with a row for every edge and a"
            f" column for every primitive ({', '.join(space.primitives)}); it has {found}."
        )
    if not np.isfinite(alpha).all():
        raise InputError(
            f"{path}: alpha of the {kind} cell has values that are not finite; save the values before the softmax."
        )
    if (alpha >= 0).all() and np.allclose(alpha.sum(-1), 1, atol=1e-4):
        raise InputError(
            f"{path}: the rows of the {kind} cell sum to 1, like weights after a softmax; save alpha itself, or the logarithms of these"
            " weights."
        )
    return alpha


def _edge_weights(arrays: Mapping[str, np.ndarray], kind: str, space: SearchSpace, path: Path) -> np.ndarray | None:
    """Return beta of a kind of cell, (edges,) float64; None if the file has none. Raises InputError."""
    beta = _joined({name: array for name, array in arrays.items() if _named(name, kind, edge=True)})
    if beta is not None and (beta.shape != (len(space.edges),) or not np.isfinite(beta).all()):
        raise InputError(
            f"{path}: the edge weights of the {kind} cell have shape {beta.shape}; the space {space.name} needs"
            f" {len(space.edges)} finite numbers."
        )
    return beta


def _named(name: str, kind: str, edge: bool) -> bool:
    found = NAME.fullmatch(name)
    return found is not None and found["kind"].lower() == kind and bool(found["edge"]) == edge


def _joined(parts: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the only array, or the arrays of all nodes of a cell joined in order; None for anything else."""
    if len(parts) <= 1:
        return next(iter(parts.values()), None)
    numbers = {int(found["part"]): name for name in parts if (found := NAME.fullmatch(name)) and found["part"]}
    arrays = [parts[numbers[number]] for number in sorted(numbers)]
    alike = len(arrays) == len(parts) and len({array.shape[1:] for array in arrays}) == 1 and arrays[0].ndim > 0
    return np.concatenate(arrays) if alike else None


# --- files -------------------------------------------------------------------------------------------------------


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the numeric arrays in a file, by name, with dots in the names of nested arrays. Raises InputError."""
    if path.suffix.lower() in ARCHIVES:
        tree: Any = _archive(path)
    elif path.suffix.lower() in CHECKPOINTS:
        tree = _checkpoint(path)
    elif path.suffix.lower() != ".json":
        raise InputError(
            f"{path} is neither the folder nor the alphas.json of a search, nor a .npz, .json or .pt file with the alpha arrays of"
            " another program; pass one of these."
        )
    else:
        text = read_text(
            path, str(path), MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES:,} bytes, too many for alphas"
        )
        try:
            tree = strict_loads(text)
        except Fault as fault:
            raise InputError(f"{path}, {fault}.") from None
    return dict(_leaves(tree, path))


def _archive(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path, MAX_FILE_BYTES)
    except (ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as arrays ({_reason(error)}); save them with numpy.savez.") from None


def _checkpoint(path: Path) -> Any:
    with open_regular(path, most=MAX_CHECKPOINT_BYTES) as file:
        try:
            if zipfile.is_zipfile(file):
                _check_members(open_zip(file, MOST_TENSORS))
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:  # torch's message suggests loading the file without the check
            why = "it holds objects or code, not only tensors"
        except MemoryError:
            raise
        except Exception as error:  # those of torch on altered files have no common class
            why = _reason(error)
    raise InputError(
        f"{path} cannot be read as tensors ({why}); save a dictionary of tensors with torch.save, or arrays with numpy.savez."
    )


def _check_members(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for members that torch.save does not write and that could take any amount of memory."""
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        if member.filename.endswith("data.pkl") and b"bytearray" in archive.read(member):
            raise ValueError("it holds arrays of bytes, not only tensors")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _leaves(tree: Any, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the small numeric arrays in a tree of dictionaries, lists, tensors and numbers, down to the depth DEEPEST."""
    parts, left = [(tree, "", 0)], MOST_IN_ALL
    while parts:
        value, name, depth = parts.pop()
        found: np.ndarray | None = None
        if isinstance(value, torch.Tensor):
            found = value.detach().double().numpy() if _is_small(value) else None
        elif isinstance(value, np.ndarray):
            found = value.astype(np.float64) if value.dtype.kind in "fiu" else None
        elif isinstance(value, list | tuple):
            found = _of_numbers(value)
        if found is None and isinstance(value, Mapping | list | tuple) and depth < DEEPEST:
            inside = [*value.items()] if isinstance(value, Mapping) else [*enumerate(value)]
            parts += [(part, f"{name}.{key}".lstrip("."), depth + 1) for key, part in reversed(inside)]
            left -= COST_IN_LIST * len(inside)
        if found is not None:
            yield name, found
            left -= found.size * (COST_IN_LIST if isinstance(value, list | tuple) else 1)
        if left < 0:
            raise InputError(f"{path} holds more than {MOST_IN_ALL:,} values, too many for alphas.")


def _is_small(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds a moderate number of values that numpy can read; its shape may exceed its storage."""
    is_plain = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
    is_number = tensor.is_floating_point() or tensor.dtype in (torch.int32, torch.int64)
    return is_plain and is_number and tensor.numel() <= MOST_NUMBERS


def _of_numbers(value: Any) -> np.ndarray | None:
    """Return a list of numbers, or of equally long lists of numbers, as an array with one or two axes; None for anything else."""
    rows = value if all(isinstance(row, list | tuple) for row in value) else [value]
    if sum(map(len, rows)) > MOST_NUMBERS:
        return None
    numbers = all(type(number) in (int, float) for row in rows for number in row)
    if not (value and numbers and len({len(row) for row in rows}) == 1):
        return None
    array = np.array(rows, dtype=np.float64)
    return array[0] if rows is not value else array
