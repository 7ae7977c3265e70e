"""User-defined resources: their known names, and settings with keys for their prices and budgets.

A file given by --space may define them as RESOURCES. Their names are known while a command uses that file, and while
the settings of a run that used it are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any, TypeVar

from rapdarts.config.command_options import DeriveConfig, OtherBudgetConfig
from rapdarts.config.experiment import BudgetConfig, CostCoefficients, Experiment, SearchConfig
from rapdarts.config.key_values import keys, knob
from rapdarts.config.resources import NAME

_known: ContextVar[tuple[str, ...]] = ContextVar("own resources", default=())


@contextmanager
def knowing(names: Iterable[str]) -> Iterator[None]:
    """Accept keys for the prices and budgets of these resources within this context."""
    token = _known.set(tuple(names))
    try:
        yield
    finally:
        _known.reset(token)


def experiment_schema(*more: str) -> type[Experiment]:
    """Return the schema of an experiment, with keys for the known resources and for `more`."""
    return _experiment(tuple(dict.fromkeys((*_known.get(), *more))))


def derive_schema() -> type[DeriveConfig]:
    """Return the schema of a derivation's options, with budgets for the known resources."""
    return _derivation(_known.get())


def names_in(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the user-defined resources that have a price or a budget in `settings`, a mapping from full keys to values."""
    ours = {key.name for key in keys(Experiment)}
    found = (key.rpartition(".") for key in settings if key not in ours)
    return tuple(dict.fromkeys(name for section, _, name in found if section in SECTIONS and NAME.fullmatch(name)))


SECTIONS = ("search.cost", "search.budget")


@cache
def _experiment(names: tuple[str, ...]) -> type[Experiment]:
    if not names:
        return Experiment
    prices = [
        (name, float, knob(0.0, f"price of the user-defined resource {name}", "nats", low=0, high=1e6))
        for name in names
    ]
    sections = {"cost": _with(CostCoefficients, prices), "budget": _with(BudgetConfig, _budgets(names))}
    search = _with(SearchConfig, [_section(name, schema) for name, schema in sections.items()])
    return _with(Experiment, [_section("search", search)])


@cache
def _derivation(names: tuple[str, ...]) -> type[DeriveConfig]:
    if not names:
        return DeriveConfig
    return _with(DeriveConfig, [_section("budget", _with(OtherBudgetConfig, _budgets(names, none=float("inf"))))])


def _budgets(names: Iterable[str], none: float | None = None) -> list[tuple[str, Any, Any]]:
    return [
        (name, float | None, knob(None, f"largest amount of the user-defined resource {name}", amount=name, none=none))
        for name in names
    ]


def _section(name: str, schema: type) -> tuple[str, type, Any]:
    return name, schema, field(default_factory=schema)


Schema = TypeVar("Schema")


def _with(schema: type[Schema], fields: list[tuple[str, Any, Any]]) -> type[Schema]:
    """Return a subclass of a frozen dataclass with additional fields, or with new types for existing fields."""
    names = {"__doc__": schema.__doc__, "__module__": schema.__module__}
    return make_dataclass(schema.__name__, fields, bases=(schema,), frozen=True, namespace=names)
