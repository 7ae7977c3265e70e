"""Drawings of a genotype: its cells as layered graphs, in SVG for browsers or in DOT for Graphviz.

Boxes are placed in columns by depth, with columns of labels between them. An edge has its own slot in every column it
passes through. It is horizontal inside a column and bends only between columns, so no line crosses a box or another edge's label.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Protocol

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.space import KINDS, Skeleton
from rapdarts.errors import InputError

FAMILIES: list[tuple[str, tuple[str, ...], str]] = [
    ("separable", ("sep_conv_",), "#1f5fb4"),
    ("dilated", ("dil_conv_",), "#b8450b"),
    ("dense, bottleneck, factorized", ("conv_", "nor_conv_", "bottleneck_", "factorized_"), "#7b3aa6"),
    ("pooling", ("max_pool_", "avg_pool_"), "#16784a"),
    ("skip", ("skip_",), "#4d5561"),
    ("no edge", ("none",), "#6d7480"),
    ("other", ("",), "#a11d4e"),
]
"""Families of primitives, each with its name, the prefixes of its primitives, and its colour."""
TITLES = dict(zip(KINDS, ("Normal cell", "Reduction cell"), strict=True))
CONCAT, INK, IDLE = ("concat", "#b4bcc8"), "#1c2430", "#6d7480"
"""Name and colour of the edges to the output, colour of text, and colour of boxes without edges."""
BOLD, MIDDLE = ' font-weight="bold"', ' text-anchor="middle"'
WIDTH, MARGIN, GAP, FONT = 840, 24, 9, 13
BEND, ROOM, MAX_EDGES = (36, 100), 220, 80
"""Minimum and maximum distance between columns, maximum width of a label, and maximum number of edges in a cell."""


@dataclass(eq=False)
class Spot:
    """A box, a label, or (without text) a point of an edge inside a column. `x` is its left side and `y` its vertical centre."""

    text: str = ""
    width: float = 0
    height: float = 4
    before: list[Spot] = field(default_factory=list)
    after: list[Spot] = field(default_factory=list)
    x: float = 0
    y: float = 0

    def mean(self, neighbours: list[Spot]) -> float:
        """Return the mean `y` of neighbours. Between two points without text, the weight is higher to straighten long edges."""
        total = weights = 0.0
        for spot in neighbours:
            weight = 1 if self.text or spot.text else 8
            total, weights = total + weight * spot.y, weights + weight
        return total / weights if weights else self.y


Edge = tuple[str, list[Spot]]
"""A primitive (empty for an edge to the output) and the spots along the edge, including the boxes at its ends."""


class Drawable(Protocol):
    """Attributes of a genotype that a drawing shows, as a protocol because the module of `Genotype` imports this one."""

    @property
    def space(self) -> str: ...

    @property
    def cells(self) -> Mapping[str, Cell]: ...

    @property
    def skeleton(self) -> Skeleton | None: ...

    @property
    def costs(self) -> Mapping[str, int | float]: ...


def draw(genotype: Drawable) -> str:
    """Return an SVG of the normal cell, with the reduction cell below it if there is one.

    Raises InputError if a cell has too many edges to be readable.
    """
    kinds = [kind for kind in KINDS if kind in genotype.cells]
    placed = [_place(genotype.cells[kind], kind) for kind in kinds]
    width = max([WIDTH, *(columns[-1][0].x + columns[-1][0].width + MARGIN for columns, _ in placed)])
    facts, room = _facts(genotype), width - 2 * MARGIN
    body = [_text(MARGIN, 38, _fit(f"Search space {genotype.space}", room, 18), 18, BOLD)]
    body += [_text(MARGIN, 60, _fit(facts, room, FONT), FONT)] if facts else []
    bottom = 60.0 if facts else 42.0
    for kind, (columns, edges) in zip(kinds, placed, strict=True):
        body.append(_text(MARGIN, bottom + 36, TITLES[kind], 15, BOLD))
        spots = [spot for column in columns for spot in column]
        across = (width - MARGIN - columns[-1][0].x - columns[-1][0].width) / 2
        down = bottom + 52 - min(spot.y - spot.height / 2 for spot in spots)
        for spot in spots:
            spot.x, spot.y = spot.x + across, spot.y + down
        bottom = max(spot.y + spot.height / 2 for spot in spots)
        body += map(_edge, edges)
        body += [_box(spot) for column in (*columns[::2], columns[-1]) for spot in column if spot.text]
    used, x, y = {_family(primitive) for _, edges in placed for primitive, _ in edges}, MARGIN, bottom + 36
    for name, colour in [*((name, colour) for name, _, colour in FAMILIES), CONCAT]:
        if (name, colour) in used:
            body += [f'<path d="M{x} {y - 4:.1f}h22" {_stroke(name, colour)}/>', _text(x + 29, y, name, 12)]
            x += 42 + int(_width(name, 12))
    width, height = round(max(width, x - 13 + MARGIN)), round(y + 16)
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" fill="{INK}"'
    font = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""
    text = "\n".join([f"<svg {head} {font}>", '<rect width="100%" height="100%" fill="#fff"/>', *body, "</svg>\n"])
    return text.encode("ascii", "xmlcharrefreplace").decode()


def dot(genotype: Drawable) -> str:
    """Return the cells in DOT (Graphviz) without positions, as one digraph with a cluster for each cell."""
    lines = ["digraph genotype {", "  rankdir=LR", f"  label={_quoted(f'search space {genotype.space}')}"]
    lines += ["  node [shape=box, style=rounded]"]
    for kind in KINDS:
        if kind not in genotype.cells:
            continue
        cell = genotype.cells[kind]
        names = [f"{kind}_{number}" for number in range(cell.inputs + len(cell.nodes))]
        texts = [f"c_k-{cell.inputs - number}" for number in range(cell.inputs)]
        texts += [str(number) for number in range(len(cell.nodes))]
        lines += [f"  subgraph cluster_{kind} {{", f"    label={_quoted(TITLES[kind])}"]
        grey = f", color={_quoted(IDLE)}, fontcolor={_quoted(IDLE)}"
        lines += [
            f"    {name} [label={_quoted(text)}{grey if cell.empty(number) else ''}]"
            for number, (name, text) in enumerate(zip(names, texts, strict=True))
        ]
        lines += [f"    {kind}_output [label={_quoted('c_k')}]"]
        for name, node in zip(names[cell.inputs :], cell.nodes, strict=True):
            for primitive, source in node:
                colour = _quoted(_family(primitive)[1])
                lines += [
                    f"    {names[source]} -> {name} [label={_quoted(primitive)}, color={colour}, fontcolor={colour}]"
                ]
        lines += [f"    {names[source]} -> {kind}_output [color={_quoted(CONCAT[1])}]" for source in cell.concat]
        lines += ["  }"]
    return "\n".join([*lines, "}\n"])


def _quoted(text: str) -> str:
    """Return a string quoted for DOT, with backslashes escaped."""
    plain = "".join(character if character.isprintable() else "\ufffd" for character in text[:200])
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- layout ------------------------------------------------------------------------------------------------------


def _place(cell: Cell, kind: str) -> tuple[list[list[Spot]], list[Edge]]:
    """Return the columns from the inputs to the output, and the edges. The caller moves the spots into place."""
    wanted = [(primitive, source, cell.inputs + n) for n, node in enumerate(cell.nodes) for primitive, source in node]
    if len(wanted) > MAX_EDGES:
        raise InputError(f"the {kind} cell has {len(wanted)} edges; a drawing shows at most {MAX_EDGES}.")
    depths = [0] * cell.inputs
    for node in cell.nodes:
        depths.append(2 + max((depths[source] for _, source in node), default=0))
    depths.append(max(depths) + 1)
    boxes = [Spot(f"c_k−{cell.inputs - number}", 52, 40) for number in range(cell.inputs)]
    boxes += [*(Spot(str(number), 36, 36) for number in range(len(cell.nodes))), Spot("c_k", 52, 40)]
    columns: list[list[Spot]] = [[] for _ in range(depths[-1] + 1)]
    for depth, box in zip(depths, boxes, strict=True):
        columns[depth].append(box)
    edges = []
    for primitive, source, target in [*(("", source, len(boxes) - 1) for source in cell.concat), *wanted]:
        spots = [boxes[source], *(Spot() for _ in range(depths[source] + 1, depths[target])), boxes[target]]
        if primitive:
            label = _fit(primitive, ROOM, FONT)
            spots[-2] = Spot(label, _width(label, FONT) + 12, 20)
        for column, spot in zip(columns[depths[source] + 1 :], spots[1:-1], strict=False):
            column.append(spot)
        for left, right in pairwise(spots):
            left.after.append(right)
            right.before.append(left)
        edges.append((primitive, spots))

    _order(columns)
    _settle(columns)
    widths = [max(spot.width for spot in column) for column in columns]
    bend = min(BEND[1], max(BEND[0], (WIDTH - 2 * MARGIN - sum(widths)) / (len(columns) - 1)))
    x: float = MARGIN
    for column, width in zip(columns, widths, strict=True):
        for spot in column:
            spot.x, spot.width = x, width
        x += width + bend
    return columns, edges


def _order(columns: list[list[Spot]]) -> None:
    """Sort all columns except the inputs so that few edges cross.

    Boxes and labels are sorted by the mean of their neighbours, in forward and backward sweeps from several starting orders.
    """
    first = [list(column) for column in columns]
    found: list[tuple[int, float, int, list[list[Spot]]]] = []
    for start in range(16):
        for column, was in zip(columns, first, strict=True):
            turn = start // 2 % len(was)
            _rank(column, was if was is first[0] else (was[turn:] + was[:turn])[:: -1 if start % 2 else 1])
        for _ in range(3):
            for column in columns[1:]:
                _rank(column, sorted(column, key=lambda spot: spot.mean(spot.before)))
            for column in columns[-2:0:-1]:
                _rank(column, sorted(column, key=lambda spot: spot.mean(spot.after)))
            found.append((*_tangle(columns), len(found), [list(column) for column in columns]))
    columns[:] = min(found)[-1]


def _rank(column: list[Spot], order: list[Spot]) -> None:
    column[:] = order
    for place, spot in enumerate(column):
        spot.y = place - (len(column) - 1) / 2


def _tangle(columns: list[list[Spot]]) -> tuple[int, float]:
    """Return the number of crossings and the total vertical length of all edges."""
    crossings, rises = 0, 0.0
    for column in columns:
        ends: list[float] = []
        for spot in column:
            for end in sorted(other.y for other in spot.after):
                crossings += len(ends) - bisect_right(ends, end)
                rises += abs(spot.y - end)
                insort(ends, end)
    return crossings, rises


def _settle(columns: list[list[Spot]]) -> None:
    """Move every spot's `y` as close to its neighbours' mean as the order and spacing in its column allow."""
    for sweep in range(60):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            offsets = [0.0]
            for above, spot in pairwise(column):
                offsets.append(offsets[-1] + (above.height + spot.height) / 2 + GAP)
            # Least squares in a fixed order (isotonic regression): spots that would pass each other move together.
            pools: list[list[float]] = []
            for spot, offset in zip(column, offsets, strict=True):
                pools.append([spot.mean(spot.before + spot.after) - offset])
                while len(pools) > 1 and sum(pools[-2]) / len(pools[-2]) >= sum(pools[-1]) / len(pools[-1]):
                    pools[-2:] = [pools[-2] + pools[-1]]
            levels = [sum(pool) / len(pool) for pool in pools for _ in pool]
            for spot, level, offset in zip(column, levels, offsets, strict=True):
                spot.y = level + offset


# --- appearance --------------------------------------------------------------------------------------------------


def _edge(edge: Edge) -> str:
    primitive, spots = edge
    name, colour = _family(primitive)
    first, last, label = spots[0], spots[-1], spots[-2]
    x, y = first.x + first.width, _port(first, first.after, spots[1])
    path = f"M{x:.1f} {y:.1f}"
    for spot in spots[1:]:
        half, level = (x + spot.x) / 2, _port(last, last.before, label) if spot is last else spot.y
        path += f"C{half:.1f} {y:.1f} {half:.1f} {level:.1f} {spot.x:.1f} {level:.1f}"
        path += "" if spot is last else f"h{spot.width:.1f}"
        x, y = spot.x + spot.width, level
    title = escape(_fit(f"{first.text} → {last.text}: {primitive or name}", 5 * ROOM, FONT))
    parts = f"<title>{title}</title>"
    parts += f'<path d="{path}" {_stroke(name, colour)}/><path d="M{last.x:.1f} {y:.1f}l-8 -3.5v7z"/>'
    if primitive:
        middle, wide = label.x + label.width / 2, _width(label.text, FONT) + 8
        halo = f'x="{middle - wide / 2:.1f}" y="{label.y - 10:.1f}" width="{wide:.1f}" height="20" fill="#fff"'
        parts += f"<rect {halo}/>" + _text(middle, label.y + 4.5, label.text, FONT, MIDDLE)
    return f'<g fill="{colour}">{parts}</g>'


def _port(box: Spot, neighbours: list[Spot], other: Spot) -> float:
    """Return the `y` coordinate where an edge meets its box; edges on the same side are spread vertically."""
    order = sorted(neighbours, key=lambda spot: spot.y)
    step = min(8, (box.height - 12) / max(len(order) - 1, 1))
    return box.y + step * (order.index(other) - (len(order) - 1) / 2)


def _box(box: Spot) -> str:
    name, _, index = box.text.partition("_")
    place = f'x="{box.x:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" height="{box.height}" rx="9"'
    text = f'<tspan>{name}</tspan><tspan dy="4" font-size="11">{index}</tspan>' if index else name
    ink, fill = (INK, "") if box.before or box.after else (IDLE, f' fill="{IDLE}"')
    return (
        f'<rect {place} fill="#f1f4f8" stroke="{ink}" stroke-width="1.3"/>'
        f'<text x="{box.x + box.width / 2:.1f}" y="{box.y + 5:.1f}" font-size="15"{MIDDLE}{fill}>{text}</text>'
    )


def _text(x: float, y: float, text: str, size: int, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{style}>{escape(text)}</text>'


def _stroke(name: str, colour: str) -> str:
    dash = {"skip": ' stroke-dasharray="6 4"', "no edge": ' stroke-dasharray="1 6"'}.get(name, "")
    return f'fill="none" stroke="{colour}" stroke-width="{1.5 if name == CONCAT[0] else 2}"{dash}'


def _family(primitive: str) -> tuple[str, str]:
    own = ((name, colour) for name, starts, colour in FAMILIES if primitive.startswith(starts))
    return next(own) if primitive else CONCAT


def _facts(genotype: Drawable) -> str:
    facts, skeleton = [], genotype.skeleton
    if skeleton:
        image = "×".join(map(str, skeleton.image))
        facts.append(f"{skeleton.layers} cells, {skeleton.channels} channels, {image}, {skeleton.classes} classes")
    for resource in ("macs", "params", "bytes"):  # the line has room only for these
        cost = genotype.costs.get(resource)
        if cost is None:
            continue
        unit, size = next((fits for fits in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if abs(cost) >= fits[1]), ("", 1))
        facts.append(f"{cost / size:.4g}{unit} {resource.replace('macs', 'MACs')}")
    return " · ".join(facts)


def _width(text: str, size: int) -> float:
    """Estimate the width of a string in common fonts, erring on the wide side."""
    classes = {**dict.fromkeys("abcdeghknopqsuvxyz0123456789_", 0.64), **dict.fromkeys("fijlrt-,. ", 0.42)}
    return size * sum(classes.get(letter, 1.0 if letter.isascii() else 1.3) for letter in text)


def _fit(text: str, room: float, size: int) -> str:
    """Return a string with unprintable characters replaced, truncated to a width."""
    plain = "".join(character if character.isprintable() else "\ufffd" for character in text[:200])
    while _width(plain, size) > room:
        plain = plain[:-2] + "…"
    return plain
