"""Tables of costs: of one network layer by layer, of several side by side, and of what a search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rapdarts.architecture.space import NONE
from rapdarts.config.units import RESOURCES, show
from rapdarts.cost.layers import CONVENTIONS, NetworkCosts, Row
from rapdarts.cost.spaces import Amounts
from rapdarts.reports.plots import Panels


def describe_search(report: Mapping[str, Any]) -> str:
    """Format the report of a search: the rule, the genotype, its costs beside those of the mixture, and its budgets."""

    def cell(costs: Mapping[str, float], name: str) -> str:
        return show(costs[name], name) if name in costs else "-"

    columns = ("expected", "priced", "counted")
    lines = [
        f"rule: {report['rule']}",
        report["genotype"],
        f"{'':12} {'expected (mixture)':>20} {'expected (genotype)':>20} {'counted':>16}",
    ]
    for name in report["counted"] | report["priced"]:
        values = [cell(report[column], name) for column in columns]
        lines.append(f"{name:12} {values[0]:>20} {values[1]:>20} {values[2]:>16}")
    budgets = report["budgets"]
    for name, share in report["used"].items():
        lines.append(f"{100 * share:.1f} % of the budget of {show(budgets[name], name)} {name} is used")
    return "\n".join([*lines, *report["notes"]])


def describe_networks(bills: Sequence[NetworkCosts], rows: str) -> str:
    """The tables of rows (`all`, `none`; `auto`: so many as can be read, of a single network only), then the totals side by side."""
    lines = []
    for bill in bills:
        lines.append(heading(bill))
        if rows == "all" or (rows == "auto" and len(bills) == 1):
            lines += [*table(bill, bill.rows if rows == "all" else bill.short), ""]
    return "\n".join([*lines, *totals(bills)])


def heading(bill: NetworkCosts) -> str:
    """The network in words."""
    skeleton, shape = bill.target.skeleton, "x".join(map(str, bill.target.image))
    if skeleton is None:
        return f"{bill.target.name}: {shape}, {bill.classes} classes"
    cells = f"{skeleton.layers} cells x {skeleton.channels} channels"
    return f"{bill.target.name}: {cells}, {shape}, {bill.classes} classes, {skeleton.stem} stem"


def table(bill: NetworkCosts, rows: Sequence[Row]) -> list[str]:
    """What each row puts out (its layers together), holds and multiplies."""
    cells = [("layer", "kind", "output", "memory KiB", "params", "MACs", "% of MACs")]
    for row in [*rows, Row.of(bill.rows, "total")]:
        cells.append(
            (
                row.layer or "(network)",
                row.kind,
                "x".join(map(str, row.shape)),
                f"{bill.bytes_of(row.output) / 1024:,.2f}",
                f"{row.params:,}",
                f"{row.macs:,}",
                f"{100 * row.macs / max(1, bill.costs['macs']):.1f}",
            )
        )
    return columns(cells, left=(0, 1, 2))


def totals(bills: Sequence[NetworkCosts]) -> list[str]:
    """Every figure of every network, and what it counts."""
    cells = [("", *(bill.target.name for bill in bills), "")]
    for name, convention in CONVENTIONS.items():
        values = [bill.figures[name] for bill in bills]
        shown = ("-" if value is None else show(value, name if name in RESOURCES else "macs") for value in values)
        cells.append((name, *shown, convention.format(precision=bills[0].precision, hardware=bills[0].hardware.name)))
    lines = columns(cells, left=(0, len(bills) + 1))
    heads = [(bill.target.name, bill.target.auxiliary) for bill in bills if bill.target.auxiliary]
    return lines + [f"the auxiliary head that training adds to {name}: {extra:,} params" for name, extra in heads]


def panels(bill: NetworkCosts) -> Panels:
    """What the layers put out, hold and multiply, for bar charts."""
    rows = bill.short
    macs, params, stored, energy = (show(bill.costs[name], name) for name in ("macs", "params", "bytes", "energy"))
    return Panels(
        f"{heading(bill)}\n{macs} MACs, {params} params, {stored}, {energy} at {bill.precision} bits",
        [row.layer or "(network)" for row in rows],
        {
            "output memory, KiB": [bill.bytes_of(row.output) / 1024 for row in rows],
            "params, thousands": [row.params / 1e3 for row in rows],
            "MACs, millions": [row.macs / 1e6 for row in rows],
        },
    )


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Lines of aligned columns: those in `left` to the left, numbers to the right."""
    aligned = []
    for place, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        aligned.append([cell.ljust(width) if place in left else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*aligned, strict=True)]


def describe_space_prices(tariff: dict[str, Any]) -> str:
    """The same for the eye."""
    names = list(tariff["floor"])
    skeleton, sample, peaks = tariff["skeleton"], tariff["sample"], tariff["peak_memory"]
    shape = "x".join(map(str, skeleton["image"]))
    head = f"{tariff['space']}: {skeleton['layers']} cells x {skeleton['channels']} channels, {shape}, "
    head += f"{skeleton['classes']} classes, {skeleton['stem']} stem, {tariff['precision']} bits"

    def line(what: str, values: Amounts) -> tuple[str, ...]:
        return (what, *(show(values[name], name) for name in names))

    networks = [
        ("", *names),
        line("cheapest genotype", tariff["floor"]),
        line("dearest genotype", tariff["ceiling"]),
        line("mean of all genotypes", tariff["expected"]),
    ]
    for what, fact in (
        ("standard deviation", "sd"),
        ("5 % of them below", "quantile_05"),
        ("95 % of them below", "quantile_95"),
    ):
        networks.append(line(f"  {what} (sample)", {name: sample[name][fact] for name in names}))
    networks.append(line("all edges at once", tariff["plain_sum"]))
    networks += [line(f"{name} only", values) for name, values in tariff["one_primitive"].items()]

    prices = [("price on an edge, over all cells of a kind", *names)]
    for name, kinds in tariff["prices"].items():
        if name == NONE:  # it costs nothing
            continue
        prices += [line(f"{name}, {kind.replace('_', ' ')}", values) for kind, values in kinds.items()]

    correlation = sample["correlation_macs_params"]
    facts = [
        f"peak memory: {show(peaks['min'], 'bytes')} to {show(peaks['max'], 'bytes')} in {peaks['n']} random networks",
        f"supernet of these cells: {tariff['supernet']['params']:,} params",
    ]
    if correlation is not None:
        facts.append(f"correlation of macs and params: {correlation:.3f} ({sample['n']:,} random genotypes)")
    return "\n".join([head, *columns(networks), "", *columns(prices), "", *facts])


def describe_designs(found: dict[str, Any]) -> str:
    """The same for the eye."""
    shape = "x".join(map(str, found["input"]))
    head = f"filters from {shape} to {found['outputs']} channels, same size, no biases, {found['precision']} bits"
    names = list(next(iter(found["designs"].values())))
    cells = [("", *names)]
    for design, values in found["designs"].items():
        cells.append((design, *(show(values[name], name) for name in names)))
    return "\n".join([head, *columns(cells)])
