"""Knobs: dataclass fields with a unit and a range, filled and checked from `key=value` pairs."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import typing
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from rapdarts.config.key_suggestions import is_idle, keys_of, suggest_key
from rapdarts.config.resources import RESOURCES, amount, compact, example
from rapdarts.errors import InputError, any_of, shorten, suggestion
from rapdarts.files.yaml import parse_value, to_yaml

OF_RESOURCE = re.compile(r"(search\.)?(cost|budget)\.[a-z][a-z0-9_]*")
"""Pattern for the keys of prices and budgets."""

TINY = 1e-30
"""Smallest accepted number above 0: smaller numbers would vanish in float32 arithmetic."""


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
    auto: int | None = None,
    amount: str = "",
    none: float | None = None,
) -> Any:
    """Return a dataclass field with its help, unit and range; `low`/`high` are included in the range, `above`/`below` are not.

    `auto` is the value, outside the range, stored for the word auto. `amount` names the resource of which the knob takes an
    amount; for bytes, both 12MB and 12e6 are accepted, and the value is stored in the unit of the resource. If the default is
    None, the knob may be empty, and `none` is the value stored for the word none; otherwise, the amount may be 0.
    """
    facts = {"help": help, "unit": unit, "low": low, "high": high, "above": above, "below": below, "choices": choices}
    facts |= {"auto": auto, "amount": amount, "none": none}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Key:
    """A knob as users see it: its dotted name, type and default, and facts such as its unit and range."""

    name: str
    type: Any
    default: Any
    facts: Mapping[str, Any]


def keys(schema: type) -> tuple[Key, ...]:
    """Return every knob of a dataclass and its nested dataclasses, in order."""
    return _keys(schema, "")


@cache
def _keys(schema: type, prefix: str) -> tuple[Key, ...]:
    found: list[Key] = []
    types = _types(schema)
    for entry in dataclasses.fields(schema):
        name, kind = prefix + entry.name, types[entry.name]
        if dataclasses.is_dataclass(kind):
            found += _keys(typing.cast(type, kind), name + ".")
        else:
            factory = entry.default_factory
            default = entry.default if factory is dataclasses.MISSING else factory()
            found.append(Key(name, kind, default, entry.metadata))
    return tuple(found)


def verb_of(schema: type) -> str:
    """Return the command that takes the keys of a schema of options; empty for the schema of an experiment, which several commands take."""
    return str(getattr(schema, "VERB", ""))


def full_name(schema: type, given: str, section: str = "", beside: type | None = None) -> str:
    """Return the full name of a knob; `given` is that name or the end of it.

    A knob of the command's own `section` takes precedence, and knobs of sections that the command does not use come last. Raises
    InputError if no knob fits, or if several fit equally; the message may also suggest a key of `beside`, a second schema with
    keys on the same command line.
    """
    names = [key.name for key in keys(schema)]
    if given in names:
        return given
    fits = [name for name in names if name.endswith("." + given)]
    own = [name for name in fits if name == f"{section}.{given}"]
    if len(own) == 1 or len(fits) == 1:
        return (own or fits)[0]
    if len(used := [name for name in fits if not is_idle(name, section)]) == 1:
        return used[0]
    if fits:
        raise InputError(f"the key {given!r} is ambiguous: it could be {any_of(fits)}; write the full name.")
    if inner := keys_of(given, names):
        raise InputError(f"{given} is a section, not a key; use one of its keys, such as {any_of(inner[:2])}.")
    known = [*names, *(key.name for key in keys(beside))] if beside else names
    clause = suggest_key(given, known, section, verb_of(schema) or section)
    unknown = OF_RESOURCE.fullmatch(given) and given.rpartition(".")[2] not in RESOURCES
    if unknown and clause.startswith("the keys of"):
        clause += (
            "; for a user-defined resource, add --space FILE with the file that defines it (in Python, pass the space"
            " that defines it)"
        )
    raise InputError(f"there is no key {shorten(repr(given))}; {clause}.")


def checked(
    schema: type, settings: Sequence[tuple[str, Any]], section: str = "", where: str = "", beside: type | None = None
) -> list[tuple[str, Any]]:
    """Return (key, value) pairs with full names (see `full_name`) and with values of the knobs' types.

    Raises InputError for an unknown key, a value of the wrong type, or a value out of range; the message begins with `where`.
    """
    known = {key.name: key for key in keys(schema)}
    result = []
    try:
        for given, text in settings:
            key = known[full_name(schema, given, section, beside)]
            value = _typed(key, text)
            check_range(key, value)
            result.append((key.name, value))
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None
    return result


Schema = TypeVar("Schema")


def parse_settings(
    schema: type[Schema], settings: Sequence[tuple[str, Any]], section: str = "", where: str = ""
) -> Schema:
    """Return an instance of `schema` from (key, value) pairs; later pairs override earlier ones. Raises InputError as `checked` does."""
    return _build(schema, dict(checked(schema, settings, section, where)), "")


def _build(schema: type[Schema], values: Mapping[str, Any], prefix: str) -> Schema:
    """Return an instance of a schema and its nested schemas; knobs that are missing from `values` get their defaults."""
    given: dict[str, Any] = {}
    for name, kind in _types(typing.cast(Hashable, schema)).items():
        if dataclasses.is_dataclass(kind):
            given[name] = _build(typing.cast(type, kind), values, f"{prefix}{name}.")
        elif prefix + name in values:
            given[name] = values[prefix + name]
    return schema(**given)


@cache
def _types(schema: Hashable) -> dict[str, Any]:
    """Return the fields of a dataclass with their types, in order."""
    types = typing.get_type_hints(schema)
    return {entry.name: types[entry.name] for entry in dataclasses.fields(typing.cast(type, schema))}


def plain(settings: Any) -> Any:
    """Convert OmegaConf settings to plain mappings and lists, and resolve interpolations; return other values unchanged.

    Raises InputError.
    """
    if "omegaconf" not in sys.modules:  # until OmegaConf is imported, no settings can be OmegaConf's
        return settings
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(settings):
        return settings
    try:
        return OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(f"the settings cannot be resolved: {str(error).splitlines()[0].rstrip('.')}.") from None


def _typed(key: Key, value: Any) -> Any:
    """Return the value in the knob's type; a string from the command line is parsed first. Raises InputError."""
    if value == "auto" and key.facts["auto"] is not None:
        return key.facts["auto"]
    if key.facts["amount"]:
        return _typed_amount(key, value)
    if isinstance(value, str) and key.type is not str:
        is_list = typing.get_origin(key.type) is list
        value = parse_value(f"[{value}]" if is_list and "," in value and "[" not in value else value, key.name)
        # This number is stored for the word auto, but users must write the word.
        if type(value) in (int, float) and value == key.facts["auto"]:
            raise _out_of_range(key, value)
    if typing.get_origin(key.type) is not list:
        return _typed_item(key, key.type, value)
    if not isinstance(value, list):
        raise InputError(f"{key.name} takes a list such as {list(key.default) or '[a, b]'}, not {_show(value)}.")
    return [_typed_item(key, typing.get_args(key.type)[0], item) for item in value]


def _typed_amount(key: Key, value: Any) -> float | None:
    """Return an amount in the unit of the knob's resource, or None if it is empty. Raises InputError."""
    optional = key.default is None
    if optional and value in ("none", "", None):
        return key.facts["none"] if value == "none" else None
    if type(value) not in (int, float, str):
        raise InputError(f"{key.name} takes an amount such as {example(key.facts['amount'])}, not {_show(value)}.")
    text = value if isinstance(value, str) else f"{_float(value):.17g}"
    return 0.0 if not (optional or text.strip("0.")) else amount(text, key.facts["amount"], key.name)


def _float(value: float) -> float:
    """Return the nearest float; infinity for whole numbers that are too large."""
    return float(value) if type(value) is float or abs(value) < 2**1000 else math.inf


def _typed_item(key: Key, kind: type, value: Any) -> Any:
    """Return a value of this type; convert only a whole float such as 1e3 to an int, and an int to a float."""
    if kind is int and type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if kind is float and type(value) is int:
        return _float(value)
    if type(value) is not kind:
        hint = "; put it in quotes" if kind is str else ""
        raise InputError(f"{key.name} takes {_type_name(key.type)}, not {_show(value)}{hint}.")
    if isinstance(value, str) and ("\0" in value or "${" in value or value == "???"):
        raise InputError(f"{key.name} cannot be {_show(value)}: '${{', '???' and NUL are not allowed; leave them out.")
    return value


def check_range(key: Key, value: Any) -> None:
    """Raise InputError, with the key and its range, if a value (or an element of a list) is out of range."""
    facts = key.facts
    if value is None or value in (facts["auto"], facts["none"]):
        return
    for item in value if isinstance(value, list) else [value]:
        if facts["choices"] and item not in facts["choices"]:
            choices = [str(choice) for choice in facts["choices"] if choice != ""]
            raise InputError(f"{key.name} cannot be {_show(item)}; {suggestion(str(item), choices)}.")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            inside = (
                math.isfinite(item)
                and (facts["low"] is None or item >= facts["low"])
                and (facts["high"] is None or item <= facts["high"])
                and (facts["above"] is None or item > facts["above"])
                and (facts["below"] is None or item < facts["below"])
            )
            if not inside:
                raise _out_of_range(key, item)
            if 0 < abs(item) < TINY:
                raise InputError(f"{key.name}={item} is too close to 0; write 0, or at least {TINY}.")


def _out_of_range(key: Key, value: Any) -> InputError:
    return InputError(f"{key.name}={value} is out of range; it must be {range_text(key.facts)}.")


def range_text(facts: Mapping[str, Any]) -> str:
    """Return a range in words, such as `at least 0 and below 1` or `0 to 1`, after the word auto if it is allowed."""
    auto = "auto, or " if facts["auto"] is not None else ""
    if facts["low"] is not None and facts["high"] is not None:
        return f"{auto}{_plain_number(facts['low'])} to {_plain_number(facts['high'])}"
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    parts = [f"{word} {_plain_number(facts[name])}" for name, word in words.items() if facts[name] is not None]
    return auto + (" and ".join(parts) or "a finite number")


def _plain_number(value: float) -> str:
    short = f"{value:g}".replace("e+0", "e").replace("e+", "e")
    return short if float(short) == value else f"{value:,.0f}"


def split_override(text: str) -> tuple[str, str]:
    """Return `key=value` as a pair. Raises InputError if there is no `=`, or no key before it."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{shorten(repr(text))} has no key; write key=value, such as seed=1.")
    return key.strip(), value


def save_yaml(config: Any) -> str:
    """Return a configuration as YAML that `read_yaml` reads back to the same value. Raises InputError for invalid text."""
    return to_yaml(dataclasses.asdict(config))


def differences(old: Any, new: Any) -> list[str]:
    """Return the knobs in which two configurations of one schema differ, as `key: old -> new`; a value that is not set is `none`."""
    return [
        f"{key.name}: {written(key, get(old, key.name)) or 'none'} -> {written(key, get(new, key.name)) or 'none'}"
        for key in keys(type(new))
        if get(old, key.name) != get(new, key.name)
    ]


def written(key: Key, value: Any) -> str:
    """Return the value of a knob in the form that users write."""
    if key.facts["auto"] is not None and value == key.facts["auto"]:
        return "auto"
    if key.facts["amount"]:
        return compact(value, key.facts["amount"]) if value else "" if value is None else "0"
    return str(value)


def get(value: Any, name: str) -> Any:
    """Return the value of a knob by its dotted name."""
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _show(value: Any) -> str:
    """Return a value as messages quote it: short and on one line."""
    return "nothing" if value is None else shorten(repr(value))


def _type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    return names.get(kind) or f"a list of {names[typing.get_args(kind)[0]].split(' ', 1)[1]}s"
