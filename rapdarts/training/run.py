"""A run: the control of a training loop that can be stopped anywhere and resumed bit for bit.

What is random in a step is a function of (seed, stage, epoch, step), so a checkpoint holds no generator: only the
place in the loop, the state of what is trained, and the sums behind the epoch's metrics.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

import rapdarts
from rapdarts.config import experiment as configuration
from rapdarts.config import resolve
from rapdarts.data.randomness import key
from rapdarts.errors import (
    DamagedError,
    DivergedError,
    Preempted,
    RapdartsError,
    StorageError,
    exit_code,
    of_all,
)
from rapdarts.files import atomic as files
from rapdarts.files.run_files import RunFile
from rapdarts.training import checkpoint
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup
from rapdarts.training.folder import claimed
from rapdarts.training.log import Log, Screen

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

Batch = TypeVar("Batch", covariant=True)


class Source(Protocol[Batch]):
    """Batches with an address: `epoch(e, start)` gives those of epoch e from step `start` on, `steps` in all."""

    @property
    def steps(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class Stateful(Protocol):
    """A module or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


Sum = tuple[Tensor, int]
"""A sum over things, a scalar on the device, and how many they are."""


class Meter:
    """Sums of an epoch's quantities, kept on the device until somebody asks for the means."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Adds a sum over `count` things, a scalar tensor; no synchronisation with the device."""
        total = total.detach().to(torch.float64, copy=True)  # the next step may write over it
        self.sums[name] = self.sums[name].to(total.device) + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + count

    def add_all(self, sums: Mapping[str, Sum]) -> None:
        for name, (total, count) in sums.items():
            self.add(name, total, count)

    def means(self) -> dict[str, float]:
        return {name: total.item() / self.counts[name] for name, total in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: total.cpu() for name, total in self.sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class Run:
    """One search or retraining in its folder. Use `open_run`; then `epochs`, `batches`, `log` and `write`."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        save_seconds: float,
        origin: Mapping[str, str],
        screen: Screen,
        resumed: dict[str, Any] | None,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.process_group = process_group
        self.folder, self.seed, self.save_seconds, self.origin = folder, seed, save_seconds, origin
        self.screen = screen
        self.meter = Meter()
        self.stage = self.epoch = self.step = 0
        self.finished: list[dict[str, Any]] = []
        self.objects: Mapping[str, Stateful] = {}
        self.asked_to_stop: int | None = None
        self.saved_at = self.began = time.monotonic()
        self.what, self.steps, self.total = "", 0, 0
        self._resumed = resumed
        self.log_file = Log(
            folder if process_group.is_main else None, self._resumed["metrics_bytes"] if self._resumed else 0
        )

    # --- the loop ------------------------------------------------------------------------------------------------

    def epochs(
        self, what: str, epochs: int, steps: int, objects: Mapping[str, Stateful], carries: Sequence[str] = ()
    ) -> Iterator[int]:
        """The epochs of one stage that are still to be done, each to be filled with `batches`.

        Restores `objects` where a checkpoint stands in this stage. A stage that was finished before gives no epoch;
        of it only the objects named in `carries` are restored, which outlive it.
        """
        self.objects = objects
        if self._resumed and self.stage < self._resumed["stage"]:
            for name in carries:
                self._restore(name, objects[name], self._resumed["finished"][self.stage][name])
            self.finished.append(self._resumed["finished"][self.stage])
            self.stage += 1
            return
        self.epoch = self.step = 0
        spent = 0.0
        if self._resumed:
            for name, thing in objects.items():
                self._restore(name, thing, self._resumed["objects"][name])
            self.epoch, self.step = self._resumed["epoch"], self._resumed["step"]
            self.meter.load_state_dict(self._resumed["meter"])
            spent = self._resumed["seconds"]
            if self.epoch < epochs:
                self.screen.say(f"resuming {what} at epoch {self.epoch + 1}, step {self.step + 1}")
            self._resumed = None
        self.what, self.steps, self.total = what, steps, epochs
        self.screen.start(what, self.epoch * steps + self.step, epochs * steps)
        while self.epoch < epochs:
            self.began, spent = time.monotonic() - spent, 0.0
            yield self.epoch
            self.epoch, self.step, self.meter = self.epoch + 1, 0, Meter()
            self._pause()
        self.screen.stop()
        self.save()
        self.finished.append({name: _copy(objects[name].state_dict()) for name in carries})
        self.stage += 1

    def remember(self, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `train` gives, plain values and tensors: a whole stage, and all that follows from it. Of a stage that was
        finished before, what it gave then. `train` may give up in the middle of its epochs.
        """
        stage = self.stage
        if self._resumed and stage < self._resumed["stage"]:
            facts = self._resumed["finished"][stage]
        else:
            facts = train()
            self.screen.stop()
            self.objects, self.meter = {}, Meter()
        self.stage, self.finished[stage:] = stage + 1, [facts]
        return facts

    def batches(self, source: Source[Batch]) -> Iterator[Batch]:
        """The epoch's batches that are still to be done; between two of them the run saves and answers signals."""
        for batch in source.epoch(self.epoch, self.step):
            torch.manual_seed(key(self.seed, f"stage {self.stage}", self.epoch, self.step))
            yield batch
            self.step += 1
            self.screen.step()
            self._pause()

    def log(self, show: Sequence[str] = (), **facts: float) -> None:
        """Records the epoch: the meter's means and `facts`; those named in `show` are said. Raises DivergedError if one is not finite."""
        numbers = {**self.meter.means(), **facts}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value} in epoch {self.epoch + 1}")
        record = {"stage": self.stage, "epoch": self.epoch, **numbers}
        self.log_file.append({**record, "seconds": round(time.monotonic() - self.began, 3)})
        said = [f"{name} {_readable(numbers[name])}" for name in show if name in numbers]
        self.screen.epoch(
            f"{self.what} epoch {self.epoch + 1}/{self.total}  {'  '.join(said)}", (self.epoch + 1) * self.steps
        )

    def picture(self, name: str, pixels: np.ndarray) -> None:
        """A picture (h, w, 3) uint8 beside the newest record."""
        self.log_file.image(name, pixels)

    def records(self) -> list[dict[str, Any]]:
        """All epochs recorded so far, oldest first."""
        return [json.loads(line) for line in self.log_file.path.read_text(encoding="utf-8").splitlines()]

    def seconds(self) -> float:
        """Time spent in all epochs, those before a resume included."""
        return round(sum(record["seconds"] for record in self.records()), 1)

    # --- the folder ----------------------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a file of the run, whole or not at all; of several processes, only the first does."""
        path = self.folder / name
        if not self.process_group.is_main:
            return path
        try:
            path.parent.mkdir(exist_ok=True, parents=True)
        except OSError as error:
            raise files.storage_error(path, error) from None
        files.write(path, content)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def save(self) -> None:
        """Writes a checkpoint of this very place. Raises DivergedError, keeping the last one, if a tensor is not finite."""
        state = {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "metrics_bytes": self.log_file.bytes,
            "meter": self.meter.state_dict(),
            "seconds": time.monotonic() - self.began if self.step else 0.0,
            "finished": self.finished,
            "objects": {name: thing.state_dict() for name, thing in self.objects.items()},
        }
        broken = _not_finite(state["objects"])
        if broken:
            where = f"epoch {self.epoch + 1}, step {self.step}"
            raise self._diverged(f"{broken} holds numbers that are not finite at {where}")
        self.process_group.check_same("the weights", state["objects"])
        failure: RapdartsError | None = None
        if self.process_group.is_main:
            try:
                checkpoint.save_checkpoint(self.folder / RunFile.CHECKPOINT, state, self.origin)
            except RapdartsError as error:
                failure = error
        (failed,) = self.process_group.agree(int(failure is not None))
        if failed:
            raise failure or of_all(StorageError("process 0 could not save, and says why."))
        self.saved_at = time.monotonic()

    def _diverged(self, sign: str) -> DivergedError:
        saved = (self.folder / RunFile.CHECKPOINT).exists()
        stands = "; the last checkpoint was written before it" if saved else ""
        return DivergedError(f"{sign}: the training diverged. Lower the learning rate{stands}.")

    def _pause(self) -> None:
        """Between two steps: saves if it is time, and leaves if a signal came, to whichever process."""
        due = self.process_group.is_main and time.monotonic() - self.saved_at >= self.save_seconds
        asked, due_somewhere = self.process_group.agree(self.asked_to_stop or 0, int(due))
        if asked:
            began = time.monotonic()
            self.save()
            raise Preempted(
                f"stopped by {signal.Signals(asked).name} at {self.what}, epoch {self.epoch + 1}, step {self.step};"
                f" saved in {time.monotonic() - began:.2f} s. Continue with run={self.folder} resume=true."
            )
        if due_somewhere:
            self.save()

    def _restore(self, name: str, thing: Stateful, state: dict[str, Any]) -> None:
        if isinstance(thing, torch.optim.Optimizer):
            ours = [group.get("param_names") for group in thing.state_dict()["param_groups"]]
            theirs = [group.get("param_names") for group in state["param_groups"]]
            # torch matches optimiser state by position: momentum would land on another parameter without a word.
            if ours != theirs:
                raise self._unfit(f"holds {name} for other parameters")
        try:
            thing.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise self._unfit(f"does not fit {name} ({reason})") from None

    def _unfit(self, reason: str) -> DamagedError:
        return of_all(DamagedError(f"the checkpoint in {self.folder} {reason}; start anew with run=PATH."))


@contextmanager
def open_run(
    verb: str,
    config: configuration.Experiment,
    launch: configuration.Launch,
    name: str,
    inputs: Mapping[str, str],
    progress: bool = True,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Run]:
    """Makes or reopens a run folder, holds its lock, and writes down how it ended; says how it goes, if `progress` is asked for.

    `inputs` are fingerprints of what else the run depends on (data, genotype), by name; a resume with others is refused.
    Of several processes the first does so, and what it found there is where all of them begin.
    Raises InputError, BusyError, StorageError or DamagedError, each before anything in the folder has changed.
    """
    origin = {"command": verb, **inputs}
    process_group.check_same(
        "the settings or data", [resolve.config_digest(config), origin, rapdarts.__version__, torch.__version__]
    )
    screen = Screen(silent=not (progress and process_group.is_main))
    begin: dict[str, Any] = {}
    with ExitStack() as held:
        with process_group.all_or_none("open the run's folder"):
            if process_group.is_main:
                folder, resumed = held.enter_context(
                    claimed(verb, config, launch, name, origin, process_group.size, screen)
                )
                begin = {"folder": str(folder), "resumed": resumed}
        begin = process_group.broadcast(begin)
        run = Run(
            Path(begin["folder"]), config.seed, config.save_seconds, origin, screen, begin["resumed"], process_group
        )
        held.enter_context(_signals(run))
        if process_group.is_main:
            held.enter_context(_status(run))
        yield run


@contextmanager
def _signals(run: Run) -> Iterator[None]:
    """While a run is open, a signal asks it to save and leave; a second Ctrl-C leaves at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and run.asked_to_stop == signal.SIGINT:
            raise KeyboardInterrupt
        run.asked_to_stop = number

    # What the parent had ignored stays so: nohup means it. What another language handles (None) could not be put back.
    heard = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status(run: Run) -> Iterator[None]:
    """Keeps status.json true: a launcher that swallows exit codes can still read how the run ended."""
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


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    """A state that later steps do not change under us."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def _not_finite(objects: Any, path: str = "") -> str:
    """The dotted name of the first tensor that holds NaN or infinity, or an empty text."""
    if isinstance(objects, Tensor):
        return path if objects.is_floating_point() and not bool(torch.isfinite(objects).all()) else ""
    items = objects.items() if isinstance(objects, Mapping) else enumerate(objects) if isinstance(objects, list) else ()
    return next((broken for name, value in items if (broken := _not_finite(value, f"{path}.{name}".strip(".")))), "")
