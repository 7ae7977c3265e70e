"""Search for genotypes in a text: Python, JSON, YAML, a log, or any text with one genotype or several."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from rapdarts.architecture.dialects.forms import is_genotype, is_other, is_ours
from rapdarts.architecture.dialects.nasbench import is_bars
from rapdarts.architecture.dialects.notebooks import code_of
from rapdarts.architecture.dialects.python_values import WAY_OUT, python_values
from rapdarts.architecture.dialects.scanning import (
    BARS,
    MAX_CHARACTERS,
    Mention,
    ascend,
    changes_of,
    is_log,
    mentions,
    value_at,
)
from rapdarts.architecture.dialects.values import Call, Named, Unread, moderate
from rapdarts.architecture.dialects.yaml_values import yaml_value
from rapdarts.errors import InputError, plural
from rapdarts.files.json import Fault, quote_value, strict_loads
from rapdarts.files.seal import unseal

UNDERSTOOD = (
    "rapdarts JSON, Genotype(...) of the DARTS family (in Python, JSON, YAML or a log), NNI and NAS-Bench-301 dictionaries,"
    " and NAS-Bench-201 strings"
)
MAX_PARSED = 1_000_000
"""Maximum length, in characters, of a text that is parsed as a whole; longer texts, such as logs, are only scanned."""
MAX_LISTED = 500
"""Maximum length of a list of names in a message, in characters."""
MOST_SCANNED = 200
"""Maximum number of genotypes in a text that is neither Python nor a log."""
HINTS = ("Genotype", "normal", "recurrent", "~0|", "format", "((", "[[")
"""Substrings, at least one of which occurs in every genotype."""
LIKE_JSON = re.compile(r"\s*(?:\{\s*(?:[\"}]|$)|\[|\")")
"""Pattern for the beginning of JSON, which quotes strings with double quotes."""
COUNT = re.compile(r"[\"'](?:epoch|step|iter|iteration|generation)[\"']\s{0,8}:\s{0,8}(\d{1,18})\b")
"""Pattern for the epoch or step number in a record of a log."""
SKIPS = re.compile(r"skip-connect:\s*(\d+)")


class NoGenotype(InputError):
    """Error for a text without a genotype; `finding` is the message without the list of supported formats."""

    def __init__(self, where: str, detail: str = "") -> None:
        self.finding = f"{where} contains no genotype{detail}"
        super().__init__(f"{self.finding}; supported formats are {UNDERSTOOD}.")


@dataclass(frozen=True)
class Located:
    """A genotype found in a text: its unchecked value, its place for messages, and facts about it."""

    value: Any
    where: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def find(text: str, where: str, member: str = "") -> Located:
    """Return the genotype in a text, or the one with the name or line `member`; `where` names the text in messages.

    If several genotypes are assigned to one name, or a log has several, the last one counts. Raises NoGenotype if there is
    none, and InputError, with the names and lines of all, if several remain.
    """
    if len(text) <= MAX_PARSED and (code := code_of(text)) is not None:
        text, where = code, f"the code in {where}"
    text = text.rstrip()
    values, fault = _values(text, where)
    if values and is_other(values[0].value):
        raise NoGenotype(where, f" (its format is {values[0].value['format']})")
    entries = [_numbered([*_entries(value)]) for value in values]
    if any(entries) and fault is None:
        several = _current(values, entries) if not _counts_up(text, values, entries) else entries[-1]
        return _choose([entry for some in entries for entry in some], several, where, member)
    found = mentions(text, where)
    if found:
        return (_of_log if is_log(text, found) else _scan)(text, found, where, member)
    if fault is not None:
        raise InputError(f"{where}, {fault}.")
    if len(text) > MAX_PARSED:
        raise NoGenotype(where, f": texts of more than {MAX_PARSED:,} characters are only searched for Genotype(...)")
    raise NoGenotype(where, _detail(values))


def _values(text: str, where: str) -> tuple[list[Named], Fault | None]:
    """Return the values of a text, and the fault if it is malformed JSON.

    The text is parsed as JSON, Python or YAML, whichever yields a genotype.
    """
    fault: Fault | None = None
    if len(text) > MAX_PARSED:
        return [], None
    if LIKE_JSON.match(text):
        try:
            return moderate([Named("", _entries_unsealed(strict_loads(text), where))]), None
        except Fault as found:
            if found.kind != "syntax":
                raise InputError(f"{where}, {found}.") from None
            fault = found
    if is_bars(text):
        lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if all(BARS.fullmatch(line) for _, line in lines):
            return [Named("", line, number, number) for number, line in lines], None
        return [Named("", text)], None
    python = moderate(python_values(text) or [])
    if any(map(_has_foreign, python)):
        return python, None
    if any(hint in text for hint in HINTS) and ":" in text:
        yaml = moderate([Named("", yaml_value(text))])
        if any(map(_has_foreign, yaml)):
            return yaml, None
    return python, fault


def _entries_unsealed(tree: Any, where: str) -> Any:
    """Return a list of our own, such as candidates.json, without the seals of its entries; other values are returned unchanged."""
    if not isinstance(tree, list):
        return tree
    ours = [isinstance(one, dict) and "genotype" in one for one in tree]
    return [unseal(one, f"{where}, entry {place}") if ours[place] else one for place, one in enumerate(tree)]


def _has_foreign(named: Named) -> bool:
    """Return whether a value contains a genotype of another program; our own format is accepted only in JSON."""
    return any(not is_ours(entry.value) for entry in _entries(named))


def _entries(named: Named) -> Iterator[Named]:
    """Yield each genotype in a value, named by the value's name and the dotted path to the genotype inside it."""
    value = named.value
    if isinstance(value, str):
        value = _unquoted(value)
    if is_genotype(value):
        yield replace(named, value=value)
        return
    if isinstance(value, Unread) and value.former is not None:
        for entry in _entries(replace(named, value=value.former)):
            yield replace(entry, value=value)
        return
    inside: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        inside = value
    elif isinstance(value, list):
        inside = dict(enumerate(value))
    elif isinstance(value, Call):
        inside = {**dict(enumerate(value.arguments)), **value.fields}
    for key, part in inside.items():
        if isinstance(part, list | dict | str | Call | Unread):
            yield from _entries(replace(named, name=f"{named.name}.{key}".lstrip("."), value=part))


def _numbered(entries: list[Named]) -> list[Named]:
    """Return the entries of one value; different entries with the same name are numbered, as in a.b#2."""
    same: dict[str, list[Named]] = {}
    for entry in entries:
        same.setdefault(entry.name, []).append(entry)
    return [
        replace(entry, name=f"{name}#{number}") if any(one.value != some[0].value for one in some) else entry
        for name, some in same.items()
        for number, entry in enumerate(some, 1)
    ]


def _unquoted(text: str) -> Any:
    """Return the genotype written in a string; any other string is returned unchanged."""
    likely = len(text) <= MAX_CHARACTERS and any(map(text.count, "([{")) and any(hint in text for hint in HINTS)
    if is_bars(text) or not likely:
        return text
    read = moderate(python_values(text) or [])
    value = read[0].value if len(read) == 1 else text
    if is_ours(value):
        with suppress(Fault):
            return strict_loads(text)
    return value if is_genotype(value) and not isinstance(value, str) and not is_ours(value) else text


def _detail(values: Sequence[Named]) -> str:
    """Describe the value of a text with a single expression that is not a plain value; empty for any other text."""
    value = values[0].value if len(values) == 1 else None
    if isinstance(value, Call):
        value = value.source
    return f": found {quote_value(value.source)}; {value.reason}" if isinstance(value, Unread) else ""


# --- the choice of one genotype ----------------------------------------------------------------------------------


def _current(values: Sequence[Named], entries: Sequence[Sequence[Named]]) -> list[Named]:
    """Return the entries that are not replaced by a later assignment to the same name. Entries without an assigned name are all returned.

    If the last assignment to a name, or a conditional one after it, sets no genotype, the entry's value is Unread.
    """
    final = {one.target: number for number, one in enumerate(values) if one.target and not one.conditional}
    empty = {one.target: number for number, one in enumerate(values) if one.target and not entries[number]}
    current: dict[Any, Named] = {}
    for number, some in enumerate(entries):
        for position, entry in enumerate(some):
            parts = entry.name.split(".") if entry.target else []
            names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            last = max((final.get(name, -1) for name in names), default=-1)
            blank = max((empty.get(name, -1) for name in names), default=-1)
            if blank > number and blank >= last:
                current[entry.name] = _replaced(entry, values[blank])
            elif last <= number:
                current[number, position] = entry
    return [*current.values()]


def _replaced(entry: Named, by: Named) -> Named:
    reason = f"line {by.first} sets {entry.name} to a value that cannot be read, after line {entry.first}; {WAY_OUT}"
    source = by.value.source if isinstance(by.value, Call) else by.value
    if not isinstance(source, Unread):
        source = Unread(ast.Constant(entry.name), entry.name)
    return replace(entry, value=replace(source, reason=reason))


def _counts_up(text: str, values: Sequence[Named], entries: Sequence[Sequence[Named]]) -> bool:
    """Return whether values are the lines of a log: records without names, each with a genotype and a higher count than the last."""
    if len(values) < 2 or not all(entries) or any(one.target or not isinstance(one.value, dict) for one in values):
        return False
    lines = text.split("\n")
    return ascend([COUNT.search(lines[one.first - 1]) for one in values])


def _choose(entries: Sequence[Named], several: Sequence[Named], where: str, member: str) -> Located:
    """Return the entry with the name or line `member`, else the only one of `several`; entries with equal values count once."""
    fits = several
    if member:
        fits = [entry for entry in several if entry.name == member]
        if not fits and member.isdigit():
            fits = [entry for entry in entries if entry.first <= int(member) <= entry.last]
        if not fits:
            raise InputError(f"{where} has no genotype {member}; it contains {_list(several)}.")
    if any(entry.value != fits[0].value for entry in fits[1:]):
        unique = len({entry.name for entry in fits}) == len(fits)
        example = _name(fits[0]) if unique else fits[0].first
        raise InputError(f"{where} contains {_list(fits)}; select one of them, as in FILE:{example}.")
    (chosen, *_) = fits
    same = [entry for entry in entries if entry.name == chosen.name]
    place = f"{where}:{_name(chosen)}" if len(entries) > 1 and _name(chosen) else where
    if isinstance(chosen.value, Unread):
        raise InputError(f"{place}: {chosen.value.finding}.")
    superseded = chosen.name and chosen.first and len(same) > 1 and not member
    return Located(chosen.value, place, _last(chosen.first, len(same)) if superseded else {})


def _name(entry: Named) -> str:
    """Return the name of an entry, or its line if it has none."""
    return entry.name or (str(entry.first) if entry.first else "")


def _list(entries: Sequence[Named]) -> str:
    """List the names and lines of entries, shortened to fit in a message."""
    words: list[str] = []
    for entry in entries:
        line = f"line {entry.first}" if entry.first else ""
        words.append(f"{entry.name} ({line})" if entry.name and line else entry.name or line)
        if len(", ".join(words)) > MAX_LISTED:
            words[-1] = f"and {len(entries) - len(words) + 1} more"
            break
    count = plural(len(entries), "genotype")
    return f"{count}: {', '.join(words)}" if any(words) else count


def _last(line: int, count: int) -> dict[str, Any]:
    return {"log": f"line {line}, the last of {count} genotypes"}


# --- texts that are scanned --------------------------------------------------------------------------------------


def _scan(text: str, found: Sequence[Mention], where: str, member: str) -> Located:
    """Return the genotype in free text, such as prose; incomplete genotypes without a label are skipped."""
    if len(found) > MOST_SCANNED:
        raise InputError(
            f"{where} contains more than {MOST_SCANNED} genotypes; copy the one you want into a separate file."
        )
    last, changed = {one.name: one for one in found}, changes_of({one.name for one in found if one.name}, text)
    entries, why, doubtful = [], "", ""
    for one in found:
        value, problem = value_at(text, one)
        if problem:
            why = f"line {one.line}: {problem}"
            doubtful = why if one.name and last[one.name] is one else doubtful
            continue
        change = changed.get(one.name)
        if change is not None and change.start() > one.start:
            line = 1 + text.count("\n", 0, change.end())
            reason = f"line {line} may change this value; {WAY_OUT}"
            value = Unread(ast.Constant(one.name), change[0].strip(), reason)
        entries.append(Named(one.name, value, one.line, one.line))
    if not entries:
        raise NoGenotype(where, f": {why}")
    if doubtful and not member:
        raise InputError(f"{where}, {doubtful}; select another genotype, as in FILE:{_name(entries[-1])}.")
    return _choose(entries, entries, where, member)


def _of_log(text: str, found: Sequence[Mention], where: str, member: str) -> Located:
    """Return the last genotype of a log, or the one with the name or line `member`.

    A search writes a line `genotype = Genotype(...)` after every epoch. P-DARTS writes several genotypes at the end, one for
    each cap on skips, without choosing one. Raises InputError if these differ.
    """
    chosen = found
    if member:
        chosen = [one for one in found if member in (one.name, str(one.line))]
        if not chosen:
            raise InputError(
                f"{where} is a log without a genotype {member}; its {len(found)} genotypes are on lines {found[0].line} to"
                f" {found[-1].line}; select one of these lines, as in FILE:{found[-1].line}."
            )
    else:
        _refuse_alternatives(text, [one for one in found if not one.name], where)
    last = chosen[-1]
    here = f"{where}, line {last.line} of the log"
    value, problem = value_at(text, last)
    if value is None:
        before = [one.line for one in chosen if one.line < last.line][-1:]
        hint = f"; select another by its line, as in FILE:{before[0]}" if before else ""
        raise InputError(f"{here}: {problem}{hint}.")
    return Located(value, here, _last(last.line, len(chosen)) if not member else {"log": f"line {last.line}"})


def _refuse_alternatives(text: str, unnamed: Sequence[Mention], where: str) -> None:
    """Raise InputError if a log has different genotypes without a label, for different caps on skips."""
    if not unnamed or SKIPS.search(text, unnamed[0].start) is None:
        return
    ends = [text.find("\n", one.start) for one in unnamed]
    lines = [text[one.start : None if end < 0 else end].strip() for one, end in zip(unnamed, ends, strict=True)]
    if len(set(lines)) == 1:
        return
    words = []
    for before, one in zip([None, *unnamed], unnamed, strict=False):
        cap = SKIPS.findall(text, 0 if before is None else before.start, one.start)[-1:]
        words.append(f"{one.line} (at most {cap[0]} skips)" if cap else str(one.line))
    shown = ", ".join(words[:12])
    raise InputError(
        f"{where} is a log with different genotypes, on lines {shown}; select one by its line, as in FILE:{unnamed[-1].line}."
    )
