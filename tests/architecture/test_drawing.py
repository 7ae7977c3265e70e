"""Drawings: every edge appears once with its name, nothing overlaps, and nothing extends beyond the page."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.drawing import IDLE, MAX_EDGES, draw
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype
from rapdarts.architecture.space import KINDS, SearchSpace, Skeleton
from rapdarts.errors import InputError
from search_spaces import darts, filters, nasbench201

SVG = "{http://www.w3.org/2000/svg}"


def no_module(channels: int, stride: int, affine: bool) -> Any:
    """Placeholder primitive; no test in this file builds a network."""


ODD = SearchSpace(
    "odd", dict.fromkeys(("none", "mine", "sep_conv_3x3"), no_module), nodes=5, keep=None, derive_none=True
)
LONELY = Cell(3, ((("skip_connect", 1),), (("skip_connect", 1), ("skip_connect", 1))), (4,))
ALL_FAMILIES = ["sep_conv_3x3", "dil_conv_3x3", "bottleneck_3x3", "max_pool_3x3", "skip_connect", "none", "mine"]
EVERY = {
    **LITERATURE,
    **{f"darts {n}": random_genotype(darts.SPACE, np.random.default_rng(n)) for n in range(25)},
    **{f"filters {n}": random_genotype(filters.SPACE, np.random.default_rng(n)) for n in range(25)},
    **{f"nasbench201 {n}": random_genotype(nasbench201.SPACE, np.random.default_rng(n)) for n in range(25)},
    "all edges": random_genotype(ODD, np.random.default_rng(0)),
    "unused inputs and nodes": Genotype("odd", dict.fromkeys(KINDS, LONELY)),
    "all families": Genotype("odd", dict.fromkeys(KINDS, Cell(1, tuple(((name, 0),) for name in ALL_FAMILIES), (1,)))),
}
EACH = pytest.mark.parametrize("name", EVERY)


# --- reading a drawing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """A rectangle: x from `left` to `right`, y from `top` to `bottom`."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Area) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, points: np.ndarray) -> bool:
        """Return whether any of the points (n, 2) is inside."""
        x, y = points.T
        return bool(np.any((self.left < x) & (x < self.right) & (self.top < y) & (y < self.bottom)))

    def covers(self, other: Area) -> bool:
        inside = self.left <= other.left and other.right <= self.right
        return inside and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True)
class Picture:
    """Contents of a drawing. An edge has a title, a label (None for edges to the output) and a curve (n, 2)."""

    page: Area
    texts: list[tuple[str, Area]]
    boxes: list[tuple[str, Area]]
    edges: list[tuple[str, tuple[str, Area] | None, np.ndarray]]

    @property
    def labels(self) -> list[tuple[str, Area]]:
        return [label for _, label, _ in self.edges if label]


def picture(svg: str) -> Picture:
    root = ElementTree.fromstring(svg)  # noqa: S314 (our own text)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    children = list(root)
    boxes = [
        ("".join(text.itertext()), area(rect))
        for rect, text in pairwise(children)
        if rect.tag == SVG + "rect" and "rx" in rect.attrib
    ]
    edges = []
    for group in root.iter(SVG + "g"):
        halo, text = group.find(SVG + "rect"), group.find(SVG + "text")
        label = None if halo is None or text is None else (text.text or "", area(halo))
        path = group.find(SVG + "path")
        assert path is not None
        edges.append((group.findtext(SVG + "title", ""), label, curve(path.attrib["d"])))
    texts = [("".join(text.itertext()), extent(text)) for text in root.iter(SVG + "text")]
    return Picture(Area(left, top, left + width, top + height), texts, boxes, edges)


def area(rect: ElementTree.Element) -> Area:
    x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return Area(x, y, x + width, y + height)


def extent(text: ElementTree.Element) -> Area:
    """Return the area of a text at 0.6 times the font size per letter, more than our names need in Arial or DejaVu Sans."""
    size = float(text.attrib["font-size"])
    width = 0.6 * size * len("".join(text.itertext()))
    left = float(text.attrib["x"]) - (width / 2 if text.get("text-anchor") == "middle" else 0)
    bottom = float(text.attrib["y"])
    return Area(left, bottom - 0.75 * size, left + width, bottom + 0.25 * size)


def curve(path: str) -> np.ndarray:
    """Return points (n, 2) on a path of M, C and h commands."""
    here, points = np.zeros(2), []
    t = np.linspace(0, 1, 16)[:, None]
    for command, arguments in re.findall(r"([MCh])([^MCh]+)", path):
        numbers = np.array([float(number) for number in arguments.split()])
        if command == "h":
            stops = [here, here + np.array([numbers[0], 0])]
            points.append(stops[0] * (1 - t) + stops[1] * t)
        elif command == "C":
            stops = [here, *numbers.reshape(3, 2)]
            weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
            points.append(np.asarray(sum(weight * stop for weight, stop in zip(weights, stops, strict=True))))
        else:
            stops = [numbers]
        here = stops[-1]
    return np.concatenate(points)


PICTURES: dict[str, Picture] = {}


def drawn(name: str) -> Picture:
    if name not in PICTURES:
        PICTURES[name] = picture(draw(EVERY[name]))
    return PICTURES[name]


def box_name(cell: Cell, index: int) -> str:
    return f"c_k−{cell.inputs - index}" if index < cell.inputs else str(index - cell.inputs)


# --- content -----------------------------------------------------------------------------------------------------


@EACH
def test_every_edge_appears_once_with_its_name(name: str) -> None:
    titles: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for cell in EVERY[name].cells.values():
        for number, node in enumerate(cell.nodes):
            names.update(primitive for primitive, _ in node)
            titles.update(f"{box_name(cell, source)} → {number}: {primitive}" for primitive, source in node)
        titles.update(f"{box_name(cell, source)} → c_k: concat" for source in cell.concat)
    found = drawn(name)
    assert Counter(title for title, _, _ in found.edges) == titles
    assert Counter(text for text, _ in found.labels) == names


@EACH
def test_every_box_appears_once(name: str) -> None:
    wanted: Counter[str] = Counter()
    for cell in EVERY[name].cells.values():
        wanted.update(box_name(cell, index) for index in range(cell.inputs + len(cell.nodes)))
        wanted["c_k"] += 1
    assert Counter(text for text, _ in drawn(name).boxes) == Counter(
        {text.replace("_", ""): count for text, count in wanted.items()}
    )


@EACH
def test_boxes_are_in_columns_by_depth(name: str) -> None:
    found = iter(drawn(name).boxes)
    for cell in EVERY[name].cells.values():
        depth = [0] * cell.inputs
        for node in cell.nodes:
            depth.append(1 + max((depth[source] for _, source in node), default=0))
        boxes = dict(next(found) for _ in range(len(depth) + 1))
        names = [box_name(cell, index).replace("_", "") for index in range(len(depth))]
        columns = [
            {boxes[text].left for text, its in zip(names, depth, strict=True) if its == d} for d in sorted({*depth})
        ]
        columns.append({boxes["ck"].left})
        assert all(len(column) == 1 for column in columns)
        assert all(left < right for (left,), (right,) in pairwise(columns))


# --- overlaps ---------------------------------------------------------------------------------------------------


@EACH
def test_nothing_extends_beyond_the_page(name: str) -> None:
    found = drawn(name)
    assert all(found.page.covers(area) for _, area in [*found.texts, *found.boxes, *found.labels])
    for _, _, points in found.edges:
        assert found.page.covers(Area(*points.min(axis=0), *points.max(axis=0)))


@EACH
def test_labels_boxes_and_headings_do_not_overlap(name: str) -> None:
    found = drawn(name)
    inside = {text for text, _ in [*found.boxes, *found.labels]}
    headings = [area for text, area in found.texts if text not in inside]
    assert len(headings) >= 3 + len(EVERY[name].cells) - 1  # heading lines, and a legend of at least two entries
    areas = [area for _, area in [*found.boxes, *found.labels]] + headings
    assert not [pair for pair in combinations(areas, 2) if pair[0].overlaps(pair[1])]


@EACH
def test_a_label_fits_its_halo(name: str) -> None:
    found = drawn(name)
    halos = [halo for _, halo in found.labels]
    for text, area in found.texts:
        if text in {label for label, _ in found.labels}:
            assert any(halo.covers(area) for halo in halos), text


@EACH
def test_a_line_runs_through_the_middle_of_its_label(name: str) -> None:
    for _, label, points in drawn(name).edges:
        if label:
            within = points[(label[1].left < points[:, 0]) & (points[:, 0] < label[1].right)]
            assert len(within) and np.allclose(within[:, 1], (label[1].top + label[1].bottom) / 2, atol=0.2)


@EACH
def test_no_line_crosses_a_box_or_another_label(name: str) -> None:
    found = drawn(name)
    for title, own, points in found.edges:
        others = [label for label in found.labels if label is not own]
        assert not [(title, text) for text, area in [*others, *found.boxes] if area.holds(points)]


def test_a_node_without_an_edge_is_grey() -> None:
    svg = draw(LITERATURE["FairDARTS_a"])
    for rect, text in pairwise(ElementTree.fromstring(svg)):  # noqa: S314 (our own text)
        if "rx" in rect.attrib:
            grey = rect.attrib["stroke"] == text.get("fill") == IDLE
            assert grey is (text.text == "1" and svg.index("Reduction") > svg.index(f'y="{text.attrib["y"]}"'))


# --- text and colours ---------------------------------------------------------------------------------------------


def test_the_heading_shows_the_skeleton_and_the_costs() -> None:
    bare = LITERATURE["PDARTS"]
    assert [text for text, _ in drawn("PDARTS").texts][:2] == ["Search space darts", "Normal cell"]
    skeleton = Skeleton(20, 36, (3, 32, 32), 10)
    costs: dict[str, float] = {"macs": 532_174_464, "params": 3_433_798, "bytes": 13_735_192}
    texts = [text for text, _ in picture(draw(replace(bare, skeleton=skeleton, costs=costs))).texts]
    assert texts[1] == ("20 cells, 36 channels, 3×32×32, 10 classes · 532.2M MACs · 3.434M params · 13.74M bytes")
    costs = {"macs": 999, "latency": 1.5e-3, "energy": 2e9}
    texts = [text for text, _ in picture(draw(replace(bare, costs=costs))).texts]
    assert texts[1] == "999 MACs"  # other resources are not shown


def test_every_family_has_its_own_colour() -> None:
    svg = draw(EVERY["all families"])
    colours = dict(re.findall(r'<g fill="(#[0-9a-f]{6})"><title>c_k&#8722;1 &#8594; \d: (\w+)', svg))
    assert sorted(colours.values()) == sorted(ALL_FAMILIES)  # seven names, seven colours
    keys = [text for text, _ in drawn("all families").texts][-8:]
    assert keys[:3] == ["separable", "dilated", "dense, bottleneck, factorized"]
    assert keys[3:] == ["pooling", "skip", "no edge", "other", "concat"]


def test_a_genotype_with_one_kind_of_cell_has_one_drawing() -> None:
    genotype = parse_genotype("|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|", "here")
    svg = draw(genotype)
    texts = [text for text, _ in picture(svg).texts]
    assert texts[:2] == ["Search space nasbench201", "Normal cell"] and "Reduction cell" not in texts
    assert texts[-5:] == ["dense, bottleneck, factorized", "pooling", "skip", "no edge", "concat"]
    assert len(picture(svg).edges) == 6 + 1 and len(picture(svg).boxes) == 1 + 3 + 1


def test_the_same_genotype_gives_the_same_svg() -> None:
    genotype = LITERATURE["AmoebaNet"]
    assert draw(genotype) == draw(parse_genotype(genotype.to_json(), "here"))
    code = "import sys; from rapdarts.architecture.drawing import draw; from rapdarts.architecture.literature import LITERATURE as known"
    code += "; sys.stdout.write(draw(known['AmoebaNet']))"
    for seed in ("1", "2"):
        command = (sys.executable, "-c", code)
        result = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
        assert result.stdout == draw(genotype)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("</text><script>alert(1)</script>", "</text><script>alert"),
        ("&amp;\"'<!--]]>", "&amp;\"'<!--]]>"),
        ("a\0\n\x1b\ud800\u202e\ufffeb", "a\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdb"),
        ("x" * 100_000, "x" * 20),
        ("畳み込み", "畳み込み"),
    ],
)
def test_hostile_names_are_escaped(name: str, shown: str) -> None:
    cell = Cell(1, (((name, 0), (name, 0)), (("skip_connect", 0),)), (1, 2))
    svg = draw(Genotype(name, dict.fromkeys(KINDS, cell), costs={name: 1}))
    assert svg.isascii() and len(svg) < 50_000
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}  # noqa: S314
    assert tags <= {"svg", "g", "title", "path", "rect", "text", "tspan"}
    found = picture(svg)
    labels = [text for text, _ in found.labels if text != "skip_connect"]
    assert len(labels) == 4 and len(set(labels)) == 1
    assert labels[0] == shown or (labels[0].startswith(shown) and labels[0].endswith("…") and len(labels[0]) < 30)
    assert all(found.page.covers(area) for _, area in found.texts)


def test_a_cell_with_too_many_edges_is_refused() -> None:
    node = tuple(("skip_connect", 0) for _ in range(MAX_EDGES + 1))
    cells = {"normal": Cell(1, ((("skip_connect", 0),),), (1,)), "reduce": Cell(1, (node,), (1,))}
    with pytest.raises(InputError, match="the reduce cell has 81 edges; a drawing shows at most 80"):
        draw(Genotype("darts", cells))
