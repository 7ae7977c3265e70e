"""The state of a run in its checkpoint: checks before it is used, and the record of runs of older versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapdarts.errors import DamagedError, InputError
from rapdarts.files.json import Fault, is_whole, strict_loads
from rapdarts.files.regular import read_bytes
from rapdarts.training.meter import Meter

DEEPEST = 50
POSITION = ("stage", "epoch", "step")


def check_tensors(tree: Any, depth: int = 0) -> None:
    """Raise ValueError for a tensor that takes more memory than it stores, and for values nested too deeply.

    A small file can hold a tensor that repeats one number 2^40 times (a stride of 0); the first copy would need all of its memory.
    """
    if depth > DEEPEST:
        raise ValueError(f"its values are nested deeper than {DEEPEST} levels")
    if isinstance(tree, Tensor):
        if tree.layout != torch.strided or tree.is_meta or tree.is_quantized:
            raise ValueError("it contains a tensor without plain numbers")
        if tree.numel() * tree.element_size() > tree.untyped_storage().nbytes():
            raise ValueError(f"it contains a tensor of shape {tuple(tree.shape)} whose numbers are not all stored")
    elif isinstance(tree, Mapping):
        for value in tree.values():
            check_tensors(value, depth + 1)
    elif isinstance(tree, list | tuple):
        for value in tree:
            check_tensors(value, depth + 1)


def check_state(state: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the entry, unless `state` is one that `Run.save` writes, in this version or an older one.

    Whether the tensors fit the networks and optimisers is checked when they are restored.
    """
    for name in POSITION:
        if not (is_whole(state.get(name)) and 0 <= state[name] < 2**31):
            raise ValueError(f"its {name} is {state.get(name)!r}")
    for name in ("seconds", "elapsed"):
        value = state.get(name, 0.0)
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"its {name} is {value!r}")
    finished = state.get("finished")
    if not (isinstance(finished, list) and all(isinstance(facts, dict) for facts in finished)):
        raise ValueError("its finished stages are not a list of results")
    if len(finished) != state["stage"]:
        raise ValueError(f"it is in stage {state['stage']}, but holds the results of {len(finished)}")
    objects = state.get("objects")
    if not (isinstance(objects, dict) and all(isinstance(one, dict) for one in objects.values())):
        raise ValueError("its objects are not states by name")
    if broken := not_finite(objects):
        raise ValueError(f"{broken} contains values that are not finite")
    _check_meter(state.get("meter"))
    _check_records(state)


def _check_meter(state: Any) -> None:
    try:
        meter = Meter()
        meter.load_state_dict(state)
        sound = meter.sums.keys() == meter.counts.keys() and all(
            isinstance(meter.sums[name], Tensor) and meter.sums[name].ndim == 0 and is_whole(count) and count >= 0
            for name, count in meter.counts.items()
        )
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise ValueError("its sums of the epoch are not numbers by name")


def _check_records(state: Mapping[str, Any]) -> None:
    if "records" not in state:
        if not (is_whole(state.get("metrics_bytes")) and state["metrics_bytes"] >= 0):
            raise ValueError("it has no records of the epochs")
        return
    lines, files = state["records"], state.get("files", {})
    if not (isinstance(lines, list) and all(isinstance(line, str) and is_record(line) for line in lines)):
        raise ValueError("its records of the epochs are not lines of JSON")
    if not (isinstance(files, dict) and all(isinstance(one, str) for pair in files.items() for one in pair)):
        raise ValueError("its list of files is not a list of hashes by name")


def is_record(line: str) -> bool:
    """Return whether a line of text is the record of an epoch: a JSON object with its time."""
    try:
        tree = strict_loads(line)
    except Fault:
        return False
    return isinstance(tree, dict) and type(tree.get("seconds")) in (int, float) and "\n" not in line


def with_records(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a state with the records of all epochs; those of a run of an older version are read from the file `path`.

    Raises DamagedError if that file does not hold them.
    """
    if "records" in state:
        return state
    try:
        raw = read_bytes(path)[: state["metrics_bytes"]]
        lines = raw.decode().splitlines()
    except (InputError, UnicodeDecodeError):
        raw, lines = b"", []
    if len(raw) != state["metrics_bytes"] or raw[-1:] not in (b"", b"\n") or not all(map(is_record, lines)):
        raise DamagedError(
            f"{path} is damaged: it does not hold the records of the epochs up to the checkpoint; start a new run in another folder"
            " with run=PATH."
        )
    return {**state, "records": lines}


class OtherParameters(ValueError):
    """The state of an optimiser belongs to other parameters."""


def restore(name: str, thing: Any, states: Mapping[str, Any]) -> None:
    """Load the state with this name into an object. Raises ValueError, with a clause on the state, if there is none or it does not fit."""
    try:
        check_fits(thing, states[name])
        thing.load_state_dict(states[name])
    except OtherParameters:
        raise ValueError(f"contains the state of {name} for different parameters") from None
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"does not fit {name} ({' '.join(str(error).split())[:300]})") from None


def check_fits(thing: Any, state: Mapping[str, Any]) -> None:
    """Raise OtherParameters if the state of an optimiser is that of other parameters, and ValueError if its shapes are not theirs.

    Torch matches the state by position and does not compare shapes, so momentum would silently be assigned to the wrong parameter.
    Also raises the errors of malformed states: KeyError, TypeError, AttributeError or IndexError.
    """
    if not isinstance(thing, torch.optim.Optimizer):
        return
    ours, theirs = ([group.get("param_names") for group in one["param_groups"]] for one in (thing.state_dict(), state))
    if ours != theirs:
        raise OtherParameters
    parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
    for place, facts in state["state"].items():
        for name, value in facts.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameters[place].shape:
                raise ValueError(f"its {name} has shape {tuple(value.shape)}, not {tuple(parameters[place].shape)}")


def not_finite(objects: Any, path: str = "") -> str:
    """Return the dotted name of the first tensor that contains NaN or infinity, or an empty string."""
    if isinstance(objects, Tensor):
        return path if objects.is_floating_point() and not bool(torch.isfinite(objects).all()) else ""
    items = objects.items() if isinstance(objects, Mapping) else enumerate(objects) if isinstance(objects, list) else ()
    return next((broken for name, value in items if (broken := not_finite(value, f"{path}.{name}".strip(".")))), "")
