"""Tables of costs: a network by layer, several networks side by side, and the result of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapdarts.architecture.space import NONE
from rapdarts.config import shapes
from rapdarts.config.resources import RESOURCES, show, used_line
from rapdarts.cost.graphs import GraphCosts
from rapdarts.cost.layers import CONVENTIONS, NetworkCosts, Row
from rapdarts.cost.spaces import Amounts
from rapdarts.data import nasbench201
from rapdarts.files import atomic
from rapdarts.reports import plots
from rapdarts.reports.plots import Panels
from rapdarts.reports.text_table import aligned, missing
from rapdarts.reports.warnings import warnings_of

STORED = "size of the weights as stored in the file"
"""Description of the bytes of an ONNX file."""


def describe_search(report: Mapping[str, Any]) -> str:
    """Format the report of a search: the rule, the genotype, the costs of the genotype and the mixture, and the budgets."""

    def cell(costs: Mapping[str, float], name: str) -> str:
        return show(costs[name], name) if name in costs else "-"

    rows = [("", "expected (mixture)", "expected (genotype)", "counted")]
    for name in report["counted"] | report["priced"]:
        expected, priced, counted = (cell(report[column], name) for column in ("expected", "priced", "counted"))
        rows.append((name, expected, priced, counted))
    lines = [f"rule: {report['rule']}", report["genotype"], *aligned(rows, widths=(12, 19, 19, 15))]
    budgets = report["budgets"]
    for name, share in report["used"].items():
        lines.append(used_line(name, share, budgets[name]))
    return "\n".join([*lines, *report["notes"], *warnings_of(report)])


def describe_networks(networks: Sequence[NetworkCosts], rows: str) -> str:
    """Format the costs of networks: a table of the layers of each, then the totals side by side.

    `rows` selects the layers: `all`, `none`, or `auto`, which shows a readable number of rows for a single network.
    """
    lines = []
    for network in networks:
        lines.append(heading(network))
        if network.rows and (rows == "all" or (rows == "auto" and len(networks) == 1)):
            lines += [*layer_table(network, network.rows if rows == "all" else network.short), ""]
    return "\n".join([*lines, *totals(networks)])


def heading(network: NetworkCosts) -> str:
    """Return a line with the name of the network, its skeleton, image and classes."""
    skeleton, shape = network.skeleton, shapes.shown(network.image)
    if skeleton is None:
        return f"{network.name}: {shape}, {network.classes} classes"
    cells = f"{skeleton.layers} cells x {skeleton.channels} channels"
    return f"{network.name}: {cells}, {shape}, {network.classes} classes, {skeleton.stem} stem"


def layer_table(network: NetworkCosts, rows: Sequence[Row]) -> list[str]:
    """Return a table of layers and their total: output, memory, parameters and MACs."""
    cells = [("layer", "kind", "output", "memory KiB", "params", "MACs", "% of MACs")]
    for row in [*rows, Row.of(network.rows, "total")]:
        cells.append(
            (
                row.layer or "(network)",
                row.kind,
                "x".join(map(str, row.shape)),
                f"{network.bytes_of(row.output) / 1024:,.2f}",
                f"{row.params:,}",
                f"{row.macs:,}",
                f"{100 * row.macs / max(1, network.costs['macs']):.1f}",
            )
        )
    return aligned(cells, left=(0, 1, 2))


def totals(networks: Sequence[NetworkCosts]) -> list[str]:
    """Return a table of the costs of all networks, each cost with its convention, and a line for each auxiliary head.

    If any network has known accuracies, the table has a row for them. Costs that no graph has are left out if all networks are graphs.
    """
    graphs = [network for network in networks if isinstance(network, GraphCosts)]
    counted = next((network for network in networks if not isinstance(network, GraphCosts)), networks[0])
    cells = [("", *(network.name for network in networks), "")]
    own = dict.fromkeys(name for network in networks for name in network.costs if name not in CONVENTIONS)
    for name, convention in {**CONVENTIONS, **dict.fromkeys(own, "user-defined resource")}.items():
        values = [network.figures.get(name) for network in networks]
        if len(graphs) == len(networks) and not any(value is not None for value in values):
            continue
        unit = name if name in RESOURCES or name in own else "macs"
        shown = ("-" if value is None else show(value, unit) for value in values)
        label = convention.format(precision=counted.precision, hardware=counted.hardware.name)
        if name == "bytes" and graphs:
            label = STORED if len(graphs) == len(networks) else f"{label}; of an ONNX file: {STORED}"
        cells.append((name, *shown, label))
    if any(network.known_accuracy for network in networks):
        shown = (accuracies(network.known_accuracy or {}) for network in networks)
        where = f"test accuracy in % on {' / '.join(nasbench201.DATA_SETS.values())}"
        cells.append(
            ("known_accuracy", *shown, f"{where}, from NAS-Bench-201's training of the cell: {nasbench201.TRAINING}")
        )
    lines = aligned(cells, left=(0, len(networks) + 1))
    lines += [f"{network.name} is an ONNX graph: its other costs are not counted" for network in graphs]
    lines += [
        f"not counted in the macs of {network.name} (no formula): {missing(network.not_counted)}"
        for network in networks
        if network.not_counted
    ]
    lines += [
        f"in the 8-bit file of rapdarts export, the weights of {network.name} take {network.int8_file:,} B (biases and folded batch"
        " norms have 32 bits; scales and the graph are not included)"
        for network in networks
        if network.int8_file is not None
    ]
    heads = [(network.name, network.auxiliary) for network in networks if network.auxiliary]
    return lines + [
        f"if retrain.auxiliary is above 0, training adds an auxiliary head with {extra:,} params to {name}"
        for name, extra in heads
    ]


def accuracies(known: Mapping[str, float]) -> str:
    """Format accuracies (0 to 1) in percent, as in `93.66 / 70.29 / 44.03`, or `-` if there are none."""
    return " / ".join(f"{100 * accuracy:.2f}" for accuracy in known.values()) or "-"


def panels(network: NetworkCosts) -> Panels:
    """Return bar charts of the output memory, parameters and MACs of the layers."""
    rows = network.short
    macs, params, stored, energy = (show(network.costs[name], name) for name in ("macs", "params", "bytes", "energy"))
    return Panels(
        f"{heading(network)}\n{macs} MACs, {params} params, {stored}, {energy} at {network.precision} bits",
        [row.layer or "(network)" for row in rows],
        {
            "output memory, KiB": [network.bytes_of(row.output) / 1024 for row in rows],
            "params, thousands": [row.params / 1e3 for row in rows],
            "MACs, millions": [row.macs / 1e6 for row in rows],
        },
    )


def draw_layers(networks: Sequence[NetworkCosts], file: Path) -> None:
    """Write bar charts of the costs of each network's layers, in the format of the file's suffix."""
    drawn = [panels(network) for network in networks if network.rows]
    atomic.write_atomically(file, plots.draw_bars(drawn, file.suffix))


def describe_space_prices(prices: dict[str, Any]) -> str:
    """Format the prices of a search space: its cheapest, most expensive and mean genotype, and the price of each primitive."""
    names = list(prices["floor"])
    skeleton, sample, peaks = prices["skeleton"], prices["sample"], prices["peak_memory"]
    shape = "x".join(map(str, skeleton["image"]))
    head = f"{prices['space']}: {skeleton['layers']} cells x {skeleton['channels']} channels, {shape}, "
    head += f"{skeleton['classes']} classes, {skeleton['stem']} stem, {prices['precision']} bits"

    def line(what: str, values: Amounts) -> tuple[str, ...]:
        return (what, *(show(values[name], name) for name in names))

    networks = [
        ("", *names),
        line("cheapest genotype", prices["floor"]),
        line("most expensive genotype", prices["ceiling"]),
        line("mean of all genotypes", prices["expected"]),
    ]
    for what, fact in (
        ("standard deviation", "sd"),
        ("5th percentile", "quantile_05"),
        ("95th percentile", "quantile_95"),
    ):
        networks.append(line(f"  {what} (sample)", {name: sample[name][fact] for name in names}))
    networks.append(line("all edges at once", prices["plain_sum"]))
    networks += [line(f"{name} only", values) for name, values in prices["one_primitive"].items()]

    on_edges = [("price of a primitive on an edge, summed over the cells of a kind", *names)]
    for name, kinds in prices["prices"].items():
        if name == NONE:  # none costs nothing
            continue
        on_edges += [line(f"{name}, {kind.replace('_', ' ')}", values) for kind, values in kinds.items()]

    correlation = sample["correlation_macs_params"]
    facts = [
        f"peak memory: {show(peaks['min'], 'bytes')} to {show(peaks['max'], 'bytes')} in {peaks['n']} random networks",
        f"supernet of these cells: {prices['supernet']['params']:,} params",
    ]
    if correlation is not None:
        facts.append(f"correlation of macs and params: {correlation:.3f} ({sample['n']:,} random genotypes)")
    return "\n".join([head, *aligned(networks), "", *aligned(on_edges), "", *facts, *prices["notes"]])


def describe_designs(found: dict[str, Any]) -> str:
    """Format the costs of filter designs as a table with a row for each design."""
    shape = "x".join(map(str, found["input"]))
    head = f"filters from {shape} to {found['outputs']} channels, same size, no biases, {found['precision']} bits"
    names = list(next(iter(found["designs"].values())))
    cells = [("", *names)]
    for design, values in found["designs"].items():
        cells.append((design, *(show(values[name], name) for name in names)))
    return "\n".join([head, *aligned(cells)])
