"""`python -m tests.benchmarks`: measure speed, mostly as ratios of the times of jobs that run alternately.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rapdarts.cost.latency import device_name
from rapdarts.cost.measure import clock
from rapdarts.errors import RapdartsError
from rapdarts.training.device import training_device
from tests.benchmarks import agreement, commands, footprints, pipeline, protocol, retraining, search
from tests.benchmarks.stages import CASES, Sizes, settled

PARTS = {
    "agreement": "check that both supernets compute the same on this device, else exit with 1; only on request",
    "search": "the plain supernet compared with the batched one, stage by stage",
    "retrain": "steps of retraining PDARTS, by precision and memory layout; meant for a GPU, only on request",
    "data": "throughput of the data pipeline, in images a second",
    "derive": "deriving a genotype, with and without budgets",
    "cost": "the command rapdarts cost PDARTS",
    "startup": "the command rapdarts --help",
    "memory": "expected and measured memory of a step of the search; only on request",
    "protocol": "the time of P-DARTS' whole search, predicted from timed steps; meant for a GPU, only on request",
}

ON_GPU = ("agreement", "protocol", "retrain")
"""Parts meant for a GPU, which run only on request: on a CPU, they take too long, or show nothing that the tests do not show."""

SEARCH_BATCH = 32
"""Images in a batch in the parts `search` and `memory`; P-DARTS' batch of 96 takes too long on a CPU."""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        usage="%(prog)s [PART ...] [option ...]",
        description="Measure speed, mostly as ratios of the times of jobs that run alternately.",
        epilog="parts:\n" + "\n".join(f"  {part:10}{what}" for part, what in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, sizes = parser.add_argument, Sizes()
    add(
        "parts",
        nargs="*",
        metavar="PART",
        help="what to measure (default: all except agreement, memory, protocol and retrain)",
    )
    add("--cases", nargs="+", choices=CASES, default=list(CASES), help="stages of the search (default: all)")
    add(
        "--batch",
        type=int,
        help=f"images in a batch (default: {SEARCH_BATCH} in search and memory, {retraining.BATCH} in retrain, else {sizes.batch})",
    )
    add(
        "--channels",
        type=int,
        default=sizes.channels,
        help="width of the supernet's first cells (default: %(default)s)",
    )
    add(
        "--layers",
        type=int,
        nargs=3,
        default=sizes.layers,
        metavar="N",
        help="number of cells in each of the three stages (default: 5 11 17)",
    )
    add(
        "--retrained",
        type=int,
        nargs=2,
        default=(retraining.LAYERS, retraining.CHANNELS),
        metavar="N",
        help=f"cells and channels of the network in retrain (default: {retraining.LAYERS} {retraining.CHANNELS})",
    )
    add(
        "--compile", action="store_true", help="also measure torch.compile in retrain; compiling takes a minute or more"
    )
    add("--images", type=int, default=sizes.images, help="images in the training set (default: %(default)s)")
    add("--side", type=int, default=sizes.side, help="side of an image, in pixels (default: %(default)s)")
    add(
        "--amp",
        choices=("none", "bf16"),
        default="none",
        help="precision of the batched supernet in search (default: none)",
    )
    add("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's own choice)")
    add("--rounds", type=int, default=5, help="timed rounds (default: %(default)s)")
    add(
        "--warm-up",
        type=int,
        help="untimed rounds before the timed ones (default: 1; on a GPU, enough to record a step)",
    )
    add("--json", type=Path, metavar="FILE", help="also write the results to FILE after every part")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    parser = arguments()
    given = parser.parse_args(words)
    wanted = given.parts or [part for part in PARTS if part not in (*ON_GPU, "memory")]
    stages = [case for case in given.cases if case in protocol.STAGES]
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; the parts are {', '.join(PARTS)}")
    if "protocol" in wanted and not stages:
        parser.error(f"protocol needs one of its stages in --cases: {', '.join(protocol.STAGES)}")
    try:
        device = training_device(given.device, given.threads)
    except RapdartsError as error:
        parser.error(str(error))
    rounds, warm_up = given.rounds, settled(device) if given.warm_up is None else given.warm_up
    if rounds < 1 or warm_up < 0:
        parser.error("--rounds must be at least 1 and --warm-up at least 0")
    large = Sizes(given.batch or Sizes.batch, given.channels, tuple(given.layers), given.images, given.side)
    small = replace(large, batch=given.batch or SEARCH_BATCH)
    trained = replace(large, batch=given.batch or retraining.BATCH)
    for part, sizes in (("search", small), ("protocol", large)):
        least = 2 * (rounds + warm_up) * sizes.batch
        if part in wanted and sizes.images < least:
            parser.error(
                f"{part} needs {rounds + warm_up} batches of {sizes.batch} from each half of the images; use --images {least}"
            )

    parts: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
        "agreement": (lambda: agreement.measure(device), agreement.report),
        "search": (lambda: search.measure(small, given.cases, given.amp, device, rounds, warm_up), search.report),
        "retrain": (
            lambda: retraining.measure(trained, *given.retrained, device, rounds, warm_up, given.compile),
            retraining.report,
        ),
        "data": (lambda: pipeline.measure(large, device, rounds, warm_up), pipeline.report),
        "derive": (lambda: commands.derivations(rounds, warm_up), commands.report),
        "cost": (lambda: commands.wall_times(["cost", "PDARTS"], "import torch", rounds, warm_up), commands.report),
        "startup": (lambda: commands.wall_times(["--help"], "pass", rounds, warm_up), commands.report),
        "memory": (lambda: footprints.measure(small, given.cases, device), footprints.report),
        "protocol": (lambda: protocol.measure(large, stages, device, rounds, warm_up), protocol.report),
    }
    figures = {**facts(device), "rounds": rounds, "warm_up": warm_up}
    print(", ".join(f"{name} {value}" for name, value in figures.items() if value is not None), flush=True)
    for part in wanted:
        measure, report = parts[part]
        figures[part] = measure()
        print(f"\n{report(figures[part])}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if figures.get("agreement", {}).get("agrees", True) else 1


def facts(device: torch.device) -> dict[str, Any]:
    """Return the circumstances of the measurement: date, commit, versions, machine, threads and clock."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "gpu": device_name(device) if device.type == "cuda" else None,
        "clock": clock(device),
    }


def commit() -> str | None:
    """Return the commit of the checkout, with a plus if files differ from it, or None outside a git checkout."""

    def git(*words: str) -> str:
        command = ["git", "-c", "safe.directory=*", *words]
        return subprocess.run(command, cwd=commands.ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
