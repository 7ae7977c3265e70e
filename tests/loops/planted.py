"""Faults planted in single updates of a training, and the same trainings with these updates left out.

A fault is planted where it would arise: in the images, the loss, the cost or the gradients. To leave an update out, its
optimiser, moving average and record are bypassed and its batch norms' statistics restored, without the guard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rapdarts.cli.main import main
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from rapdarts.training.checkpoint import load_checkpoint

COMMON = ["threads=1", "data.fraction=0.1", "skeleton.layers=3", "skeleton.channels=4"]
SEARCH = [
    "search", "digits", *COMMON, "search.primitives=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "search.channels=2",
    "search.layers=[3]", "search.candidates=[0]", "search.skip_dropout=[0.3]", "search.epochs=2",
    "search.warmup_epochs=1", "search.batch=24", "cost.macs=0.2",
]  # fmt: skip
"""A search of three steps of warm-up and three whole ones."""
RETRAIN = [
    "retrain", "PDARTS", "digits", *COMMON, "retrain.epochs=2", "retrain.batch=30", "retrain.ema=0.9", "retrain.drop_path=0.3",
]  # fmt: skip
"""A retraining of eight steps with a moving average."""


@dataclass(frozen=True)
class Fault:
    """A number that is not finite, planted at `place` (image, loss, cost or gradient) of an update of one step, counted from 0."""

    step: int
    update: str  # alphas or weights
    place: str
    value: float

    def __str__(self) -> str:
        return f"{self.place}-{self.value}-{self.update}-{self.step}"


class Steps:
    """Wrapper of the functions that make steps: counts all steps of a run, and calls `take(step, number, arguments)` for each."""

    def __init__(self, make: Callable[..., Any], take: Callable[..., Any]) -> None:
        self.make, self.take, self.number = make, take, 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        step = self.make(*given, **named)

        def taken(*arguments: Any) -> Any:
            if arguments[0].is_meta:  # a memory estimate
                return step(*arguments)
            number, self.number = self.number, self.number + 1
            return self.take(step, number, arguments, given)

        return taken


def damaged(tensor: Tensor, value: float) -> Tensor:
    """Return a copy in which the first number of a tensor (any shape) is replaced."""
    copy = tensor.clone()
    copy.view(-1)[0] = value
    return copy


@contextmanager
def planted(*faults: Fault, loop: Any = searching) -> Iterator[None]:
    """Plant faults in the steps of a search or retraining in the body of the `with` statement."""
    name = "alternation" if loop is searching else "training_step"

    def take(step: Any, number: int, arguments: tuple[Any, ...], made: tuple[Any, ...]) -> Any:
        here, hooks = [fault for fault in faults if fault.step == number], []
        with pytest.MonkeyPatch.context() as patch:
            for fault in here:
                # In a search step, the alphas come first; without a warm step, there is no update of the alphas.
                warm = loop is searching and arguments[4]
                call = 1 if warm and fault.update == "weights" else 0
                if fault.place == "image":
                    at = 2 if fault.update == "alphas" else 0
                    arguments = (*arguments[:at], damaged(arguments[at], fault.value), *arguments[at + 1 :])
                elif fault.place == "loss":
                    _damage_call(patch, loop, "mean_loss" if loop is searching else "summed_loss", call, fault.value)
                elif fault.place == "cost":
                    _damage_call(patch, type(made[5]), "__call__", 0, fault.value)
                elif loop is searching:
                    _damage_call(patch, torch.autograd, "grad", 2 if call else 0, fault.value)
                else:
                    weight = next(made[1].parameters())
                    hooks.append(weight.register_hook(partial(damaged, value=fault.value)))
            facts = step(*arguments)
        for hook in hooks:
            hook.remove()
        return facts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, Steps(getattr(loop, name), take))
        yield


def _damage_call(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int, value: float) -> None:
    """Damage the result of one call of a function, counted from 0: a tensor, or the first one of several."""
    original, calls = getattr(owner, name), []

    def call(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        calls.append(1)
        if len(calls) - 1 != number:
            return result
        if isinstance(result, Tensor):
            return result + value  # its gradient remains finite
        return damaged(result[0], value), *result[1:]

    patch.setattr(owner, name, call)


@contextmanager
def left_out(*faults: Fault, loop: Any = searching) -> Iterator[None]:
    """Leave the updates of these faults out, without planting the faults, in the body of the `with` statement."""
    name = "alternation" if loop is searching else "training_step"
    original = loop.optimizer_step

    def take(step: Any, number: int, arguments: tuple[Any, ...], made: tuple[Any, ...]) -> Any:
        network = made[1]
        without = {fault.update for fault in faults if fault.step == number}
        before = [buffer.clone() for buffer in network.buffers()]

        def stepped(optimizer: Any, parameters: Any, *others: Any) -> None:
            update = "alphas" if isinstance(optimizer, torch.optim.Adam) else "weights"
            if update in without:
                for buffer, value in zip(network.buffers(), before, strict=True):
                    buffer.copy_(value)
                optimizer.zero_grad()
            else:
                original(optimizer, parameters, *others)
                before[:] = [buffer.clone() for buffer in network.buffers()]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "optimizer_step", stepped)
            if without and loop is retraining:
                patch.setattr(loop.FinalNetwork, "update", lambda final, kept: None)
            facts = step(*arguments)
        of_update = {"weights": ("train_",), "alphas": ("search_", "task_", "price_")}
        absent = tuple(prefix for update in without for prefix in of_update[update])
        return {key: value for key, value in facts.items() if not key.startswith(absent or "\0")}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, Steps(getattr(loop, name), take))
        yield


def run(folder: Path, loop: Any = searching, *more: str) -> int:
    """Run the search or the retraining, and return its exit code."""
    return main([*(SEARCH if loop is searching else RETRAIN), f"run={folder}", "save_seconds=1e6", *more])


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything that a run saved, except times and the state of the guard: tensors by name, texts and records."""
    found = load_checkpoint(folder / "checkpoint", {})
    assert found is not None
    state = {name: value for name, value in found[0].items() if name not in ("seconds", "elapsed", "records", "files")}
    state["objects"] = {name: value for name, value in state["objects"].items() if name != "guard"}
    meter = state["meter"]  # a sum over nothing is the same as none
    state["meter"] = {
        name: (total, meter["counts"][name]) for name, total in meter["sums"].items() if meter["counts"][name]
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records = [{name: fact for name, fact in line.items() if name not in ("seconds", "skipped")} for line in lines]
    names = ("genotype.json", "alphas.json", "candidates.json", "network.safetensors")
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    return {"state": state, "records": records, "files": files}


def tensors(value: Any) -> list[Tensor]:
    """Return all tensors in nested lists and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in tensors(item)]


def skipped(folder: Path) -> int:
    """Return the number of skipped updates in the records of a run."""
    return sum(json.loads(line)["skipped"] for line in (folder / "metrics.jsonl").read_text().splitlines())


def assert_same(first: Any, second: Any, path: str = "") -> None:
    """Assert that two values are equal, and that their tensors have the same bits."""
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), path
    elif isinstance(first, dict):
        assert set(first) == set(second), path
        for name in first:
            assert_same(first[name], second[name], f"{path}.{name}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), path
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{path}.{number}")
    else:
        assert first == second, path
