"""Free memory, from files in Linux's format, with and without control groups, and on a fake GPU."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from rapdarts.training.memory import free_bytes, free_on_host

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\nHugePages_Total:       0\n"
V2, V1 = "0::/jobs/17\n", "3:cpu:/jobs\n4:memory,x:/jobs/17\n0::/\n"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resource, "getrlimit", lambda of: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write(tmp_path / "proc", {"meminfo": MEMINFO, "self/cgroup": "", "self/status": "Name:\tx y\nVmSize:\t 200 kB\n"})
    return tmp_path / "proc"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def free(proc: Path) -> int | None:
    return free_on_host(proc, proc.parent / "cgroup")


def test_available_memory_of_the_machine(proc: Path) -> None:
    assert free(proc) == 600 * 1024


def test_unknown_memory_is_none(proc: Path) -> None:
    (proc / "meminfo").write_text("MemFree: 100 kB\n")
    assert free(proc) is None
    for file in ("meminfo", "self/cgroup"):
        (proc / file).unlink()
    assert free(proc) is None


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("max", "max", 600 * 1024),
        ("50000", "max", 50_000 - (30_000 - 20_000)),
        ("max", "45000", 45_000 - (40_000 - 10_000)),
        ("50000", "45000", 15_000),
        ("5000", "max", 0),  # over its limit
        ("9999999999", "max", 600 * 1024),
    ],
)
def test_control_groups(proc: Path, inner: str, outer: str, expected: int) -> None:
    """The tightest limit of a group and its parents applies, and the cache of inactive files counts as free."""
    for text in (V2, V1):
        old = text == V1
        root = proc.parent / ("cgroup/memory" if old else "cgroup")
        limit, usage = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        line = "total_inactive_file" if old else "inactive_file"
        write(proc, {"self/cgroup": text})
        no_limit = {"max": "9223372036854771712"} if old else {}
        here = {limit: no_limit.get(inner, inner), usage: "30000", "memory.stat": f"anon 1\n{line} 20000\n"}
        above = {limit: no_limit.get(outer, outer), usage: "40000", "memory.stat": f"{line} 10000\n"}
        write(root / "jobs" / "17", here)
        write(root / "jobs", above)
        assert free(proc) == expected
        (root / "jobs" / "17" / limit).write_text("nonsense")
        assert free(proc) == (600 * 1024 if outer == "max" else 15_000)


def test_an_address_space_limit_applies(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda of: (300 * 1024, 300 * 1024))
    assert free(proc) == (300 - 200) * 1024


def test_free_bytes_of_each_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    here = free_bytes(torch.device("cpu"))
    assert here is None or 0 < here < 2**50
    assert free_bytes(torch.device("meta")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert free_bytes(torch.device("cuda")) == 1000 + 70 - 30
