"""Differentiable, resource-aware neural architecture search: find, prove and train a network that fits.

What a program uses is here, and loaded when it is first asked for: `search`, `retrain`, `load`, `derived`, `costs`
and `read` (see rapdarts.library), the values `Genotype` and `SearchSpace`, and the errors `RapdartsError` and `InputError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapdarts.errors import InputError, RapdartsError
    from rapdarts.genotype import Genotype
    from rapdarts.library import costs, derived, load, read, retrain, search
    from rapdarts.space import SearchSpace

__version__ = "0.1.0"

__all__ = [
    "Genotype",
    "InputError",
    "RapdartsError",
    "SearchSpace",
    "costs",
    "derived",
    "load",
    "read",
    "retrain",
    "search",
]

_HOMES = {
    **dict.fromkeys(("costs", "derived", "load", "read", "retrain", "search"), "rapdarts.library"),
    **dict.fromkeys(("InputError", "RapdartsError"), "rapdarts.errors"),
    "Genotype": "rapdarts.genotype",
    "SearchSpace": "rapdarts.space",
}


def __getattr__(name: str) -> Any:
    """A name of the library, whose module is imported now: `import rapdarts` loads no torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
