"""What can go wrong for a user, one class an exit code; the command line prints the sentence and leaves with the code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

NO_MORE = ("can't allocate memory", "out of memory", "could not create a primitive")
"""What torch's allocators say, and oneDNN on a CPU."""

Error = TypeVar("Error", bound="RapdartsError")


class RapdartsError(Exception):
    """A failure that is not a bug of ours: its text is one sentence that says what to change."""

    exit_code = 1
    whose = "machine"
    """Of several processes: each `process` has a reason of its own, those of a `machine` have one (its files, the command),
    or `all` have one and know so. Whoever is the first of these says it."""


def of_all(error: Error) -> Error:
    """An error that all processes of a job found out together."""
    error.whose = "all"
    return error


class InputError(RapdartsError):
    """A key, value, file or data set that cannot be used as given."""

    exit_code = 2


class BusyError(RapdartsError):
    """The run folder belongs to another process that is alive."""

    exit_code = 3


class DamagedError(RapdartsError):
    """A file of ours that was cut, altered, or belongs to something else."""

    exit_code = 4


class DivergedError(RapdartsError):
    """Loss, gradient or architecture parameters stopped being finite numbers."""

    exit_code = 5
    whose = "all"


class StorageError(RapdartsError):
    """The disk refused: full, read-only, or no permission."""

    exit_code = 6


class DeviceError(RapdartsError):
    """The device asked for is not there, or ran out of memory."""

    exit_code = 7
    whose = "process"


class Preempted(RapdartsError):
    """A signal asked the run to stop; its state was saved in `folder`, and `resume=true` continues it.

    The command line puts the whole command that continues in place of the text's last sentence.
    """

    exit_code = 75
    whose = "all"

    def __init__(self, sentence: str, folder: str = "") -> None:
        super().__init__(f"{sentence} Continue with run={folder} resume=true." if folder else sentence)
        self.sentence, self.folder = sentence, folder


def exit_code(error: BaseException) -> int:
    """The code that a process leaves with: of one of ours its own, 130 for Ctrl-C, 6 for the disk, 7 for the device's memory, else 1."""
    if isinstance(error, RapdartsError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, OSError) and error.strerror:
        return StorageError.exit_code
    return DeviceError.exit_code if ran_out_of_memory(error) else 1


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no more memory to give: a GPU, or the machine itself, which torch and Python say each in their way."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MORE)


def refused_a_kernel(error: BaseException) -> bool:
    """Whether Triton could not compile or start one of the kernels for a GPU there."""
    return any(kind.__name__ == "TritonError" for kind in type(error).__mro__)


NEAR = 0.6
"""The share of letters in common (`difflib`) from which a name is near enough to be meant."""


FEW = 12
"""So many names may stand in a sentence beside the nearest of them."""


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, None where none is near; case, blanks around it and great length do not count."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.strip().lower()[:100], names, n=1, cutoff=NEAR)
    return names[near[0]] if near else None


def suggestion(given: str, known: Iterable[str]) -> str:
    """The part of a sentence that helps who wrote `given`: the nearest of the names that are known, or else all of them."""
    names = list(known)
    start = given.strip().lower()
    begun = [name for name in names if len(start) >= 4 and name.lower().startswith(start)]
    if len(names) > FEW and 1 < len(begun) <= FEW:
        return f"there are {', '.join(begun)}"
    near = nearest(given, names)
    if near is None:
        return f"there {'are' if len(names) > 1 else 'is only'} {', '.join(names)}"
    return f"the nearest is {near}" + (f", of {', '.join(names)}" if len(names) <= FEW else "")


def installation(extra: str) -> str:
    """Return the commands that install an extra of the package, as a message names them."""
    return f"pip install 'rapdarts[{extra}]', or in a checkout pip install -c constraints.txt '.[{extra}]'"


def shorten(text: str) -> str:
    """A text as a message quotes it."""
    return text if len(text) <= 80 else text[:77] + "..."
