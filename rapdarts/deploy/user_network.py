"""Networks in the user's own code. Their costs are counted, but they are not trained."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from rapdarts.config.shapes import Inputs, each, shown
from rapdarts.deploy import skeletons
from rapdarts.errors import InputError, any_of, first_line, shorten

SHAPES, CLASSES = ("image", "input_size", "in_channels"), ("classes", "num_classes")
"""Names of the arguments that are filled in with the shape of the first input, and with the number of classes."""


@dataclass(frozen=True, eq=False)
class UserNetwork:
    """The user's own network. `image` is the shape of its input, or the shapes of several inputs.

    `classes` is 0 if the number of classes is not set from outside. `accepted` names the options that its code takes.
    """

    name: str
    network: nn.Module
    image: Inputs
    classes: int = 0
    accepted: frozenset[str] = frozenset()

    def build(self) -> nn.Module:
        """Return the network itself."""
        return self.network


def from_code(name: str, inputs: Inputs | None, classes: int) -> UserNetwork:
    """Return the network of `package.module:callable`.

    If `inputs` is None or `classes` is 0, the code's own default applies. A callable is called with the arguments whose
    names are in SHAPES and CLASSES. Raises InputError if the user's code fails, takes other arguments, or returns no
    network.
    """
    given: dict[str, Any] = {}
    try:
        network = _load(name)
        takes = {} if isinstance(network, nn.Module) or not callable(network) else _parameters(network)
        given = _arguments(name, takes, inputs, classes)
        if callable(network) and not isinstance(network, nn.Module):
            network = network(**given)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        why = first_line(error).rstrip(".")
        called = f" (called with {', '.join(f'{key}={value!r}' for key, value in given.items())})" if given else ""
        raise InputError(
            f"{shorten(name)} cannot be built{called}: {type(error).__name__}: {why[:300]}; fix the code or its name."
        ) from error
    refuse_uncountable(network, shorten(name))
    told = next((given[key] for key in CLASSES if key in given), 0)
    accepted = frozenset({"classes"}) if any(key in takes for key in CLASSES) else frozenset()
    return UserNetwork(name, network, inputs or _own_image(takes, given), told, accepted)


def refuse_uncountable(network: Any, name: str) -> None:
    """Raise InputError, with a remedy, for a value that is not a network of layers with known sizes."""
    kind = type(network)
    if isinstance(network, torch.export.ExportedProgram) or any(
        base.__module__.startswith("torch.export") for base in kind.__mro__
    ):
        raise InputError(
            f"{name} is an exported program, whose layers cannot be counted; pass the module that was exported."
        )
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returns a value of type {kind.__name__}; return a network (torch.nn.Module).")
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InputError(f"{name} is wrapped in {kind.__name__}; pass the wrapped network, its module attribute.")
    scripted = next(
        (layer for layer, module in network.named_modules() if isinstance(module, torch.jit.ScriptModule)), None
    )
    if scripted is not None:
        what = f"the layer {scripted} of {name}" if scripted else name
        raise InputError(
            f"{what} is scripted, so its layers cannot be counted; pass the original module, not the result of"
            " torch.jit.script or torch.jit.trace."
        )
    if any(isinstance(weight, UninitializedParameter) for weight in network.parameters()):
        raise InputError(f"{name} has lazy layers without weights; run it on an image first.")


def _load(name: str) -> Any:
    """Return the value of a name in the user's code."""
    module, _, path = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return operator.attrgetter(path)(importlib.import_module(module))
    finally:
        sys.path.remove(os.getcwd())  # otherwise, the user's files would shadow packages that are imported later


def _parameters(code: Any) -> dict[str, Parameter]:
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {key: one for key, one in inspect.signature(code).parameters.items() if one.kind not in variable}


def _arguments(name: str, takes: Mapping[str, Parameter], inputs: Inputs | None, classes: int) -> dict[str, Any]:
    """Return the arguments for calling the user's code: those that the user set, and those without a default."""
    found: dict[str, Any] = {}
    for key, one in takes.items():
        needed = one.default is one.empty
        if one.kind is Parameter.POSITIONAL_ONLY:
            continue
        if key in SHAPES and (needed or inputs is not None):
            found[key] = _shape_for(name, one, each(inputs or skeletons.IMAGE)[0])
        elif key in CLASSES and (needed or classes):
            found[key] = classes or skeletons.CLASSES
    missing = [key for key, one in takes.items() if one.default is one.empty and key not in found]
    if missing:
        raise InputError(
            f"{shorten(name)} takes {' and '.join(missing)}, but only arguments named {any_of([*SHAPES, *CLASSES])} are filled in;"
            " add defaults, or pass a function without arguments that returns the network."
        )
    return found


def _shape_for(name: str, parameter: Parameter, shape: tuple[int, ...]) -> Any:
    """Return the value of an argument for a shape: the channels, the side, the height and width, or the whole shape.

    An argument annotated as int, or with an int as default, takes the side. If its default is a tuple of two numbers, it takes the
    height and width.
    """
    key, default = parameter.name, parameter.default
    if key == "in_channels":
        return shape[0]
    if parameter.annotation in (int, "int") or type(default) is int:
        if len(set(shape[1:])) != 1:
            raise InputError(
                f"{shorten(name)} takes {key} as a single number, but input={shown(shape)} is not square; let it take a tuple."
            )
        return shape[1]
    return shape[1:] if isinstance(default, tuple | list) and len(default) == len(shape) - 1 else shape


def _own_image(takes: Mapping[str, Parameter], given: Mapping[str, Any]) -> Inputs:
    """Return the image shape in the defaults of the user's code, else the usual one."""
    channels, height, width = skeletons.IMAGE
    own = {key: one.default for key, one in takes.items() if key in SHAPES and key not in given}
    if type(own.get("in_channels")) is int:
        channels = own["in_channels"]
    for default in (own.get("image"), own.get("input_size")):
        sides = (
            (default, default) if type(default) is int else tuple(default) if isinstance(default, tuple | list) else ()
        )
        if sides and all(type(side) is int for side in sides):
            return (channels, *sides) if len(sides) == 2 else sides
    return channels, height, width
