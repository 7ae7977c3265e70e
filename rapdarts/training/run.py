"""A run: control of a training loop that can be stopped anywhere and resumed with a bit-identical result.

The random numbers of a step are a function of (seed, stage, epoch, step), so a checkpoint holds no generator state: only
the position in the loop, the state of the trained objects, and the sums of the epoch's metrics.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from rapdarts.data.randomness import key
from rapdarts.errors import DamagedError, DivergedError, Preempted, RapdartsError, Stopped, StorageError, of_all
from rapdarts.files import atomic as files
from rapdarts.files import seal
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import Signals, during
from rapdarts.training import checkpoint
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup, in_words
from rapdarts.training.folder import CONFIGURATION
from rapdarts.training.guard import Guard
from rapdarts.training.log import Log, Screen
from rapdarts.training.meter import Meter
from rapdarts.training.packing import not_finite, pack
from rapdarts.training.state import restore

Batch = TypeVar("Batch", covariant=True)
Item = TypeVar("Item")

MOST_FAILURES = 3
"""Saves in a row that may fail, for example because the disk is full, before the run ends."""


class Source(Protocol[Batch]):
    """A source of batches by position: `epoch(e, start)` yields epoch e, of `steps` batches, from step `start` on."""

    @property
    def steps(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class Stateful(Protocol):
    """An object whose state is saved in checkpoints, such as a module or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Run:
    """A run in its folder, created by `session.open_run`; a training loop calls `epochs`, `batches`, `log` and `write`."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        save_seconds: float,
        origin: Mapping[str, str],
        screen: Screen,
        resumed: dict[str, Any] | None,
        process_group: ProcessGroup = SINGLE_PROCESS,
        signals: Signals | None = None,
    ) -> None:
        self.process_group, self.signals = process_group, signals or Signals()
        self.folder, self.seed, self.save_seconds, self.origin = folder, seed, save_seconds, origin
        self.screen = screen
        self.meter = Meter()
        self.stage = self.epoch = self.step = 0
        self.stream = seed, 0
        self.finished: list[dict[str, Any]] = []
        self.objects: Mapping[str, Stateful] = {}
        self.guard: Guard | None = None
        self.failures: list[StorageError] = []  # of the latest saves, since the last one that succeeded
        self.saved_at = self.began = time.monotonic()
        self.opened = self.began - (resumed.get("elapsed", 0.0) if resumed else 0.0)
        self.what, self.steps, self.total = "", 0, 0
        self._resumed = resumed
        self.log_file = Log(folder if process_group.is_main else None, resumed["records"] if resumed else [])
        self.seals: dict[str, str] = dict(resumed.get("files", {})) if resumed else {}

    # --- the loop ------------------------------------------------------------------------------------------------

    def epochs(
        self,
        what: str,
        epochs: int,
        steps: int,
        objects: Mapping[str, Stateful],
        carries: Sequence[str] = (),
        stream: tuple[int, int] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[int]:
        """Yield the remaining epochs of a stage until none is left or `stopped` returns True; call `batches` in each epoch.

        Restores `objects` from a checkpoint that was written in this stage. A stage that is already finished yields no
        epoch, and restores only the objects named in `carries`, which later stages need. The random numbers of a step
        depend on `stream`, a seed and a stage number; the default is the run's seed and the number of stages before this one.
        Raises DivergedError if a Guard among the objects says so.
        """
        self.objects, self.stream = objects, stream or (self.seed, self.stage)
        self.guard = next((thing for thing in objects.values() if isinstance(thing, Guard)), None)
        if self._resumed and self.stage < self._resumed["stage"]:
            for name in carries:
                self._restore(name, objects[name], self._resumed["finished"][self.stage])
            self.finished.append(self._resumed["finished"][self.stage])
            self.stage += 1
            return
        self.epoch = self.step = 0
        spent, begins = 0.0, not (self.stage or self._resumed)
        if self._resumed:
            states = {"guard": {}, **self._resumed["objects"]}  # older versions had no guard
            for name, thing in objects.items():
                self._restore(name, thing, states)
            self.epoch, self.step = self._resumed["epoch"], self._resumed["step"]
            if self.epoch > epochs or self.step > (steps if self.epoch < epochs else 0):
                raise self._unfit(
                    f"is at epoch {self.epoch + 1}, step {self.step}, of {epochs} epochs with {steps} steps"
                )
            self.meter.load_state_dict(self._resumed["meter"])
            spent = self._resumed["seconds"]
            if self.epoch < epochs:
                self.screen.say(f"resuming {what} at epoch {self.epoch + 1}, step {self.step + 1}")
            self._resumed = None
        self.what, self.steps, self.total = what, steps, epochs
        self.process_group.check_same("the numbers of steps and epochs", [steps, epochs])
        if begins:
            self._try_to_save()  # so that there is a state to return to if the first steps fail
        self.screen.start(what, self.epoch * steps + self.step, epochs * steps)
        while self.epoch < epochs and not stopped():
            self.began, spent = time.monotonic() - spent, 0.0
            self.signals.in_steps = True
            yield self.epoch
            self.epoch, self.step, self.meter = self.epoch + 1, 0, Meter()
            self._pause()
        self.screen.stop()
        self._try_to_save()
        self.between_stages()
        self.finished.append({name: _copy(objects[name].state_dict()) for name in carries})
        self.stage += 1

    def remember(self, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of `train`, plain values and tensors, and store it in all later checkpoints.

        `train` runs one stage, and may return before its last epoch if the training diverges. A stage that is already
        finished is not run again.
        """
        stage = self.stage
        if self._resumed and stage < self._resumed["stage"]:
            facts = self._resumed["finished"][stage]
        else:
            facts = train()
            self.screen.stop()
            self.objects, self.guard, self.meter = {}, None, Meter()
            self.between_stages()
        self.stage, self.finished[stage:] = stage + 1, [facts]
        return facts

    def keep(self, what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of `work` as `remember` does, save it at once, and then respond to signals.

        `what` names the work in messages. The work has its own run folder, from which it resumes if it is stopped.
        """
        self.what = what
        facts = self.remember(work)
        if self._resumed is None or self.stage > self._resumed["stage"]:
            self._try_to_save()
        self._pause()
        return facts

    def between_stages(self) -> None:
        """Respond to signals at once until the next step. Everything is saved, or has to be computed again after a failure."""
        self.signals.in_steps = False
        self.signals.answer()

    def pause(self) -> None:
        """Save if a checkpoint is due, and stop if a signal was received; called during long work that does not change the state.

        This is work within `keep`, or after the last step of an epoch. Raises Preempted.
        """
        self._pause("during")

    def watching(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items of long work that does not change the state, such as batches to test; respond to signals in between."""
        for item in items:
            if self.signals.in_steps:
                self.pause()
            else:
                self._stop_if_asked()  # after the last epoch, there is nothing to save
            yield item

    def batches(self, source: Source[Batch]) -> Iterator[Batch]:
        """Yield the remaining batches of the epoch; between batches, the run saves checkpoints and responds to signals."""
        seed, stage = self.stream
        for batch in source.epoch(self.epoch, self.step):
            torch.manual_seed(key(seed, f"stage {stage}", self.epoch, self.step))
            yield batch
            self.step += 1
            self.screen.step()
            if self.guard and (self.step == self.steps or self.step % self.guard.interval == 0):
                self._heed_guard()
            self._pause()

    def log(self, show: Sequence[str] = (), **facts: float) -> None:
        """Record the meter's means and `facts` for the epoch; print those named in `show`.

        Raises DivergedError if a value is not finite.
        """
        numbers = {**self.meter.means(), **facts}
        if self.guard:
            numbers["skipped"] = self.guard.end_epoch()
            show = [*show, *(["skipped"] if numbers["skipped"] else [])]
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value} in epoch {self.epoch + 1}")
        record = {"stage": self.stream[1], "epoch": self.epoch, **numbers}
        self.log_file.append({**record, "seconds": round(time.monotonic() - self.began, 3)})
        shown = [f"{name} {_readable(numbers[name])}" for name in show if name in numbers]
        self.screen.epoch(
            f"{self.what} epoch {self.epoch + 1}/{self.total}  {'  '.join(shown)}", (self.epoch + 1) * self.steps
        )

    def picture(self, name: str, pixels: np.ndarray) -> None:
        """Log an image (h, w, 3) uint8 with the newest record."""
        self.log_file.image(name, pixels)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all epochs so far, in order."""
        return [json.loads(line) for line in self.log_file.lines]

    def seconds(self) -> float:
        """Return the time spent in all epochs, in seconds, including those before the run was resumed."""
        return round(sum(record["seconds"] for record in self.records()), 1)

    # --- the folder ----------------------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the run atomically and return its path; only the first of several processes writes it.

        JSON and YAML files get a seal (rapdarts.files.seal), by which damage is noticed when they are read.
        """
        path = self.folder / name
        content, own = seal.seal_file(name, content)
        if own:
            self.seals[name] = own
        if not self.process_group.is_main:
            return path
        files.make_folders(self.folder, path)
        files.write_atomically(path, content)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def write_result(self, report: Mapping[str, Any]) -> Path:
        """Write result.json with a report, and with the hashes of the run's other files, which are checked when these are read."""
        self.log_file.flush()
        record = hashlib.sha256(self.log_file.text.encode()).hexdigest()
        files = {**self.seals, RunFile.CONFIG: self.origin[CONFIGURATION], RunFile.METRICS: record}
        return self.write_json(RunFile.RESULT, {**report, seal.FILES: files})

    @during("saving the run")
    def save(self) -> None:
        """Write a checkpoint of the current position.

        Raises DivergedError, and keeps the last checkpoint, if a tensor is not finite or the guard stops the run. From a
        checkpoint that was written afterwards, a resumed run could not try the skipped updates again.
        """
        self._heed_guard()
        state = {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "records": self.log_file.lines,
            "files": self.seals,
            "meter": self.meter.state_dict(),
            "seconds": time.monotonic() - self.began if self.step else 0.0,
            "elapsed": time.monotonic() - self.opened,
            "finished": self.finished,
            "objects": {name: thing.state_dict() for name, thing in self.objects.items()},
        }
        packed = pack(state)
        if broken := not_finite(packed, "objects"):
            where = f"epoch {self.epoch + 1}, step {self.step}"
            raise self._diverged(f"{broken} contains values that are not finite at {where}")
        self.process_group.check_same("the weights", state["objects"])
        failure: RapdartsError | None = None
        if self.process_group.is_main:
            try:
                checkpoint.save_packed(self.folder / RunFile.CHECKPOINT, packed, self.origin)
            except RapdartsError as error:
                failure = error
        (failed,) = self.process_group.agree(int(failure is not None), patient=True)
        self.saved_at = time.monotonic()
        if failed:
            raise failure or of_all(StorageError("process 0 could not save; see the error reported there."))
        self.failures = []

    def _try_to_save(self) -> None:
        """Save; if the disk does not allow it, continue, and try again when the next checkpoint is due.

        Raises StorageError after MOST_FAILURES failures in a row.
        """
        try:
            self.save()
        except StorageError as error:
            self.failures.append(error)
            if len(self.failures) >= MOST_FAILURES:
                raise
            self.screen.say(
                f"warning: {error.fact or error} The run continues, keeps its last checkpoint, and tries to save again in"
                f" {self.save_seconds:g} s (failure {len(self.failures)} of {MOST_FAILURES})."
            )

    def check_saved(self) -> None:
        """Raise StorageError if the last checkpoint could not be written. Called when all results are written."""
        if self.failures:
            raise self.failures[-1]

    def _diverged(self, sign: str) -> DivergedError:
        saved = any((self.folder / name).exists() for name in (RunFile.CHECKPOINT, RunFile.CHECKPOINT_BEFORE))
        kept = "; the last checkpoint of this one was written before the divergence" if saved else ""
        sources = self.process_group.sources()
        first = f", first in {in_words(sources)}" if sources else ""
        error = DivergedError(f"{sign}{first}: the training diverged. Lower the learning rate in a new run{kept}.")
        if self.process_group.rank in sources:
            error.whose = "process"
        return error

    def _heed_guard(self) -> None:
        """Report skipped updates. Raises DivergedError if there were too many in a row."""
        if self.guard is None:
            return
        sentences, stop = self.guard.news()
        where = f"epoch {self.epoch + 1}, step {self.step}"
        for sentence in sentences:
            self.screen.say(f"{self.what}, {where}: {sentence}")
        if stop:
            raise self._diverged(f"{self.guard.reason} at {self.what}, {where}")

    def _pause(self, when: str = "after") -> None:
        """Save if a checkpoint is due, and stop if any process received a signal. Called between two steps.

        `when` relates the current position to the work that is named in messages, if it has no epochs.
        """
        due = self.process_group.is_main and time.monotonic() - self.saved_at >= self.save_seconds
        asked, due_somewhere = self.process_group.agree(self.signals.asked or 0, int(due))
        if asked:
            began = time.monotonic()
            self.save()
            where = f"at {self.what}, epoch {self.epoch + 1}, step {self.step}" if self.total else f"{when} {self.what}"
            raise Preempted(
                f"stopped by {signal.Signals(asked).name} {where}; saved in {time.monotonic() - began:.2f} s.",
                str(self.folder),
            )
        if due_somewhere:
            self._try_to_save()

    def _stop_if_asked(self) -> None:
        """Stop if any process received a signal, without saving."""
        (asked,) = self.process_group.agree(self.signals.asked or 0)
        if asked:
            raise self.stopped(Stopped(asked))

    def stopped(self, stop: Stopped) -> Preempted:
        """Return the error for a signal that arrived between two stages, or after the last one."""
        where = "" if stop.task or self.total or not self.what else f" during {self.what}"
        return Preempted(f"{stop}{where}; everything saved so far is kept.", str(self.folder))

    def _restore(self, name: str, thing: Stateful, states: Mapping[str, Any]) -> None:
        try:
            restore(name, thing, states)
        except ValueError as error:
            raise self._unfit(str(error)) from None

    def _unfit(self, reason: str) -> DamagedError:
        return of_all(
            DamagedError(f"the checkpoint in {self.folder} {reason}; start a new run in another folder with run=PATH.")
        )


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a state so that later steps do not change it."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
