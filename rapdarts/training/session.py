"""Opening a run: lock its folder, respond to signals, and record in status.json how the run ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from rapdarts.config import experiment as configuration
from rapdarts.config import resolve
from rapdarts.errors import Preempted, RapdartsError, exit_code
from rapdarts.files.run_files import RunFile
from rapdarts.training.claim import claimed
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup
from rapdarts.training.folder import prepare
from rapdarts.training.log import Screen
from rapdarts.training.run import Run
from rapdarts.version import __version__

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def open_run(
    verb: str,
    config: configuration.Experiment,
    launch: configuration.Launch,
    name: str,
    inputs: Mapping[str, str],
    screen: Screen | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
    about: Sequence[str] = (),
) -> Iterator[Run]:
    """Create or reopen a run folder, hold its lock unless `launch` is a claim, and record how the run ended.

    Progress is shown on `screen` (default: stderr), beginning with the lines `about` the data.

    `inputs` are fingerprints, by name, of everything else the run depends on (data, genotype); resuming with different
    fingerprints is rejected. Only the first of several processes opens the folder; all processes start from the state
    that it reads. Raises InputError, BusyError, StorageError or DamagedError, each before anything in the folder is changed.
    """
    origin = {"command": verb, **inputs}
    process_group.check_same(
        "the settings or data", [resolve.config_digest(config), origin, __version__, torch.__version__]
    )
    screen = (screen or Screen()) if process_group.is_main else Screen(silent=True)
    begin: dict[str, Any] = {}
    with ExitStack() as resources:
        with process_group.all_or_none("open the run's folder"):
            if process_group.is_main:
                claim = resources.enter_context(claimed(verb, launch, name))
                begin = vars(prepare(verb, config, claim, name, origin, process_group.size, screen, about))
        begin = process_group.broadcast(begin)
        folder, origin = Path(begin["folder"]), begin["origin"]
        run = Run(folder, config.seed, config.save_seconds, origin, screen, begin["resumed"], process_group)
        resources.enter_context(_signals(run))
        if process_group.is_main:
            resources.enter_context(_status(run))
        yield run


@contextmanager
def _signals(run: Run) -> Iterator[None]:
    """Handle signals by asking the run to save and stop; a second Ctrl-C stops it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and run.asked_to_stop == signal.SIGINT:
            raise KeyboardInterrupt
        run.asked_to_stop = number

    # Signals that the parent ignores stay ignored, as nohup intends. A handler not set from Python (None) could not be restored.
    handled = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, ask) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status(run: Run) -> Iterator[None]:
    """Keep status.json up to date, so that a launcher that loses exit codes can still tell how the run ended."""
    status: dict[str, Any] = {"state": "running", "pid": os.getpid()}
    run.write_json(RunFile.STATUS, status)
    try:
        yield
        status = {"state": "done", "exit_code": 0}
    except RapdartsError as error:
        status = {
            "state": "preempted" if isinstance(error, Preempted) else "failed",
            "exit_code": error.exit_code,
            "why": str(error),
        }
        raise
    except BaseException as error:
        status = {"state": "failed", "exit_code": exit_code(error), "why": repr(error)}
        raise
    finally:
        run.screen.stop()
        run.log_file.close()
        try:
            run.write_json(RunFile.STATUS, status)
        except RapdartsError as error:
            run.screen.say(str(error))
