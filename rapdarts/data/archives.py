"""Arrays and files in archives. Nothing is extracted to disk or unpickled, and stated sizes are checked before they are believed."""

from __future__ import annotations

import gzip
import io
import math
import os
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from rapdarts.data.pixels import Array
from rapdarts.errors import DamagedError, InputError
from rapdarts.files.regular import open_regular

ALWAYS_BYTES, RATIO = 10**9, 200
"""An archive may unpack to this many bytes, or to this many times its own size. Zeros shrink to a thousandth, images seldom to a tenth."""

ROOM_BYTES = 10**6
"""Room in a .tar.gz for headers, padding and files that are not read."""

MOST_MEMBERS = 1000
ENTRY_BYTES, TAIL_BYTES = 300, 1 << 17
"""Room for an entry in the directory of a zip file, whose names may be long, and for the records at the end of the file."""


def most_unpacked(size: int) -> int:
    """Return the number of bytes to which an archive of `size` bytes may unpack."""
    return max(ALWAYS_BYTES, RATIO * size)


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


# --- .npz --------------------------------------------------------------------------------------------------------


def read_npz(path: Path, most: int | None = None) -> dict[str, Array]:
    """Return the arrays in an .npz file by name, if they have at most `most` bytes in all (default: `most_unpacked`).

    Raises InputError for a larger file or one that is not regular, ValueError for a file that holds anything but plain arrays, and
    zipfile.BadZipFile for a damaged file.
    """
    with open_regular(path) as file:
        size = size_of(file)
        limit = most_unpacked(size) if most is None else most
        try:
            with open_zip(file, MOST_MEMBERS) as archive:
                members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
                if sum(member.file_size for member in archive.infolist()) > limit:
                    advice = "; save fewer arrays" if most else ", too many for its size; save it without compression"
                    raise InputError(f"{path} unpacks to more than {limit:,} bytes{advice}.")
                if len(members) < len(archive.infolist()):
                    raise zipfile.BadZipFile("two arrays have the same name")
                return {name: _array(archive, member) for name, member in members.items()}
        except (InputError, ValueError, MemoryError, zipfile.BadZipFile):
            raise
        except Exception as error:  # those of zipfile and its decompressors have no common class
            raise zipfile.BadZipFile(" ".join(str(error).split())[:200] or type(error).__name__) from None


def open_zip(file: BinaryIO, most: int) -> zipfile.ZipFile:
    """Open a zip file with at most `most` members. Raises ValueError for more, and zipfile.BadZipFile for a damaged file.

    zipfile reads the directory whole, whatever number of members the file states, so the bytes that it reads are limited.
    """
    bounded = _Bounded(file, most * ENTRY_BYTES + TAIL_BYTES)
    archive = zipfile.ZipFile(bounded)
    if len(archive.infolist()) > most:
        raise ValueError(f"it has more than {most:,} members")
    bounded.left = sys.maxsize  # the sizes of members are checked where they are read
    return archive


class _Bounded:
    """An open file of which at most `left` bytes can be read."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self.file, self.left = file, left

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        found = self.file.read(size if 0 <= size <= self.left else self.left + 1)
        self.left -= len(found)
        if self.left < 0:
            raise ValueError("its list of members is too long")
        return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Return an array, after comparing the size that its header states with that of the member: numpy reserves memory for the former."""
    versions = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in versions:
            raise ValueError(f"{member.filename} is not a plain array")
        shape, _, dtype = versions[version](stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} has only {member.file_size:,} bytes for the shape {shape}")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


# --- .tar.gz -----------------------------------------------------------------------------------------------------


def read_tar(archive: Path, sizes: Mapping[str, int], meta: str, most_meta: int) -> dict[str, bytes]:
    """Read the files in `sizes` (name: bytes), and `meta` of up to `most_meta` bytes if it exists, from a .tar.gz by their base names.

    Raises DamagedError if a file is missing, has another size or appears twice.
    """
    contents: dict[str, bytes] = {}
    most = 2 * sum(sizes.values()) + ROOM_BYTES
    try:
        with (
            open_regular(archive) as file,
            gzip.GzipFile(fileobj=file) as unpacked,
            tarfile.open(fileobj=_Limited(unpacked, most), mode="r|") as members,
        ):
            for member in members:
                path = PurePosixPath(member.name)
                if not member.isreg() or path.is_absolute() or ".." in path.parts:
                    continue
                if path.name in sizes:
                    check_size(f"{archive}, {path.name}", sizes[path.name], member.size)
                elif path.name != meta or member.size > most_meta:
                    continue
                if path.name in contents:
                    raise tarfile.ReadError(f"{path.name} appears twice")
                if content := members.extractfile(member):
                    contents[path.name] = content.read()
    except (InputError, DamagedError, MemoryError):
        raise
    except Exception as error:  # those of tarfile on altered headers have no common class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedError(f"{archive} is damaged ({reason}); download it again.") from None
    missing = sizes.keys() - contents.keys()
    if missing:
        raise DamagedError(f"{archive} contains no file {min(missing)}; download it again.")
    return contents


class _Limited(io.RawIOBase):
    """A stream that raises EOFError after `most` bytes: a member, or even a header, may state any size."""

    def __init__(self, stream: Any, most: int) -> None:
        self.stream, self.left = stream, most

    def read(self, size: int = -1) -> bytes:
        found = bytes(self.stream.read(min(size, self.left + 1) if size >= 0 else self.left + 1))
        self.left -= len(found)
        if self.left < 0:
            raise EOFError("it unpacks to more than expected")
        return found


def check_size(file: str, expected: int, found: int) -> None:
    """Raise DamagedError if the sizes, in bytes, differ."""
    if found != expected:
        raise DamagedError(f"{file} is damaged: expected {expected} bytes, found {found}; download it again.")
