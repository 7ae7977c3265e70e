"""The benchmarks: counts are right, results are consistent, and `make test` runs none of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from tests.benchmarks import agreement, commands, counts, footprints, search, stage3
from tests.benchmarks.__main__ import main
from tests.benchmarks.stages import BUILDS, Batched, Plain, Sizes, Stage
from tests.benchmarks.turns import in_turns

CPU = torch.device("cpu")
TINY = Sizes(batch=2, channels=2, layers=(1, 1, 1), images=24, side=8)


def test_no_benchmark_is_collected_as_a_test() -> None:
    files = [path.name for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__)]
    assert files
    assert not [
        name for name in files for pattern in ("test_*.py", "*_test.py", "conftest.py") if fnmatch(name, pattern)
    ]


# --- counts ------------------------------------------------------------------------------------------------------


def test_operators_exclude_views() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    found = counts.operators(lambda: (x.view(3, 2) * 2).relu().sum().backward())
    # The gradients of the sum and of the view are views, which are not counted.
    backward = {"aten.ones_like": 1, "aten.threshold_backward": 1}
    assert found == {"aten.mul": 2, "aten.relu": 1, "aten.sum": 1, **backward}


def test_kept_bytes_count_each_storage_once() -> None:
    x, weight = torch.randn(5, 3), torch.randn(4, 3, requires_grad=True)

    def run() -> None:
        y = torch.nn.functional.linear(x, weight).relu()  # x is kept for the weight's gradient, y for the ReLU's
        (y * y.t().t()).sum().backward()  # y is kept twice more, once as a view

    assert counts.saved_bytes(run, [weight]) == 4 * (x.numel() + 5 * 4)


@pytest.mark.parametrize("build", BUILDS)
def test_counts_of_a_pass(build: str) -> None:
    """Counts agree with the profiler's, and a second count gives the same."""
    contender = BUILDS[build](Stage.of("darts-2", TINY, CPU))
    names = ["convolution", "convolution_backward", "native_batch_norm", "native_batch_norm_backward", "relu"]
    for run in (contender.alpha_pass, contender.weight_pass):
        found = counts.operators(run)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            run()
        events = [event.name for event in profile.events()]
        assert {name: found[f"aten.{name}"] for name in names} == {
            name: events.count(f"aten::{name}") for name in names
        }
        assert counts.operators(run) == found
        assert counts.saved_bytes(run, contender.learned) == counts.saved_bytes(run, contender.learned) > 0


def test_each_pass_computes_its_own_gradients() -> None:
    stage = Stage.of("darts-1", TINY, CPU)
    plain, batched = Plain(stage), Batched(stage)
    for run in (plain.alpha_pass, plain.weight_pass):
        run()
        assert all(tensor.grad is not None for tensor in plain.learned)
    assert [gradient.shape for gradient in batched.alpha_pass()] == [stage.space.mask.shape]
    assert [gradient.shape for gradient in batched.weight_pass()] == [weight.shape for weight in batched.weights]
    before = [tensor.detach().clone() for tensor in (*plain.learned, *batched.learned)]
    plain.alternation()
    batched.alternation()
    after = (*plain.learned, *batched.learned)
    assert not any(torch.equal(new, old) for new, old in zip(after, before, strict=True))


def test_the_peak_counts_only_tensors_alive_at_the_same_time() -> None:
    """A process allocates two blocks of 64 MiB and frees the first before it allocates the second."""
    code = "import torch; from tests.benchmarks.counts import peak_bytes; run = lambda: [torch.ones(2**24).sum() for _ in '12']"
    words = [sys.executable, "-c", f"{code}; print(peak_bytes(run, torch.device('cpu')))"]
    peak = int(subprocess.run(words, cwd=commands.ROOT, check=True, capture_output=True, text=True).stdout)
    assert 2**26 <= peak < 1.2 * 2**26


def test_the_peak_on_a_gpu_is_reserved_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool of a CUDA graph stays reserved even if nothing in it is allocated; unused memory is released before the run."""
    memory = {"reserved": 100, "peak": 700}

    def empty_cache() -> None:
        memory["reserved"] = 40

    def reset(device: torch.device) -> None:
        memory["peak"] = memory["reserved"]

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: memory["reserved"])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: memory["peak"])
    assert counts.peak_bytes(lambda: memory.update(peak=340), torch.device("cuda")) == 300


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_peak_is_measured_in_a_new_process(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[Any] = []

    class Process:
        def __init__(self, *given: Any, **named: Any) -> None: ...

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *given: Any) -> None: ...

        def submit(self, *given: Any) -> Future[int]:
            submitted.append(given)
            done: Future[int] = Future()
            done.set_result(7)
            return done

    monkeypatch.setattr(search, "ProcessPoolExecutor", Process)
    assert search._peak("batched", "darts-1", TINY, "none", torch.device(device)) == 7
    assert len(submitted) == 1 and submitted[0][0] is search.peak_of


def test_jobs_run_alternately() -> None:
    done: list[str] = []
    jobs = {name: partial(done.append, name) for name in ("a", "b")}

    def time_of(job: Callable[[], object]) -> float:
        job()
        return float(len(done))

    assert in_turns(jobs, time_of, rounds=2, warm_up=1) == {"a": [3, 5], "b": [4, 6]}
    assert done == ["a", "b"] * 3


# --- output ------------------------------------------------------------------------------------------------------


def assert_fit(figures: Any) -> int:
    """Assert that all medians, minima and ratios follow from the times; return the number of ratios."""
    if not isinstance(figures, dict):
        return 0
    if {"median_s", "minimum_s"} <= set(figures):
        assert (figures["median_s"], figures["minimum_s"]) == (median(figures["seconds"]), min(figures["seconds"]))
    if "ratio" in figures:
        numbers = {
            name: value["median_s"] if isinstance(value, dict) else value
            for name, value in figures.items()
            if name != "ratio"
        }
        (_, first), *others = numbers.items()
        assert figures["ratio"] == {name: first / number for name, number in others}
    return len(figures.get("ratio", {})) + sum(map(assert_fit, figures.values()))


def run(file: Path, *words: str) -> dict[str, Any]:
    """Return the results of a command at the smallest sizes."""
    small = "--channels 2 --batch 2 --layers 1 1 1 --images 24 --side 8 --threads 1 --device cpu --warm-up 0 --json"
    assert main([*words, *small.split(), str(file)]) == 0
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures


@pytest.mark.proof
def test_plain_against_batched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(tmp_path / "figures.json", "search", "--cases", "darts-1", "--amp", "bf16", "--rounds", "3")
    found = figures["search"]["cases"]["darts-1"]
    assert assert_fit(figures) == 8
    assert {len(found[name]["plain"]["seconds"]) for name in ("alpha_pass", "weight_pass", "alternation")} == {3}
    assert found["operators"]["alpha_pass"]["plain"] == found["operators"]["weight_pass"]["plain"]
    assert found["peak_bytes"]["plain"] > 0 and found["peak_bytes"]["batched"] > 0
    steps = zip(found["loop"]["passes_s"], found["loop"]["seconds"], strict=True)
    assert found["loop"]["outside_share"] == median(1 - passes / step for passes, step in steps)
    assert 0 < found["loop"]["outside_share"] < 1
    assert {"date", "commit", "torch", "processor", "threads", "gpu", "clock"} <= set(figures)
    shown = capsys.readouterr().out
    for words in ("alternation, median", "operators, alpha pass", "kept per image", "peak memory", "outside"):
        assert words in shown


def test_the_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(tmp_path / "figures.json", "protocol", "--rounds", "1")["protocol"]
    assert assert_fit(figures) == 3 * (2 + 2 + 1 + 2) + 2
    plan = figures["plan"]
    assert (plan["steps_an_epoch"], plan["weight_step"], plan["alternation"]) == (6, 10 * 6, 15 * 6)
    for stage in figures["stages"].values():
        for build, predicted in stage["predicted_s"].items():
            if build != "ratio":
                steps = ("weight_step", "alternation")
                assert predicted == sum(plan[step] * stage[step][build]["median_s"] for step in steps)
                assert stage["floor_s"][build] == stage["floor_bytes"][build] / figures["copy"]["bytes_per_s"]
    total = figures["predicted"]["seconds"]["plain"]
    assert total == sum(stage["predicted_s"]["plain"] for stage in figures["stages"].values())
    assert figures["predicted"]["whole_protocol"] and "extrapolated" in figures["predicted"]["basis"]
    shown = capsys.readouterr().out
    assert "predicted, not run" in shown and "extrapolated" in shown


@pytest.mark.proof
def test_memory_is_about_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the search's first steps in a new process; the gaps in its heap vary, so the bounds are wide."""
    monkeypatch.setattr(footprints, "VARIANTS", {"as it is": {}})
    words = ["--cases", "darts-1", "--channels", "8", "--batch", "64", "--layers", "3", "1", "1", "--side", "16"]
    file = tmp_path / "figures.json"
    assert main(["memory", *words, "--threads", "1", "--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))["memory"]["cases"]["darts-1"]["as it is"]
    assert found["alive_bytes"] > 100e6
    assert found["alive_bytes"] < found["measured_bytes"]
    assert 0.6 < found["measured_bytes"] / found["expected_bytes"] < 1.5
    assert f"{found['measured_bytes'] / 1e6:,.2f} MB" in capsys.readouterr().out


@pytest.mark.proof
def test_data_derive_cost_and_startup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(tmp_path / "figures.json", "data", "derive", "cost", "startup", "--rounds", "1")
    assert assert_fit(figures) == 3
    assert figures["data"]["images_per_s"] == 24 / median(figures["data"]["seconds"])
    assert set(figures["cost"]) == {"rapdarts cost PDARTS", "python -c 'import torch'", "ratio"}
    assert "images a second" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["serach"], "there is no part serach"),
        (["search", "--images", "100", "--device", "cpu"], "--images 384"),
        (["protocol", "--cases", "filters-1"], "darts-1"),
        (["data", "--device", "cuda:77"], "device"),
        (["data", "--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_impossible_requests_are_rejected(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*words, "--threads", "1"])
    assert left.value.code == 2
    assert what in capsys.readouterr().err


def test_make_help_lists_the_benchmarks() -> None:
    makefile = (commands.ROOT / "Makefile").read_text(encoding="utf-8")
    assert "python -m tests.benchmarks" in makefile
    assert re.search(r'@echo "make bench ', makefile)


@pytest.fixture
def small_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LAYERS", 1), ("CHANNELS", 4), ("IMAGE", (3, 6, 6)), ("BATCH", 4), ("SPACES", ("darts",))):
        monkeypatch.setattr(agreement, name, value)


@pytest.mark.usefixtures("small_agreement")
def test_agreement_of_the_supernets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path / "figures.json", "agreement")["agreement"]
    assert found["agrees"]
    rows = found["spaces"]["darts"]
    assert set(rows) == {"float64", "float32", "bf16"}
    assert set(rows["bf16"]["batched"]) == {"logits", "alpha", "images", "weights", "worst weight"}
    least = [max(rows[kind]["batched"].values()) for kind in ("float64", "float32", "bf16")]
    assert least[0] < 1e-13 < least[1] < 1e-4 < least[2]
    shown = capsys.readouterr().out
    assert "darts, bf16, batched" in shown and "DISAGREES" not in shown


@pytest.mark.usefixtures("small_agreement")
@pytest.mark.parametrize("kind", agreement.KINDS)
def test_a_wrong_gradient_does_not_agree(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong gradient has the right norm and affects only the depthwise weights of one primitive; it is detected in every precision."""
    monkeypatch.setattr(agreement, "KINDS", {kind: agreement.KINDS[kind]})
    apart = agreement.under_plain_names

    def planted(supernet: Any, gradients: Any) -> Any:
        wrong = dict(gradients)
        for name in gradients:
            if "sep_conv_5x5" in name and "depthwise" in name:
                wrong[name] = -gradients[name].flip(0)
        return apart(supernet, wrong)

    monkeypatch.setattr(agreement, "under_plain_names", planted)
    assert main(["agreement", "--threads", "1", "--device", "cpu"]) == 1
    assert "DISAGREES" in capsys.readouterr().out


def test_nan_does_not_agree() -> None:
    for exactly in (True, False):
        assert agreement.agree({"logits": 0.0}, {"logits": 0.0}, exactly)
        assert not agreement.agree({"logits": 0.0}, {"logits": float("nan")}, exactly)


# --- stage 3 -----------------------------------------------------------------------------------------------------


@pytest.mark.proof
def test_every_choice_changes_the_loss_of_stage_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"search.layers": [1], "search.channels": 2, "search.epochs": 2, "search.warmup_epochs": 1}
    monkeypatch.setattr(
        stage3, "SETTINGS", list((dict(stage3.SETTINGS) | small | {"search.batch": 12, "search.subset": 0.05}).items())
    )
    monkeypatch.setattr(stage3, "SEEDS", 2)
    assert stage3.main() == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"training loss of the last epoch: \d\.\d{3} \+- \d\.\d{3} \(2 seeds\)", first)
    assert header.split() == ["variant", "difference", "by", "seed"]
    assert len(rows) == len(stage3.VARIANTS)
    assert not [row for row in rows if "+0.000 +- 0.000" in row or "nan" in row]
