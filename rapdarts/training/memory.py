"""Device memory that is still available to this process."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

UNKNOWN = (OSError, ValueError, KeyError)
"""Errors raised for a file that is missing, contains a word such as `max` instead of a number, or lacks the expected line."""


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes of a device's memory that this process can still allocate; None if unknown."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return free_on_host() if device.type == "cpu" else None


def free_on_host(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the free bytes of main memory; None if unknown.

    The result is the smallest of the machine's available memory, the unused memory of the process's control groups, and the unused
    address space below its limit.
    """
    found = []
    with suppress(*UNKNOWN):
        found.append(1024 * _numbers(proc / "meminfo")["MemAvailable"])
    for folder, limit, usage, cache in _memory_groups(proc, groups):
        with suppress(*UNKNOWN):
            # The kernel reclaims inactive page cache when memory is short.
            used = int((folder / usage).read_text()) - _numbers(folder / "memory.stat")[cache]
            found.append(int((folder / limit).read_text()) - used)
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        with suppress(*UNKNOWN):
            found.append(most - 1024 * _numbers(proc / "self" / "status")["VmSize"])
    return max(0, min(found)) if found else None


def _memory_groups(proc: Path, groups: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield the control groups of the process, innermost first (cgroups(7)).

    Each item has the folder of the group, the names of its limit and usage files, and the key of the inactive cache in memory.stat.
    """
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
    """Return a mapping from the first word of each line to its second, for lines whose second word is a number."""
    lines = [line.replace(":", " ").split() for line in file.read_text().splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
