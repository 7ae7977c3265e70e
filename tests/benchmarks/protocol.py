"""Part `protocol`: the time of P-DARTS' whole search, predicted from steps of its stages, and a lower bound from memory bandwidth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch

from rapdarts.cost.measure import timer
from rapdarts.loops.search_batches import SearchBatches
from tests.benchmarks import counts
from tests.benchmarks.loop import watched
from tests.benchmarks.stages import BUILDS, CASES, Batched, Plain, Sizes, Stage, random_pictures, settings_of
from tests.benchmarks.turns import (
    counted,
    header,
    in_turns,
    megabytes,
    rows,
    say,
    seconds,
    side_by_side,
    table,
    timed,
    words_of,
)

STAGES = tuple(case for case in CASES if case.startswith("darts"))
STEPS = ("weight_step", "alternation")
COPIED = {"cuda": 2**30, "cpu": 2**27}
"""Size in bytes of the copy that measures memory bandwidth; it is larger than any cache."""


def measure(sizes: Sizes, cases: Sequence[str], device: torch.device, rounds: int, warm_up: int) -> dict[str, Any]:
    """Time steps of the stages, plain in fp32 and batched in fp32 and bf16, alternately, and predict the time of the protocol.

    Values under `predicted` are not measured: they are medians of timed steps, times the number of steps in the protocol.
    """
    say("protocol: measuring the memory bandwidth")
    copied = copy_figures(device, rounds, warm_up)
    plan = plan_of(sizes, device)
    stages = {case: _stage(case, sizes, device, rounds, warm_up, copied["bytes_per_s"], plan) for case in cases}
    per_stage = [stage["predicted_s"] for stage in stages.values()]
    total = {name: sum(stage[name] for stage in per_stage) for name in per_stage[0] if name != "ratio"}
    basis = f"extrapolated: medians of {rounds} timed steps of each kind, times the number of steps in the protocol"
    whole = set(STAGES) <= set(cases)
    predicted = {"basis": basis, "whole_protocol": whole, "seconds": counted(total)}
    return {"sizes": asdict(sizes), "plan": plan, "copy": copied, "stages": stages, "predicted": predicted}


def plan_of(sizes: Sizes, device: torch.device) -> dict[str, int]:
    """Return the number of steps of each kind in a stage of the protocol, whose first epochs train weights only."""
    config = settings_of(sizes)
    epochs, warm_up = config.search.epochs, config.search.warmup_epochs
    steps = SearchBatches.of(random_pictures(sizes.images, sizes.side, device), config).steps
    plan = {"epochs": epochs, "warm_up_epochs": warm_up, "steps_an_epoch": steps}
    return plan | {"weight_step": warm_up * steps, "alternation": (epochs - warm_up) * steps}


def copy_figures(device: torch.device, rounds: int, warm_up: int) -> dict[str, Any]:
    """Measure memory bandwidth with a large copy, which reads and writes every byte once."""
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = in_turns({"copy": lambda: target.copy_(source)}, timer(device), rounds, warm_up)["copy"]
    return {"bytes": len(source), "seconds": times, "bytes_per_s": 2 * len(source) / median(times)}


def floor_bytes(contender: Plain | Batched) -> int:
    """Return the bytes an alternation must move: it writes and reads tensors kept for the backward passes, and reads weights twice."""
    kept = sum(counts.saved_bytes(run, contender.learned) for run in (contender.alpha_pass, contender.weight_pass))
    return 2 * kept + 2 * sum(weight.nbytes for weight in contender.weights)


def _stage(
    case: str, sizes: Sizes, device: torch.device, rounds: int, warm_up: int, bandwidth: float, plan: Mapping[str, int]
) -> dict[str, Any]:
    stage = Stage.of(case, sizes, device)
    short = replace(stage, config=replace(stage.config, search=replace(stage.config.search, amp="bf16")))
    moved, times = _turns(case, {"plain": stage, "batched": stage, "batched bf16": short}, rounds, warm_up)
    say(f"{case}: the search's own steps")
    own = {name: watched(of, rounds, warm_up)[0] for name, of in (("batched", stage), ("batched bf16", short))}

    medians = {step: {name: times[step][name]["median_s"] for name in moved} for step in STEPS}
    floor = {name: number / bandwidth for name, number in moved.items()}
    predicted = {name: sum(plan[step] * medians[step][name] for step in STEPS) for name in moved}
    return {
        "stage": stage.words,
        **times,
        "loop": timed(own),
        "floor_bytes": moved,
        "floor_s": floor,
        "floor_share": {name: floor[name] / medians["alternation"][name] for name in moved},
        "predicted_s": counted(predicted),
    }


def _turns(case: str, stages: Mapping[str, Stage], rounds: int, warm_up: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the floor of every build in bytes, and the times of the steps of all builds, which run alternately."""
    builds = {name: BUILDS[name.split()[0]](stage) for name, stage in stages.items()}
    say(f"{case}: counting")
    moved = {name: floor_bytes(contender) for name, contender in builds.items()}
    say(f"{case}: timing")
    return moved, side_by_side(builds, STEPS, timer(stages["plain"].device), rounds, warm_up)


def report(figures: Mapping[str, Any]) -> str:
    """Return the results as tables: one for each stage, and one for the whole search."""
    plan, copied, predicted = figures["plan"], figures["copy"], figures["predicted"]
    parts = [
        words_of(figures["sizes"]),
        f"measured: a copy of {megabytes(copied['bytes'])} moves {copied['bytes_per_s'] / 1e9:,.1f} GB a second, counting reads and writes",
        *(_table(case, stage) for case, stage in figures["stages"].items()),
    ]
    total = predicted["seconds"]
    names = [name for name in total if name != "ratio"]
    what = "the whole protocol" if predicted["whole_protocol"] else "these stages only"
    lines = [header("predicted, not run", names)]
    for case, stage in figures["stages"].items():
        lines += rows(case, stage["predicted_s"], seconds)
    lines += rows(what, total, seconds)
    parts.append(
        f"{table(lines)}\n{predicted['basis']}: each stage has {plan['weight_step']:,} weight steps"
        f" and {plan['alternation']:,} alternations ({plan['epochs']} epochs of {plan['steps_an_epoch']:,} steps)"
    )
    return "\n\n".join(parts)


def _table(case: str, figures: Mapping[str, Any]) -> str:
    names = list(figures["floor_bytes"])
    lines = [header(case, names)]
    for step in STEPS:
        lines += rows(step.replace("_", " "), figures[step], seconds)
    own = ("", *(seconds(figures["loop"][name]["median_s"]) for name in names[1:]))
    lines.append(["alternation in the search's own loop", *own])
    lines.append(["floor of an alternation", *(seconds(figures["floor_s"][name]) for name in names)])
    lines.append(["floor / alternation", *(f"{100 * figures['floor_share'][name]:.1f} %" for name in names)])
    return f"{case}: {figures['stage']}\n{table(lines)}"
