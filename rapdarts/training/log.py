"""The record of a run in metrics.jsonl and TensorBoard, and its progress on the console."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rapdarts.config.resources import time_left
from rapdarts.errors import StorageError
from rapdarts.files.atomic import storage_error
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import completing
from rapdarts.training.board import Board


class Log:
    """Log of a run, with one record per epoch; without a folder, nothing is written. Errors of TensorBoard never stop the training."""

    def __init__(self, folder: Path | None, keep_bytes: int) -> None:
        self.path = folder / RunFile.METRICS if folder else Path(os.devnull)
        self.records = self._cut(keep_bytes) if folder else 0
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed with the run)
        self.board = Board(folder / "tensorboard" if folder else None, self.records)
        self.waiting = b""  # records that could not be written yet

    @property
    def bytes(self) -> int:
        """Current length of the file in bytes, stored in checkpoints so that a resumed run does not repeat records."""
        return self.file.tell()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record of finite numbers. If the disk is full, it is kept in memory until `flush`."""
        self.waiting += json.dumps(record, allow_nan=False).encode() + b"\n"
        with suppress(StorageError):
            self.flush()
        self.board.scalars(record, self.records)
        self.records += 1

    def flush(self) -> None:
        """Write all records that are not written yet. Raises StorageError, and leaves no part of them, if the disk is full."""
        if not self.waiting:
            return
        end = self.bytes
        try:
            with completing():
                left = memoryview(self.waiting)
                while left:
                    left = left[self.file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self.file.truncate(end)
            self.file.seek(end)
            raise storage_error(self.path, error, len(self.waiting)) from None
        self.waiting = b""

    def image(self, name: str, pixels: np.ndarray) -> None:
        """Log an image (h, w, 3) uint8 with the newest record, in TensorBoard only."""
        self.board.image(name, pixels, max(0, self.records - 1))

    def close(self) -> None:
        with suppress(StorageError):
            self.flush()
        self.file.close()
        self.board.close()

    def _cut(self, keep_bytes: int) -> int:
        """Drop the records after the checkpoint, because their epochs are repeated; return the number of records left."""
        if not self.path.exists():
            return 0
        os.truncate(self.path, min(keep_bytes, self.path.stat().st_size))
        return self.path.read_bytes().count(b"\n")


class Screen:
    """Progress on stderr: a line per epoch and, on a terminal, a bar with the time left. Prints nothing if `silent`.

    `whole` returns the time left, in seconds, for the larger task that includes this run; this time is also shown.
    """

    def __init__(self, silent: bool = False, whole: Callable[[], float] | None = None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            transient=True,
            disable=silent or not self.console.is_terminal,
        )
        self.task: Any = None
        self.closed, self.whole = silent, whole
        self.what, self.began, self.first, self.total = "", 0.0, 0, 0

    def start(self, what: str, done: int, total: int) -> None:
        """Start to show the progress of `what`, with `done` of `total` steps finished."""
        self.what, self.began, self.first, self.total = what, time.monotonic(), done, total
        with self._quietly():
            self.bar.start()
            self.task = self.bar.add_task(self._described(), total=total, completed=done)

    def step(self) -> None:
        with self._quietly():
            self.bar.advance(self.task)

    def epoch(self, line: str, done: int) -> None:
        """Print a line about an epoch with the estimated time left."""
        pace = (time.monotonic() - self.began) / max(1, done - self.first)
        left = pace * (self.total - done)
        rest = (
            f"  ({time_left(left)} left of {self.what}{self._of_whole()})"
            if left > 0 and not self.console.is_terminal
            else ""
        )
        self.say(f"{line}{rest}")
        if self.task is not None:
            with self._quietly():
                self.bar.update(self.task, description=self._described())

    def _described(self) -> str:
        return f"{self.what}{self._of_whole()}"

    def _of_whole(self) -> str:
        return f", {time_left(self.whole())} in all" if self.whole else ""

    def stop(self) -> None:
        with self._quietly():
            if self.task is not None:
                self.bar.remove_task(self.task)
                self.task = None
            self.bar.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.closed:
            with self._quietly():
                self.console.print(line, markup=False, soft_wrap=True)

    def say_at_once(self, line: str) -> None:
        """Print a line from a signal handler, which may have interrupted `say` and must not use its locks."""
        if not self.closed:
            erase = "\r\x1b[2K" if self.console.is_terminal else ""  # the line of the bar, which is drawn again below
            with suppress(OSError):
                os.write(2, f"{erase}{line}\n".encode())

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Stop printing, but continue training, if the reader of stderr has exited (`2>&1 | head`)."""
        try:
            yield
        except (OSError, ValueError, SystemExit):  # rich raises SystemExit if its pipe is closed
            self.closed = True
