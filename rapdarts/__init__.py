"""Differentiable, resource-aware neural architecture search: find, prove and train a network that fits.

What a program uses is here, and loaded when it is first asked for: `search`, `retrain`, `load`, `derived`, `costs`
and `read` (see rapdarts.api), the values `Genotype` and `SearchSpace`, and the errors `RapdartsError` and `InputError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rapdarts.version import __version__ as __version__

if TYPE_CHECKING:
    from rapdarts.api import costs, derived, load, read, retrain, search
    from rapdarts.architecture.genotype import Genotype
    from rapdarts.architecture.space import SearchSpace
    from rapdarts.errors import InputError, RapdartsError


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
    **dict.fromkeys(("costs", "derived", "load", "read", "retrain", "search"), "rapdarts.api"),
    **dict.fromkeys(("InputError", "RapdartsError"), "rapdarts.errors"),
    "Genotype": "rapdarts.architecture.genotype",
    "SearchSpace": "rapdarts.architecture.space",
}


def __getattr__(name: str) -> Any:
    """A name of the library, whose module is imported now: `import rapdarts` loads no torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
