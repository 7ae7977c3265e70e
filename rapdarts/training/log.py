"""The record of a run in metrics.jsonl and TensorBoard, and its progress on the console."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rapdarts.config.resources import time_left
from rapdarts.errors import StorageError, printable
from rapdarts.files.atomic import write_atomically
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import completing
from rapdarts.training.board import Board


class Log:
    """Log of a run, with one record per epoch, a line of JSON; without a folder, nothing is written.

    `lines` are the records of the epochs before the run was resumed. TensorBoard errors never stop the training.
    """

    def __init__(self, folder: Path | None, lines: Sequence[str]) -> None:
        self.path = folder / RunFile.METRICS if folder else Path(os.devnull)
        self.lines = [*lines]
        self.file = self._rewritten() if folder else open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed with the run)
        self.board = Board(folder / "tensorboard" if folder else None, len(self.lines))
        self.is_whole = True  # False if a record could not be written

    @property
    def text(self) -> str:
        """Content of the file."""
        return "".join(f"{line}\n" for line in self.lines)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record of finite numbers. If the disk is full, it is kept in memory until a later record or `flush`."""
        line = json.dumps(record, allow_nan=False)
        self.board.scalars(record, len(self.lines))
        self.lines.append(line)
        if not self.is_whole:  # the file may end in the middle of a record
            with suppress(StorageError):
                self.flush()
            return
        content = f"{line}\n".encode()
        with completing():
            try:
                self.is_whole &= self.file.write(content) == len(content)
            except OSError:
                self.is_whole = False

    def flush(self) -> None:
        """Write the file again if a record could not be written. Raises StorageError if the disk is still full."""
        if not self.is_whole:
            before, self.file = self.file, self._rewritten()
            before.close()
            self.is_whole = True

    def image(self, name: str, pixels: np.ndarray) -> None:
        """Log an image (h, w, 3) uint8 with the newest record, in TensorBoard only."""
        self.board.image(name, pixels, max(0, len(self.lines) - 1))

    def close(self) -> None:
        with suppress(StorageError):
            self.flush()
        self.file.close()
        self.board.close()

    def _rewritten(self) -> FileIO:
        """Write the file again from the checkpoint's records, whatever it holds, and return it, opened to append more.

        Records after the checkpoint are dropped, because their epochs are repeated; damage to the file is repaired.
        """
        write_atomically(self.path, self.text)
        # O_NOFOLLOW: a link planted at this path is rejected, not followed.
        return os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab", buffering=0)


class Screen:
    """Progress on stderr: a line per epoch and, on a terminal, a bar with the time left. Prints nothing if `silent`.

    `whole` returns the time left, in seconds, for the larger task that includes this run; this time is also shown.
    """

    def __init__(self, silent: bool = False, whole: Callable[[], float] | None = None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
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
        return printable(f"{self.what}{self._of_whole()}")

    def _of_whole(self) -> str:
        return f", {time_left(self.whole())} in all" if self.whole else ""

    def stop(self) -> None:
        with self._quietly():
            if self.task is not None:
                self.bar.remove_task(self.task)
                self.task = None
            self.bar.stop()

    def say(self, line: str) -> None:
        """Print a line; control characters in it, for example in the name of a class, are escaped."""
        if not self.closed:
            with self._quietly():
                self.console.print(printable(line), markup=False, soft_wrap=True)

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
