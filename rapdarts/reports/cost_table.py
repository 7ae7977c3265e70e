"""Costs, displayed as a table: aligned text in a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from rapdarts.config.resources import show
from rapdarts.data.nasbench201 import DATA_SETS
from rapdarts.errors import plural


class Costs(dict[str, float]):
    """Amounts by resource, each in its unit (`rapdarts.config.resources.RESOURCES`): a dict that is displayed as a table.

    `known_accuracy` maps data sets (`rapdarts.data.nasbench201.DATA_SETS`) to the test accuracy (0 to 1) that the
    networks of NAS-Bench-201 reached with this cell. It is None for cells of other spaces and for other networks.
    `not_counted` maps each operation that has no formula for its MACs to the layers that run it.
    """

    known_accuracy: Mapping[str, float] | None
    not_counted: Mapping[str, Sequence[str]]

    def __init__(
        self,
        amounts: Mapping[str, float] = MappingProxyType({}),
        known_accuracy: Mapping[str, float] | None = None,
        not_counted: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        super().__init__(amounts)
        self.known_accuracy = known_accuracy
        self.not_counted = dict(not_counted)

    def __repr__(self) -> str:
        """Return a line for each resource and known accuracy, with names and numbers aligned."""
        rows = self._rows()
        if not rows:
            return "no costs"
        names, numbers = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{name:{names}}  {number:>{numbers}} {unit}".rstrip() for name, number, unit in rows)

    def _repr_html_(self) -> str:
        """Return the same rows as an HTML table for notebooks."""
        body = "".join(
            f'<tr><td style="text-align: left">{escape(name)}</td>'
            f'<td style="text-align: right">{escape(number)}</td>'
            f'<td style="text-align: left">{escape(unit)}</td></tr>'
            for name, number, unit in self._rows()
        )
        return (
            f"<table><thead><tr><th>resource</th><th>amount</th><th>unit</th></tr></thead><tbody>{body}</tbody></table>"
        )

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return the name, number and unit of each amount and known accuracy. An unknown resource has no unit."""
        rows = []
        for name, value in self.items():
            number, _, unit = show(value, name).partition(" ")
            rows.append((name, number, unit))
        for operation, layers in self.not_counted.items():
            count, _, noun = plural(len(layers), "layer").partition(" ")
            rows.append((f"{operation}, not in macs", count, f"{noun} (no formula)"))
        for name, accuracy in (self.known_accuracy or {}).items():
            rows.append((f"{DATA_SETS[name]} accuracy", f"{100 * accuracy:.2f}", "% (NAS-Bench-201)"))
        return rows
