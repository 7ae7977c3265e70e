"""Signs of life of the processes of a job, by which the others notice that one of them hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

BEATS, POLL = 10, 0.01
"""Beats without those of another process after which it counts as silent, and seconds between two checks while waiting."""


class Pulse:
    """Beats of all processes, which a thread of each counts in the store of the job.

    A process that was suspended, or whose machine is gone, does not beat; one that computes or reads files does. Time is measured
    in beats and checks, not by the clock, so that a job that is suspended as a whole finds nobody silent when it continues.
    """

    def __init__(self, rank: int, size: int, patience: timedelta) -> None:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own: that of the process group may be waiting.
        self.store = TCPStore(*place, is_master=False, wait_for_workers=False, timeout=patience)
        self.rank, self.patience = rank, patience.total_seconds()
        self.counts = {other: 0 for other in range(size) if other != rank}
        self.missed = dict.fromkeys(self.counts, 0)  # beats of this process since the last one of another
        self.beats = 0
        self.stopped = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        """End the beats of this process, which has finished."""
        self.stopped.set()

    def silent_until(self, done: Callable[[], bool]) -> list[int]:
        """Wait until `done` returns true. Return early, with the other processes that do not beat any more, if there are any."""
        seen, looks = self.beats, 0
        while not done():
            time.sleep(POLL)
            looks = looks + 1 if self.beats == seen else 0
            seen = self.beats
            if looks * POLL > self.patience:
                return [0]  # its store does not answer
            if silent := [other for other, missed in self.missed.items() if missed > BEATS]:
                return silent
        return []

    def _beat(self) -> None:
        with suppress(RuntimeError):  # the process with the store has ended
            while not self.stopped.wait(self.patience / BEATS):
                self.store.add(f"beats of {self.rank}", 1)
                for other, count in self.counts.items():
                    self.counts[other] = self.store.add(f"beats of {other}", 0)
                    self.missed[other] = self.missed[other] + 1 if self.counts[other] == count else 0
                self.beats += 1
