"""Dialects: the formats in which other programs write genotypes, parsed into trees with the structure of our JSON.

The dialects are `Genotype(...)` of the DARTS family, with pairs or triples, alone or in the log of a search; the
dictionaries that NNI exports; and the strings of NAS-Bench-201. All are parsed, never evaluated; anything unexpected
is quoted in an InputError. `rapdarts.architecture.cell.Cell` checks that a tree is a valid cell.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NoReturn

from rapdarts.architecture.space import KINDS
from rapdarts.errors import InputError
from rapdarts.files.json import as_list, is_whole, quote_value, record

UNDERSTOOD = (
    "rapdarts JSON, Genotype(...) of the DARTS family with pairs or triples, search logs with a line of this"
    " form, NNI dictionaries, and NAS-Bench-201 strings"
)
MAX_DARTS_CHARACTERS = 64_000
MAX_STATE = 1000
INPUTS = 2
"""Number of inputs of a cell in every dialect except NAS-Bench-201."""


@dataclass(frozen=True)
class ParsedCells:
    """Content of a text: a tree for each kind of cell, the space if the text names one, and for a log the genotype's line."""

    cells: Mapping[str, Any]
    space: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def find_dialect(text: str) -> Callable[[str, str], ParsedCells] | None:
    """Return the parser for a text's dialect, or None if the text can only be JSON."""
    if text.lstrip().startswith("|"):
        return cells_from_nasbench201
    if LOGGED.search(text):
        return cells_from_log
    return cells_from_python if re.match(r"\s*[^\W\d]|\s*#|\s*\{\s*'", text) else None


# --- DARTS, P-DARTS, PC-DARTS, FairDARTS ---------------------------------------------------------------------------

LOGGED = re.compile(
    r"^(?=[^\n]{0,40}\d\d:\d\d)[^\n'\"()#]{0,80}?(?P<named>\w{1,64}\s{0,8}=\s{0,8})?(?P<genotype>Genotype\([^\n]*)",
    re.M,
)
"""Pattern of a log line with a genotype; the line begins with a time stamp."""
SKIPS = re.compile(r"skip-connect:\s*(\d+)")


def cells_from_log(text: str, where: str) -> ParsedCells:
    """Return the cells in the log of a search, from its last `genotype =` line.

    A search writes such a line after every epoch. P-DARTS writes several genotypes at the end, one for each cap on skips,
    and chooses none of them. Raises InputError unless they agree.
    """
    found = list(LOGGED.finditer(text))
    chosen = [one for one in found if one["named"]] or found
    starts = [0, *(one.start() for one in chosen)]
    lines = [1 + before for before in accumulate(text.count("\n", *between) for between in pairwise(starts))]
    if not chosen[-1]["named"] and len({one["genotype"].strip() for one in chosen}) > 1:
        ends = [0, *(one.end() for one in chosen[:-1])]
        caps = [SKIPS.findall(text, end, one.start())[-1:] for end, one in zip(ends, chosen, strict=True)]
        words = [
            f"{line} (at most {cap[0]} skips)" if cap else str(line) for line, cap in zip(lines, caps, strict=True)
        ]
        raise InputError(
            f"{where} is a log with different genotypes, on lines {', '.join(words[:12])}; copy the one you want into a separate file."
        )
    parsed = cells_from_python(chosen[-1]["genotype"], f"{where}, line {lines[-1]} of the log")
    return ParsedCells(parsed.cells, parsed.space, {"log": f"line {lines[-1]}, the last of {len(chosen)} genotypes"})


def cells_from_python(text: str, where: str) -> ParsedCells:
    """Return the cells of a text in Python syntax: `Genotype(normal=[...], ...)`, or a dictionary of NNI.

    A first line `# space: NAME` and a `name =` before the value are allowed. Only calls of Genotype and range,
    dictionaries, lists, tuples, strings and whole numbers are supported. Raises InputError.
    """
    if len(text) > MAX_DARTS_CHARACTERS:
        raise InputError(f"{where} has {len(text)} characters; the DARTS dialect is limited to {MAX_DARTS_CHARACTERS}.")
    named = re.match(r"\s*#\s*space:\s*([A-Za-z_][A-Za-z0-9_-]{0,63})\s*\n", text)
    # Python would read leading blanks as indentation. Leading line breaks are kept so that line numbers stay correct.
    source = "\n" * text[: len(text) - len(text.lstrip())].count("\n") + text.strip()
    grammar = _Grammar(source, where)
    value = grammar.value(_statements(source, where))
    if isinstance(value, ast.Dict):
        parsed = cells_from_nni(grammar.dictionary(value), where)
    else:
        fields = grammar.fields(value)
        parsed = ParsedCells({kind: grammar.cell(fields, kind) for kind in KINDS})
    return ParsedCells(parsed.cells, named.group(1) if named else "")


def _statements(source: str, where: str) -> list[ast.stmt]:
    """Parse a text as Python without running it. Raises InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in strings cause warnings
            return ast.parse(source).body
    except SyntaxError as error:
        raise InputError(
            f"{where}, line {error.lineno}: neither JSON nor the DARTS dialect ({error.msg}); supported formats are {UNDERSTOOD}."
        ) from None
    except (ValueError, RecursionError, MemoryError):  # a NUL character, or nesting too deep for the parser
        raise InputError(
            f"{where} is neither JSON nor the DARTS dialect; supported formats are {UNDERSTOOD}."
        ) from None


@dataclass(frozen=True)
class _Grammar:
    """Parser for the parts of a text in Python syntax; its InputErrors quote anything unexpected."""

    source: str
    where: str

    def refuse(self, node: ast.AST, expected: str) -> NoReturn:
        found = ast.get_source_segment(self.source, node) or self.source
        raise InputError(f"{self.where}: found {quote_value(found)}; {expected}.")

    def value(self, body: list[ast.stmt]) -> ast.Call | ast.Dict:
        """Return the only Genotype(...) or dictionary among the statements."""
        if not body:
            raise InputError(f"{self.where} contains nothing but comments; it must contain one Genotype(...).")
        statement: ast.AST = body[0]
        if isinstance(statement, ast.Expr) or (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            statement = statement.value
        if isinstance(statement, ast.Dict) or (
            isinstance(statement, ast.Call) and _is_name(statement.func, "Genotype")
        ):
            if len(body) > 1:
                self.refuse(body[1], "a file must contain only one Genotype(...)")
            return statement
        return self.refuse(statement, f"supported formats are {UNDERSTOOD}")

    def fields(self, call: ast.Call) -> dict[str, ast.expr]:
        """Return the fields of a Genotype(...), unparsed."""
        if call.args:
            self.refuse(call.args[0], "the fields of Genotype(...) must be named, as in normal=[...]")
        fields: dict[str, ast.expr] = {}
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in fields:
                self.refuse(keyword, "each field of Genotype(...) must be named once")
            fields[keyword.arg] = keyword.value
        names = ("normal", "normal_concat", "reduce", "reduce_concat")
        return record(fields, f"{self.where}: Genotype(...)", dict.fromkeys(names))

    def cell(self, fields: Mapping[str, ast.expr], kind: str) -> dict[str, Any]:
        """Return a cell from its edges: every two pairs form a node, while triples name their node."""
        edges = as_list(self.literal(fields[kind]), f"{self.where}: {kind}")
        concat = self.concat(fields[f"{kind}_concat"])
        if edges and all(isinstance(edge, list) and len(edge) == 3 for edge in edges):
            return self.of_triples(edges, concat, kind)
        if len(edges) % 2:
            raise InputError(f"{self.where}: {kind} has {len(edges)} pairs; the DARTS dialect has two for every node.")
        nodes = [edges[first : first + 2] for first in range(0, len(edges), 2)]
        return {"inputs": INPUTS, "nodes": nodes, "concat": concat}

    def of_triples(self, edges: list[list[Any]], concat: list[Any], kind: str) -> dict[str, Any]:
        """Return a cell from triples (primitive, node, input), as in FairDARTS (Chu et al. 2020), or (primitive, input, node).

        Nodes are numbered from 2, after the inputs. The two orders can be told apart because an input always has a
        smaller number than its node.

        A node may have fewer edges than others, or none. A node without edges is left out of the concatenation even
        if `concat` lists it, and edges from such a node are removed: `DCOCell` in the authors' fairdarts/model.py
        (github.com/xiaomi-automl/FairDARTS) outputs only nodes that have edges and ignores inputs from the others.
        """
        nodes: defaultdict[int, list[Any]] = defaultdict(list)
        orders = set()
        for primitive, *numbers in edges:
            if not all(is_whole(number) for number in numbers) or not INPUTS <= max(numbers) <= MAX_STATE:
                raise InputError(
                    f"{self.where}: {kind} has the triple {quote_value((primitive, *numbers))}; it must name a primitive, a node"
                    f" from {INPUTS} to {MAX_STATE}, and its input."
                )
            orders.add((numbers[0] > numbers[1]) - (numbers[0] < numbers[1]))
            nodes[max(numbers) - INPUTS].append([primitive, min(numbers)])
        if len(orders) > 1 or 0 in orders:
            raise InputError(
                f"{self.where}: some triples of {kind} give the node before its input, others after it; use one order for all."
            )
        named = [number - INPUTS for number in concat if is_whole(number) and number <= MAX_STATE]
        cell = [nodes.get(number, []) for number in range(max(*nodes, *named, 0) + 1)]
        empty = [number for number, node in enumerate(cell, INPUTS) if not node]
        for number, node in enumerate(cell, INPUTS):
            kept = [edge for edge in node if edge[1] not in empty]
            if node and not kept:
                raise InputError(f"{self.where}: node {number} of {kind} reads only nodes without edges.")
            node[:] = kept
        return {"inputs": INPUTS, "nodes": cell, "concat": [number for number in concat if number not in empty]}

    def concat(self, node: ast.AST) -> list[Any]:
        """Return the numbers in a list or range(...)."""
        if not isinstance(node, ast.Call):
            return as_list(self.literal(node), f"{self.where}: concat")
        numbers = [self.literal(item) for item in node.args]
        bounded = all(is_whole(number) and abs(number) <= 1000 for number in numbers)
        plain = _is_name(node.func, "range") and not node.keywords and 1 <= len(numbers) <= 3 and numbers[2:] != [0]
        if not (bounded and plain):
            self.refuse(node, "concat must be a list or range(first, end)")
        return list(range(*numbers))

    def dictionary(self, node: ast.Dict) -> dict[str, Any]:
        """Return the values of a dictionary, whose keys must be unique strings."""
        tree: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            name = self.literal(key) if key else None
            if not isinstance(name, str) or name in tree:
                self.refuse(key or node, "every key of a dictionary must be a string and occur once")
            tree[name] = self.literal(value)
        return tree

    def literal(self, node: ast.AST) -> Any:
        """Return a value made of lists, strings and whole numbers; tuples become lists."""
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.literal(item) for item in node.elts]
        if isinstance(node, ast.Constant) and type(node.value) in (str, int):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = self.literal(node.operand)
            if is_whole(value):
                return -value
        return self.refuse(node, "only lists of pairs such as ('skip_connect', 0) and whole numbers are allowed here")


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


# --- NNI -----------------------------------------------------------------------------------------------------------

NNI_KEY = re.compile(r"(?P<kind>normal|reduce)/(?P<what>op|input)_(?P<node>[0-9]{1,3})_(?P<slot>[0-9]{1,3})")
NNI_SIZES = ("depth", "num_cells", "width")
"""Sizes that the model space of NNI 2.8 and later may add. They do not determine a skeleton and are ignored."""

NNI_OLD_KEY = re.compile(r"(?P<kind>normal|reduce)_n(?P<node>[0-9]{1,3})_(?:p(?P<input>[0-9]{1,3})|switch)")
NNI_OLD_NAMES = {
    "maxpool": "max_pool_3x3",
    "avgpool": "avg_pool_3x3",
    "skipconnect": "skip_connect",
    "sepconv3x3": "sep_conv_3x3",
    "sepconv5x5": "sep_conv_5x5",
    "dilconv3x3": "dil_conv_3x3",
    "dilconv5x5": "dil_conv_5x5",
}
"""Names of primitives in NNI's older DARTS example, mapped to ours."""


def is_nni(tree: Mapping[str, Any]) -> bool:
    """Return whether an object has a key in one of NNI's formats."""
    return any(NNI_KEY.fullmatch(key) or NNI_OLD_KEY.fullmatch(key) for key in tree)


def cells_from_nni(tree: Mapping[str, Any], where: str) -> ParsedCells:
    """Return the cells in a dictionary that NNI exports.

    NNI 2.8 and later write `"normal/op_2_0": "sep_conv_3x3", "normal/input_2_0": 1` for every edge; a key names the cell,
    the node (numbered from 2, after the inputs) and the edge. The input may be in a list. Earlier versions write
    `"normal_n2_p0": "sepconv3x3"` for every possible edge, and list the kept edges under `"normal_n2_switch"`. All nodes
    have the same number of edges and all are concatenated, as in NNI's DARTS space. Raises InputError.
    """
    if not is_nni(tree):
        raise InputError(
            f"{where} has none of the keys that NNI writes, such as 'normal/op_2_0'; supported formats are {UNDERSTOOD}."
        )
    older = any(NNI_OLD_KEY.fullmatch(key) for key in tree)
    edges = _older_nni(tree, where) if older else _nni(tree, where)
    cells = {}
    for kind in KINDS:
        nodes = [edges[place] for place in sorted(edges) if place[0] == kind]
        numbers = [node for cell, node in sorted(edges) if cell == kind]
        if not nodes or numbers != list(range(INPUTS, INPUTS + len(nodes))):
            raise InputError(
                f"{where}: the {kind} cell has the nodes {quote_value(numbers)}; NNI numbers them from {INPUTS} without gaps."
            )
        cells[kind] = {"inputs": INPUTS, "nodes": nodes, "concat": numbers}
    most = max(map(len, edges.values()))
    for (kind, node), found in edges.items():
        if len(found) < most:
            raise InputError(
                f"{where}: node {node} of {kind} has {len(found)} edges, but others have {most}; in NNI all nodes have the"
                " same number of edges."
            )
    return ParsedCells(cells)


def _nni(tree: Mapping[str, Any], where: str) -> dict[tuple[str, int], list[Any]]:
    """Return the edges of every (cell, node), from the newer keys."""
    found: defaultdict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for key, value in tree.items():
        place = NNI_KEY.fullmatch(key)
        if place:
            found[place["kind"], int(place["node"])].setdefault(int(place["slot"]), {})[place["what"]] = value
        elif key not in NNI_SIZES:
            raise InputError(
                f"{where}: found the key {quote_value(key)} among NNI's keys, which look like normal/op_2_0 and normal/input_2_0."
            )
    edges: dict[tuple[str, int], list[Any]] = {}
    for (kind, node), slots in found.items():
        edges[kind, node] = []
        for slot in sorted(slots):
            name, source = slots[slot].get("op"), slots[slot].get("input")
            if isinstance(source, list) and len(source) == 1:
                (source,) = source
            if name is None or source is None:
                raise InputError(f"{where}: one of {kind}/op_{node}_{slot} and {kind}/input_{node}_{slot} is missing.")
            edges[kind, node].append([name, source])
    return edges


def _older_nni(tree: Mapping[str, Any], where: str) -> dict[tuple[str, int], list[Any]]:
    """Return the edges of every (cell, node), from the older keys; a node's edges are in the order of its switch."""
    edges: dict[tuple[str, int], list[Any]] = {}
    for key, value in tree.items():
        place = NNI_OLD_KEY.fullmatch(key)
        if not place:
            raise InputError(
                f"{where}: found the key {quote_value(key)} among NNI's keys, which look like normal_n2_p0 and normal_n2_switch."
            )
        if place["input"] is not None:
            continue
        kind, node = place["kind"], int(place["node"])
        edges[kind, node] = []
        for chosen in as_list(value, f"{where}: {key}"):
            edge = chosen if isinstance(chosen, str) else f"{kind}_n{node}_p{chosen}"
            source = NNI_OLD_KEY.fullmatch(edge)
            if edge not in tree or not source or source["input"] is None or not edge.startswith(f"{kind}_n{node}_"):
                raise InputError(f"{where}: {key} names {quote_value(chosen)}, which is not an edge of the node.")
            name = tree[edge]
            if not isinstance(name, str):
                raise InputError(
                    f"{where}: {edge} must be the name of a primitive, not {quote_value(name)}; the file does not contain"
                    " the list of primitives that a number refers to."
                )
            edges[kind, node].append([NNI_OLD_NAMES.get(name, name), int(source["input"])])
    return edges


# --- NAS-Bench-201 -------------------------------------------------------------------------------------------------

BENCH_NODES, BENCH_EDGE = 3, re.compile(r"([^\s|+~]+)~([0-9]+)")
"""Number of nodes of a cell besides its input, and the pattern of an edge, primitive~input."""


def cells_from_nasbench201(text: str, where: str) -> ParsedCells:
    """Return the cell of `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|`.

    The cell has three nodes, each with an edge from the cell's input (0) and one from every earlier node, in that order.
    Raises InputError.
    """
    parts = text.strip().split("+")
    if len(parts) != BENCH_NODES:
        raise InputError(
            f"{where}: found {len(parts)} nodes in {quote_value(text.strip())}; the NAS-Bench-201 dialect has {BENCH_NODES}, joined by +."
        )
    nodes = []
    for number, part in enumerate(parts):
        first, *edges, last = part.split("|") if part.count("|") > 1 else (part, "")
        if first or last:
            raise InputError(
                f"{where}, node {number}: found {quote_value(part)}; its edges must be enclosed in bars, as in |none~0|."
            )
        if len(edges) != number + 1:
            raise InputError(
                f"{where}, node {number}: found {len(edges)} edges in {quote_value(part)}; in the NAS-Bench-201 dialect it has"
                f" {number + 1}."
            )
        node = []
        for source, edge in enumerate(edges):
            found = BENCH_EDGE.fullmatch(edge)
            if not found or found[2] != str(source):
                raise InputError(
                    f"{where}, node {number}, edge {source}: found {quote_value(edge)}; expected primitive~input, as in none~{source}."
                )
            node.append([found[1], source])
        nodes.append(node)
    return ParsedCells({"normal": {"inputs": 1, "nodes": nodes, "concat": [BENCH_NODES]}}, "nasbench201")
