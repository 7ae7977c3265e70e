"""Networks in the user's own code. Their costs are counted, but they are not trained."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import sys
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from rapdarts.cost.trace import Image
from rapdarts.errors import InputError, shorten


@dataclass(frozen=True, eq=False)
class UserNetwork:
    """The user's own network, to be counted on an image (channels, height, width).

    `classes` is 0 if only the network knows their number. `accepted` names the options, `image` or `classes`, that its code takes.
    """

    name: str
    network: nn.Module
    image: Image
    classes: int = 0
    accepted: frozenset[str] = frozenset()

    def build(self) -> nn.Module:
        """Return the network itself."""
        return self.network


def from_code(name: str, image: Image, classes: int) -> UserNetwork:
    """Return the network of `package.module:callable`, called with the image and the number of classes if it takes them.

    Raises InputError if the user's code fails or returns no network.
    """
    try:
        network, accepted = _run_code(name, image, classes)
    except (Exception, SystemExit) as error:
        why = (str(error).splitlines() or [""])[0].rstrip(".")
        raise InputError(
            f"{shorten(name)} cannot be built: {type(error).__name__}: {why[:300]}; fix the code or its name."
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{shorten(name)} returns a value of type {type(network).__name__}; return a network (torch.nn.Module)."
        )
    refuse_lazy(network, shorten(name))
    return UserNetwork(name, network, image, classes if "classes" in accepted else 0, accepted)


def refuse_lazy(network: nn.Module, name: str) -> None:
    """Raise InputError for a network with lazy layers that have no sizes yet."""
    if any(isinstance(weight, UninitializedParameter) for weight in network.parameters()):
        raise InputError(f"{name} has lazy layers without weights; run it on an image first.")


def _run_code(name: str, image: Image, classes: int) -> tuple[Any, frozenset[str]]:
    """Return the value of a name in the user's code, and which of `image` and `classes` it takes."""
    module, _, path = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = operator.attrgetter(path)(importlib.import_module(module))
    finally:
        sys.path.remove(os.getcwd())  # or the user's files would shadow packages that are imported later
    if isinstance(found, nn.Module) or not callable(found):
        return found, frozenset()
    takes = inspect.signature(found).parameters
    accepted = {key: value for key, value in (("image", image), ("classes", classes)) if key in takes}
    if accepted:
        return found(**accepted), frozenset(accepted)
    needed = [one for one in takes.values() if one.default is one.empty and one.kind <= one.POSITIONAL_OR_KEYWORD]
    return (found(image, classes), frozenset({"classes"})) if len(needed) == 2 else (found(), frozenset())
