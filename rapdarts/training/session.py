"""Opening a run: lock its folder, respond to signals, and record in status.json how the run ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from rapdarts.config import experiment as configuration
from rapdarts.config import resolve
from rapdarts.errors import InputError, RapdartsError, Stopped
from rapdarts.interruptions import handled
from rapdarts.training.claim import Claim, claimed, is_empty, reserved_alone
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup
from rapdarts.training.folder import check_same_run, prepare
from rapdarts.training.log import Screen
from rapdarts.training.run import Run
from rapdarts.training.status import Status
from rapdarts.version import __version__


@contextmanager
def reserved_by_first(
    process_group: ProcessGroup,
    verb: str,
    launch: configuration.Launch,
    name: str,
    config: configuration.Experiment,
) -> Iterator[configuration.Launch]:
    """Let the first of several processes claim the folder that a launch names; if it is refused, all processes end.

    A single process has claimed it before (`claim.reserved`).
    """
    with ExitStack() as held:
        if process_group.size > 1 and launch.run:
            with process_group.all_or_none("claim the run's folder"):
                if process_group.is_main:
                    launch = held.enter_context(reserved_alone(verb, launch, name, config))
        yield launch


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
    that it reads. Raises InputError, BusyError or DamagedError, each before anything in the folder is changed, if the run in it is
    another one or in use. Afterwards, status.json records every error, also those of this function.
    """
    origin = {"command": verb, **inputs}
    facts = [resolve.config_digest(config), origin, __version__, torch.__version__]
    process_group.check_same("the settings or data", facts, InputError)
    screen = (screen or Screen()) if process_group.is_main else Screen(silent=True)
    begin: dict[str, Any] = {}
    with ExitStack() as resources:
        signals = resources.enter_context(handled())
        with process_group.all_or_none("open the run's folder"):
            if process_group.is_main:
                claim = resources.enter_context(claimed(verb, launch, name))
                if isinstance(claim, Claim):
                    claim.opened.set()
                saved, origin = check_same_run(claim, config, origin)
                status = resources.enter_context(_status(claim, screen))
                begin = vars(prepare(verb, saved, claim, name, origin, process_group.size, screen, about))
                status.begin()
        begin = process_group.broadcast(begin)
        signals.in_job = process_group.size > 1  # its processes can only stop together
        signals.notice = lambda: screen.say_at_once("saving after this step; press again to stop without saving")
        folder, origin = Path(begin["folder"]), begin["origin"]
        run = Run(folder, config.seed, config.save_seconds, origin, screen, begin["resumed"], process_group, signals)
        resources.callback(run.log_file.close)
        resources.callback(screen.stop)
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
def _status(claim: configuration.Launch, screen: Screen) -> Iterator[Status]:
    """Keep status.json up to date, so that a launcher that loses exit codes can still tell how the run ended.

    A run to resume counts as running from here on, and a new one when the block says so.
    """
    status, error = Status(claim.run), None
    if claim.resume and not is_empty(Path(claim.run)):
        status.begin()
    try:
        yield status
    except BaseException as caught:
        error = caught
        raise
    finally:
        try:
            status.end(error)
        except RapdartsError as failure:
            screen.say(str(failure))
