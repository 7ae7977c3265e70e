"""Interruptions of a task: a signal that asks to stop, or memory that runs out.

A signal raises `Stopped` wherever the main thread is, because nothing can be lost there: every file is written atomically, and a
run is saved at the end of every stage. In the steps of a training loop, a signal only sets a mark, to which the loop responds
between two steps. A file that is being written is completed first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rapdarts.errors import DeviceError, RapdartsError, Stopped, first_line, ran_out_of_memory, shorten

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

SOON, LATER = 0.05, 1.0
"""Seconds until `Stopped` is raised again: after a moment in which it would be lost, and in case it was lost nevertheless."""


class Signals:
    """The response to signals in one thread: the main thread within `handled`. Elsewhere, no signal ever arrives."""

    def __init__(self) -> None:
        self.asked: int | None = None
        """The signal that asked to stop, if any."""
        self.in_steps = False
        """True in the steps of a training loop, which checks `asked` between two steps."""
        self.in_job = False
        """True in a run of several processes, which can only stop together."""
        self.notice: Any = lambda: None
        """Function that tells the user, from within the handler, that the first Ctrl-C takes effect after the step."""
        self._insists = self._answered = self._retries = False
        self._writing = 0

    @contextmanager
    def completing(self) -> Iterator[None]:
        """Let signals wait until the end of the block, even a second Ctrl-C. The block writes a file."""
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
        self.answer()

    def answer(self) -> None:
        """Raise Stopped if a signal was received and is not answered yet, or KeyboardInterrupt after a second Ctrl-C."""
        self._answer(None)

    def answered(self) -> None:
        """Ignore all further signals except another Ctrl-C, because this process is already stopping."""
        self._answered = True
        self._again_in(0)

    def ignore(self) -> None:
        """Ignore all further signals, because this process is about to exit."""
        self._writing += 1
        self.answered()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked == signal.SIGINT:
            self._insists = True
        elif self.asked is None or number == signal.SIGINT:
            self.asked = number
            if number == signal.SIGINT and (self.in_steps or self.in_job):
                self.notice()
        self._answer(frame)

    def _again(self, number: int, frame: FrameType | None) -> None:
        self._answer(frame)

    def _answer(self, frame: FrameType | None) -> None:
        if self._writing:
            return
        if _is_lost(frame):
            self._again_in(SOON)
        elif self._insists:
            self._insists = False
            raise KeyboardInterrupt
        elif self.asked is not None and not (self._answered or self.in_steps or self.in_job):
            self._again_in(LATER)
            raise Stopped(self.asked)

    def _again_in(self, seconds: float) -> None:
        if self._retries:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Handle the signals in the block, and restore their handlers afterwards."""
        # Signals that the parent ignores stay ignored, as nohup intends. A handler not set from Python (None) could not be restored.
        self._writing += 1  # an exception in between would leave handlers behind
        handled = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, self._receive) for number in handled}
        # Otherwise, the program has its own use for the timer, or the one that started it has set an alarm.
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._again)
            self._retries = True
        self._writing -= 1
        try:
            yield
        finally:
            self.ignore()
            self._retries = False
            for number, handler in before.items():
                signal.signal(number, handler)


_current: Signals | None = None
"""The response to signals in the main thread, within `handled`."""


@contextmanager
def handled() -> Iterator[Signals]:
    """Handle signals in the block as this module describes; a block within another one shares its state."""
    global _current
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield Signals()
    elif _current is not None:
        yield _current
    else:
        _current = found = Signals()
        try:
            with found._installed():
                yield found
        finally:
            _current = None


@contextmanager
def completing() -> Iterator[None]:
    """Let signals wait until the end of the block, which writes a file."""
    if _current is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _current.completing():
        yield


@contextmanager
def foreign() -> Iterator[None]:
    """Raise Stopped in place of an error into which a package has turned it; some packages catch and replace every exception."""
    try:
        yield
    except Exception as error:
        is_main = threading.current_thread() is threading.main_thread()
        if _current is not None and is_main and not isinstance(error, RapdartsError):
            _current.answer()
        raise


@contextmanager
def during(task: str) -> Iterator[None]:
    """Name the task of the block, such as "reading the data", to the user if it is interrupted. Also serves as a decorator.

    Raises DeviceError if the block runs out of memory; of nested tasks, the innermost is named.
    """
    try:
        with foreign():
            yield
    except Stopped as stop:
        stop.task = stop.task or task
        raise
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        why = shorten(first_line(error, type(error).__name__))
        raise DeviceError(
            f"out of memory while {task} ({why}); free some memory, or use fewer images, fewer channels or a smaller batch."
        ) from error


def _is_lost(frame: FrameType | None) -> bool:
    """Return whether an exception that is raised in a frame would be lost: Python prints and drops the exceptions of destructors."""
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("__del__", "_gone") or code.co_filename.endswith(("/weakref.py", "/_weakrefset.py")):
            return True
        frame = frame.f_back
    return False
