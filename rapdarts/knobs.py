"""Knobs: dataclass fields that carry their unit and range, and how `key=value` fills and checks them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rapdarts.errors import InputError
from rapdarts.plain_yaml import parse_value


def knob(
    default: Any,
    help: str,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field with its sentence, unit and range; `low`/`high` are included in the range, `above`/`below` are not."""
    facts = {"help": help, "unit": unit, "low": low, "high": high, "above": above, "below": below, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Key:
    """One knob as a user sees it: its dotted name, type, default and facts."""

    name: str
    type: Any
    default: Any
    facts: Mapping[str, Any]


def keys(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every knob of a dataclass and of the dataclasses within it, in order."""
    types = typing.get_type_hints(schema)
    for entry in dataclasses.fields(schema):
        name, kind = prefix + entry.name, types[entry.name]
        if dataclasses.is_dataclass(kind):
            yield from keys(typing.cast(type, kind), name + ".")
        else:
            factory = entry.default_factory
            default = entry.default if factory is dataclasses.MISSING else factory()
            yield Key(name, kind, default, entry.metadata)


def full_name(schema: type, given: str, section: str = "") -> str:
    """The knob that `given` means: its full name, or an ending that fits one knob only (the verb's own section first).

    Raises InputError, naming the nearest right key, where none or several fit.
    """
    names = [key.name for key in keys(schema)]
    if given in names:
        return given
    fits = [name for name in names if name.endswith("." + given)]
    own = [name for name in fits if name == f"{section}.{given}"]
    if len(own) == 1 or len(fits) == 1:
        return (own or fits)[0]
    if fits:
        raise InputError(f"the key {given!r} could mean {' or '.join(fits)}; write one of them.")
    # A wrong name in a right section is most likely misspelt in its last part.
    head, _, _ = given.rpartition(".")
    near = [name for name in names if head and name.rpartition(".")[0].endswith(head)]
    tails = {
        name[i + 1 :]: name for name in near or names for i in [-1, *(m.start() for m in re.finditer(r"\.", name))]
    }
    close = difflib.get_close_matches(given, tails, n=1, cutoff=0.5) or difflib.get_close_matches(
        given.rpartition(".")[2], tails, n=1, cutoff=0.0
    )
    raise InputError(
        f"there is no key {given!r}; the nearest is {tails[close[0]]}." if close else f"there is no key {given!r}."
    )


Schema = TypeVar("Schema")


def load(schema: type[Schema], settings: Sequence[tuple[str, Any]], section: str = "", where: str = "") -> Schema:
    """A checked `schema` value from (key, value) pairs, the later of which win.

    Raises InputError for an unknown key, a value of the wrong type, or one out of its range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.structured(schema)
    facts = {key.name: key for key in keys(schema)}
    for given, value in settings:
        key = facts[full_name(schema, given, section)]
        if isinstance(value, str) and key.type is not str:
            value = parse_value(value, key.name)
        if key.type is str and not isinstance(value, str):
            raise InputError(f"{key.name} takes a text, not {value!r}; put it in quotes.")
        if typing.get_origin(key.type) is list and not isinstance(value, list):
            raise InputError(f"{key.name} takes a list such as {list(key.default) or '[a, b]'}, not {value!r}.")
        try:
            OmegaConf.update(config, key.name, value)
        except OmegaConfBaseException:
            raise InputError(f"{key.name} takes {_type_name(key.type)}, not {value!r}.") from None
    result = typing.cast(Schema, OmegaConf.to_object(config))
    for key in facts.values():
        check_range(key, _get(result, key.name))
    return result


def check_range(key: Key, value: Any) -> None:
    """Raises InputError, naming the key and its range, for a value (or an element of a list) outside it."""
    facts = key.facts
    for item in value if isinstance(value, list) else [value]:
        if facts["choices"] and item not in facts["choices"]:
            choices = [str(choice) for choice in facts["choices"] if choice != ""]
            near = difflib.get_close_matches(str(item), choices, n=1, cutoff=0.0)
            raise InputError(f"{key.name} has no choice {item!r}; the nearest is {near[0]}, of {', '.join(choices)}.")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            inside = (
                math.isfinite(item)
                and (facts["low"] is None or item >= facts["low"])
                and (facts["high"] is None or item <= facts["high"])
                and (facts["above"] is None or item > facts["above"])
                and (facts["below"] is None or item < facts["below"])
            )
            if not inside:
                raise InputError(f"{key.name}={item} is out of range; it must be {range_text(facts)}.")


def range_text(facts: Mapping[str, Any]) -> str:
    """A range in words, `at least 0, below 1`."""
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    parts = [f"{word} {_plain_number(facts[name])}" for name, word in words.items() if facts[name] is not None]
    return ", ".join(parts) or "a finite number"


def _plain_number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"


def split_override(text: str) -> tuple[str, str]:
    """`key=value` as a pair. Raises InputError where there is no `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{text!r} is not key=value.")
    return key.strip(), value


def save_yaml(config: Any) -> str:
    """A configuration value as YAML text that `read_yaml` reads back to the same."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def differences(old: Any, new: Any) -> list[str]:
    """The knobs in which two configurations of one schema differ, as `key: old -> new`."""
    return [
        f"{key.name}: {_get(old, key.name)} -> {_get(new, key.name)}"
        for key in keys(type(new))
        if _get(old, key.name) != _get(new, key.name)
    ]


def _get(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind) or f"a list of {names[typing.get_args(kind)[0]].split(' ', 1)[1]}s"
