"""The curves of a run for TensorBoard. An error never stops the training: it is reported once, and nothing more is written.

Records are written directly. Torch's `SummaryWriter` writes in a thread, which prints a traceback if the disk is full and raises the
error in the training later.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rapdarts.errors import first_line, warn


class Board:
    """A file of TensorBoard events in a folder, or nothing if the folder is None.

    It hides the values that earlier files contain for the steps from `start` on, because a resumed run repeats them.
    """

    def __init__(self, folder: Path | None, start: int) -> None:
        self.broken = folder is None
        self.file: Any = None
        self.writer: Any = None
        if folder is None:
            return
        with self:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary

            self.event, self.summary = Event, summary
            if folder.is_symlink():
                raise OSError(f"{folder} is a link")
            folder.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
            self.file = open(folder / name, "xb")  # noqa: SIM115 (closed with the run)
            self.writer = RecordWriter(self.file)
            self._write(file_version="brain.Event:2")
            self._write(step=start, session_log=SessionLog(status=SessionLog.START))
            self.file.flush()

    def scalars(self, record: Mapping[str, Any], step: int) -> None:
        """Write the numbers of a record."""
        group = f"replica {record['replica']}/" if "replica" in record else ""  # a separate curve for each replica
        with self:
            if not self.broken:
                for name, value in record.items():
                    if isinstance(value, int | float):
                        self._write(step=step, summary=self.summary.scalar(group + name, value))
                self.file.flush()

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Write an image (h, w, 3) uint8."""
        with self:
            if not self.broken:
                self._write(step=step, summary=self.summary.image(name, pixels, dataformats="HWC"))
                self.file.flush()

    def close(self) -> None:
        """Close the file. Call this after an error, too."""
        with self:
            if self.file is not None:
                self.file.close()

    def _write(self, **fields: Any) -> None:
        self.writer.write(self.event(wall_time=time.time(), **fields).SerializeToString())

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, Exception) and not self.broken:
            self.broken = True
            warn(f"TensorBoard logging has stopped ({first_line(error)}); metrics.jsonl is still written.")
        return isinstance(error, Exception)
