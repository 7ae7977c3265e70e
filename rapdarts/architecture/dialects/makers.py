"""Calls in Python syntax that only create a list, a dictionary, a number or a string, with a function for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rapdarts.architecture.dialects.values import Call
from rapdarts.files.json import is_whole

MAX_RANGE = 1000
"""Largest number in a range."""

FAILED = object()


def _range(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    bounded = all(is_whole(number) and abs(number) <= MAX_RANGE for number in arguments)
    fits = bounded and 1 <= len(arguments) <= 3 and arguments[2:] != [0] and not named
    return list(range(*arguments)) if fits else FAILED


def _sequence(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    if len(arguments) != 1 or not isinstance(arguments[0], list):
        return FAILED if arguments else []
    return arguments[0]


def set_of(values: list[Any]) -> Any:
    """Return the numbers of a set in ascending order; FAILED for a set of anything else, whose order is unknown."""
    return sorted(set(values)) if all(map(is_whole, values)) else FAILED


def _set(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    return set_of(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], list) and not named else FAILED


def _copy(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    known = len(arguments) == 1 and isinstance(arguments[0], list | dict | Call) and not named
    return arguments[0] if known else FAILED


def _number(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    return arguments[0] if len(arguments) == 1 and type(arguments[0]) in (int, float) else FAILED


def _text(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], str) else FAILED


def _array(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    """Return the values of an array or a tensor, ignoring its dtype and device."""
    return arguments[0] if arguments and isinstance(arguments[0], list | int | float) else FAILED


def _mapping(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    pairs = arguments[0] if arguments else []
    if isinstance(pairs, dict):
        return pairs | dict(named)
    if not (isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)):
        return FAILED
    keys = [key for key, _ in pairs]
    unique = all(isinstance(key, str) for key in keys) and len({*keys, *named}) == len(keys) + len(named)
    return {**dict(pairs), **named} if unique else FAILED


MAKERS: Sequence[tuple[re.Pattern[str], Callable[[list[Any], Mapping[str, Any]], Any]]] = (
    (re.compile("range|arange"), _range),
    (re.compile("list|tuple"), _sequence),
    (re.compile("set|frozenset"), _set),
    (re.compile("copy|deepcopy"), _copy),
    (re.compile("u?int(8|16|32|64)?|int_|intp|float(16|32|64)?"), _number),
    (re.compile("str|str_"), _text),
    (re.compile("array|asarray|tensor|as_tensor"), _array),
    (re.compile("dict|OrderedDict"), _mapping),
)
"""Patterns for the last part of a call's name, each with a function that returns the call's value or FAILED."""
