"""What a slip of the keyboard was probably meant to be, and how a message says so."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NEAR = 0.6
"""The share of letters in common (`difflib`) from which a name is near enough to be meant."""

FEW = 12
"""So many names may stand in a sentence beside the nearest of them."""


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, None where none is near; case, blanks around it and great length do not count."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.strip().lower()[:100], names, n=1, cutoff=NEAR)
    return names[near[0]] if near else None


def suggestion(given: str, known: Iterable[str]) -> str:
    """The part of a sentence that helps who wrote `given`: the nearest of the names that are known, or else all of them."""
    names = list(known)
    start = given.strip().lower()
    begun = [name for name in names if len(start) >= 4 and name.lower().startswith(start)]
    if len(names) > FEW and 1 < len(begun) <= FEW:
        return f"there are {', '.join(begun)}"
    near = nearest(given, names)
    if near is None:
        return f"there {'are' if len(names) > 1 else 'is only'} {', '.join(names)}"
    return f"the nearest is {near}" + (f", of {', '.join(names)}" if len(names) <= FEW else "")
