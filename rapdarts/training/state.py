"""The state of a run in its checkpoint: checks before it is used, and the record of runs of older versions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.errors import DamagedError, InputError, plural, ran_out_of_memory, shorten
from rapdarts.files.json import Fault, is_whole, strict_loads
from rapdarts.files.regular import read_bytes
from rapdarts.training.guard import Guard
from rapdarts.training.packing import not_finite, pack

DEEPEST = 50
POSITION = ("stage", "epoch", "step")

OPTIMIZER_STATE = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}}
"""Names of the state of a parameter that has been updated, by the type of its optimiser."""


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
            raise ValueError(f"its {name} is {_quoted(state.get(name))}")
    for name, of_older in (("seconds", None), ("elapsed", 0.0)):
        value = state.get(name, of_older)
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"its {name} is {_quoted(value)}")
    finished = state.get("finished")
    if not (isinstance(finished, list) and all(isinstance(facts, dict) for facts in finished)):
        raise ValueError("its finished stages are not a list of results")
    if len(finished) != state["stage"]:
        raise ValueError(f"it is in stage {state['stage']}, but holds the results of {len(finished)}")
    objects = state.get("objects")
    if not (isinstance(objects, dict) and all(isinstance(one, dict) for one in objects.values())):
        raise ValueError("its objects are not states by name")
    if broken := not_finite(pack({"objects": objects}), "objects"):
        raise ValueError(f"{broken} contains values that are not finite")
    _check_meter(state.get("meter"))
    _check_records(state)


def _quoted(value: Any) -> str:
    """Return a value as messages quote it, on one line."""
    return shorten(" ".join(repr(value).split()))


def _check_meter(state: Any) -> None:
    sums, counts = (state.get(name) if isinstance(state, dict) else None for name in ("sums", "counts"))
    if not (
        isinstance(sums, dict)
        and isinstance(counts, dict)
        and sums.keys() == counts.keys()
        and all(isinstance(name, str) for name in sums)
        and all(isinstance(total, Tensor) and total.ndim == 0 for total in sums.values())
        and all(is_whole(count) and count >= 0 for count in counts.values())
    ):
        raise ValueError("its sums of the epoch are not numbers by name")


def _check_records(state: Mapping[str, Any]) -> None:
    if "records" not in state:
        if not (is_whole(state.get("metrics_bytes")) and state["metrics_bytes"] >= 0):
            raise ValueError("it has no records of the epochs")
        return
    lines, files = state["records"], state.get("files", {})
    if not (isinstance(lines, list) and all(isinstance(line, str) and is_record(line) for line in lines)):
        raise ValueError("its records of the epochs are not lines of JSON with the numbers of an epoch")
    check_place_of_records(lines, state)
    if not (isinstance(files, dict) and all(isinstance(one, str) for pair in files.items() for one in pair)):
        raise ValueError("its list of files is not a list of hashes by name")


def is_record(line: str) -> bool:
    """Return whether a line of text is the record of an epoch: a JSON object with numbers, among them its place and its time."""
    try:
        tree = strict_loads(line)
    except Fault:
        return False
    return (
        isinstance(tree, dict)
        and all(type(value) in (int, float) and math.isfinite(value) for value in tree.values())
        and all(is_whole(tree.get(name)) and tree[name] >= 0 for name in ("stage", "epoch"))
        and tree.get("seconds", -1) >= 0
        and "\n" not in line
    )


def check_place_of_records(lines: Sequence[str], state: Mapping[str, Any]) -> None:
    """Raise ValueError unless the records are those of the epochs up to the position of a state.

    The trainings of a run follow each other, and each of them counts its epochs from 0. Several trainings may have the same stage,
    such as the replicas of a search, and a training that diverged may have no record.
    """
    trainings: list[int] = []  # the number of epochs of each
    last = 0
    for line in lines:
        record = strict_loads(line)
        stage, epoch = record["stage"], record["epoch"]
        if epoch == 0:
            trainings.append(0)
        if not trainings or epoch != trainings[-1] or not (last <= stage if epoch == 0 else last == stage):
            raise ValueError(f"its records of the epochs have a gap at stage {stage + 1}, epoch {epoch + 1}")
        trainings[-1], last = epoch + 1, stage
    current = trainings.pop() if state["epoch"] and trainings else 0
    diverged = sum("diverged" in facts for facts in state["finished"])
    # A run without objects, such as rapdarts find, leaves its trainings to other runs.
    least = state["stage"] - diverged if state.get("objects") else 0
    if current != state["epoch"] or last > state["stage"] or not least <= len(trainings) <= state["stage"]:
        where = f"stage {state['stage'] + 1}, epoch {state['epoch'] + 1}"
        raise ValueError(f"it is at {where}, but holds the records of {plural(len(lines), 'epoch')}")


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
    try:
        if len(raw) != state["metrics_bytes"] or raw[-1:] not in (b"", b"\n") or not all(map(is_record, lines)):
            raise ValueError
        check_place_of_records(lines, state)
    except ValueError:
        raise DamagedError(
            f"{path} is damaged: it does not hold the records of the epochs up to the checkpoint; start a new run in another folder"
            " with run=PATH."
        ) from None
    return {**state, "records": lines}


class OtherParameters(ValueError):
    """The state of an optimiser belongs to other parameters."""


def restore(name: str, thing: Any, states: Mapping[str, Any]) -> None:
    """Load the state with this name into an object. Raises ValueError, with a clause on the state, if there is none or it does not fit."""
    try:
        state = states[name]
        check_fits(thing, state)
        if isinstance(thing, torch.optim.Optimizer):
            state = {"state": state["state"], "param_groups": _own_groups(thing, state["param_groups"])}
        thing.load_state_dict(state)
        if isinstance(thing, torch.optim.Optimizer):
            _lay_out(thing)
    except OtherParameters:
        raise ValueError(f"contains the state of {name} for different parameters") from None
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if ran_out_of_memory(error):
            raise
        raise ValueError(f"does not fit {name} ({' '.join(str(error).split())[:300]})") from None


def _own_groups(optimizer: torch.optim.Optimizer, saved: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups of an optimiser with its own momentum, betas and the like, which are settings and not part of a state.

    Only a learning rate that a schedule has set, in a tensor, is that of the state.
    """
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    for own, other in zip(groups, saved, strict=True):
        rate = other.get("lr")
        most = float(torch.tensor(float(own["lr"]), dtype=torch.float32))  # schedules only reduce it
        if isinstance(rate, Tensor) and rate.ndim == 0 and 0 <= float(rate) <= most:
            own["lr"] = rate
    return groups


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of each parameter the parameter's memory format, because fused optimisers pair numbers by their place in memory."""
    for parameter, facts in optimizer.state.items():
        for name, value in facts.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                facts[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def check_fits(thing: Any, state: Mapping[str, Any]) -> None:
    """Raise OtherParameters if the state of an optimiser is that of other parameters, and ValueError if its shapes are not theirs.

    Torch matches the state by position and does not compare shapes, so momentum would silently be assigned to the wrong parameter.
    The state of a guard or a module is compared with its own, because copying would repeat a tensor of another shape and convert one of
    another type. Also raises the errors of malformed states: KeyError, TypeError, AttributeError or IndexError.
    """
    if isinstance(thing, Guard | nn.Module):
        check_alike(thing.state_dict(), state)
    if not isinstance(thing, torch.optim.Optimizer):
        return
    ours, theirs = ([group.get("param_names") for group in one["param_groups"]] for one in (thing.state_dict(), state))
    if ours != theirs:
        raise OtherParameters
    parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
    for place, facts in state["state"].items():
        if facts and facts.keys() != OPTIMIZER_STATE.get(type(thing), facts.keys()):
            raise ValueError(f"it holds unexpected values for a parameter ({', '.join(map(str, facts))})")
        for name, value in facts.items():
            shape = torch.Size() if name == "step" else parameters[place].shape
            if value is None and name == "momentum_buffer":  # before the first update
                continue
            if value.shape != shape:
                raise ValueError(f"its {name} has shape {tuple(value.shape)}, not {tuple(shape)}")
            if not value.is_floating_point():
                raise ValueError(f"its {name} has the type {value.dtype}")


def check_alike(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise ValueError if a value has another type than the own one with its name, or if it is a tensor of another shape or dtype.

    Values may be missing, because older versions did not save them.
    """
    for name, value in own.items():
        other = state.get(name, value)
        if type(other) is not type(value):
            raise ValueError(f"its {name} is not a {type(value).__name__}")
        if isinstance(value, Tensor) and (other.shape, other.dtype) != (value.shape, value.dtype):
            kinds = [f"{tuple(one.shape)} of {one.dtype}" for one in (other, value)]
            raise ValueError(f"its {name} is {kinds[0]}, not {kinds[1]}")
