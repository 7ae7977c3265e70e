"""A short training, and one that runs out of space, as a program for tests.together."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from rapdarts.cli.main import _report
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.training.session import open_run


class Numbers:
    """A source of two batches per epoch."""

    steps = 2

    def epoch(self, epoch: int, start: int = 0) -> Iterator[int]:
        return iter(range(start, self.steps))


EPOCHS = 6

Number = Callable[[int, int], None]
"""A function of an epoch and a step."""


def train(folder: Path, resume: bool = False, after_step: Number = lambda epoch, step: None) -> int:
    """Train for EPOCHS epochs, in which every step adds 1 to all weights, and save after every step. Returns the exit code."""
    try:
        launch = Launch(run=str(folder), resume=resume)
        with open_run("test", Experiment(save_seconds=0), launch, "test", {}) as run:
            weights = torch.nn.Parameter(torch.zeros(20_000))
            things: Any = {"things": torch.nn.ParameterDict({"weights": weights})}
            for epoch in run.epochs("training", EPOCHS, Numbers.steps, things):
                for step in run.batches(Numbers()):
                    with torch.no_grad():
                        weights += 1
                    run.meter.add("loss", torch.tensor(1.0), 1)
                    after_step(epoch, step)
                run.log(("loss",))
            run.write("weights", weights.detach().numpy().tobytes()[:10_000])
            run.write_result({"seconds": run.seconds()})
    except Exception as error:
        return _report(error, [])
    return 0


def train_on_a_full_disk(folder: Path, filler: Path, how: str, ends: bool) -> int:
    """Train. Before the save after step 0 of epoch 2, space runs out; if it `ends`, it is back one step later.

    The `filler` fills the disk, or, if `how` is "limit", the largest size of a file is lowered. Returns the exit code.
    """
    readers: list[IO[bytes]] = []

    def after_step(epoch: int, step: int) -> None:
        if (epoch, step) == (2, 0):
            _fill(folder, filler, how, readers)
        if (epoch, step) == (2, 1) and ends:
            _free(filler, how, readers)

    return train(folder, after_step=after_step)


def _fill(folder: Path, filler: Path, how: str, readers: list[IO[bytes]]) -> None:
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        return
    # As long as somebody reads it, the blocks of the previous checkpoint are not free when it is replaced.
    readers.append(open(folder / "checkpoint.previous", "rb"))  # noqa: SIM115
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _free(filler: Path, how: str, readers: list[IO[bytes]]) -> None:
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    readers.pop().close()
    filler.unlink()
