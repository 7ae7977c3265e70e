"""Differentiable, resource-aware neural architecture search: find and train a network that fits its budget.

Every public name is loaded on first use. rapdarts.api defines a function for each command and some other functions; `choose`
selects the primitives of a search space. `Genotype`, `SearchSpace` and `Mixing` are types, and `RapdartsError` and `InputError`
are exceptions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rapdarts.version import __version__ as __version__

if TYPE_CHECKING:
    from rapdarts.api import (
        costs,
        derive,
        derived,
        evaluate,
        export,
        find,
        load,
        measure,
        random_baseline,
        rank,
        read,
        report,
        retrain,
        search,
    )
    from rapdarts.architecture.genotype import Genotype
    from rapdarts.architecture.space import Mixing, SearchSpace
    from rapdarts.errors import InputError, RapdartsError
    from rapdarts.networks.primitives import choose

__all__ = [
    "Genotype",
    "InputError",
    "Mixing",
    "RapdartsError",
    "SearchSpace",
    "choose",
    "costs",
    "derive",
    "derived",
    "evaluate",
    "export",
    "find",
    "load",
    "measure",
    "random_baseline",
    "rank",
    "read",
    "report",
    "retrain",
    "search",
]

_HOMES = {
    "Genotype": "rapdarts.architecture.genotype",
    "InputError": "rapdarts.errors",
    "Mixing": "rapdarts.architecture.space",
    "RapdartsError": "rapdarts.errors",
    "SearchSpace": "rapdarts.architecture.space",
    "choose": "rapdarts.networks.primitives",
}


def __getattr__(name: str) -> Any:
    """Import and return a public name on first use, so that `import rapdarts` does not load torch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "rapdarts.api")), name)


def __dir__() -> list[str]:
    return sorted({"__version__", *__all__})
