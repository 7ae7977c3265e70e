"""What was chosen: the discrete cells of one network, read from and written to JSON and the dialects of DARTS and NAS-Bench-201.

Files are parsed, never evaluated; whatever cannot be used is refused with one sentence that says where and why.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import numpy as np

from rapdarts.errors import InputError
from rapdarts.plain_json import Fault, as_list, as_object, dump, load, nearest, reader, record, show
from rapdarts.plain_text import read_text
from rapdarts.space import KINDS, SearchSpace, Skeleton

FORMAT = "rapdarts-genotype"
VERSION = 1
MAX_NODES = 100
MAX_FILE_BYTES = 1_000_000
MAX_DARTS_CHARACTERS = 64_000

Node = tuple[tuple[str, int], ...]
"""The edges into one node, as (primitive, input)."""


@dataclass(frozen=True)
class Cell:
    """One cell: its inputs are numbered from 0, its nodes go on from there, `concat` names those it puts out.

    A value of this type is always an acyclic cell: InputError says which node, edge or number is not.
    """

    inputs: int
    nodes: tuple[Node, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (_is_whole(self.inputs) and 1 <= self.inputs <= MAX_NODES):
            raise InputError(f"inputs must be a whole number from 1 to {MAX_NODES}, not {show(self.inputs)}.")
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise InputError(f"nodes has {len(self.nodes)} entries; a cell has 1 to {MAX_NODES} nodes.")
        end = self.inputs + len(self.nodes)
        for number, node in enumerate(self.nodes):
            if not node:
                raise InputError(f"node {number} has no edge; give it at least one [primitive, input].")
            own = self.inputs + number
            for position, (primitive, source) in enumerate(node):
                edge = f"node {number}, edge {position}"
                if not isinstance(primitive, str) or not primitive:
                    raise InputError(f"{edge}: the primitive must be a name, not {show(primitive)}.")
                if not _is_whole(source):
                    reason = "not a whole number"
                elif source < 0:
                    reason = "negative"
                elif source >= own:
                    later = "a later node" if source < end else "not in the cell"
                    reason = "the node itself" if source == own else later
                else:
                    continue
                raise InputError(f"{edge}: the input {show(source)} is {reason}; it may be {_span(0, own - 1)}.")
        allowed = _span(self.inputs, end - 1)
        if not self.concat:
            raise InputError(f"concat is empty; it may name {allowed}.")
        for source in self.concat:
            if not (_is_whole(source) and self.inputs <= source < end):
                raise InputError(f"concat names {show(source)}, which is no node; it may name {allowed}.")
        if len(set(self.concat)) != len(self.concat):
            raise InputError("concat names a node twice; name each once.")


@dataclass(frozen=True)
class Genotype:
    """The cells chosen in a space, by kind (`normal`, and `reduce` where it is searched), and what is known about their network.

    `skeleton` is the one the costs were counted for, `costs` the amount of each resource, `provenance` any JSON
    values that say how the cells were found.
    """

    space: str
    cells: Mapping[str, Cell]
    skeleton: Skeleton | None = None
    costs: Mapping[str, int | float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def widths(self) -> dict[str, int]:
        """How many nodes the output of each kind concatenates, as `Skeleton.cells` asks for it."""
        return {kind: len(cell.concat) for kind, cell in self.cells.items()}

    def to_json(self) -> str:
        """The genotype as a JSON text that `parse` reads back, a node a line. Raises ValueError for NaN or infinity."""
        tree = {
            "format": FORMAT,
            "version": VERSION,
            "space": self.space,
            "cells": {kind: asdict(cell) for kind, cell in self.cells.items()},
            "skeleton": None if self.skeleton is None else {key: getattr(self.skeleton, key) for key in SKELETON},
            "costs": self.costs,
            "provenance": self.provenance,
        }
        return dump(tree) + "\n"

    def to_darts(self) -> str:
        """The cells as `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)`, one line.

        Raises InputError for cells that this dialect has no words for: those without two inputs and two edges a node.
        """
        parts = []
        for kind in KINDS:
            cell = self.cells.get(kind)
            if cell is None or cell.inputs != 2 or any(len(node) != 2 for node in cell.nodes):
                raise InputError(
                    f"the {kind} cell cannot be written in the DARTS dialect (two inputs a cell, two edges a node)."
                )
            first, last = cell.concat[0], cell.concat[-1]
            contiguous = cell.concat == tuple(range(first, last + 1))
            concat = f"range({first}, {last + 1})" if contiguous else str(list(cell.concat))
            parts.append(f"{kind}={[pair for node in cell.nodes for pair in node]}, {kind}_concat={concat}")
        return f"Genotype({', '.join(parts)})"

    def to_nasbench201(self) -> str:
        """The cell as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`, one line; edges in order of their inputs.

        Raises InputError for cells that this dialect has no words for: all but one normal cell of one input and three
        nodes, each of which has one edge from everything before it, and of which the last is put out.
        """
        cell = self.cells.get("normal")
        if cell is not None and len(self.cells) == 1 and (cell.inputs, cell.concat) == (1, (BENCH_NODES,)):
            nodes = tuple(tuple(sorted(node, key=lambda edge: edge[1])) for node in cell.nodes)
            text = "+".join("|" + "".join(f"{primitive}~{source}|" for primitive, source in node) for node in nodes)
            with suppress(InputError):
                if parse_nasbench201(text, "").cells["normal"].nodes == nodes:
                    return text
        raise InputError(
            "these cells cannot be written in the NAS-Bench-201 dialect (one cell of one input and three nodes, all edges kept)."
        )

    @property
    def line(self) -> str:
        """The cells on one line that `parse` reads back: in the first dialect that has words for them, else as JSON."""
        for dialect in (self.to_darts, self.to_nasbench201):
            with suppress(InputError):
                return dialect()
        return json.dumps(json.loads(Genotype(self.space, self.cells).to_json()))


# --- reading -----------------------------------------------------------------------------------------------------

SKELETON: Mapping[str, int] = {"layers": 1_000, "channels": 65_536, "stem": 0, "image": 65_536, "classes": 1_000_000}
"""The fields of a skeleton as a file lists them, with the largest number each may hold."""
SPACE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""A space's name becomes the name of a module, so it may hold nothing that leads out of the folder of spaces."""

space_name = reader(
    lambda value: isinstance(value, str) and SPACE_NAME.fullmatch(value) is not None,
    "a name of up to 64 letters, digits, _ and -",
)
stem = reader(lambda value: value in ("cifar", "imagenet"), "cifar or imagenet")


def read(path: Path, space: str = "darts") -> Genotype:
    """The genotype in a file of any dialect; `space` is the space where the DARTS dialect leaves it open.

    Raises InputError for what is no regular file, too large, not UTF-8, or not a genotype.
    """
    where = str(path)
    text = read_text(path, where, MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES} bytes, too many for a genotype")
    if "\0" in text:
        raise InputError(f"{where} is not UTF-8 text (it looks like UTF-16 or binary); save it as UTF-8.")
    return parse(text, where, space)


def parse(text: str, where: str, space: str = "darts") -> Genotype:
    """The genotype a text means: the DARTS dialect where it begins with a word or a comment, NAS-Bench-201's where with a bar, else JSON.

    `where` names the text in messages, `space` the space of a text in the DARTS dialect. Raises InputError.
    """
    if text.startswith("\ufeff"):
        raise InputError(f"{where} begins with a byte order mark; save it as UTF-8 without one.")
    if not text.strip():
        raise InputError(f"{where} is empty; it must hold a genotype.")
    if text.lstrip().startswith("|"):
        return parse_nasbench201(text, where)
    return parse_darts(text, where, space) if re.match(r"\s*[^\W\d]|\s*#", text) else parse_json(text, where)


def parse_json(text: str, where: str) -> Genotype:
    """The genotype a JSON text means. Raises InputError."""
    if len(text) > MAX_FILE_BYTES:
        raise InputError(f"{where} has {len(text)} characters, too many for a genotype.")
    try:
        tree = as_object(load(text), where)
    except Fault as fault:
        raise InputError(f"{where}, {fault}.") from None
    if tree.get("format") != FORMAT:
        raise InputError(f"{where}: format must be {FORMAT!r}, not {show(tree.get('format'))}.")
    version = tree.get("version")
    if not _is_whole(version) or version < 1:
        raise InputError(f"{where}: version must be {VERSION}, not {show(version)}.")
    if version > VERSION:
        raise InputError(f"{where} has version {version} and needs a newer rapdarts; this one reads version {VERSION}.")

    required = {"format": None, "version": None, "space": space_name, "cells": None}
    facts = record(tree, where, required, {"skeleton": _skeleton, "costs": _costs, "provenance": as_object})
    del facts["format"], facts["version"]
    cells = record(facts["cells"], f"{where}: cells", dict.fromkeys(KINDS[:1]), dict.fromkeys(KINDS[1:]))
    facts["cells"] = {kind: _cell(cell, f"{where}: cell {kind}") for kind, cell in cells.items()}
    return Genotype(**facts)


def parse_darts(text: str, where: str, space: str = "darts") -> Genotype:
    """The genotype that `Genotype(normal=[(primitive, input), ...], normal_concat=range(2, 6), ...)` means.

    Two pairs make a node. A name and `=` may stand before it, and a first line `# space: NAME`, which wins over
    `space`. Only calls of Genotype and range, lists, tuples, names of primitives and whole numbers are read; InputError
    shows anything else that was found.
    """
    if len(text) > MAX_DARTS_CHARACTERS:
        raise InputError(f"{where} has {len(text)} characters; the DARTS dialect has up to {MAX_DARTS_CHARACTERS}.")
    named = re.match(r"\s*#\s*space:\s*([A-Za-z_][A-Za-z0-9_-]{0,63})\s*\n", text)
    space = named.group(1) if named else space
    # Python would take blanks before the first word for an indentation; the line breaks stay, for the line numbers.
    source = "\n" * text[: len(text) - len(text.lstrip())].count("\n") + text.strip()
    dialect = _Darts(source, where)
    fields = dialect.fields(_statements(source, where))
    cells = {}
    for kind in KINDS:
        nodes, concat = dialect.nodes(fields[kind], kind), dialect.concat(fields[f"{kind}_concat"])
        cells[kind] = _cell({"inputs": 2, "nodes": nodes, "concat": concat}, f"{where}: cell {kind}")
    return Genotype(space, cells)


def _statements(source: str, where: str) -> list[ast.stmt]:
    """What Python's grammar makes of a text, which is not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in strings
            return ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"{where}, line {error.lineno}: neither JSON nor the DARTS dialect: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError):  # a NUL character; nested too deep for the parser
        raise InputError(f"{where} is neither JSON nor the DARTS dialect.") from None


@dataclass(frozen=True)
class _Darts:
    """Reads the pieces of a text in the DARTS dialect, and shows whatever else was found in it."""

    source: str
    where: str

    def refuse(self, node: ast.AST, expected: str) -> NoReturn:
        found = ast.get_source_segment(self.source, node) or self.source
        raise InputError(f"{self.where}: found {show(found)}; {expected}.")

    def fields(self, body: list[ast.stmt]) -> dict[str, ast.expr]:
        """The fields of the one Genotype(...) that the statements are, as they stand."""
        if not body:
            raise InputError(f"{self.where} holds nothing but comments; it must hold one Genotype(...).")
        statement: ast.AST = body[0]
        if isinstance(statement, ast.Expr) or (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            statement = statement.value
        if not (isinstance(statement, ast.Call) and _is_name(statement.func, "Genotype")):
            self.refuse(
                statement, "only Genotype(normal=[...], normal_concat=..., reduce=[...], reduce_concat=...) is read"
            )
        if len(body) > 1:
            self.refuse(body[1], "a file holds one Genotype(...)")
        if statement.args:
            self.refuse(statement.args[0], "the fields of Genotype(...) must be named, as in normal=[...]")
        fields: dict[str, ast.expr] = {}
        for keyword in statement.keywords:
            if keyword.arg is None or keyword.arg in fields:
                self.refuse(keyword, "each field of Genotype(...) is named once")
            fields[keyword.arg] = keyword.value
        names = ("normal", "normal_concat", "reduce", "reduce_concat")
        return record(fields, f"{self.where}: Genotype(...)", dict.fromkeys(names))

    def nodes(self, node: ast.AST, kind: str) -> list[list[Any]]:
        """The list of pairs, two by two."""
        pairs = as_list(self.literal(node), f"{self.where}: {kind}")
        if len(pairs) % 2:
            raise InputError(f"{self.where}: {kind} has {len(pairs)} pairs; the DARTS dialect gives two to every node.")
        return [pairs[first : first + 2] for first in range(0, len(pairs), 2)]

    def concat(self, node: ast.AST) -> list[Any]:
        """A list, or a range of whole numbers."""
        if not isinstance(node, ast.Call):
            return as_list(self.literal(node), f"{self.where}: concat")
        numbers = [self.literal(item) for item in node.args]
        bounded = all(_is_whole(number) and abs(number) <= 1000 for number in numbers)
        plain = _is_name(node.func, "range") and not node.keywords and 1 <= len(numbers) <= 3 and numbers[2:] != [0]
        if not (bounded and plain):
            self.refuse(node, "concat must be a list or range(first, end)")
        return list(range(*numbers))

    def literal(self, node: ast.AST) -> Any:
        """Lists, texts and whole numbers; a tuple counts as a list."""
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.literal(item) for item in node.elts]
        if isinstance(node, ast.Constant) and type(node.value) in (str, int):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = self.literal(node.operand)
            if _is_whole(value):
                return -value
        return self.refuse(node, "only lists of pairs such as ('skip_connect', 0) and whole numbers may stand here")


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


BENCH_NODES, BENCH_EDGE = 3, re.compile(r"([^\s|+~]+)~([0-9]+)")
"""Of the NAS-Bench-201 dialect: computed nodes in a cell, and one edge, primitive~input."""


def parse_nasbench201(text: str, where: str) -> Genotype:
    """The genotype that `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|` means.

    Three nodes, each with one edge from the cell's input (0) and from every earlier node, in that order. Raises InputError.
    """
    parts = text.strip().split("+")
    if len(parts) != BENCH_NODES:
        raise InputError(
            f"{where}: found {len(parts)} nodes in {show(text.strip())}; the NAS-Bench-201 dialect joins {BENCH_NODES} by +."
        )
    nodes = []
    for number, part in enumerate(parts):
        first, *edges, last = part.split("|") if part.count("|") > 1 else (part, "")
        if first or last:
            raise InputError(
                f"{where}, node {number}: found {show(part)}; its edges stand between bars, as in |none~0|."
            )
        if len(edges) != number + 1:
            raise InputError(
                f"{where}, node {number}: found {len(edges)} edges in {show(part)}; in the NAS-Bench-201 dialect it has {number + 1}."
            )
        node = []
        for source, edge in enumerate(edges):
            found = BENCH_EDGE.fullmatch(edge)
            if not found or found[2] != str(source):
                raise InputError(
                    f"{where}, node {number}, edge {source}: found {show(edge)}; here stands primitive~input, as in none~{source}."
                )
            node.append((found[1], source))
        nodes.append(tuple(node))
    return Genotype("nasbench201", {"normal": Cell(1, tuple(nodes), (BENCH_NODES,))})


def _cell(tree: Any, where: str) -> Cell:
    fields = record(tree, where, dict.fromkeys(("inputs", "nodes", "concat")))
    nodes = []
    for number, edges in enumerate(as_list(fields["nodes"], f"{where}, nodes")):
        for position, edge in enumerate(as_list(edges, f"{where}, node {number}")):
            if not isinstance(edge, list) or len(edge) != 2:
                raise InputError(
                    f"{where}, node {number}, edge {position}: must be a pair [primitive, input], not {show(edge)}."
                )
        nodes.append(tuple((primitive, source) for primitive, source in edges))
    try:
        return Cell(fields["inputs"], tuple(nodes), tuple(as_list(fields["concat"], f"{where}, concat")))
    except InputError as error:
        raise InputError(f"{where}, {error}") from None


def _costs(tree: Any, where: str) -> dict[str, int | float]:
    for resource, cost in as_object(tree, where).items():
        if type(cost) not in (int, float):  # to Python True is an int as well
            raise InputError(f"{where}: {show(resource)} must be a number, not {show(cost)}.")
    return dict(tree)


def _skeleton(tree: Any, where: str) -> Skeleton | None:
    if tree is None:
        return None
    fields = record(tree, where, {**dict.fromkeys(SKELETON), "stem": stem, "image": as_list})
    if len(fields["image"]) != 3:
        raise InputError(f"{where}: image must be [channels, height, width], not {show(fields['image'])}.")
    for name, high in SKELETON.items():
        for value in fields[name] if name == "image" else [fields[name]] if high else []:
            if not (_is_whole(value) and 1 <= value <= high):
                raise InputError(f"{where}: {name} must be made of whole numbers from 1 to {high}, not {show(value)}.")
    return Skeleton(**{**fields, "image": tuple(fields["image"])})


# --- against a space ---------------------------------------------------------------------------------------------


def validate(genotype: Genotype, space: SearchSpace, where: str) -> None:
    """Raises InputError, naming cell, node and edge, unless the genotype is one that `space` could have given."""
    allowed = [name for name in space.primitives if space.derive_none or name != "none"]
    names = ", ".join(allowed)
    for kind in KINDS:
        if (kind in genotype.cells) != (kind in space.kinds):
            found, has = ("is missing", "one") if kind in space.kinds else ("is superfluous", "none")
            raise InputError(f"{where}: cell {kind} {found}; the space {space.name} has {has}.")
    for kind in space.kinds:
        cell, here = genotype.cells[kind], f"{where}: cell {kind}"
        for name, given, wanted in (("inputs", cell.inputs, space.inputs), ("nodes", len(cell.nodes), space.nodes)):
            if given != wanted:
                raise InputError(f"{here} has {given} {name}; the space {space.name} has {wanted}.")
        for number, node in enumerate(cell.nodes):
            given, wanted = len(node), space.edges_kept(number)
            if given != wanted:
                raise InputError(f"{here}, node {number} has {given} edges; in the space {space.name} it has {wanted}.")
            for position, (primitive, source) in enumerate(node):
                edge = f"{here}, node {number}, edge {position}"
                if primitive in space.primitives and primitive not in allowed:
                    raise InputError(f"{edge}: the space {space.name} never derives none; use one of {names}.")
                if primitive not in allowed:
                    raise InputError(
                        f"{edge}: the space {space.name} has no primitive {show(primitive)}{_code_points(primitive)}; "
                        f"the nearest is {nearest(primitive, allowed)} (of {names})."
                    )
                if not space.repeat_inputs and source in (earlier for _, earlier in node[:position]):
                    raise InputError(f"{edge}: input {source} is used twice, which the space {space.name} forbids.")
        if space.inputs == 1 and cell.concat != space.outputs:
            raise InputError(
                f"{here} puts out {show(list(cell.concat))}; in the space {space.name} it puts out {list(space.outputs)}."
            )


def one_hot(space: SearchSpace, genotype: Genotype) -> np.ndarray:
    """The genotype as mixing weights, (kinds, edges, primitives) of float64: 1 at the chosen pairs, 0 on dropped edges.

    Raises InputError for a genotype that is not of this space, or that uses an input twice in a node: two
    primitives on one edge cannot be told from a mixture of them.
    """
    validate(genotype, space, "the genotype")
    names = list(space.primitives)
    weights = np.zeros((len(space.kinds), len(space.edges), len(names)))
    for kind, of_kind in zip(space.kinds, weights, strict=True):
        for number, node in enumerate(genotype.cells[kind].nodes):
            into = of_kind[space.edges_into(number)]
            for primitive, source in node:
                if into[source].any():
                    raise InputError(f"cell {kind}, node {number} uses input {source} twice: not one choice an edge.")
                into[source, names.index(primitive)] = 1
    return weights


def random_genotype(space: SearchSpace, rng: np.random.Generator) -> Genotype:
    """Uniform cells of the candidates still open: to each node a uniform set of inputs, on each a uniform primitive.

    Pairs stand in ascending input order and the space's outputs are put out. Raises InputError where too few edges
    have anything to derive.
    """
    cells = {}
    for kind, candidates in zip(space.kinds, space.candidates, strict=True):
        nodes = []
        for number in range(space.nodes):
            into = [
                [name for name in names if space.derive_none or name != "none"]
                for names in candidates[space.edges_into(number)]
            ]
            usable = [source for source, names in enumerate(into) if names]
            wanted = space.edges_kept(number)
            if len(usable) < wanted:
                raise InputError(
                    f"the space {space.name}, cell {kind}, node {number} keeps {wanted} edges, "
                    f"but only {len(usable)} have a primitive left to derive."
                )
            drawn = rng.permutation(usable)[:wanted]
            nodes.append(tuple((into[edge][rng.integers(len(into[edge]))], int(edge)) for edge in sorted(drawn)))
        cells[kind] = Cell(space.inputs, tuple(nodes), space.outputs)
    return Genotype(space.name, cells)


# --- words -------------------------------------------------------------------------------------------------------


def _is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is an int; to Python True is one as well."""
    return type(value) is int


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _code_points(name: str) -> str:
    """The non-ASCII characters of a name, which may look like ASCII ones, by number and Unicode name."""
    foreign = [character for character in dict.fromkeys(name) if not character.isascii()][:4]
    points = [f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip() for character in foreign]
    return f" (with {', '.join(points)})" if points else ""
