"""Kernels that fail their check are replaced by torch's operations; passed checks are remembered for a device and its versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rapdarts
from rapdarts.architecture.space import SearchSpace
from rapdarts.cli.main import main
from rapdarts.config.experiment import SearchConfig
from rapdarts.errors import DeviceError
from rapdarts.networks.batched import verified
from rapdarts.networks.batched.layout import FAMILIES
from rapdarts.networks.batched.verified import KernelUse, kernels_for
from rapdarts.networks.primitives import choose

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
from rapdarts.networks.batched.kernels import checks, convolutions, launch, norms, pools, sums
from tests.networks.batched.faults import FAULTS, OUTPUTS, cpu_as_gpu, plant

CPU = torch.device("cpu")
AUTO = SearchConfig()
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Let the CPU pass for a GPU, and yield a MonkeyPatch that is undone with this."""
    with cpu_as_gpu(tmp_path / "cache") as patch:
        yield patch


@pytest.fixture(scope="module")
def users() -> dict[str, set[str]]:
    """Return the families whose check runs each kernel."""
    found: dict[str, set[str]] = {}
    for family in FAMILIES:
        with pytest.MonkeyPatch.context() as patch:
            seen = plant(patch, "", "")
            assert checks.disagreement(family, CPU, torch.float32) == ""
        for kernel in seen:
            found.setdefault(kernel, set()).add(family)
    return found


# --- the check ---------------------------------------------------------------------------------------------------


def test_every_kernel_is_checked(users: dict[str, set[str]]) -> None:
    """A new kernel must be listed with its outputs, so that faults are planted in it."""
    kind = type(norms.term)
    modules = (convolutions, launch, norms, pools, sums)
    kernels = {value.fn.__name__ for module in modules for value in vars(module).values() if isinstance(value, kind)}
    assert kernels == set(OUTPUTS) <= set(users) and len(kernels) == 14
    assert set(checks.CHECKS) == FAMILIES == set.union(*users.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_healthy_kernels_pass_with_room(family: str, dtype: torch.dtype, bfloat16: None, monkeypatch: Any) -> None:
    """Half of the tolerance is enough, and it is below 1 %."""
    halves = {dtype: tolerance / 2 for dtype, tolerance in checks.TOLERANCES.items()}
    assert max(*halves.values(), checks.TF32_TOLERANCE / 2) < 0.01 / 2
    monkeypatch.setattr(checks, "TOLERANCES", halves)
    state = torch.get_rng_state()
    assert checks.disagreement(family, CPU, dtype) == ""
    assert torch.equal(torch.get_rng_state(), state)


def caught(kernel: str, kind: str, outputs: list[Any], dtype: torch.dtype, families: set[str]) -> None:
    """Check that exactly the families that run the kernel notice the fault; only these are checked."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, kernel, kind, outputs)
        patch.setattr(verified, "FAMILIES", frozenset(families))
        verified.failures.cache_clear()
        failed = verified.failures(CPU, dtype, verified.arithmetic_of(dtype))
    assert set(failed) == families
    said = {"1 % wrong": " % off", "not a number": "is not finite", "exception": "this kernel cannot be compiled"}[kind]
    assert all(said in why and "\n" not in why for why in failed.values())


@pytest.mark.parametrize(("kernel", "kind"), FAULTS)
def test_every_fault_is_caught(kernel: str, kind: str, users: dict[str, set[str]], gpu: pytest.MonkeyPatch) -> None:
    for outputs in [[]] if kind == "exception" else [[output] for output in OUTPUTS[kernel]]:
        caught(kernel, kind, outputs, torch.float32, users[kernel])


@pytest.mark.proof
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", OUTPUTS)
def test_every_fault_is_caught_in_half_precision(
    kernel: str, dtype: torch.dtype, users: dict[str, set[str]], bfloat16: None, gpu: pytest.MonkeyPatch
) -> None:
    for kind in ("1 % wrong", "not a number"):
        for output in OUTPUTS[kernel]:
            caught(kernel, kind, [output], dtype, users[kernel])


# --- the search --------------------------------------------------------------------------------------------------


def two_norms(channels: int, stride: int, affine: bool) -> nn.Module:
    """Return a primitive with a norm that is not its last layer; in `darts`, only the slow sep_conv has one."""
    norm, last = nn.BatchNorm2d(channels, affine=False), nn.BatchNorm2d(channels, affine=affine)
    return nn.Sequential(nn.MaxPool2d(1, stride), norm, nn.ReLU(), last)


PRIMITIVES = {**choose("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3"), "two_norms": two_norms}
SPACE = SearchSpace("small", PRIMITIVES, nodes=1)
SETTINGS = {
    "threads": 1,
    "data.layout": "channels_first",
    "skeleton.layers": 3,
    "skeleton.channels": 4,
    "search.channels": 2,
    "search.layers": [3],
    "search.candidates": [0],
    "search.skip_dropout": [0.3],
    "search.epochs": 1,
    "search.warmup_epochs": 0,
    "search.batch": 8,
    "search.subset": 1.0,
}
DATA = (np.random.default_rng(0).integers(0, 256, (24, 1, 4, 4), np.uint8), [0, 1] * 12)


def searched(folder: Path, kernels: str) -> dict[str, float]:
    """Run a search of one step, and return the values that it recorded and its alphas."""
    keys = {**SETTINGS, "search.kernels": kernels}
    rapdarts.search("digits", keys, data=DATA, space=SPACE, run=folder, progress=True)
    (record,) = map(json.loads, (folder / "metrics.jsonl").open())
    nodes = json.loads((folder / "alphas.json").read_text())["cells"]
    alphas = {
        f"{kind} {i} {j}": a for kind in nodes for i, e in enumerate(nodes[kind]) for j, a in enumerate(e["alpha"])
    }
    return {name: value for name, value in record.items() if name != "seconds"} | alphas


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Return the result of the search with torch's operations only."""
    return searched(tmp_path_factory.mktemp("plain") / "run", "torch")


QUICK = [("_convolve", "1 % wrong"), ("term", "not a number")]
"""Faults planted in `make test`; the other searches take minutes in Triton's interpreter."""


@pytest.mark.parametrize(
    ("kernel", "kind"), [pytest.param(*f, marks=[] if f in QUICK else [pytest.mark.proof]) for f in FAULTS]
)
def test_a_search_with_faulty_kernels_equals_the_plain_one(
    kernel: str,
    kind: str,
    plain: dict[str, float],
    users: dict[str, set[str]],
    gpu: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The faulty kernel is not used, the other families are, and one line says so."""
    seen = plant(gpu, kernel, kind)
    failed = set(verified.failures(CPU, torch.float32, verified.arithmetic_of(torch.float32)))
    assert failed == users[kernel]
    seen.clear()
    found = searched(tmp_path / "run", "auto")
    assert kernel not in seen
    assert set().union(*(users[other] for other in seen)) - failed == FAMILIES - failed
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if "torch's operations replace them" in line]
    assert all(f"{family} (tf32, " in line for family in failed) and line.count(" (tf32, ") == len(failed)
    assert found == pytest.approx(plain, rel=1e-3, abs=1e-4)


def test_without_kernels_a_search_is_the_plain_one(
    plain: dict[str, float], gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is bit-identical if every family fails."""
    gpu.setattr(checks, "disagreement", lambda *given: "wrong")
    assert searched(tmp_path / "run", "auto") == plain


# --- rules -------------------------------------------------------------------------------------------------------

CUDA = torch.device("cuda", 0)


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked(*given: Any) -> Any:
        raise AssertionError("a kernel was run")

    monkeypatch.setattr(verified, "failures", checked)


@pytest.mark.parametrize(
    ("capability", "hip", "triton", "why"),
    [
        ((6, 1), None, True, "the Triton kernels need compute capability 7.0, and this GPU has 6.1"),
        ((9, 4), "6.2.0", True, "the Triton kernels were written for CUDA, and this GPU uses ROCm"),
        ((9, 0), None, False, "the Triton kernels need Triton, which is not installed"),
    ],
)
def test_a_gpu_that_cannot_run_kernels(
    capability: tuple[int, int], hip: str | None, triton: bool, why: str, no_checks: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(verified, "has_triton", lambda: triton)
    assert kernels_for(AUTO, CUDA) == KernelUse(frozenset(), (f"{why}; torch's operations replace them",))
    assert kernels_for(replace(AUTO, kernels="torch"), CUDA) == KernelUse()
    with pytest.raises(DeviceError) as error:
        kernels_for(replace(AUTO, kernels="triton"), CUDA)
    sentence = f"search.kernels=triton, but {why}; set search.kernels=auto to use torch's operations."
    assert str(error.value) == sentence


@pytest.mark.parametrize("capability", [(7, 0), (9, 0), (12, 1)])
def test_newer_gpus_run_the_check(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    checked: list[torch.dtype] = []
    failed = {"pools": "bfloat16, max pool is 1 % off"}
    monkeypatch.setattr(
        verified,
        "failures",
        lambda device, dtype, arithmetic: checked.append(dtype) or (failed if dtype.itemsize == 2 else {}),
    )
    assert kernels_for(AUTO, CUDA) == KernelUse(FAMILIES)
    assert checked == [torch.float32]
    found = kernels_for(replace(AUTO, amp="bf16"), CUDA)
    line = "these kernels fail their check on this GPU: pools (bfloat16, max pool is 1 % off); torch's operations replace them"
    assert found == KernelUse(FAMILIES - {"pools"}, (line,))
    assert kernels_for(replace(AUTO, kernels="triton"), CUDA) == KernelUse(FAMILIES)
    with pytest.raises(DeviceError, match="but these kernels fail their check on this GPU: pools"):
        kernels_for(replace(AUTO, kernels="triton", amp="bf16"), CUDA)


def test_other_devices_use_no_kernels(no_checks: None) -> None:
    assert kernels_for(AUTO, CPU) == kernels_for(AUTO, torch.device("meta")) == KernelUse()
    assert kernels_for(replace(AUTO, kernels="triton"), torch.device("meta")) == KernelUse()
    assert kernels_for(replace(AUTO, supernet="plain"), CUDA) == KernelUse()


@pytest.mark.parametrize(
    ("key", "code", "sentence"),
    [
        (
            "device=cpu",
            7,
            "search.kernels=triton, but the Triton kernels need a GPU, not cpu; set search.kernels=auto to use torch's operations.",
        ),
        (
            "search.supernet=plain",
            2,
            "search.kernels=triton needs the batched supernet; set search.supernet=batched, or search.kernels=auto.",
        ),
    ],
)
def test_triton_without_a_gpu_is_refused(
    key: str, code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["search", "digits", "search.kernels=triton", key, f"run={folder}"]) == code
    assert capsys.readouterr().err.endswith(f"rapdarts: error: {sentence}\n")
    assert not folder.exists()


# --- the memory of passed checks ---------------------------------------------------------------------------------


@pytest.fixture
def checked(gpu: pytest.MonkeyPatch) -> list[str]:
    """Replace the checks by one that always passes; return the families checked so far."""
    names: list[str] = []
    gpu.setattr(checks, "disagreement", lambda family, device, dtype: names.append(family) or "")
    return names


def again(checked: list[str], dtype: torch.dtype = torch.float32) -> list[str]:
    """Return the families that a new process checks."""
    checked.clear()
    verified.failures.cache_clear()
    verified.failures(CPU, dtype, verified.arithmetic_of(dtype))
    return list(checked)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "rapdarts" / "kernels.json"


def test_passed_checks_are_remembered_for_each_arithmetic(checked: list[str], memory: Path) -> None:
    assert again(checked) == sorted(FAMILIES)
    assert again(checked) == []
    assert again(checked, torch.bfloat16) == sorted(FAMILIES)
    assert again(checked) == again(checked, torch.bfloat16) == []
    torch.backends.cudnn.allow_tf32 = False
    try:
        assert again(checked) == sorted(FAMILIES)
    finally:
        torch.backends.cudnn.allow_tf32 = True
    assert [*json.loads(memory.read_text())] == ["format", "passed"]


def test_a_failed_check_is_repeated(checked: list[str], gpu: pytest.MonkeyPatch) -> None:
    passing = checks.disagreement
    with gpu.context() as patch:
        patch.setattr(
            checks, "disagreement", lambda family, *given: "wrong" if family == "pools" else passing(family, *given)
        )
        assert again(checked) == sorted(FAMILIES - {"pools"})
    assert again(checked) == ["pools"]
    assert again(checked) == []


@pytest.mark.parametrize("what", ["name", "capability", "torch", "triton", "rapdarts", "kernels"])
def test_another_device_or_version_checks_again(what: str, checked: list[str], gpu: pytest.MonkeyPatch) -> None:
    again(checked)
    with gpu.context() as patch:
        if what == "name":
            patch.setattr(torch.cuda, "get_device_name", lambda device: "another GPU")
        elif what == "capability":
            patch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
        elif what == "kernels":
            patch.setattr(Path, "read_bytes", lambda path: b"changed")
        else:
            import triton

            module: Any = {"torch": torch, "triton": triton, "rapdarts": verified}[what]
            patch.setattr(module, "__version__", "99.0")
        assert again(checked) == sorted(FAMILIES)
        assert again(checked) == []
    assert again(checked) == []  # the first device is still remembered


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe{}",
        b'{"format": "rapdarts-kernels-1", "passed": {',
        b"[]",
        b'{"format": "another-program", "passed": {}}',
        b'{"format": "rapdarts-kernels-1"}',
        b'{"format": "rapdarts-kernels-1", "passed": {"Interpreter": 3}}',
        b'{"passed": null}',
        b"[" * 100_000,
        b" " * (verified.MOST_BYTES + 1),
    ],
    ids=range(11),
)
def test_a_damaged_or_foreign_memory_is_ignored_and_rewritten(content: bytes, checked: list[str], memory: Path) -> None:
    memory.parent.mkdir(parents=True)
    memory.write_bytes(content)
    assert again(checked) == sorted(FAMILIES)
    assert json.loads(memory.read_text())["format"] == verified.FORMAT
    assert again(checked) == []


def test_a_memory_that_cannot_be_written_only_repeats_the_check(checked: list[str], memory: Path) -> None:
    memory.parent.parent.mkdir()
    memory.parent.write_text("a file in place of the folder")
    assert again(checked) == again(checked) == sorted(FAMILIES)


def test_running_out_of_memory_says_nothing_about_a_kernel(gpu: pytest.MonkeyPatch, memory: Path) -> None:
    def full(*given: Any) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    gpu.setattr(checks, "disagreement", full)
    with pytest.raises(torch.OutOfMemoryError):
        verified.failures(CPU, torch.float32, verified.arithmetic_of(torch.float32))
    assert not memory.exists()
