"""Part `search`: the plain supernet compared with the batched one, stage by stage."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch

from rapdarts.cost.measure import timer
from rapdarts.training.device import training_device
from tests.benchmarks import counts
from tests.benchmarks.loop import watched
from tests.benchmarks.stages import BUILDS, Sizes, Stage, settled
from tests.benchmarks.turns import counted, header, megabytes, rows, say, seconds, side_by_side, table, timed, words_of

PASSES = ("alpha_pass", "weight_pass")


def measure(
    sizes: Sizes, cases: Sequence[str], amp: str, device: torch.device, rounds: int, warm_up: int
) -> dict[str, Any]:
    """Measure every case: times of passes and steps, operators, bytes kept, peak memory, and the search's own step."""
    measured = {case: _case(case, sizes, amp, device, rounds, warm_up) for case in cases}
    return {"sizes": asdict(sizes), "amp": amp, "cases": measured}


def _case(case: str, sizes: Sizes, amp: str, device: torch.device, rounds: int, warm_up: int) -> dict[str, Any]:
    stage = Stage.of(case, sizes, device, amp)
    figures = {"stage": stage.words, **_turns(case, stage, rounds, warm_up)}
    say(f"{case}: memory")
    figures["peak_bytes"] = counted({build: _peak(build, case, sizes, amp, device) for build in BUILDS})
    say(f"{case}: the search's own steps")
    return figures | {"loop": _own_steps(stage, figures, rounds, warm_up)}


def _turns(case: str, stage: Stage, rounds: int, warm_up: int) -> dict[str, Any]:
    """Count and time both builds side by side."""
    builds = {name: build(stage) for name, build in BUILDS.items()}
    operators, saved = {}, {}
    # Count before timing: once a GPU replays CUDA graphs, operators can no longer be counted.
    say(f"{case}: counting")
    for name in PASSES:
        runs = {build: getattr(has, name) for build, has in builds.items()}
        operators[name] = counted({build: counts.operators(run).total() for build, run in runs.items()})
        kept = {build: counts.saved_bytes(run, builds[build].learned) for build, run in runs.items()}
        saved[name] = counted({build: number / stage.config.search.batch for build, number in kept.items()})
    say(f"{case}: timing")
    times = side_by_side(builds, (*PASSES, "alternation"), timer(stage.device), rounds, warm_up)
    return {**times, "operators": operators, "saved_bytes_per_image": saved}


def _own_steps(stage: Stage, timed_alone: Mapping[str, Any], rounds: int, warm_up: int) -> dict[str, Any]:
    """Time the search's own alternations, and return the share of their time outside the supernet's passes.

    On a GPU, the passes cannot be timed inside a step, so their separate times are used.
    """
    whole, inside = watched(stage, rounds, warm_up)
    if inside is None:
        source, inside = "timed separately", [sum(timed_alone[name]["batched"]["median_s"] for name in PASSES)] * rounds
    else:
        source = "timed in the same steps"
    share = median(1 - passes / step for passes, step in zip(inside, whole, strict=True))
    return {**timed({"step": whole})["step"], "passes_s": inside, "passes": source, "outside_share": share}


def _peak(build: str, case: str, sizes: Sizes, amp: str, device: torch.device) -> int:
    """Return the bytes by which memory rises in the first steps, in a new process, since this one may free garbage meanwhile."""
    given = (build, case, sizes, amp, device, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(peak_of, *given).result()


def peak_of(build: str, case: str, sizes: Sizes, amp: str, device: torch.device, threads: int) -> int:
    """Return the bytes by which memory rises in the first alternations of a build, including the recording of a CUDA graph."""
    training_device(str(device), threads)
    few = replace(sizes, images=2 * sizes.batch)  # as many as the steps need
    contender = BUILDS[build](Stage.of(case, few, device, amp))

    def steps() -> None:
        for _ in range(1 + settled(device)):
            contender.alternation()

    return counts.peak_bytes(steps, device)


def report(figures: Mapping[str, Any]) -> str:
    """Return the results as tables, one for each case."""
    return "\n\n".join([words_of(figures["sizes"]), *(_table(case, found) for case, found in figures["cases"].items())])


def _table(case: str, figures: Mapping[str, Any]) -> str:
    lines = [header(case, list(BUILDS))]
    for name in (*PASSES, "alternation"):
        lines += rows(name.replace("_", " "), figures[name], seconds)
    for name in PASSES:
        lines += rows(f"operators, {name.replace('_', ' ')}", figures["operators"][name], "{:,.0f}".format)
    for name in PASSES:
        lines += rows(f"kept per image, {name.replace('_', ' ')}", figures["saved_bytes_per_image"][name], megabytes)
    lines += rows("peak memory", figures["peak_bytes"], megabytes)
    own = figures["loop"]
    share = f"{100 * own['outside_share']:.1f} % of it outside the supernet's passes ({own['passes']})"
    return f"{case}: {figures['stage']}\n{table(lines)}\na step of the search itself, batched: {seconds(own['median_s'])}, {share}"
