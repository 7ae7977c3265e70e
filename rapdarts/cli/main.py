"""The command line: `rapdarts VERB [TARGET] [EXPERIMENT] key=value ...`, from arguments to the exit code."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from rapdarts.cli.arguments import Call, parse
from rapdarts.cli.commands import COMMANDS, command
from rapdarts.cli.help import help_of, overview
from rapdarts.cli.output import out, say
from rapdarts.errors import (
    InputError,
    Preempted,
    RapdartsError,
    Stopped,
    exit_code,
    first_line,
    printable,
    ran_out_of_memory,
    shorten,
    suggestion,
    warnings_printed,
)
from rapdarts.interruptions import SIGNALS, foreign, handled
from rapdarts.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (rapdarts.errors). Results go to stdout, everything else to stderr."""
    of_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        # Escape characters that the terminal cannot print, instead of failing.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Let waiting threads sleep: on a shared machine, busy waiting was ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with handled() as signals, warnings_printed(say):
        try:
            with foreign():
                _run(arguments)
            code = 0
        except (Exception, KeyboardInterrupt) as error:
            signals.ignore()  # everything is saved: another Ctrl-C could only disturb the exit
            code = _report(error, arguments)
            if of_process and os.environ.get("RANK"):
                _leave(code)
    if of_process:  # so that the exit code of a finished command stays true
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    return code


def _report(error: BaseException, arguments: Sequence[str]) -> int:
    """Print the message for an error, if this process reports it, and return the exit code."""
    if "--debug" in arguments:
        print(printable(traceback.format_exc(), lines=True), end="", file=sys.stderr)
    code = exit_code(error)
    if isinstance(error, Stopped):  # outside a run
        error = Preempted(f"{error}; nothing is lost. Run the same command again.")
    process = os.environ.get("RANK", "")
    if _reports(error):
        message = f"rapdarts{'' if process in ('', '0') else f', process {process}'}: {_sentence(error, arguments)}"
        say(message)
    return code


def _reports(error: BaseException) -> bool:
    """Return whether this process reports the error; of several processes that share its cause, only the first does."""
    first = {"all": "RANK", "machine": "LOCAL_RANK"}.get(error.whose) if isinstance(error, RapdartsError) else None
    return first is None or os.environ.get(first, "0") in ("", "0")


def _leave(code: int) -> None:
    """Flush the output and end this process immediately; at a normal exit, torch might wait for processes that are gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


def _sentence(error: BaseException, arguments: Sequence[str]) -> str:
    """Return the message for the error that stopped the command with these arguments."""
    if isinstance(error, Preempted):
        return _continued(error, arguments)
    if isinstance(error, RapdartsError):
        return f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped immediately; everything saved so far is kept."
    if isinstance(error, OSError) and error.strerror:
        return f"error: {shorten(str(error.filename or 'a file'))} cannot be used: {error.strerror}."
    first = first_line(error)
    if ran_out_of_memory(error):
        return f"error: out of memory ({shorten(first or type(error).__name__)}); reduce the batch size or the number of channels."
    return f"internal error: {type(error).__name__}: {first}. Please report it with the output of --debug."


def _continued(error: Preempted, arguments: Sequence[str]) -> str:
    """Return the message, with the full command that resumes the run; under torchrun, that command is unknown and left out."""
    if not error.folder or os.environ.get("RANK"):
        return str(error)
    kept = [word for word in arguments if word.partition("=")[0] not in ("run", "resume")]
    command = shlex.join(["rapdarts", *kept, f"run={error.folder}", "resume=true"])
    return f"{error.sentence} Continue with: {command}"


def _run_command(verb: str, call: Call) -> None:
    """Run a command. The Python file of --space is loaded first, because it may define resources, which add keys."""
    run = command(verb)
    if not call.space:
        run(call)
        return
    from rapdarts.deploy.space_lookup import known_resources

    with known_resources(call.space_file):
        run(call)


def _run(arguments: list[str]) -> None:
    verb = arguments[0] if arguments else "help"
    if verb in ("--help", "-h", "help"):
        out(overview())
    elif verb == "--version":
        out(__version__)
    elif verb in COMMANDS:
        call = parse(verb, arguments[1:], COMMANDS[verb].all_switches)
        if verb != "retrain" and os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError(
                f"only rapdarts retrain runs in several processes; start rapdarts {verb} without torchrun."
            )
        if call.help:
            out(help_of(COMMANDS[verb]))
        else:
            call.check_outputs()
            _run_command(verb, call)
    elif verb.startswith("-"):
        raise InputError(f"{shorten(repr(verb))} must follow the command; write rapdarts VERB ... {verb[:80]}.")
    else:
        raise InputError(f"there is no command {shorten(repr(verb))}; {suggestion(verb, COMMANDS)}.")
