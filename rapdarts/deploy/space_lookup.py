"""Search space lookup by value, by the name of a shipped space or by Python file, and texts by which a resumed run knows its space."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import Factory, SearchSpace
from rapdarts.config.own_resources import knowing
from rapdarts.config.resources import NAME, RESOURCES
from rapdarts.errors import InputError, shorten, suggestion
from rapdarts.files.regular import read_bytes

Space = str | os.PathLike[str] | SearchSpace | None
"""A search space as given by a user: a SearchSpace, the name of a shipped one, or the pathlib.Path of a Python file that defines SPACE.

A str is never treated as a file, because it may come from a configuration, which must not run code."""

MOST_BYTES = 10**7
"""Maximum size of a user's Python file, and of a table that a run depends on."""


def space_for(genotype: Genotype, given: Space) -> SearchSpace:
    """Return the given search space, whatever its name, or the genotype's own if none is given. Raises InputError."""
    return find_space(given) if given is not None else named_space(genotype.space)


def find_space(given: Space, name: str = "") -> SearchSpace:
    """Return the given search space, or the shipped one called `name` if none is given.

    A file is executed; its space must be called `name` unless `name` is empty. Raises InputError.
    """
    if given is None:
        return named_space(name)
    if isinstance(given, SearchSpace):
        space, where = given, f"the space {given.name}"
    elif isinstance(given, os.PathLike):
        where = os.fspath(given)
        space = _opened.get().get(where) or space_from_file(Path(given))
        if name and space.name != name:
            raise InputError(
                f"--space {where} defines the space {space.name}, but {name} is needed; pass the file that defines {name}."
            )
    else:
        return named_space(given)
    from rapdarts.networks.primitives import check_primitives

    check_resources(space, where)
    check_primitives(space, where)
    return space


def shipped_spaces() -> list[str]:
    """Return the names of the shipped spaces: the modules in `search_spaces`."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("search_spaces").__path__))


def named_space(name: str) -> SearchSpace:
    """Return the SPACE of a module in `search_spaces`. Raises InputError, with a suggestion, for an unknown name."""
    known = shipped_spaces()
    if name not in known:
        raise InputError(
            f"there is no search space {shorten(repr(name))}; {suggestion(name, known)}; for your own space, add --space FILE,"
            " the Python file that defines it, or pass it as space= in a program."
        )
    return _space_of(importlib.import_module(f"search_spaces.{name}"), name)


def space_from_file(path: Path) -> SearchSpace:
    """Execute the user's own module and return its SPACE. Raises InputError if the module fails or defines no SPACE."""
    name = f"rapdarts_space_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if not os.path.isfile(path) or specification is None or specification.loader is None:
        raise InputError(f"--space {path}: there is no such Python file; check its path.")
    read_bytes(path, f"--space {path}", MOST_BYTES)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses, among others, look up their module there
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"--space {path} fails when it is run: {type(error).__name__}: {error}.") from error
    space = _space_of(module, str(path))
    own = getattr(module, "RESOURCES", {})
    return (
        replace(space, resources={**space.resources, **own})
        if isinstance(own, Mapping)
        else replace(space, resources=own)
    )


@contextmanager
def known_resources(space: Space) -> Iterator[Space]:
    """Accept keys for the resources of the user's own space within this context, and yield the space. Its file is run only once.

    Raises InputError as `find_space` does.
    """
    if space is None or isinstance(space, str):
        yield space
        return
    found = find_space(space)
    token = _opened.set({os.fspath(space): found} if isinstance(space, os.PathLike) else {})
    try:
        with knowing(found.resources):
            yield space
    finally:
        _opened.reset(token)


_opened: ContextVar[dict[str, SearchSpace]] = ContextVar("opened spaces", default={})  # noqa: B039 (never changed)


def check_resources(space: SearchSpace, where: str) -> None:
    """Raise InputError if the space's own resources do not map names to functions, or use the name of a built-in resource."""
    given: object = space.resources  # a user's file is not type-checked
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: RESOURCES must be a mapping from names to functions, not a {type(given).__name__}.")
    for name, function in given.items():
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise InputError(f"{where}: the resource {name!r} needs a name of lower-case letters, digits and _.")
        if name in RESOURCES:
            raise InputError(f"{where}: the resource {name} has the name of a built-in resource; rename it.")
        if not callable(function):
            raise InputError(
                f"{where}: the resource {name} must be a function of a network and an image, not a {type(function).__name__}."
            )


def _space_of(module: object, where: str) -> SearchSpace:
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise InputError(f"the search space {where} does not define SPACE = rapdarts.SearchSpace(...).")
    return space


# --- how a run recognises the user's own space --------------------------------------------------------------------


def source_of(space: Space) -> str:
    """Return a string from which a resumed run sees that the user's own space has changed; empty for a shipped space.

    For a file, it is the source. For a value, it lists the fields, the modules of the primitives, and their source.
    """
    if space is None or isinstance(space, str):
        return ""
    if not isinstance(space, SearchSpace):
        return text_of(os.fspath(space))
    facts = [
        f"{part.name}={getattr(space, part.name)!r}"
        for part in fields(space)
        if part.name not in ("primitives", "resources")
    ]
    facts += [f"resource {name}={_source(function)}" for name, function in space.resources.items()]
    return "\n".join([*facts, *(_described(name, factory) for name, factory in space.primitives.items())])


def text_of(file: str) -> str:
    """Return the text of a file; empty if there is no such file. Raises InputError for a very large file."""
    return read_bytes(Path(file), most=MOST_BYTES).decode("utf-8", "replace") if os.path.isfile(file) else ""


def _described(name: str, factory: Factory) -> str:
    """Describe the modules of a primitive, their weights and their source, with the same text in every process."""
    import torch

    lines, sources = [name], {_source(factory): None}
    for stride in (1, 2):
        with torch.device("meta"):
            module = factory(4, stride, True)
        lines.append(re.sub(r"0x[0-9a-fA-F]+", "", repr(module)))  # memory addresses differ between processes
        lines += [f"{key} {tuple(value.shape)} {value.dtype}" for key, value in module.state_dict().items()]
        sources |= dict.fromkeys(_source(type(part)) for part in module.modules())
    return "\n".join([*lines, *sources])


def _source(thing: Any) -> str:
    """Return the source of a function or a class, or only its name if it belongs to torch or has no source."""
    thing = inspect.unwrap(thing.func if isinstance(thing, partial) else thing)
    named = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    try:
        return named if named.startswith("torch.") else inspect.getsource(thing)
    except (OSError, TypeError):
        return named
