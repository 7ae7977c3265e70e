"""Hashes of results, compared with hashes recorded on a machine that computes the same bits."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

Machine = tuple[str, str, str]
"""Properties that determine the bits of a CPU computation: the instruction set that torch uses, the CPU vendor, torch's version."""


def this_machine() -> Machine:
    """Return the properties of the machine that runs the tests."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^vendor_id\s*:\s*(\S+)", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    vendor = found.group(1) if found else platform.machine()
    return torch.backends.cpu.get_cpu_capability(), vendor, torch.__version__


def recorded(record: Mapping[Machine, Mapping[str, str]]) -> Mapping[str, str]:
    """Return the hashes recorded on a machine like this one; skip the test if there are none."""
    if this_machine() not in record:
        pytest.skip(f"no hashes are recorded for {', '.join(this_machine())}")
    return record[this_machine()]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a JSON or ONNX file without its seal, as files were when the hashes were recorded."""
    content = re.sub(rb'\n *"sha256": "[0-9a-f]{64}",', b"", path.read_bytes(), count=1)
    content = re.sub(rb"\x72\x4a\n\x06sha256\x12@[0-9a-f]{64}", b"", content, count=1)
    return hashlib.sha256(content).hexdigest()


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of the tensors in a .safetensors file: names, types, shapes and values, without metadata."""
    total = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
