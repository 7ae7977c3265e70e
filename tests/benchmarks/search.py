"""Part `search`: the plain supernet against the batched one, stage by stage."""

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
    """The figures of every case: passes and steps in turns, operators, bytes and memory, and the search's own step."""
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
    """What is measured of both builds side by side."""
    builds = {name: build(stage) for name, build in BUILDS.items()}
    operators, saved = {}, {}
    # What is counted comes first: later, a GPU plays back what it has recorded.
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
    """The search's own alternating step, and the share of it that is spent outside the supernet's passes.

    On a GPU, where these cannot be seen inside a step, they are taken from what was timed in turns.
    """
    whole, inside = watched(stage, rounds, warm_up)
    if inside is None:
        source, inside = "as timed alone", [sum(timed_alone[name]["batched"]["median_s"] for name in PASSES)] * rounds
    else:
        source = "in the same steps"
    share = median(1 - passes / step for passes, step in zip(inside, whole, strict=True))
    return {**timed({"step": whole})["step"], "passes_s": inside, "passes": source, "outside_share": share}


def _peak(build: str, case: str, sizes: Sizes, amp: str, device: torch.device) -> int:
    """Bytes by which memory rises in the first steps, in a process of its own: in this one others' garbage may go meanwhile."""
    given = (build, case, sizes, amp, device, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(peak_of, *given).result()


def peak_of(build: str, case: str, sizes: Sizes, amp: str, device: torch.device, threads: int) -> int:
    """Bytes by which memory rises in the first alternating steps of a build: enough of them to be recorded, where they are."""
    training_device(str(device), threads)
    few = replace(sizes, images=2 * sizes.batch)  # the steps need no more, and memory is theirs alone
    contender = BUILDS[build](Stage.of(case, few, device, amp))

    def steps() -> None:
        for _ in range(1 + settled(device)):
            contender.alternation()

    return counts.peak_bytes(steps, device)


def report(figures: Mapping[str, Any]) -> str:
    """The figures as tables, one for each case."""
    return "\n\n".join([words_of(figures["sizes"]), *(_table(case, found) for case, found in figures["cases"].items())])


def _table(case: str, figures: Mapping[str, Any]) -> str:
    lines = [header(case, list(BUILDS))]
    for name in (*PASSES, "alternation"):
        lines += rows(name.replace("_", " "), figures[name], seconds)
    for name in PASSES:
        lines += rows(f"operators, {name.replace('_', ' ')}", figures["operators"][name], "{:,.0f}".format)
    for name in PASSES:
        lines += rows(f"kept an image, {name.replace('_', ' ')}", figures["saved_bytes_per_image"][name], megabytes)
    lines += rows("peak of memory", figures["peak_bytes"], megabytes)
    own = figures["loop"]
    share = f"{100 * own['outside_share']:.1f} % of it outside the supernet's passes ({own['passes']})"
    return f"{case}: {figures['stage']}\n{table(lines)}\na step of the search itself, batched: {seconds(own['median_s'])}, {share}"
