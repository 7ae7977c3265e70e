"""Costs as a value that shows itself as a table: aligned text in a terminal, HTML in a notebook."""

from __future__ import annotations

from html import escape

from rapdarts.config.resources import RESOURCES, show


class Costs(dict[str, float]):
    """Amounts by resource, each in its unit (`rapdarts.config.resources.RESOURCES`): a dict in everything but its looks."""

    def __repr__(self) -> str:
        """Return one line a resource, with names and numbers aligned."""
        rows = self._rows()
        if not rows:
            return "no costs"
        names, numbers = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{name:{names}}  {number:>{numbers}} {unit}".rstrip() for name, number, unit in rows)

    def _repr_html_(self) -> str:
        """Return the same rows as a table in HTML, which notebooks show."""
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
        """Name, number and unit of each amount; a resource that rapdarts does not know has no unit."""
        rows = []
        for name, value in self.items():
            number, _, unit = (show(value, name) if name in RESOURCES else f"{value:,}").partition(" ")
            rows.append((name, number, unit))
        return rows
