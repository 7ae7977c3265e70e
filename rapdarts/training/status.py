"""status.json: how a run ended, written even if the disk is full."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rapdarts.errors import Preempted, RapdartsError, Stopped, StorageError, exit_code
from rapdarts.files import atomic
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import completing

RESERVED = 1024
"""Size of the file in bytes. It is padded when the run begins, so that its blocks can be used when no others are free."""


class Status:
    """status.json of a run in a folder that this process has locked; nothing is written before the run has `begun`."""

    def __init__(self, folder: str | Path, begun: bool = False) -> None:
        self.path, self.begun = Path(folder) / RunFile.STATUS, begun

    def begin(self) -> None:
        """Record that the run is running. Raises StorageError."""
        if not self.begun:
            with completing():  # a signal in between would leave a status that nobody corrects
                write_status(self.path, {"state": "running", "pid": os.getpid()})
                self.begun = True

    def end(self, error: BaseException | None = None) -> None:
        """Record how the run ended, with an error or without. Raises StorageError."""
        if not self.begun:
            return
        status: dict[str, Any] = {"state": "done", "exit_code": 0}
        if error is not None:
            code = exit_code(error)
            state = "preempted" if code == Preempted.exit_code else "failed"
            status = {"state": state, "exit_code": code, "why": _why(error)}
        write_status(self.path, status)


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):
        return "stopped immediately, without saving"
    return str(error) if isinstance(error, RapdartsError | Stopped) else repr(error)


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Write the status of a run, atomically if possible, and otherwise into the blocks of the existing file.

    In the second case, a long text under "why" is cut. Raises StorageError if the file does not exist or cannot be changed.
    """
    try:
        atomic.write_atomically(path, _padded(status))
    except StorageError as error:
        try:
            _overwrite(path, _padded(status, cut=True))
        except OSError:
            raise error from None


def _padded(status: Mapping[str, Any], cut: bool = False) -> bytes:
    """Return a status as JSON, padded with spaces to RESERVED bytes; with `cut`, it is never longer."""
    text = json.dumps(status, indent=2, allow_nan=False)
    while cut and len(text) >= RESERVED and status.get("why"):
        excess = len(text) - RESERVED + len("...") + 1
        status = {**status, "why": status["why"][: max(0, len(status["why"]) - excess)].rstrip(".") + "..."}
        text = json.dumps(status, indent=2, allow_nan=False)
        if status["why"] == "...":
            break
    return f"{text:<{RESERVED - 1}}\n".encode()


def _overwrite(path: Path, content: bytes) -> None:
    """Replace the content of a file of at least this size in place."""
    with completing():
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, content, 0)
            os.truncate(descriptor, len(content))
            with suppress(OSError):  # without free space, some file systems cannot sync
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
