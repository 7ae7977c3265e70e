"""Training one network in several processes: each computes its share of every batch, and all take the same step.

Gradients are summed by one all-reduce per step, after the backward pass, so that the code of a step is the same for one
process and for several. Batch norms use the statistics of the whole batch or of each process's share. Decisions (to stop,
to save) use a separate process group on the CPU, so that they do not synchronise with a GPU.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rapdarts.errors import (
    DeviceError,
    InputError,
    RapdartsError,
    Stopped,
    exit_code,
    first_line,
    kind_of,
    of_all,
)
from rapdarts.training.pulse import Pulse

TIMEOUT = timedelta(seconds=20)
"""Time a process waits for the others, to connect and within a step, before it considers them lost."""

PATIENCE = timedelta(hours=12)
"""Time a process waits for the others while they read or download data, as long as they show signs of life."""


@dataclass(frozen=True, eq=False)
class ProcessGroup:
    """The `size` processes of a job, of which this one is number `rank`; a single process does not communicate.

    All processes must call every method, in the same order. Raises DeviceError if another process is lost.
    """

    rank: int = 0
    size: int = 1
    control: Any = None  # the group for decisions
    patient: Any = None  # the group with the long timeout
    pulse: Pulse | None = None  # the signs of life of all processes
    source: Source = field(default_factory=lambda: Source())

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and messages."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor | None]) -> None:
        """Replace each tensor (any shape) by its sum over the processes, in one message.

        A tensor that is None in one process must be None in all.
        """
        present = [tensor for tensor in tensors if tensor is not None]
        if self.size == 1 or not present:
            return
        flat = torch.cat([tensor.flatten() for tensor in present])
        self.source.end_step(flat)
        with self._communication():
            dist.all_reduce(flat)
        # In place, because a fused optimiser relies on gradients in the memory layout of the weights.
        sums = flat.split([tensor.numel() for tensor in present])
        torch._foreach_copy_(present, [total.view(tensor.shape) for total, tensor in zip(sums, present, strict=True)])

    def gather(self, row: Tensor) -> Tensor:
        """Return the rows (k,) of all processes as one tensor (size, k)."""
        rows = row.new_zeros(self.size, len(row))
        rows[self.rank] = row
        if self.size > 1:
            self.source.note(row)
            with self._communication():
                dist.all_reduce(rows)
        return rows

    def agree(self, *numbers: int, patient: bool = False) -> list[int]:
        """Return the maximum of each number over the processes; `patient` allows the others as long as they live, up to PATIENCE."""
        if self.size == 1:
            return list(numbers)
        largest = torch.tensor(numbers)
        with self._communication():
            if patient:
                self._wait_for(dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.patient, async_op=True))
            else:
                dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control)
        return largest.tolist()

    def broadcast(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the first process's `state`, plain values and tensors, in every process."""
        if self.size == 1:
            return dict(state or {})
        buffer = io.BytesIO()
        torch.save(dict(state or {}), buffer)
        content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        length = torch.tensor([len(content)])
        with self._communication():
            dist.broadcast(length, 0, group=self.control)
            content = content if self.is_main else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self.control)
        return dict(torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True))

    def check_same(self, what: str, value: Any, kind: type[RapdartsError] = RapdartsError) -> None:
        """Raise an error of this kind, naming the processes, if their `value` (strings, numbers, tensors in lists and mappings) differs."""
        if self.size == 1:
            return
        hashed = hashlib.sha256()
        _digest(value, hashed)
        number = int.from_bytes(hashed.digest()[:7], "big")
        numbers = torch.zeros(self.size, dtype=torch.int64)
        numbers[self.rank] = number
        with self._communication():
            dist.all_reduce(numbers, group=self.control)
        others = [rank for rank, other in enumerate(numbers.tolist()) if other != numbers[0]]
        if others:
            raise of_all(
                kind(
                    f"{what} of {in_words(others)} differ from those of process 0; start all processes"
                    " with the same command, program and data, on machines of the same kind."
                )
            )

    def sources(self) -> list[int]:
        """Return the processes whose values were the first that were not finite; empty for a single process, or if there are none.

        In the steps that follow, the values of all processes are not finite.
        """
        if self.size == 1:
            return []
        places = torch.zeros(self.size, dtype=torch.int64)
        places[self.rank] = int(self.source.first)
        with self._communication():
            dist.all_reduce(places, group=self.control)
        earliest = int(places.min())
        return [] if earliest == NEVER else [rank for rank, place in enumerate(places.tolist()) if place == earliest]

    @contextmanager
    def leader_first(self, task: str) -> Iterator[None]:
        """Run the body in the first process before the others, so that data are downloaded only once; then wait for all.

        Raises RapdartsError if the `task` failed in another process, which reports its own error.
        """
        if not self.is_main:
            self._all_well(task)
        # The first process answers twice: first to let the others begin, then to wait for the slowest.
        with self.all_or_none(task, answers=2 if self.is_main else 1):
            yield

    @contextmanager
    def all_or_none(self, task: str, answers: int = 1) -> Iterator[None]:
        """Run the body, then raise an error with the same exit code, naming the processes, if the `task` failed only in others.

        Raises Stopped if a signal stopped it there.
        """
        try:
            yield
        except (Exception, Stopped) as error:
            self._all_well(task, failed=-error.number if isinstance(error, Stopped) else exit_code(error))
            raise
        for _ in range(answers):
            self._all_well(task)

    def _all_well(self, task: str, failed: int = 0) -> None:
        """Raise an error if other processes failed and this one did not; wait for them as long as they live, up to PATIENCE.

        `failed` is the exit code of the error in this process, or minus the number of the signal that stopped it.
        """
        if self.size == 1:
            return
        flags = torch.zeros(self.size, dtype=torch.int64)
        flags[self.rank] = failed
        with self._communication():
            self._wait_for(dist.all_reduce(flags, group=self.patient, async_op=True))
        others = [rank for rank, flag in enumerate(flags.tolist()) if flag]
        if others and not failed:
            if int(flags.min()) < 0:
                raise Stopped(-int(flags.min()))
            raise of_all(
                kind_of(int(flags.max()))(f"{in_words(others)} could not {task}; see the error reported there.")
            )

    def _wait_for(self, answers: Any) -> None:
        """Wait until all processes have answered. Raises DeviceError if one of them shows no sign of life any more."""
        silent = self.pulse.silent_until(answers.is_completed) if self.pulse else []
        if silent:
            raise self._lost(silent)
        answers.wait()

    @contextmanager
    def _communication(self) -> Iterator[None]:
        """Raise DeviceError, naming the lost processes, if communication fails in the body."""
        try:
            yield
        except RuntimeError:
            time.sleep(1)  # gives the system time to detect every broken connection
            others = [rank for rank in range(self.size) if rank != self.rank]
            raise self._lost([rank for rank in others if not self._is_connected(rank)]) from None

    def _lost(self, ranks: Sequence[int]) -> DeviceError:
        who, were = in_words(ranks) if ranks else "another process", "were" if len(ranks) > 1 else "was"
        return DeviceError(
            f"{who} of the {self.size} in this job {were} lost, or did not answer for {TIMEOUT.seconds} s. Start the job"
            " again with the same command, and add resume=true if there is a checkpoint."
        )

    def _is_connected(self, rank: int) -> bool:
        """Return whether the connection to a process is intact."""
        try:
            dist.irecv(torch.zeros(1), rank, group=self.control)  # nothing is ever sent, and no code waits for it
            return True
        except RuntimeError:
            return False


NEVER = 2**62
"""A place that no message ever reaches."""


class Source:
    """The place in the messages of this process at which its own values stopped being finite.

    All processes send the same messages, so they can compare the places. `note` is called with the values (k,) of each message
    of a step, and `end_step` with those of the last one. They do not synchronise with the device.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.sent = 0
        self.first = torch.tensor(NEVER)

    def note(self, row: Tensor) -> None:
        self.rows.append(row.detach())

    @torch.no_grad()
    def end_step(self, row: Tensor) -> None:
        bad = ~torch.cat([*(torch.isfinite(own) for own in self.rows), torch.isfinite(row).all()[None]])
        place = torch.where(bad.any(), self.sent + bad.to(torch.int64).argmax(), NEVER)
        # A step with finite values shows that the earlier ones did no harm, because they were skipped.
        self.first = torch.where(place == NEVER, NEVER, torch.minimum(self.first.to(place.device), place))
        self.sent += len(bad)
        self.rows.clear()


def in_words(ranks: Sequence[int]) -> str:
    """Return processes in words: process 1, or processes 1, 3."""
    return f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def joined(device: str) -> Iterator[ProcessGroup]:
    """Yield the group of processes that torchrun started together with this one; without torchrun, this process alone.

    On GPUs, each process takes one GPU, which becomes torch's current device. Raises InputError for a device that the
    processes cannot share, and DeviceError if there are too few GPUs or the processes cannot connect.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    if device.startswith("cuda:"):
        raise InputError(
            f"device={device} is one GPU, but there are {size} processes; use device=cuda to give each process its own GPU."
        )
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if gpu:
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"this machine runs more processes of this job than it has GPUs ({torch.cuda.device_count()}); start one process"
                " per GPU, or add device=cpu."
            )
        torch.cuda.set_device(local)
        # If a GPU waits for a lost process, torch ends this process after TIMEOUT plus four times this time for debug dumps.
        os.environ.setdefault("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "1000")
    try:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=TIMEOUT)
        control, patient = (dist.new_group(backend="gloo", timeout=timeout) for timeout in (TIMEOUT, PATIENCE))
        pulse = Pulse(rank, size, TIMEOUT)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        first = first_line(error)[:200]
        raise DeviceError(
            f"the {size} processes of this job could not connect at {where} ({first}); start all of them with torchrun."
        ) from None
    try:
        yield ProcessGroup(rank, size, control, patient, pulse)
    except RapdartsError as error:
        # Errors that all processes raise are marked by of_all; other errors may be raised in this process only.
        if error.whose == "machine":
            error.whose = "process"
        raise
    pulse.stop()
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


def _digest(value: Any, hashed: Any) -> None:
    """Update a hash with plain values and the raw bytes of tensors, in order."""
    if isinstance(value, Tensor):
        hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        _digest(list(value.items()), hashed)
    elif isinstance(value, (list, tuple)):
        hashed.update(f"[{len(value)}]".encode())
        for item in value:
            _digest(item, hashed)
    else:
        hashed.update(repr(value).encode())
