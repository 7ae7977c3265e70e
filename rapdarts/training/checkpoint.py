"""Checkpoints: files that record their own size, hash and origin. The previous file is kept in case the newest is damaged.

The hash detects damage, not tampering: anyone who can change the file can also write a matching hash.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from rapdarts.errors import DamagedError, ran_out_of_memory
from rapdarts.files import atomic as files
from rapdarts.files.regular import NotRegular, opened
from rapdarts.files.run_files import CHECKPOINT_HEAD
from rapdarts.files.seal import KEY, seal_json, unseal
from rapdarts.training.packing import pack, unpack
from rapdarts.training.state import check_state, check_tensors

MAGIC, SEALED, CURRENT = (CHECKPOINT_HEAD + version + b"\n" for version in (b"1", b"2", b"3"))
"""First lines of the formats that are read. Since the second, the header has a seal, which covers the origin; since the third, the
tensors are packed."""
MOST_HEADER_BYTES = 10**7
LATER = ("configuration",)
"""Facts that the origin of a checkpoint of an older version does not record; they are not compared."""

Check = Callable[[Mapping[str, Any]], None]


def save_checkpoint(path: Path, state: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """Write a state of plain types and tensors, and keep the replaced file as `<path>.previous`. Raises StorageError."""
    save_packed(path, pack(state), origin)


def save_packed(path: Path, packed: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """Write a packed state as `save_checkpoint` does."""
    buffer = io.BytesIO()
    torch.save(dict(packed), buffer)
    payload = buffer.getvalue()
    header = {"bytes": len(payload), "payload": hashlib.sha256(payload).hexdigest(), "origin": dict(origin)}
    try:
        for place in (path, previous(path)):
            if os.path.lexists(place) and not place.is_file():
                files.set_aside(place)
        if path.exists():
            os.replace(path, previous(path))
    except OSError as error:
        raise files.storage_error(path, error, of_run=True) from None
    files.write_atomically(path, CURRENT + seal_json(json.dumps(header)).encode() + b"\n" + payload)


def load_checkpoint(
    path: Path, origin: Mapping[str, str], check: Check = lambda state: None
) -> tuple[dict[str, Any], str] | None:
    """Return the newest intact state at `path` and a description of any damage to a newer one; None if there is no checkpoint.

    If the newest checkpoint is damaged, it is moved to `<path>.damaged` and the previous one is read. `check` raises ValueError for a
    state that cannot be used, which counts as damage.

    Raises DamagedError if every checkpoint is damaged, or if the newest intact one has a different origin.
    """
    problems: list[str] = []
    for candidate in (path, previous(path)):
        try:
            if not os.path.lexists(candidate):
                continue
            state = _read(candidate, origin, check)
            if problems:
                # Otherwise, the next save would overwrite the intact checkpoint with the damaged one.
                files.set_aside(path)
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
    """Return the origin recorded in the newest checkpoint at `path` whose header is intact; empty if there is no checkpoint.

    Raises DamagedError if there are only damaged ones.
    """
    problem = ""
    for candidate in (path, previous(path)):
        if not os.path.lexists(candidate):
            continue
        try:
            with _open(candidate) as file:
                found = _header(file)["origin"]
            return {name: value for name, value in found.items() if isinstance(value, str)}
        except (OSError, _Damage) as error:
            problem = problem or f"checkpoint {candidate} is damaged ({error})"
    if problem:
        raise DamagedError(f"{problem}; restore it, or remove it.")
    return {}


def check_origin(path: Path, origin: Mapping[str, str]) -> None:
    """Raise DamagedError if the newest checkpoint at `path` whose header is intact has a different origin; damage is not reported."""
    for candidate in (path, previous(path)):
        with suppress(OSError, _Damage):
            with _open(candidate) as file:
                header = _header(file)
            _compare(candidate, header["origin"], origin)
            return


def _compare(path: Path, found: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    for name, value in origin.items():
        if found.get(name, value if name in LATER else None) != value:
            raise DamagedError(
                f"checkpoint {path} belongs to a different {name}; resume with the original one, or move the file of another run away."
            )


def elapsed_of(path: Path) -> float:
    """Return how long a run had taken, in seconds, at the newest intact checkpoint at `path`; 0 if there is none."""
    for candidate in (path, previous(path)):
        with suppress(OSError, _Damage):
            return float(_read(candidate, {}, check_state).get("elapsed", 0.0))
    return 0.0


class _Damage(Exception):
    pass


def _open(path: Path) -> BinaryIO:
    """Open a regular file. Raises _Damage for a folder, a FIFO, a device or a link to nothing, without waiting for a writer."""
    try:
        return opened(path)
    except NotRegular:
        raise _Damage("it is not a regular file") from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.ELOOP:
            raise _Damage("it is not a regular file") from None
        raise


def _header(file: BinaryIO) -> dict[str, Any]:
    """Read the first two lines of a checkpoint, and return its version, its size in bytes, the hash of its payload, and its origin."""
    version = file.readline(len(CURRENT))
    if version not in (MAGIC, SEALED, CURRENT):
        raise _Damage("its first line is not that of a rapdarts checkpoint")
    try:
        header = json.loads(file.readline(MOST_HEADER_BYTES))
        if version == MAGIC:
            header["payload"] = header.pop(KEY)
        elif KEY not in header:
            raise ValueError
        else:
            header = unseal(header, "")
        wanted = {"bytes": int, "payload": str, "origin": dict}
        if any(type(header[name]) is not kind for name, kind in wanted.items()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DamagedError):
        raise _Damage("its header cannot be read") from None
    return {**header, "version": version}


def _read(path: Path, origin: Mapping[str, str], check: Check) -> dict[str, Any]:
    with _open(path) as file:
        try:
            header = _header(file)
            size = os.fstat(file.fileno()).st_size - file.tell()
            if size != header["bytes"]:
                raise _Damage(f"it has {size} bytes, but its header says {header['bytes']}")
            payload = file.read()
        except OSError as error:
            raise _Damage(f"it cannot be read: {error.strerror}") from None
    if hashlib.sha256(payload).hexdigest() != header["payload"]:
        raise _Damage("its content does not match its hash")
    _compare(path, header["origin"], origin)
    try:
        content = _content(payload)
        state = unpack(content) if header["version"] == CURRENT else content
        check(state)
    except ValueError as error:
        raise _Damage(str(error)) from None
    return state


def _content(payload: bytes) -> dict[str, Any]:
    """Return the dictionary that torch.save wrote into a checkpoint. Raises ValueError."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(payload):
                raise ValueError("it unpacks to more bytes than it has")
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except ValueError:
        raise
    except Exception as error:  # torch's reader has no common class of errors for content that it did not write
        if ran_out_of_memory(error):
            raise
        raise ValueError("torch cannot read its content as tensors and plain values") from None
    if not isinstance(content, dict):
        raise ValueError("it does not contain a dictionary")
    check_tensors(content)
    return content
