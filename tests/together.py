"""Distributed jobs for tests. Processes are forked from a server that has already imported everything, which saves seconds per process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["rapdarts.cli.main", "rapdarts.loops.retrain", "torch.utils.tensorboard", "tests.together"]
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Job:
    """Processes that run `program(*arguments)` in the environment that torchrun sets on one machine."""

    def __init__(self, folder: Path, program: Callable[..., Any], *arguments: Any, processes: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        self.outputs = [folder / f"stderr-{processes}-{rank}" for rank in range(processes)]
        self.processes: list[BaseProcess] = [
            SERVER.Process(target=_begin, args=(program, arguments, {**names, **_places(rank)}, output))
            for rank, output in enumerate(self.outputs)
        ]
        for process in self.processes:
            process.start()

    def end(self) -> tuple[list[int | None], list[str]]:
        """Wait for all processes and return their exit codes and their output to stderr."""
        for process in self.processes:
            process.join(120)
        return [process.exitcode for process in self.processes], [output.read_text() for output in self.outputs]


def _places(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _begin(program: Callable[..., Any], arguments: tuple[Any, ...], names: dict[str, str], output: Path) -> None:
    os.environ.update(names)
    for stream, target in ((1, os.devnull), (2, output)):
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT), stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    code = program(*arguments)
    sys.stderr.flush()
    sys.exit(code)


# --- programs ----------------------------------------------------------------------------------------------------


def command(*words: str) -> int:
    """Run a command line."""
    from rapdarts.cli.main import main

    return main(words)


def in_float64(*words: str) -> int:
    """Run a command line with images and weights, and therefore losses, in float64."""
    from rapdarts.data import augment

    single: Any = augment.normalise
    augment.normalise = lambda *given: single(*given).double()  # type: ignore[assignment]
    torch.set_default_dtype(torch.float64)
    return command(*words)


def compiled_in_float64(*words: str) -> int:
    """Run a command line in float64 with the network traced as by torch.compile, but without generated code."""
    torch.compile = torch._dynamo.optimize("eager")  # type: ignore[assignment]
    return in_float64(*words)


def not_a_number(batches: str, *words: str) -> int:
    """Run a command line in which some batches of the second process, one after the other, consist of NaNs."""
    from rapdarts.data import augment

    calls: list[int] = []
    normalise: Any = augment.normalise

    def damaged(*given: Any) -> torch.Tensor:
        calls.append(1)
        return normalise(*given) * (
            float("nan") if os.environ["RANK"] == "1" and 0 <= len(calls) - 8 < int(batches) else 1
        )

    augment.normalise = damaged
    return command(*words)


def impatient(program: Callable[..., int], *words: str) -> int:
    """Run a program in which a process waits only 4 s for the others."""
    from datetime import timedelta

    from rapdarts.training import distributed

    distributed.TIMEOUT = timedelta(seconds=4)
    return program(*words)


def fewer_steps(*words: str) -> int:
    """Run a command line in which the second process has only one step per epoch."""
    from rapdarts.data.batches import Batches

    if os.environ["RANK"] == "1":
        Batches.steps = 1  # type: ignore[assignment, method-assign]
    return command(*words)


def leaves_early(*words: str) -> int:
    """Run a command line in which the second process leaves the loop over the first epoch after two steps."""
    from rapdarts.training.run import Run

    batches = Run.batches

    def fewer(run: Run, source: Any) -> Any:
        for step, batch in enumerate(batches(run, source)):
            if step == 2:
                return
            yield batch

    if os.environ["RANK"] == "1":
        Run.batches = fewer  # type: ignore[method-assign]
    return command(*words)


def never_comes(*words: str) -> int:
    """Run a command line in the first process only."""
    return 0 if os.environ["RANK"] == "1" else command(*words)


def stopped_while_reading(*words: str) -> int:
    """Run a command line in which the second process receives SIGTERM while it reads its data."""
    return before_reading("1", lambda: os.kill(os.getpid(), signal.SIGTERM), *words)


def suspended_while_reading(rank: str, *words: str) -> int:
    """Run a command line in which one process is suspended while it reads its data."""
    return before_reading(rank, lambda: os.kill(os.getpid(), signal.SIGSTOP), *words)


def slow_disk(*words: str) -> int:
    """Run a command line in which the first checkpoint takes six seconds to write."""
    from rapdarts.training import checkpoint

    save = checkpoint.save_checkpoint

    def slowly(*given: Any) -> None:
        time.sleep(6)
        checkpoint.save_checkpoint = save
        save(*given)

    checkpoint.save_checkpoint = slowly
    return command(*words)


def before_reading(rank: str, act: Callable[[], None], *words: str) -> int:
    """Run a command line in which one process does something before it reads its data."""
    from rapdarts.loops import launch

    read: Any = launch.load_dataset

    def reading(*given: Any) -> Any:
        act()
        return read(*given)

    if os.environ["RANK"] == rank:
        launch.load_dataset = reading
    return command(*words)


def lacks_data(*words: str) -> int:
    """Run a command line whose data are missing."""
    from rapdarts.errors import InputError
    from rapdarts.loops import launch

    def missing(*given: Any) -> Any:
        raise InputError("no data here.")

    launch.load_dataset = missing
    return command(*words)


def seed_by_rank(*words: str) -> int:
    """Run a command line with a different seed in each process."""
    return command(*words, f"seed={os.environ['RANK']}")


def other_data(path: str, *words: str) -> int:
    """Run a command line on the data file at `path`, formatted with the rank of the process."""
    return command(*words, "data.name=npz", f"data.path={path.format(os.environ['RANK'])}")


def on_machines_of_its_own(*words: str) -> int:
    """Run a command line as if each process had its own machine; the genotype is missing on the second machine."""
    os.environ["LOCAL_RANK"] = "0"
    return command(*words) if os.environ["RANK"] == "0" else command(words[0], "missing.json", *words[2:])


def norms(path: str) -> None:
    """Save gradients through two batch norms for 7 images, and for a single image, when the second process of two has none."""
    from torch import nn

    from rapdarts.training.distributed import joined
    from rapdarts.training.joint_norms import join_batch_norms

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4, momentum=None)
    ).double()
    found = []
    with joined("cpu") as process_group:
        if process_group.size > 1:
            join_batch_norms(network, process_group)
        for size in (7, 1):
            images = 3 * torch.randn(size, 3, 8, 8, dtype=torch.float64) + 5
            mine = images[process_group.rank :: process_group.size].clone().requires_grad_()
            (network(mine) ** 3).sum().backward()
            gradients = [weight.grad for weight in network.parameters()]
            process_group.all_reduce(gradients)
            found.append([mine.grad, *(gradient.clone() for gradient in gradients if gradient is not None)])
            network.zero_grad()
        torch.save([found, network.state_dict()], f"{path}{process_group.size}{process_group.rank}")


def slow_loading(path: str, slow: int) -> None:
    """Check that process `slow` may load for longer than the timeout of a step, and that the other processes wait for the leader."""
    from datetime import timedelta

    from rapdarts.training import distributed

    distributed.TIMEOUT = timedelta(seconds=1)
    with distributed.joined("cpu") as process_group:
        with process_group.leader_first("wait"):
            if process_group.rank == slow:
                time.sleep(2.5)
            if process_group.is_main:
                Path(path).touch()
            assert Path(path).exists()
        assert process_group.agree(process_group.rank, 3 - process_group.rank) == [1, 3]
        state = {"word": "one", "number": torch.ones(2)} if process_group.is_main else None
        assert process_group.broadcast(state)["number"].tolist() == [1, 1]
