"""Memory that a device has left for this process."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

UNKNOWN = (OSError, ValueError, KeyError)
"""Errors of a file that is missing, that holds a word such as `max` instead of a number, or that has no such line."""


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes of a device's memory that this process can still take; None where that is not known."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return free_on_host() if device.type == "cpu" else None


def free_on_host(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the least of the memory that the machine, the process' control groups and its limit on address space leave."""
    found = []
    with suppress(*UNKNOWN):
        found.append(1024 * _numbers(proc / "meminfo")["MemAvailable"])
    for folder, limit, usage, cache in _memory_groups(proc, groups):
        with suppress(*UNKNOWN):
            # An inactive cache is reclaimed where memory is short.
            used = int((folder / usage).read_text()) - _numbers(folder / "memory.stat")[cache]
            found.append(int((folder / limit).read_text()) - used)
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        with suppress(*UNKNOWN):
            found.append(most - 1024 * _numbers(proc / "self" / "status")["VmSize"])
    return max(0, min(found)) if found else None


def _memory_groups(proc: Path, groups: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield the control groups of the process, innermost first (cgroups(7)): folder, and the names of limit, usage and cache in it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = groups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = root / path.strip("/")
        for folder in (inner, *inner.parents[: len(inner.parts) - len(root.parts)]):
            yield folder, *names


def _numbers(file: Path) -> dict[str, int]:
    """Return the number that is the second word of each line, by the first word."""
    lines = [line.replace(":", " ").split() for line in file.read_text().splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
