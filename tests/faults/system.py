"""A stand-in for `os` in the modules that write the files of a run: it tells of every call that writes, before the call is made."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rapdarts.files import atomic
from rapdarts.training import checkpoint, claim, log, status

WRITERS = (atomic, checkpoint, claim, log, status)
"""Modules that write the files of a run with functions of `os`."""


@dataclass(frozen=True)
class Call:
    """A call that writes: the operation, the path of the file or folder, what is written, and the new path of a file that is renamed."""

    operation: str
    path: Path
    content: bytes = b""
    target: Path | None = None

    @property
    def file(self) -> str:
        """Name of the file of the run that is written, also while it has a temporary name."""
        name = (self.target or self.path).name
        return name[1:].rpartition(".")[0].rpartition(".")[0] if atomic.TEMPORARY.fullmatch(name) else name


class System:
    """Passes everything on to `os`. `tell` is called first, and may raise the error that the call is to raise."""

    def __init__(self, tell: Callable[[Call], None]) -> None:
        self.tell, self.paths = tell, dict[int, Path]()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.tell(Call("open" if flags & os.O_CREAT else "open again", Path(path)))
        descriptor = os.open(path, flags, mode)
        self.paths[descriptor] = Path(path)
        return descriptor

    def fdopen(self, descriptor: int, mode: str, buffering: int = -1) -> io.RawIOBase | io.BufferedWriter:
        raw = Written(descriptor, mode, self)
        return raw if buffering == 0 else io.BufferedWriter(raw)

    def fsync(self, descriptor: int) -> None:
        path = self.paths[descriptor]
        self.tell(Call("sync of the folder" if path.is_dir() else "sync", path))
        os.fsync(descriptor)

    def replace(self, source: os.PathLike[str], target: os.PathLike[str]) -> None:
        self.tell(Call("rename", Path(source), target=Path(target)))
        os.replace(source, target)


class Written(io.FileIO):
    """A file of which half of a content is written if the call fails."""

    def __init__(self, descriptor: int, mode: str, system: System) -> None:
        super().__init__(descriptor, mode)
        self.system, self.path = system, system.paths[descriptor]
        self.operation = "append" if "a" in mode else "write"

    def write(self, content: Any) -> int:
        data = bytes(content)
        try:
            self.system.tell(Call(self.operation, self.path, data))
        except OSError:
            super().write(data[: len(data) // 2])
            raise
        return super().write(data)


@contextmanager
def told(tell: Callable[[Call], None]) -> Iterator[None]:
    """Tell of all calls in the block that write the files of a run."""
    with ExitStack() as patches:
        for module in WRITERS:
            patches.enter_context(patch.object(module, "os", System(tell)))
        yield
