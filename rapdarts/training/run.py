"""A run: the control of a training loop that can be stopped anywhere and resumed bit for bit.

The random numbers of a step are a function of (seed, stage, epoch, step), so a checkpoint holds no generator: only the
position in the loop, the state of what is trained, and the sums of the epoch's metrics.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from rapdarts.data.randomness import key
from rapdarts.errors import DamagedError, DivergedError, Preempted, RapdartsError, StorageError, of_all
from rapdarts.files import atomic as files
from rapdarts.files.run_files import RunFile
from rapdarts.training import checkpoint
from rapdarts.training.distributed import SINGLE_PROCESS, ProcessGroup
from rapdarts.training.log import Log, Screen
from rapdarts.training.meter import Meter

Batch = TypeVar("Batch", covariant=True)


class Source(Protocol[Batch]):
    """Batches by position: `epoch(e, start)` yields those of epoch e from step `start` on; an epoch has `steps`."""

    @property
    def steps(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class Stateful(Protocol):
    """A module or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Run:
    """One search or retraining in its folder. `session.open_run` makes it; then use `epochs`, `batches`, `log` and `write`."""

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
        self.stream = seed, 0
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
        self,
        what: str,
        epochs: int,
        steps: int,
        objects: Mapping[str, Stateful],
        carries: Sequence[str] = (),
        stream: tuple[int, int] | None = None,
    ) -> Iterator[int]:
        """Yield the epochs of one stage that are still to be done, each to be filled with `batches`.

        Restores `objects` from a checkpoint in this stage. A stage that was finished before yields no epoch: only the
        objects named in `carries` are restored, which outlive it. The random numbers of a step are drawn from
        `stream`, a seed and a number of its stage; by default the run's seed, and the stages of the run are counted.
        """
        self.objects, self.stream = objects, stream or (self.seed, self.stage)
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
        """Return what `train` returns, plain values and tensors, and keep it in the checkpoints that follow.

        `train` is a whole stage; one that was finished before is not run again. It may give up in the middle of its epochs.
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
        """Yield the epoch's batches that are still to be done; between two of them the run saves and answers signals."""
        seed, stage = self.stream
        for batch in source.epoch(self.epoch, self.step):
            torch.manual_seed(key(seed, f"stage {stage}", self.epoch, self.step))
            yield batch
            self.step += 1
            self.screen.step()
            self._pause()

    def log(self, show: Sequence[str] = (), **facts: float) -> None:
        """Record the epoch: the meter's means and `facts`; print those named in `show`. Raises DivergedError if one is not finite."""
        numbers = {**self.meter.means(), **facts}
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
        """Log a picture (h, w, 3) uint8 with the newest record."""
        self.log_file.image(name, pixels)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all epochs so far, oldest first."""
        return [json.loads(line) for line in self.log_file.path.read_text(encoding="utf-8").splitlines()]

    def seconds(self) -> float:
        """Return the time spent in all epochs, those before a resume included."""
        return round(sum(record["seconds"] for record in self.records()), 1)

    # --- the folder ----------------------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the run, whole or not at all; of several processes, only the first does."""
        path = self.folder / name
        if not self.process_group.is_main:
            return path
        try:
            path.parent.mkdir(exist_ok=True, parents=True)
        except OSError as error:
            raise files.storage_error(path, error) from None
        files.write_atomically(path, content)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def save(self) -> None:
        """Write a checkpoint of the present position. Raises DivergedError, keeping the last one, if a tensor is not finite."""
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
        kept = "; the last checkpoint was written before it" if saved else ""
        return DivergedError(f"{sign}: the training diverged. Lower the learning rate{kept}.")

    def _pause(self) -> None:
        """Between two steps: save if it is time, and stop if a signal came to any process."""
        due = self.process_group.is_main and time.monotonic() - self.saved_at >= self.save_seconds
        asked, due_somewhere = self.process_group.agree(self.asked_to_stop or 0, int(due))
        if asked:
            began = time.monotonic()
            self.save()
            raise Preempted(
                f"stopped by {signal.Signals(asked).name} at {self.what}, epoch {self.epoch + 1}, step {self.step};"
                f" saved in {time.monotonic() - began:.2f} s.",
                str(self.folder),
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


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of a state, which later steps do not change."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def _not_finite(objects: Any, path: str = "") -> str:
    """The dotted name of the first tensor that holds NaN or infinity, or an empty text."""
    if isinstance(objects, Tensor):
        return path if objects.is_floating_point() and not bool(torch.isfinite(objects).all()) else ""
    items = objects.items() if isinstance(objects, Mapping) else enumerate(objects) if isinstance(objects, list) else ()
    return next((broken for name, value in items if (broken := _not_finite(value, f"{path}.{name}".strip(".")))), "")
