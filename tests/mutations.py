"""Mutations of the files that runs write: each must be refused in one line, or make no difference to what is read.

`series` builds the runs, and `survivors` mutates their files one at a time: cut, one flipped bit, a block of zeros, appended bytes, or the
same file of another run. It reads each mutated file with a command and compares the output with that of the undamaged file.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rapdarts.cli.main import main
from rapdarts.training import checkpoint
from tests.tiny import TINY

KINDS = ("cut", "flip", "zeros", "append", "swap")
ALLOWED, STOPPED = (2, 4), 75
"""Exit codes of a refused file, and of a run that a signal has stopped."""

SEARCH = ["digits", *TINY, "search.layers=[3]", "search.candidates=[0]", "search.skip_dropout=[0]"]
TRAINING = ["digits", "threads=1", "data.fraction=0.1", "retrain.epochs=1", "retrain.batch=50"]
SMALL, SKELETON = ["skeleton.layers=3", "skeleton.channels=4"], ["layers=3", "channels=4"]
PRICED = ["hardware=chip.yaml", "latency=latency.json", "cost.energy=0.1", "cost.latency=0.1"]
FIND = ["digits", *TINY, "budget.params=9k", "effort=0.02", "retrain.batch=24"]
"""Settings of the runs. The tables of the priced search are in the folder of all runs."""


@dataclass(frozen=True)
class Artefact:
    """A file of a run, relative to the folder of all runs, and the command that reads it; `outputs` are files that the command writes.

    If it has `outputs`, only they are compared, because a command that continues a run also prints durations. An `exported` file is not
    tied to a run, so that of another run in its place is no damage.
    """

    file: str
    command: Sequence[str]
    outputs: Sequence[str] = ()
    exported: bool = False


def series(folder: Path, complete: bool = False) -> list[Artefact]:
    """Run two searches and two retrainings with different seeds in `folder / "1"` and `folder / "2"`; return their files.

    If `complete`, also run rankings, random baselines, a search with tables of energies and latencies, a retraining that keeps its best
    network, one that is stopped, and `find`, and export the networks to ONNX files.
    """
    for number in "12":
        place, seed = folder / number, f"seed={number}"
        for resume in ("false", "true"):  # the second time, there is a previous checkpoint
            _call("search", *SEARCH, seed, f"run={place / 'search'}", f"resume={resume}")
        _call("retrain", str(place / "search"), *TRAINING, seed, f"run={place / 'network'}")
        if complete:
            _run_others(place, seed)
    return [*_of_search_and_network(), *(_of_others() if complete else ())]


def _run_others(place: Path, seed: str) -> None:
    quick = ["rank.epochs=1", "retrain.batch=50", "rank.count=2", seed]
    _call("rank", str(place / "search"), *quick, f"run={place / 'rank'}")
    _call("search", *TRAINING, *SMALL, "strategy=random", "random.count=2", seed, f"run={place / 'random'}")
    _call("export", str(place / "network"), "to=onnx", f"out={place / 'network' / 'net.onnx'}")
    with chdir(place):
        Path("chip.yaml").write_text(
            f"name: chip\nmac_8: 0.2\nmac_32: {4 + len(seed)}\ndram_32: 1e2\n", encoding="utf-8"
        )
        _call("measure", "digits", *SKELETON, "networks=6", "threads=1", "out=latency.json")
        _call("search", *SEARCH, *PRICED, seed, "run=priced")
        _call("retrain", "search", *TRAINING, "retrain.validation_fraction=0.2", seed, "run=best")
        _call("find", *FIND, seed, "run=find")
        stop("retrain", "search", *TRAINING, "retrain.epochs=3", "save_seconds=0", seed, "run=stopped")


def stop(*arguments: str, saves: int = 4) -> None:
    """Run a command, and send it a signal when it has saved `saves` times."""
    save, number = checkpoint.save_packed, itertools.count(1)

    def saving(path: Path, packed: Any, origin: Any) -> None:
        save(path, packed, origin)
        if next(number) == saves:
            os.kill(os.getpid(), signal.SIGTERM)

    with patch.object(checkpoint, "save_packed", saving):
        code, _, errors = _main(arguments)
    assert code == STOPPED, errors


def _of_search_and_network() -> Iterator[Artefact]:
    for file in ("search/genotype.json", "network/genotype.json"):
        yield Artefact(file, ["cost", file, "--json"])
    yield Artefact("search/candidates.json", ["cost", "search/candidates.json:1.genotype", "--json"])
    for file in ("alphas.json", "config.yaml"):
        yield Artefact(f"search/{file}", ["derive", "search", "--json"])
    yield from _reported("search")
    yield from _reported("network")
    resumed = ["search/alphas.json", "search/genotype.json", "search/metrics.jsonl"]
    for file in ("checkpoint", "checkpoint.previous", "metrics.jsonl", "config.yaml"):
        yield Artefact(f"search/{file}", ["search", "run=search", "resume=true"], resumed)
    yield _weights("network/network.safetensors")
    yield Artefact("network/checkpoint", ["evaluate", "network", "timing=false", "--json"])


def _of_others() -> Iterator[Artefact]:
    yield Artefact("rank/best.json", ["cost", "rank/best.json", "--json"])
    yield Artefact("rank/ranking.json", ["cost", "rank/ranking.json:0.genotype", "--json"])
    yield Artefact("random/genotypes.json", ["cost", "random/genotypes.json:1.genotype", *SKELETON, "--json"])
    yield from _reported("rank")
    yield from _reported("random")
    yield _weights("rank/trained/1/network.safetensors")
    yield Artefact("network/net.onnx", ["evaluate", "network/net.onnx", "timing=false", "--json"], exported=True)
    yield _weights("best/best.safetensors")
    for file in ("latency.json", "hardware.yaml", "alphas.json"):
        yield Artefact(f"priced/{file}", ["derive", "priced", "--json"])
    for file in (
        "checkpoint",
        "checkpoint.previous",
        "metrics.jsonl",
        "config.yaml",
        "environment.json",
        "status.json",
    ):
        yield Artefact(
            f"stopped/{file}", ["retrain", "search", "run=stopped", "resume=true"], ["stopped/network.safetensors"]
        )
    for file in (
        "result.json",
        "environment.json",
        "config.yaml",
        "plan.json",
        "search/genotype.json",
        "network/result.json",
        "network/network.safetensors",
    ):
        yield Artefact(f"find/{file}", ["report", "find"])
    for file in ("plan.json", "checkpoint", "search/candidates.json", "network/checkpoint"):
        yield Artefact(
            f"find/{file}", ["find", "run=find", "resume=true"], ["find/network/network.safetensors", "find/cell.svg"]
        )


def _reported(run: str) -> Iterator[Artefact]:
    for file in ("result.json", "environment.json", "config.yaml", "metrics.jsonl"):
        yield Artefact(f"{run}/{file}", ["report", run])


def _weights(file: str) -> Artefact:
    return Artefact(file, ["export", file, "to=safetensors", "out=copy.safetensors"], ["copy.safetensors"])


def survivors(folder: Path, artefacts: Sequence[Artefact], count: int, seed: int = 0) -> tuple[list[str], Counter[str]]:
    """Read `count` mutated files; return a line for each that was neither refused nor without effect, and the number of each outcome.

    The command runs in `folder / "1"`, whose files are restored after each. `swap` takes the file of the runs in `folder / "2"`.
    """
    draw, found, outcomes = random.Random(seed), list[str](), Counter[str]()
    expected = [_read(folder / "1", artefact) for artefact in artefacts]
    assert all(code == 0 for code, _, _ in expected), [errors for _, _, errors in expected]
    for number in range(count):
        place = number % len(artefacts)
        artefact = artefacts[place]
        kind = draw.choice([kind for kind in KINDS if not (artefact.exported and kind == "swap")])
        file = folder / "1" / artefact.file
        kept = folder / "kept"
        shutil.copytree(folder / "1", kept)
        try:
            content = file.read_bytes()
            file.write_bytes(mutated(content, kind, draw, (folder / "2" / artefact.file).read_bytes()))
            code, outputs, errors = _read(folder / "1", artefact)
        finally:
            shutil.rmtree(folder / "1")
            kept.rename(folder / "1")
        outcome = "equal" if code == 0 and outputs == expected[place][1] else "refused" if code in ALLOWED else ""
        if "Traceback" in errors or "internal error" in errors or not outcome:
            found.append(f"{number}: {kind} of {artefact.file} read by {' '.join(artefact.command)}: {code} {errors}")
        outcomes[outcome or "survived"] += 1
    return found, outcomes


def mutated(content: bytes, kind: str, draw: random.Random, other: bytes) -> bytes:
    """Return a damaged copy of a content; `other` is the content of the same file of another run."""
    raw, at = bytearray(content), draw.randrange(len(content))
    if kind == "cut":
        del raw[at:]
    elif kind == "flip":
        raw[at] ^= 1 << draw.randrange(8)
    elif kind == "zeros":
        raw[at : at + 512] = bytes(len(raw[at : at + 512]))
    elif kind == "append":
        raw += draw.randbytes(draw.randrange(1, 600))
    else:
        raw[:] = other
    return bytes(raw)


def _read(folder: Path, artefact: Artefact) -> tuple[int, list[str | bytes], str]:
    """Return the exit code, the outputs and the messages of a command in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        code, out, errors = _main(artefact.command)
        written = [_bytes(folder / output) for output in artefact.outputs] if code == 0 else []
        return code, written or [out], errors
    finally:
        os.chdir(before)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _main(arguments: Sequence[str]) -> tuple[int, str, str]:
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main(list(arguments))
    return code, out.getvalue(), errors.getvalue()


def _call(*arguments: str) -> None:
    code, _, errors = _main(arguments)
    assert code == 0, errors
