"""The families of kernels that a device may use: those whose results agree with torch's when they first run on the device.

The check of a family runs once for each arithmetic (`kernels.checks`). A family that passes is remembered in the cache folder
and not checked again, as long as the device and the versions stay the same. A family that fails is checked again by the next
process, because the reason may be a compiler, a driver or a full disk.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rapdarts.config.experiment import SearchConfig
from rapdarts.errors import DeviceError, InputError, StorageError, first_line, ran_out_of_memory, shorten
from rapdarts.files.atomic import write_atomically
from rapdarts.files.json import strict_loads
from rapdarts.files.regular import read_bytes
from rapdarts.networks.batched.bundles import has_triton
from rapdarts.networks.batched.layout import FAMILIES
from rapdarts.version import __version__

OLDEST = (7, 0)
"""Lowest compute capability for which Triton compiles kernels."""

FORMAT = "rapdarts-kernels-1"

MOST_BYTES = 1_000_000
"""Largest size of the file that remembers the checks; a larger one is not ours."""


@dataclass(frozen=True)
class KernelUse:
    """The families of kernels that a batched supernet uses, and lines that tell the user which it does not use, and why."""

    families: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()


def kernels_for(settings: SearchConfig, device: torch.device) -> KernelUse:
    """Return the families of kernels for the supernet of a search on a device, after checking those that were never used on it.

    Raises DeviceError if the settings ask for Triton, but a family cannot be used.
    """
    if settings.kernels == "torch" or settings.supernet == "plain" or device.type == "meta":
        return KernelUse()
    failed, problem = FAMILIES, refusal(device)
    if problem and device.type != "cuda" and settings.kernels == "auto":
        return KernelUse()  # nobody expects kernels without a GPU
    if not problem:
        dtypes = (torch.float32, torch.bfloat16) if settings.amp == "bf16" else (torch.float32,)
        checked = [failures(device, dtype, arithmetic_of(dtype)) for dtype in dtypes]
        reasons = {family: why for one in checked for family, why in one.items()}
        failed = frozenset(reasons)
        listed = ", ".join(f"{family} ({why})" for family, why in sorted(reasons.items()))
        problem = f"these kernels fail their check on this GPU: {listed}" if failed else ""
    if problem and settings.kernels == "triton":
        raise DeviceError(f"search.kernels=triton, but {problem}; set search.kernels=auto to use torch's operations.")
    return KernelUse(FAMILIES - failed, (f"{problem}; torch's operations replace them",) if problem else ())


def refusal(device: torch.device) -> str:
    """Return why no kernel can run on a device, or an empty string."""
    if device.type != "cuda":
        return f"the Triton kernels need a GPU, not {device}"
    if torch.version.hip:
        return "the Triton kernels were written for CUDA, and this GPU uses ROCm"
    if not has_triton():
        return "the Triton kernels need Triton, which is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return "the Triton kernels need compute capability {}.{}, and this GPU has {}.{}".format(*OLDEST, *capability)
    return ""


def arithmetic_of(dtype: torch.dtype) -> str:
    """Return the name of the arithmetic in which numbers of a type are multiplied now, such as tf32; a program can change it."""
    return "tf32" if dtype == torch.float32 and torch.backends.cudnn.allow_tf32 else str(dtype).split(".")[1]


@cache
def failures(device: torch.device, dtype: torch.dtype, arithmetic: str) -> dict[str, str]:
    """Return the families that fail their check in an arithmetic, each with the reason; checks only those not remembered."""
    from rapdarts.networks.batched.kernels import checks

    key, memory = _identity(device), _remembered()
    passed = set(memory.get(key, []))
    failed: dict[str, str] = {}
    for family in sorted(FAMILIES):
        if f"{family} {arithmetic}" in passed:
            continue
        try:
            why = checks.disagreement(family, device, dtype)
        except Exception as error:
            if ran_out_of_memory(error):
                raise  # says nothing about the kernel
            why = shorten(first_line(error, type(error).__name__))
        if why:
            failed[family] = f"{arithmetic}, {why}"
        else:
            passed.add(f"{family} {arithmetic}")
    if passed != set(memory.get(key, [])):
        _remember({**memory, key: sorted(passed)})
    return failed


def _identity(device: torch.device) -> str:
    """Return everything that a check depends on: the device, the versions, and the code of the kernels."""
    import triton

    sources = sorted(Path(__file__).with_name("kernels").glob("*.py"))
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    major, minor = torch.cuda.get_device_capability(device)
    versions = f"torch {torch.__version__}, triton {triton.__version__}, rapdarts {__version__}"
    return f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}, {versions}, kernels {code}"


def _file() -> Path:
    import pooch

    return Path(pooch.os_cache("rapdarts")) / "kernels.json"


def _remembered() -> dict[str, list[str]]:
    """Return the checks that were passed, by device; nothing if the file is missing, damaged or not ours."""
    try:
        tree: Any = strict_loads(read_bytes(_file(), most=MOST_BYTES).decode())
    except (InputError, ValueError):
        return {}
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or not isinstance(tree.get("passed"), dict):
        return {}
    return {key: names for key, names in tree["passed"].items() if isinstance(names, list)}


def _remember(passed: dict[str, list[str]]) -> None:
    """Write the checks that were passed. If the cache folder cannot be written, the next process checks again."""
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"format": FORMAT, "passed": passed}, indent=2) + "\n")
    except (OSError, StorageError):
        pass
