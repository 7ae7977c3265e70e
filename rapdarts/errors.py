"""Errors that users see, one class per exit code; the command line prints the message and exits with the code."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

NO_MORE = ("can't allocate memory", "out of memory", "could not create a primitive")
"""Parts of the out-of-memory messages of torch's allocators and, on a CPU, of oneDNN."""

Error = TypeVar("Error", bound="RapdartsError")


class RapdartsError(Exception):
    """A failure that is not a bug in rapdarts; its message says what is wrong and what to change."""

    exit_code = 1
    whose = "machine"
    """Processes that share the cause of the error; only the first of them reports it. `process` is this process alone, `machine` is all
    processes on this machine (for example, a file is missing), and `all` is all processes of the job."""


def of_all(error: Error) -> Error:
    """Mark an error as common to all processes of a job, and return it."""
    error.whose = "all"
    return error


class InputError(RapdartsError):
    """A key, value, file or data set that cannot be used as given."""

    exit_code = 2


class BusyError(RapdartsError):
    """The run folder is in use by another process."""

    exit_code = 3


class DamagedError(RapdartsError):
    """A file written by rapdarts that was truncated or altered, or that belongs to a different run or search space."""

    exit_code = 4


class DivergedError(RapdartsError):
    """The loss, a gradient or an architecture parameter is no longer finite."""

    exit_code = 5
    whose = "all"


class StorageError(RapdartsError):
    """A failure to write to disk: the disk is full or read-only, or access is denied.

    `fact` is the message without advice that only helps before a run starts; it is empty if there is none.
    """

    exit_code = 6
    fact = ""


class DeviceError(RapdartsError):
    """The requested device is not available, or ran out of memory."""

    exit_code = 7
    whose = "process"


class Preempted(RapdartsError):
    """A run that was stopped by a signal; its state is saved in `folder`, and `resume=true` resumes it.

    The command line replaces the last sentence of the message with the full command that resumes the run.
    """

    exit_code = 75
    whose = "all"

    def __init__(self, sentence: str, folder: str = "") -> None:
        super().__init__(f"{sentence} Repeat the command with run={folder} resume=true." if folder else sentence)
        self.sentence, self.folder = sentence, folder


class Stopped(KeyboardInterrupt):
    """Raised by a signal where the command can stop at once (`interruptions`); a run turns it into Preempted.

    It is not an Exception, so that code that handles the errors of a task does not catch it. `task` says during which task
    the signal arrived, such as "reading the data", if this is known.
    """

    exit_code = Preempted.exit_code

    def __init__(self, number: int, task: str = "") -> None:
        super().__init__(number)
        self.number, self.task = number, task

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}{f' while {self.task}' if self.task else ''}"


def exit_code(error: BaseException) -> int:
    """Return the exit code of a RapdartsError or a signal, 130 for a second Ctrl-C, 6 for a system error, 7 if memory ran out, else 1."""
    if isinstance(error, RapdartsError | Stopped):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, OSError) and error.strerror:
        return StorageError.exit_code
    return DeviceError.exit_code if ran_out_of_memory(error) else 1


def kind_of(code: int) -> type[RapdartsError]:
    """Return the class of the errors with an exit code, for a process that ends because of the error of another one."""
    kinds = (InputError, BusyError, DamagedError, StorageError, DeviceError)
    return next((kind for kind in kinds if kind.exit_code == code), RapdartsError)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU or the machine itself ran out of memory, which torch and Python report in different ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MORE)


def refused_a_kernel(error: BaseException) -> bool:
    """Return whether Triton failed to compile or launch one of the GPU kernels."""
    return any(kind.__name__ == "TritonError" for kind in type(error).__mro__)


NEAR = 0.6
"""Minimum similarity (ratio in `difflib`) of a suggested name."""

FEW = 12
"""Maximum number of names that a message lists in addition to the nearest one."""


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None; ignore case, surrounding blanks, and text after 100 characters."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.strip().lower()[:100], names, n=1, cutoff=NEAR)
    return names[near[0]] if near else None


def first_line(error: BaseException, default: str = "") -> str:
    """Return the first line of an error's text, or `default` if it has none."""
    return (str(error).strip().splitlines() or [default])[0]


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: 1 edge, 2 edges."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def any_of(names: Sequence[str]) -> str:
    """Return the names as a list of alternatives: a, b or c."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return a clause for a message about an unknown name: it suggests similar known names, or lists all of them."""
    names = list(known)
    start = given.strip().lower()
    alike = [name for name in names if len(start) >= 4 and name.lower().startswith(start)]
    if len(names) > FEW and 1 < len(alike) <= FEW:
        return f"similar names are {', '.join(alike)}"
    near = nearest(given, names)
    if near is None:
        return f"choose from {', '.join(names)}" if len(names) > 1 else f"the only choice is {names[0]}"
    return f"the nearest is {near}" + (f" (choose from {', '.join(names)})" if len(names) <= FEW else "")


def installation(extra: str) -> str:
    """Return the commands that install an extra of the package, as text for a message."""
    return f"pip install 'rapdarts[{extra}]', or, in a checkout, pip install -c constraints.txt '.[{extra}]'"


def shorten(text: str) -> str:
    """Return a string as messages quote it, cut to 80 characters."""
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str, lines: bool = False) -> str:
    """Return a text with all characters escaped that control a terminal or hide text, such as escape codes and bidi overrides.

    Names of files and classes and messages of other programs may contain them. `lines` keeps line breaks and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(one if one.isprintable() or one in kept else one.encode("unicode_escape").decode() for one in text)


_printers: list[Callable[[str], None]] = []
"""The functions that print the warnings of the commands that are running."""


def warn(text: str) -> None:
    """Report a warning on one line, with its control characters escaped: commands print it, and for programs it is logged."""
    if _printers:
        _printers[-1](f"rapdarts: {printable(text)}")
        return
    import logging  # Python prints warnings to stderr unless the program that uses rapdarts says otherwise

    logging.getLogger("rapdarts").warning("%s", printable(text))


@contextmanager
def warnings_printed(say: Callable[[str], None]) -> Iterator[None]:
    """Print warnings with a function, not through `logging`, in the block, which runs a command."""
    _printers.append(say)
    try:
        yield
    finally:
        _printers.pop()
