"""Opening a run: lock its folder, respond to signals, and record in status.json how the run ended."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from rapdarts.config import experiment as configuration
from rapdarts.config import resolve
from rapdarts.errors import InputError, Preempted, RapdartsError, Stopped, exit_code
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import handled
from rapdarts.training.claim import claimed
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup
from rapdarts.training.folder import prepare
from rapdarts.training.log import Screen
from rapdarts.training.run import Run
from rapdarts.training.status import write_status
from rapdarts.version import __version__


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
    facts = [resolve.config_digest(config), origin, __version__, torch.__version__]
    process_group.check_same("the settings or data", facts, InputError)
    screen = (screen or Screen()) if process_group.is_main else Screen(silent=True)
    begin: dict[str, Any] = {}
    with ExitStack() as resources:
        with process_group.all_or_none("open the run's folder"):
            if process_group.is_main:
                claim = resources.enter_context(claimed(verb, launch, name))
                begin = vars(prepare(verb, config, claim, name, origin, process_group.size, screen, about))
        begin = process_group.broadcast(begin)
        signals = resources.enter_context(handled())
        signals.in_job = process_group.size > 1  # its processes can only stop together
        signals.notice = lambda: screen.say_at_once("saving after this step; press again to stop without saving")
        folder, origin = Path(begin["folder"]), begin["origin"]
        run = Run(folder, config.seed, config.save_seconds, origin, screen, begin["resumed"], process_group, signals)
        if process_group.is_main:
            resources.enter_context(_status(run))
        with _stopping(run):
            yield run
            run.check_saved()


@contextmanager
def _stopping(run: Run) -> Iterator[None]:
    """Raise Preempted if a signal stops the run. Everything that a signal must not lose is saved by then."""
    try:
        yield
    except Stopped as stop:
        raise run.stopped(stop) from None
    finally:
        run.signals.in_steps = run.signals.in_job = False
        if run.signals.asked:
            run.signals.answered()


@contextmanager
def _status(run: Run) -> Iterator[None]:
    """Keep status.json up to date, so that a launcher that loses exit codes can still tell how the run ended."""
    path = run.folder / RunFile.STATUS
    status: dict[str, Any] = {"state": "running", "pid": os.getpid()}
    write_status(path, status)
    try:
        yield
        status = {"state": "done", "exit_code": 0}
    except BaseException as error:
        code, ours = exit_code(error), isinstance(error, RapdartsError | Stopped)
        state = "preempted" if code == Preempted.exit_code else "failed"
        status = {"state": state, "exit_code": code, "why": str(error) if ours else repr(error)}
        raise
    finally:
        run.screen.stop()
        run.log_file.close()
        try:
            write_status(path, status)
        except RapdartsError as error:
            run.screen.say(str(error))
