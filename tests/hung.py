"""A limit on the time of a command that runs in the process of a test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT = 5
"""Seconds after which a command counts as hung."""


class Hung(Exception):
    """Not a TimeoutError, which is an OSError, and readers take care of these."""


@contextmanager
def in_time(seconds: int = LIMIT) -> Iterator[None]:
    """Raise Hung in the block after some seconds; a command reports it as an internal error, with exit code 1."""

    def expired(*_: object) -> None:
        raise Hung(f"nothing happened for {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
