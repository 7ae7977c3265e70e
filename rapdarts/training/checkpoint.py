"""Checkpoints: files that record their own size, hash and origin. The previous file is kept in case the newest is damaged.

The hash detects damage, not tampering: anyone who can change the file can also write a matching hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from rapdarts.errors import DamagedError
from rapdarts.files import atomic as files

MAGIC = b"rapdarts-checkpoint 1\n"
MOST_HEADER_BYTES = 10**7


def save_checkpoint(path: Path, state: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """Write a state of plain types and tensors, and keep the replaced file as `<path>.previous`. Raises StorageError."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getvalue()
    header = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "origin": dict(origin)}
    try:
        for taken in (path, previous(path)):
            if os.path.lexists(taken) and not taken.is_file():  # by a folder, for example
                os.replace(taken, taken.with_name(taken.name + ".damaged"))
        if path.exists():
            os.replace(path, previous(path))
    except OSError as error:
        raise files.storage_error(path, error, of_run=True) from None
    files.write_atomically(path, MAGIC + json.dumps(header).encode() + b"\n" + payload)


def load_checkpoint(path: Path, origin: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    """Return the newest intact state at `path` and a description of any damage to a newer one; None if there is no checkpoint.

    If the newest checkpoint is damaged, it is moved to `<path>.damaged` and the previous one is read.

    Raises DamagedError if every checkpoint is damaged, or if the newest intact one has a different origin.
    """
    problems: list[str] = []
    for candidate in (path, previous(path)):
        try:
            if not candidate.is_file():
                continue
            state = _read(candidate, origin)
            if problems:
                # Otherwise, the next save would overwrite the intact checkpoint with the damaged one.
                os.replace(path, path.with_name(path.name + ".damaged"))
            return state, "; ".join(problems)
        except _Damage as damage:
            problems.append(f"checkpoint {candidate} is damaged ({damage})")
    if problems:
        raise DamagedError("; ".join(problems) + ". Start a new run in another folder with run=PATH.")
    return None


def previous(path: Path) -> Path:
    """Return the path of the previous checkpoint."""
    return path.with_name(path.name + ".previous")


def origin_of(path: Path) -> dict[str, str]:
    """Return the origin recorded in the checkpoint at `path`; empty if there is no readable checkpoint."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.readline(MOST_HEADER_BYTES)) if file.readline(len(MAGIC)) == MAGIC else {}
        return {name: value for name, value in found.get("origin", {}).items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def elapsed_of(path: Path) -> float:
    """Return how long a run had taken, in seconds, at the newest intact checkpoint at `path`; 0 if there is none."""
    for candidate in (path, previous(path)):
        with suppress(OSError, _Damage):
            return float(_read(candidate, {}).get("elapsed", 0.0))
    return 0.0


class _Damage(Exception):
    pass


def _read(path: Path, origin: Mapping[str, str]) -> dict[str, Any]:
    raw = path.read_bytes()
    if not raw.startswith(MAGIC):
        raise _Damage("its first line is not that of a rapdarts checkpoint")
    line, _, payload = raw[len(MAGIC) :].partition(b"\n")
    try:
        header = json.loads(line)
        size, digest, found = header["bytes"], header["sha256"], header["origin"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Damage("its header cannot be read") from None
    if len(payload) != size:
        raise _Damage(f"it has {len(payload)} bytes, but its header says {size}")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise _Damage("its content does not match its hash")
    for name, value in origin.items():
        if found.get(name) != value:
            raise DamagedError(f"checkpoint {path} belongs to a different {name}; resume with the original one.")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError):
        raise _Damage("torch cannot read its content as tensors and plain values") from None
    return dict(state)
