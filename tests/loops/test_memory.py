"""Memory estimates before a search, and error messages when memory runs out: their accuracy, wording and advice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rapdarts.architecture.space import SearchSpace
from rapdarts.cli.main import main
from rapdarts.config.experiment import Experiment, RetrainConfig
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty
from rapdarts.data import dataset as datasets
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DeviceError, ran_out_of_memory
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as loop
from rapdarts.loops.memory import (
    LIBRARY_BYTES,
    OVERHEAD,
    MemoryEstimate,
    show_bytes,
    stage_footprint,
    training_within_memory,
)
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.training.footprint import Alive, Footprint
from rapdarts.training.optimizer import set_lr
from tests.tiny import TINY

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


FEW = ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"]


def estimate_of(*settings: tuple[str, Any], primitives: list[str] | None = None) -> MemoryEstimate:
    """Return the estimate for the demo's search with 4 channels and a few primitives."""
    given = [("skeleton.layers", 3), ("skeleton.channels", 4), ("search.channels", 4), *settings]
    config = resolve_experiment("digits", given, "search")
    space, data = named_space(config.search.space), digits()
    space = space.only(primitives or [name for name in space.primitives if name in FEW])
    return MemoryEstimate(config, space, data, loop.priced(config, space, data), None)


def digits() -> DataSet:
    return datasets.load_dataset(resolve_experiment("digits", []).data, CPU, 0)


# --- accuracy ----------------------------------------------------------------------------------------------------


def steps_alive(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, stage: int) -> int:
    """Return the peak of live bytes in the first two real steps of a stage."""
    halves, penalty = SearchBatches.of(data, config), Penalty(table, asdict(config.search.cost))
    with Alive() as alive:
        supernet, architecture, sgd, adam = loop.build_stage(config, space, data, config.search.layers[stage], stage)
        set_lr(sgd, 0.1)
        supernet.dropout.rate = config.search.skip_dropout[stage]
        step = loop.alternation(config.search, supernet, architecture, sgd, adam, penalty)
        batches = halves.epoch(0)
        for _ in range(2):
            (images, labels), (others, answers) = next(batches)
            step(images, labels, others, answers, True)
    return max(fixed for fixed, _ in alive.moments)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        pytest.param([("search.partial_channels", 2)], marks=pytest.mark.proof),
        pytest.param([("search.checkpoint", True)], marks=pytest.mark.proof),
        [("search.supernet", "plain"), ("search.batch", 16)],
        [("search.unrolled", True), ("search.batch", 16)],
        pytest.param([("search.amp", "bf16"), ("search.batch", 16)], marks=pytest.mark.proof),
        [("search.space", "filters"), ("search.momentum", 0)],
    ],
    ids=lambda settings: str(settings[0][0]) if settings else "default",
)
def test_the_footprint_of_a_stage_matches_its_live_bytes(settings: list[tuple[str, Any]]) -> None:
    """The estimate differs by at most a tenth from the peak of real alpha and weight steps, including batches and optimisers."""
    estimate = estimate_of(*settings)
    given = estimate.config, estimate.space, estimate.data, estimate.table, 0
    found = stage_footprint(*given).bytes(estimate.config.search.batch)
    assert found == pytest.approx(steps_alive(*given), rel=0.1)


def test_the_footprint_includes_weights_and_optimiser_state() -> None:
    """Without images, the footprint is weights, momenta, gradients, buffers, and alpha with its two moments; all else is small."""
    estimate = estimate_of()
    found = stage_footprint(estimate.config, estimate.space, estimate.data, estimate.table, 0)
    supernet, architecture, *_ = loop.build_stage(estimate.config, estimate.space, estimate.data, 3, 0)
    weights = sum(weight.nbytes for weight in supernet.parameters())
    others = sum(buffer.nbytes for buffer in supernet.buffers()) + 3 * sum(p.nbytes for p in architecture.parameters())
    assert 3 * weights + others <= found.bytes(0) <= 1.2 * (3 * weights + others)


def test_later_stages_are_assumed_to_keep_the_largest_candidates() -> None:
    stages = ("search.layers", [3, 3]), ("search.candidates", [0, 2]), ("search.skip_dropout", [0, 0])
    estimate = estimate_of(*stages, primitives=[*FEW, "sep_conv_5x5"])
    names = list(estimate.space.primitives)
    order = sorted(names, key=lambda name: estimate.saved_bytes[names.index(name)])
    assert order[0] == "none" and estimate.saved_bytes[0] == 0
    assert set(order[-2:]) == {"sep_conv_3x3", "sep_conv_5x5"}
    largest = np.array([[[name in order[-2:] for name in names]] * 14] * 2)
    space = estimate.space.narrowed(largest)
    assert estimate.footprint(1) == stage_footprint(estimate.config, space, estimate.data, estimate.table, 1)
    assert estimate.footprint(0).bytes(96) > estimate.footprint(1).bytes(96)


@pytest.mark.parametrize(("layers", "checkpoint"), [([3, 4, 5], False), ([3, 8, 3], True)])
def test_the_largest_stage_is_found(layers: list[int], checkpoint: bool) -> None:
    """A stage that takes more than 85 % of the memory of the largest stage is accepted too."""
    estimate = estimate_of(("search.layers", layers), ("search.checkpoint", checkpoint))
    found = [estimate.footprint(stage).bytes(96) for stage in range(3)]
    assert found[estimate.largest_stage()] > 0.85 * max(found)


# --- messages ----------------------------------------------------------------------------------------------------


def test_the_summary_names_memory_and_batch() -> None:
    estimate = estimate_of(("search.layers", [3]), ("search.candidates", [0]), ("search.skip_dropout", [0]))
    found = estimate.footprint(0)
    takes = LIBRARY_BYTES + OVERHEAD * found.bytes(96)
    start = f"a step will take about {show_bytes(takes)} (stage 1 of 1: 3 cells, batch size 96)"

    def words(free: int | None) -> str | None:
        return replace(estimate, free=free).summary()

    assert words(None) == start
    assert words(10**11) == f"{start}; 100 GB is free: any batch fits"
    assert words(takes) == f"{start}; {show_bytes(takes)} is free: a batch of up to 96 fits"
    less = LIBRARY_BYTES + OVERHEAD * found.bytes(80)
    advice = "search.batch=80, search.checkpoint=true or search.partial_channels=4"
    assert (
        words(less) == f"warning: {start}, but only {show_bytes(less)} is free: a batch of about 80 fits; set {advice}"
    )
    none = "no batch fits; set search.checkpoint=true or search.partial_channels=4"
    assert words(LIBRARY_BYTES) == f"warning: {start}, but only 50 MB is free: {none}"


def test_advice_names_only_settings_that_are_not_yet_used() -> None:
    estimate = estimate_of(("search.checkpoint", True), ("search.partial_channels", 2))
    assert estimate.advice(30) == "a batch of about 30 fits; set search.batch=30"
    assert estimate.advice(1) == "no batch fits; set a smaller search.channels"
    assert estimate_of(("search.channels", 6)).advice(1) == "no batch fits; set search.checkpoint=true"


def test_cuda_graphs_take_twice_the_live_bytes() -> None:
    found = Footprint(((1000, 10),))
    gpu = replace(digits(), train=datasets.InMemory(torch.empty(1, 1, 8, 8), OnGpu()))  # type: ignore[arg-type]
    checkpoint, unrolled = [("search.checkpoint", True)], [("search.unrolled", True)]
    for settings, on_host, each in (([], 2, 2), (checkpoint, 2.8, 1.4), (unrolled, 2, 1)):
        estimate = estimate_of(*settings)
        assert estimate.process_bytes(found) == LIBRARY_BYTES + on_host * (1000 + 960)
        assert replace(estimate, data=gpu).process_bytes(found) == each * (1000 + 960)
        free = LIBRARY_BYTES + on_host * (1000 + 10 * 20) + 1
        assert replace(estimate, free=round(free)).largest_batch(found) == 20


class OnGpu:
    device = torch.device("cuda")


OWN = """
import torch
from rapdarts.networks.primitives import PRIMITIVES
from rapdarts import SearchSpace

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient if gradient.sum().item() == 0 else 2 * gradient

class Asking(torch.nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return Double.apply(x[..., :: self.stride, :: self.stride])

asking = lambda channels, stride, affine: Asking(stride)
SPACE = SearchSpace("asking", {"asking": asking, "skip_connect": PRIMITIVES["skip_connect"]}, nodes=1)
"""


def test_there_is_no_estimate_for_a_primitive_that_reads_values_of_tensors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    space = tmp_path / "asking.py"
    space.write_text(OWN)
    settings = ["search.candidates=[0,1]", "search.epochs=2", "search.channels=2"]
    assert main(["search", "digits", "--space", str(space), *TINY, *settings, f"run={tmp_path / 'run'}"]) == 0
    assert "a step will take" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0.0 MB"), (9.44e6, "9.4 MB"), (9.6e6, "10 MB"), (949e6, "949 MB"), (0.95e9, "0.9 GB"), (2.34e10, "23 GB")],
)
def test_memory_is_shown_with_two_digits(number: float, words: str) -> None:
    assert show_bytes(number) == words


# --- out of memory -----------------------------------------------------------------------------------------------


def test_a_search_that_runs_out_of_memory_reports_what_fits_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search fails in its second stage; the first is not lost, and the setting named in the advice may be changed on resuming."""
    stages: list[object] = []

    class Full:
        def __init__(self, step: Callable[..., Any], device: torch.device, say: object, learners: object) -> None:
            stages.append(step)
            self.step = step

        def __call__(self, *given: Any) -> Any:
            if len(stages) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return self.step(*given)

    command = ["search", "digits", *TINY, "--json", f"run={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "GraphedStep", Full)
        assert main(command) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"^a step will take about \d+ MB \(stage 1 of 2: 3 cells, batch size 24\)", err, re.MULTILINE)
    sentence = (
        "out of memory in stage 2 of 2 at batch size 24: a batch of about 18 fits; set search.batch=18 or"
        " search.checkpoint=true."
    )
    assert err.endswith(f"\nrapdarts: error: {sentence}\n")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status == {"state": "failed", "exit_code": 7, "why": sentence}

    assert main([*command, "search.checkpoint=true", "resume=true"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["genotype"].startswith("Genotype(")
    assert "resuming" in err or "stage 1/2" not in err


def test_a_gpu_that_cannot_run_the_batched_kernels_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = pytest.importorskip("triton.runtime.errors", reason="Triton is not installed: pip install triton")

    def refused(*given: Any) -> None:
        raise errors.OutOfResources(131072, 101376, "shared memory")

    monkeypatch.setattr(loop, "GraphedStep", lambda *given: refused)
    assert main(["search", "digits", *TINY, "--json", f"run={tmp_path / 'run'}"]) == 7
    out, err = capsys.readouterr()
    why = "out of resource: shared memory, Required: 131072, Hardware limit: 101376"
    sentence = f"this GPU cannot run the kernels of the batched supernet ({why}); set search.kernels=torch."
    assert out == "" and err.endswith(f"\nrapdarts: error: {sentence}\n")


LIMITED = """
import resource, sys
import torch, torch._dynamo, torch.utils.tensorboard, rapdarts.loops.memory
from rapdarts.cli.main import main
torch.set_num_threads(1)
(size,) = (1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000,) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the test limits the address space, which needs Linux")
@pytest.mark.proof
def test_a_process_is_warned_before_it_really_runs_out_of_memory(tmp_path: Path) -> None:
    """The process may allocate 400 MB more; the warning and the error name the same batch that fits."""
    settings = ["search.batch=400", "search.channels=32", "threads=1", f"run={tmp_path / 'run'}", "--json"]
    command = [sys.executable, "-c", LIMITED, "search", "digits", *settings]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (7, ""), found.stderr
    *_, warning, sentence = found.stderr.splitlines()
    before = re.match(
        r"warning: a step will take about 2\.\d GB .* but only \d+ MB is free: a batch of about (\d+) fits", warning
    )
    after = re.match(
        r"rapdarts: error: out of memory in stage 1 of 3 at batch size 400: a batch of about (\d+) fits", sentence
    )
    assert before and after and before.group(1) == after.group(1)
    assert 10 < int(after.group(1)) < 100


def test_a_retraining_that_runs_out_of_memory_reports_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."

    def full(*given: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(retraining, "optimizer_step", full)
    assert (
        main(
            [
                "retrain",
                "PDARTS",
                "digits",
                "skeleton.layers=3",
                "skeleton.channels=4",
                "threads=1",
                f"run={tmp_path / 'run'}",
                "--json",
            ]
        )
        == 7
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(
        "\nrapdarts: error: out of memory at batch size 64: set retrain.batch=32 with retrain.accumulate=2 or retrain.amp=bf16.\n"
    )


def test_only_out_of_memory_errors_are_translated() -> None:
    for error in (ValueError("x"), RuntimeError("shapes do not match")):
        with pytest.raises(type(error)):
            with training_within_memory(RetrainConfig()):
                raise error
    for batch, amp, words in (
        (3, "bf16", "use a smaller network"),
        (3, "none", "set retrain.amp=bf16"),
        (9, "bf16", "=4"),
    ):
        with pytest.raises(DeviceError, match=words), training_within_memory(RetrainConfig(batch=batch, amp=amp)):
            raise MemoryError
    for words in ("CUDA error: out of memory", "could not create a primitive"):
        assert ran_out_of_memory(RuntimeError(words))
    assert not ran_out_of_memory(ValueError("out of memory"))
