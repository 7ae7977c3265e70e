"""A corpus of genotypes in the forms in which other programs write them; every text is composed here.

`TEXTS` maps the name of a text to the text, the member to read (after a colon in the name of its file) and the cells it must
give. A cell is written as `primitive input` pairs, with commas between pairs and bars between nodes.
"""

from __future__ import annotations

import json
import pprint
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rapdarts.architecture.dialects.nni import NNI_OLD_NAMES

Node = list[tuple[str, int]]
COMPACT = [
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
]


@dataclass(frozen=True)
class Cells:
    """The cells of the space of DARTS in a text, and the costs of their network at 20 cells x 36 channels."""

    normal: str
    reduce: str
    params: int
    macs: int

    def nodes(self, kind: str) -> list[Node]:
        parts = [node.split(",") for node in getattr(self, kind).split("|")]
        return [[(pair.split()[0], int(pair.split()[1])) for pair in node] for node in parts]

    def flat(self, kind: str) -> Node:
        return [edge for node in self.nodes(kind) for edge in node]


G = Cells(
    "sep_conv_3x3 0, dil_conv_5x5 1 | skip_connect 0, sep_conv_3x3 2 | sep_conv_5x5 1, max_pool_3x3 0 | sep_conv_3x3 4, skip_connect 1",
    "max_pool_3x3 0, max_pool_3x3 1 | max_pool_3x3 0, skip_connect 2 | skip_connect 3, dil_conv_3x3 0 | skip_connect 2, max_pool_3x3 0",
    3_090_358,
    495_098_496,
)
LIGHT = Cells(
    "skip_connect 0, avg_pool_3x3 1 | dil_conv_3x3 2, skip_connect 1 | sep_conv_3x3 0, max_pool_3x3 3 | skip_connect 4, dil_conv_5x5 2",
    "avg_pool_3x3 0, skip_connect 1 | sep_conv_5x5 0, skip_connect 2 | dil_conv_5x5 1, max_pool_3x3 3 | avg_pool_3x3 4, sep_conv_3x3 2",
    2_292_238,
    361_448_064,
)
HEAVY = Cells(
    "sep_conv_5x5 0, sep_conv_5x5 1 | sep_conv_3x3 2, dil_conv_5x5 0 | sep_conv_3x3 1, sep_conv_5x5 3 | dil_conv_3x3 4, avg_pool_3x3 0",
    "sep_conv_3x3 0, skip_connect 1 | dil_conv_3x3 0, max_pool_3x3 2 | sep_conv_5x5 1, skip_connect 0 | sep_conv_3x3 2, dil_conv_5x5 4",
    3_988_054,
    628_942_464,
)
BASES = {"G": G, "light": LIGHT, "heavy": HEAVY}

REPEATED = Cells(
    G.normal.replace("sep_conv_3x3 4, skip_connect 1", "sep_conv_3x3 1, sep_conv_3x3 1"),
    G.reduce,
    3_450_214,
    549_841_536,
)
WITH_NONE = Cells(
    G.normal, G.reduce.replace("skip_connect 2, max_pool_3x3 0", "none 2, max_pool_3x3 0"), G.params, G.macs
)
"""G with an input twice in a node, and with an edge that is none."""


def by_hand(cells: Cells) -> tuple[int, int]:
    """Return the parameters and MACs of the network of some cells, from the price of each primitive on each edge."""
    params, macs = 1_370_134, 227_272_320  # all pools
    for kind in ("normal", "reduce"):
        for name, source in cells.flat(kind):
            column = 0 if kind == "normal" else 1 if source < 2 else 2
            price = PRICES.get(name, ((0, 0),) * 3)[column]
            params, macs = params + price[0], macs + price[1]
    return params, macs


PRICES = {
    "skip_connect": ((0, 0), (26_352, 2_654_208), (0, 0)),
    "sep_conv_3x3": ((359_856, 54_743_040), (56_592, 5_806_080), (56_592, 5_806_080)),
    "sep_conv_5x5": ((408_240, 67_129_344), (63_504, 6_690_816), (63_504, 6_690_816)),
    "dil_conv_3x3": ((179_928, 27_371_520), (28_296, 2_903_040), (28_296, 2_903_040)),
    "dil_conv_5x5": ((204_120, 33_564_672), (31_752, 3_345_408), (31_752, 3_345_408)),
}
"""Parameters and MACs that a primitive adds at 20 cells x 36 channels: on an edge of the 18 normal cells, and on an edge of the two
reduction cells from an input (stride 2) and from a node."""


# --- forms -------------------------------------------------------------------------------------------------------


def call(cells: Cells, name: str = "Genotype") -> str:
    parts = [f"{kind}={cells.flat(kind)!r}, {kind}_concat=range(2, 6)" for kind in ("normal", "reduce")]
    return f"{name}({', '.join(parts)})"


def of_lists(cells: Cells) -> str:
    normal, reduce = (json.dumps(cells.flat(kind), indent=4) for kind in ("normal", "reduce"))
    fields = f"  normal = {normal},\n  normal_concat = [2, 3, 4, 5],\n  reduce = {reduce},\n  reduce_concat = [2, 3, 4, 5],\n"
    return f"# best of five searches\nBEST = Genotype(\n{fields})\n"


def nested_lists(cells: Cells) -> str:
    normal, reduce = (cells.nodes(kind) for kind in ("normal", "reduce"))
    return (
        f"Genotype(normal={normal}, normal_concat=list(range(2, 6)), reduce={reduce}, reduce_concat=tuple(range(2, 6)))"
    )


def nested_tuples_with_weights(cells: Cells) -> str:
    """As GDAS writes it: a tuple for each node, the mixing weight after each pair, and fields that are None."""
    fields = {
        kind: tuple(tuple((name, source, 0.125 + source / 64) for name, source in node) for node in cells.nodes(kind))
        for kind in ("normal", "reduce")
    }
    return (
        f"Genotype(\n  normal={pprint.pformat(list(fields['normal']))},\n  normal_concat=[2, 3, 4, 5],\n"
        f"  reduce={fields['reduce']},\n  reduce_concat=[2, 3, 4, 5],\n  connectN=None, connects=None)"
    )


def positional(cells: Cells) -> str:
    """A Python file in which the named tuple lists its fields in its own order."""
    return (
        "import collections\n\nGenotype = collections.namedtuple('Genotype', ['normal', 'reduce', 'normal_concat', 'reduce_concat'])\n"
        f"CONCAT = range(2, 6)\nfound = Genotype({cells.flat('normal')}, {cells.flat('reduce')}, CONCAT, CONCAT)\n"
    )


def of_a_module(cells: Cells) -> str:
    text = call(cells, "darts.genotypes.CellGenotype")
    for number in range(6):
        text = text.replace(f", {number})", f", np.int64({number}))")
    return (
        text.replace("np.int64(6))", "6)")
        .replace("'skip_connect'", "np.str_('skip_connect')")
        .replace("Genotype(", "Genotype(name='mine', ", 1)
    )


def ordered(cells: Cells) -> str:
    fields = [(part, cells.flat(part) if part in ("normal", "reduce") else [2, 3, 4, 5]) for part in
              ("normal", "normal_concat", "reduce", "reduce_concat")]  # fmt: skip
    return repr(OrderedDict(fields)).replace("[2, 3, 4, 5]", "range(2, 6)", 1)


def as_dict(cells: Cells) -> dict[str, Any]:
    return {
        "normal": cells.flat("normal"),
        "normal_concat": [2, 3, 4, 5],
        "reduce": cells.flat("reduce"),
        "reduce_concat": [2, 3, 4, 5],
    }


def as_json(cells: Cells) -> str:
    return json.dumps({"args": {"layers": 20, "seed": 3}, "valid_acc": 97.3, "genotype": as_dict(cells)}, indent=2)


def as_json_list(cells: Cells) -> str:
    return json.dumps([*as_dict(cells).values()])


def in_json_text(cells: Cells) -> str:
    return json.dumps({"epoch": 49, "arch": call(cells)})


def in_json_lines(cells: Cells) -> str:
    lines = [{"epoch": 0, "genotype": call(REPEATED), "loss": None}, {"epoch": 1, "genotype": call(cells), "loss": 0.5}]
    return "".join(json.dumps(line) + "\n" for line in lines)


def as_yaml(cells: Cells) -> str:
    lines = ["# retraining", "layers: 20", "genotype:"]
    for kind in ("normal", "reduce"):
        lines += [f"  {kind}:", *(f"  - [{name}, {source}]" for name, source in cells.flat(kind))]
        lines.append(f"  {kind}_concat: [2, 3, 4, 5]")
    return "\n".join(lines) + "\n"


def as_yaml_objects(cells: Cells) -> str:
    """As PyYAML dumps a named tuple with its Python types."""
    lines = ["!!python/object/new:genotypes.Genotype"]
    for kind in ("normal", "reduce"):
        first = "- "
        for name, source in cells.flat(kind):
            lines += [f"{first}- !!python/tuple", f"    - {name}", f"    - {source}"]
            first = "  "
        lines += ["- !!python/object/apply:builtins.range", "  - 2", "  - 6", "  - 1"]
    return "\n".join(lines) + "\n"


def in_yaml_text(cells: Cells) -> str:
    return f"model:\n  arch: {call(cells)}\n  channels: 36\noptimizer: {{lr: 0.025}}\n"


def in_quotes(cells: Cells) -> str:
    return f'"{call(cells)}"\n'


def node_first(cells: Cells) -> str:
    return _triples(cells, lambda name, node, source: (name, node, source))


def input_first(cells: Cells) -> str:
    return _triples(cells, lambda name, node, source: (name, source, node))


def _triples(cells: Cells, order: Callable[[str, int, int], tuple[Any, ...]]) -> str:
    parts = []
    for kind in ("normal", "reduce"):
        edges = [
            order(name, number, source) for number, node in enumerate(cells.nodes(kind), 2) for name, source in node
        ]
        parts.append(f"{kind}={edges}, {kind}_concat=range(2, 6)")
    return f"Genotype({', '.join(parts)})"


def turned(cells: Cells) -> str:
    edges = {kind: [(source, name) for name, source in cells.flat(kind)] for kind in ("normal", "reduce")}
    return f"Genotype(normal={edges['normal']}, normal_concat=(2, 3, 4, 5), reduce={edges['reduce']}, reduce_concat=array([2, 3, 4, 5]))"


def log(cells: Cells) -> str:
    stamp = "11/02 08:15:0"
    lines = [f"{stamp}0 AM args = Namespace(epochs=2, layers=8)"]
    for epoch, one in enumerate((REPEATED, cells)):
        lines += [f"{stamp}{epoch + 1} AM epoch {epoch} lr 2.5e-02", f"{stamp}{epoch + 1} AM genotype = {call(one)}"]
        lines += [
            "tensor([[0.1249, 0.1251],",
            "        [0.1250, 0.1250]], grad_fn=<SoftmaxBackward>)",
            f"{stamp}{epoch + 1} AM valid_acc 61.2",
        ]
    return "\n".join(lines) + "\n"


def console(cells: Cells) -> str:
    """Output of a program without time stamps."""
    return f"Epoch 1/2 ...\ngenotype = {call(REPEATED)}\nEpoch 2/2: 1%|# | 3/391 [00:01, loss=2.3]\ngenotype = {call(cells)}\nbest: 61 %\n"


def markdown(cells: Cells) -> str:
    return f"# Result\n\nThe cell we found (`Genotype(...)` as in DARTS):\n\n```python\nOURS = {call(cells)}\n```\n\n| C10 | 2.6 % |\n"


def nni(cells: Cells) -> str:
    tree: dict[str, Any] = {}
    for kind in ("normal", "reduce"):
        for number, node in enumerate(cells.nodes(kind), 2):
            for slot, (name, source) in enumerate(node):
                tree |= {f"{kind}/op_{number}_{slot}": name, f"{kind}/input_{number}_{slot}": [source]}
    return json.dumps(tree, indent=1)


def older_nni(cells: Cells) -> str:
    names = {ours: theirs for theirs, ours in NNI_OLD_NAMES.items()}
    tree: dict[str, Any] = {}
    for kind in ("normal", "reduce"):
        for number, node in enumerate(cells.nodes(kind), 2):
            tree |= {f"{kind}_n{number}_p{source}": names[name] for name, source in node}
            tree[f"{kind}_n{number}_switch"] = [f"{kind}_n{number}_p{source}" for _, source in node]
    return repr(tree)


def config_space(cells: Cells) -> dict[str, Any]:
    tree: dict[str, Any] = {"NetworkSelectorDatasetInfo:network": "darts", "OptimizerSelector:sgd:learning_rate": 0.025}
    for kind in ("normal", "reduce"):
        first = 0
        for number, node in enumerate(cells.nodes(kind), 2):
            tree |= {f"NetworkSelectorDatasetInfo:darts:edge_{kind}_{first + source}": name for name, source in node}
            if number > 2:
                tree[f"NetworkSelectorDatasetInfo:darts:inputs_node_{kind}_{number}"] = "_".join(
                    str(source) for _, source in node
                )
            first += number
    return tree


def config_json(cells: Cells) -> str:
    return json.dumps({"optimized_hyperparamater_config": config_space(cells), "test_accuracy": 94.1})


def config_object(cells: Cells) -> str:
    return f"Configuration(values={config_space(cells)!r})"


def compact(cells: Cells) -> str:
    return repr(
        tuple(
            tuple((source, COMPACT.index(name)) for name, source in cells.flat(kind)) for kind in ("normal", "reduce")
        )
    )


def compact_json(cells: Cells) -> str:
    return json.dumps(
        {
            "compact": [
                [[source, COMPACT.index(name)] for name, source in cells.flat(kind)] for kind in ("normal", "reduce")
            ]
        }
    )


def ours(cells: Cells) -> str:
    trees = {
        kind: {"inputs": 2, "nodes": [list(map(list, node)) for node in cells.nodes(kind)], "concat": [2, 3, 4, 5]}
        for kind in ("normal", "reduce")
    }
    return json.dumps({"format": "rapdarts-genotype", "version": 1, "space": "darts", "cells": trees})


def notebook(*sources: str) -> str:
    """A Jupyter notebook with a cell of text and cells of code, whose source is a list of lines or one text."""
    code = [{"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": []} for source in sources]
    code[-1:] = [{**one, "source": sources[-1]} for one in code[-1:]]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Result\n"]}, *code], "nbformat": 4}, indent=1)


def notebook_of_one(cells: Cells) -> str:
    return notebook("import torch\n", of_lists(cells))


FORMS: dict[str, Callable[[Cells], str]] = {
    form.__name__: form
    for form in (
        call, of_lists, nested_lists, nested_tuples_with_weights, positional, of_a_module, ordered, as_json, as_json_list,
        in_json_text, in_json_lines, as_yaml, as_yaml_objects, in_yaml_text, in_quotes, node_first, input_first, turned, log,
        console, markdown, notebook_of_one, nni, older_nni, config_json, config_object, compact, compact_json, ours,
    )
}  # fmt: skip
WITHOUT_NONE = {"older_nni", "config_json", "config_object", "compact", "compact_json"}
"""Forms that cannot express none on an edge."""
WITHOUT_REPEATS = {"older_nni", "config_json", "config_object"}
"""Forms that cannot express two edges from one input into a node."""


def file_of_many() -> str:
    """A Python file as repositories keep it: several genotypes, an alias, other statements, and functions."""
    return "\n".join([
        "from collections import namedtuple",
        "",
        "import torch.nn as nn",
        "",
        'Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")',
        "PRIMITIVES = ['none', 'max_pool_3x3']",
        "",
        f"LIGHT = {call(LIGHT)}",
        f"HEAVY = {nested_lists(HEAVY)}",
        "OURS = HEAVY",
        "if True:",
        f"    LATER = {call(G)}",
        "class Zoo:",
        f"    first: Genotype = {call(LIGHT)}",
        f"table = {{'a': LIGHT, 'b': {call(G)}}}",
        "def parse(weights):",
        "    return Genotype(normal=weights, normal_concat=None, reduce=weights, reduce_concat=None)",
        "OURS_V2, OTHERS = OURS, LIGHT",
    ])  # fmt: skip


TEXTS: dict[str, tuple[str, str, Cells]] = {
    f"{form}, {name}": (write(cells), "", cells) for form, write in FORMS.items() for name, cells in BASES.items()
}
TEXTS |= {
    f"{form}, {name}": (write(cells), "", cells)
    for form, write in FORMS.items()
    for name, cells, lacking in (("repeated", REPEATED, WITHOUT_REPEATS), ("none", WITH_NONE, WITHOUT_NONE))
    if form not in lacking
}
TEXTS |= {
    f"a file of many, {member}": (file_of_many(), member, cells)
    for member, cells in {"LIGHT": LIGHT, "HEAVY": HEAVY, "OURS": HEAVY, "LATER": G, "Zoo.first": LIGHT, "table.b": G, "OURS_V2": HEAVY,
                          "OTHERS": LIGHT, "9": HEAVY, "12": G}.items()
}  # fmt: skip
TEXTS |= {
    "our JSON in quotes": (json.dumps({"card": json.dumps(json.loads(ours(G)) | {"skeleton": None})}), "", G),
    "a log that ends with the final genotype": (f"{log(REPEATED)}11/02 08:16:00 AM final genotype: {call(G)}\n", "", G),
    "a log without labels": ("".join(f"0{n}:00 {call(one)}\n" for n, one in enumerate((REPEATED, LIGHT, G))), "", G),
    "a log, line 3": (log(G), "3", REPEATED),
    "a console, line 4": (console(G), "4", G),
    "a console with a count": (f"Epoch: [1] begins\n{call(LIGHT)}\nEpoch: [2] begins\n{call(G)}\n", "", G),
    "sections that agree": (2 * f"## Result\n\nThe best:\ngenotype = {call(G)}\n", "", G),
    "sections, line 7": (f"## One\n\nThe best:\ngenotype = {call(LIGHT)}\n## Two\n\ngenotype = {call(G)}\n", "7", G),
    "branches, line 4": (f"if small:\n    CELL = {call(LIGHT)}\nelse:\n    CELL = {call(G)}\n", "4", G),
    "a name that is assigned again": (f"CELL = {call(LIGHT)}\nCELL = {call(G)}\n", "", G),
    "a page with a table": (f"| a | b |\n|---|---|\n| ~1 | 2 |\n\n{call(G)}\n", "", G),
    "a page with a name that is used, but not changed": (
        f"{markdown(G)}OURS has two skips.\nnet = Net(OURS.normal)\n    OURS\n",
        "",
        G,
    ),
    "a text in Python 2": (f"CELL = {call(G)}\nprint 'x'\n", "", G),
    "a text in Python 2, the other": (
        f"CELL = {call(G)}\nCELL.normal[0] = ('none', 0)\nSMALL = {call(LIGHT)}\nprint 'x'\n",
        "SMALL",
        LIGHT,
    ),
    "a page of two": (markdown(G) + markdown(LIGHT).replace("OURS", "SMALL"), "SMALL", LIGHT),
}

LATER = f"""edges = {G.flat("normal")}
reduce = {G.flat("reduce")}
OURS = Genotype(normal=edges, normal_concat=range(2, 6), reduce=reduce, reduce_concat=range(2, 6))
SMALL = {call(LIGHT)}
"""
"""Two genotypes, of which the first shares its edges with a name; a statement on line 5 may change them."""
CHANGES = (
    "edges[0] = ('none', 0)", "edges.append(('none', 0))", "edges += [('none', 0)]", "del edges[3]", "edges.sort()", "last = edges.pop()",
    "shuffle(edges)", "for number in range(3): edges[number] = ('none', 0)", "for edge in edges: edge[1] = 0",
    "for number, edge in enumerate(OURS.normal): edge[1] = 0", "q = [edges]; q[0][0] = ('none', 0)", "first = lambda: edges.clear()",
    "alias = OURS.normal; alias[0] = ('none', 0)", "OURS.normal[0] = ('none', 0)", "OURS[0][0] = ('none', 0)", "OURS.normal[i:] = []",
    "OURS.normal = []", "setattr(OURS, 'normal', [])", "del OURS", "for OURS in zoo: pass", "with zoo as OURS: pass", "(OURS := zoo[0])",
    "OURS = load()", "if late: OURS = load()", "def OURS(): pass", "def enlarge(): edges.append(('none', 0))",
    "def load():\n    global OURS\n    OURS = zoo[0]", "def drop(one): one.normal.pop()\ndrop(OURS)",
    "try: pass\nexcept KeyError: OURS = load()", "OURS = OURS._replace(**given)", "import OURS", "match zoo:\n    case [OURS]: pass",
    "some = edges[:]; some[0] = 1", "f = edges.append; f(1)", "list(map(edges.append, zoo))", "list.append(edges, 1)", "f = drop; f(OURS)",
    "alias = [edge for edge in OURS.normal]; alias[0][1] = 2", "first, last = edges, reduce; first[0] = 1",
    "q = []; q.append(edges); q[0][0] = 1",
    "(lambda one: one.pop())(edges)", "list(map(lambda one: one.pop(), OURS.normal))", "some = edges or []; some.append(1)",
    "def drop(one):\n    some = one.normal\n    some.pop()\nleft = drop(OURS)", "def drop(one): one.normal.pop()\nlist(map(drop, [OURS]))",
    "def drop(edges=edges): edges.pop()", "def load(): return OURS\nload().normal.pop()",
    "def load():\n    yield OURS\nfor one in load(): one[0] = 1",
    "def load():\n    one = OURS\n    def drop(): one.normal.pop()", "zoo = {'a': OURS}\nfor key, one in zoo.items(): one.normal.pop()",
    "match OURS:\n    case [first, *rest]: first.pop()", "net = Net(OURS); net.genotype.normal.pop()", "net = Net(OURS); net.shrink()",
    "class Zoo:\n    if late: one = OURS\nZoo.one.normal.pop()", "table = OURS._asdict(); table['normal'].pop()",
    "next(iter(OURS.normal)).pop()",
)  # fmt: skip
"""Statements after which only SMALL is known."""
FOR_ALL = (
    "globals()['OURS'] = zoo[0]",
    "for name in zoo: globals()[name] = 1",
    "vars(OURS)['normal'] = []",
    "from zoo import *",
)
"""Statements that may change any genotype."""
HARMLESS = """print(OURS)
plot(OURS.normal, "n")
net = Net(OURS)
net.cuda()
def f(edges): edges.pop()
edges = []
"""
HELPERS = """
from graphviz import Digraph
ZOO = {"ours": OURS, "small": SMALL}
def plot(genotype, filename):
    g = Digraph(format="pdf", edge_attr=dict(fontsize="20"))
    g.body.extend(["rankdir=LR"])
    steps = len(genotype) // 2
    for i in range(steps):
        g.node(str(i), fillcolor="lightblue")
        for k in [2 * i, 2 * i + 1]:
            op, j = genotype[k]
            u = str(j - 2)
            g.edge(u, str(i), label=op, fillcolor="gray")
    g.render(filename, view=True)
def lookup(name):
    if name not in ZOO:
        raise KeyError(name)
    return ZOO[name]
def names():
    found = []
    for name in ZOO:
        found.append(str(name))
    return sorted(found)
def by_name(name): return eval(name)
def by_attribute(name): return getattr(sys.modules[__name__], name)
def by_global(name): return globals()[name]
class Cell(nn.Module):
    def __init__(self, genotype, width):
        self.layers = nn.ModuleList()
        for name, source in genotype.normal:
            self.layers += [LAYERS[name](width)]
if __name__ == "__main__":
    genotype = eval(f"genotypes.{sys.argv[1]}")
    plot(genotype.normal, "normal")
    plot(OURS.reduce, "reduce")
    for one in [OURS, SMALL]:
        print(one.normal, len(names()))
    genotype = lookup("ours")
    cell = Cell(genotype, 16)
"""
"""Functions that print, plot, look up and build genotypes, and uses of them, as repositories keep them beside genotypes."""
TEXTS |= {"a star import before a genotype": (f"from zoo import *\nOURS = {call(G)}\n", "", G)}
TEXTS |= {f"SMALL beside {change}": (f"{LATER}{change}\n", "SMALL", LIGHT) for change in CHANGES}
HALVES = f"{G.flat('normal')[:4]} + {G.flat('normal')[4:]}"
TEXTS |= {
    "statements that change nothing": (f"{LATER}{HARMLESS}", "OURS", G),
    "functions beside genotypes": (f"{LATER}{HELPERS}", "OURS", G),
    "functions beside genotypes, the other": (f"{LATER}{HELPERS}", "SMALL", LIGHT),
    "a genotype with two fields replaced": (
        f"{LATER}NEW = OURS._replace(normal={LIGHT.flat('normal')}, reduce=SMALL.reduce)\n", "NEW", LIGHT),
    "a set of outputs": (call(G).replace("range(2, 6)", "{5, 2, 3, 4}", 1).replace("range(2, 6)", "set([5, 4, 3, 2])"), "", G),
    "a deep copy": (f"{LATER}NEW = copy.deepcopy(OURS)\n", "NEW", G),
    "a shallow copy": (f"from copy import copy\n{LATER}NEW = copy(SMALL)\n", "NEW", LIGHT),
    "a text with a byte order mark": (f"\ufeff{call(G)}\n", "", G),
    "JSON with a byte order mark": (f"\ufeff{as_json(G)}", "", G),
    "our JSON with a byte order mark": (f"\ufeff{ours(G)}", "", G),
    "a notebook of two": (notebook("%matplotlib inline\n", f"CELL = {call(G)}\nSMALL = {call(LIGHT)}\n"), "SMALL", LIGHT),
    "a notebook, line 2": (notebook(f"import torch\nCELL = {nested_lists(G)}\n", f"SMALL = {call(LIGHT)}\n"), "2", G),
    "a genotype of which another was made": (f"{LATER}NEW = OURS._replace(normal={LIGHT.flat('normal')})\n", "OURS", G),
    "a sum of lists": (LATER.replace(str(G.flat("normal")), HALVES), "OURS", G),
    "a table with an item of its own": (f"zoo = {{'a': {call(G)}}}\nzoo['b'] = {call(LIGHT)}\n", "zoo.b", LIGHT),
    "a table with an item replaced": (f"zoo = {{'a': {call(G)}}}\nzoo['a'] = {call(LIGHT)}\n", "", LIGHT),
    "a table that is assigned again": (f"zoo = {{'a': {call(G)}}}\nzoo = {{'b': {call(LIGHT)}}}\n", "", LIGHT),
}  # fmt: skip


def records(*cells: Cells, **facts: list[Any]) -> str:
    """JSON lines: a record for each genotype."""
    rows = [dict(zip(facts, row, strict=True)) for row in zip(*facts.values(), strict=True)]
    return "".join(json.dumps({**row, "genotype": as_dict(one)}) + "\n" for one, row in zip(cells, rows, strict=True))


TWICE = json.dumps({"a.b": as_dict(G), "a": {"b": as_dict(LIGHT)}})
"""Two genotypes with one dotted name."""
TEXTS |= {
    "records, line 1": (records(G, LIGHT, name=["best", "best"]), "1", G),
    "records, line 2": (records(G, LIGHT, name=["best", "best"]), "2", LIGHT),
    "records that agree": (records(G, G, name=["best", "best"]), "", G),
    "records of a log": (records(LIGHT, G, name=["best", "best"], epoch=[1, 2]), "", G),
    "one dotted name, the first": (TWICE, "a.b#1", G),
    "one dotted name, the second": (TWICE, "a.b#2", LIGHT),
    "two documents in YAML": (f"genotype: {json.dumps(call(G))}\n---\ngenotype: {json.dumps(call(LIGHT))}\n", "1.genotype", LIGHT),
}  # fmt: skip

# --- NAS-Bench-201 -----------------------------------------------------------------------------------------------

BENCH = {
    "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|": (1, 2),
    "|skip_connect~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|": (1, 3),
}
"""Strings, with their numbers of 1x1 and 3x3 convolutions."""


def bench_by_hand(ones: int, threes: int) -> tuple[int, int]:
    """Return the parameters and MACs of a cell's network at 17 cells x 16 channels: five cells each at 16, 32 and 64 channels."""
    sizes = ((16, 32), (32, 16), (64, 8))
    params, macs = 73_306, 7_783_040  # stem, residual blocks, last norm and classifier
    for channels, side in sizes:
        weights = ones * channels**2 + threes * 9 * channels**2
        params += 5 * (weights + (ones + threes) * 2 * channels)
        macs += 5 * weights * side**2
    return params, macs


def bench_forms(text: str) -> dict[str, str]:
    nodes = [
        [(edge.split("~")[0], int(edge.split("~")[1])) for edge in part.strip("|").split("|")]
        for part in text.split("+")
    ]
    return {
        "bare": f" {text}\n",
        "quoted": f"'{text}'",
        "in a list": json.dumps([text]),
        "in JSON": json.dumps({"arch_str": text, "valid": 91.2}),
        "in YAML": f"arch: '{text}'\nseed: 777\n",
        "a Python file": f"import os\nARCH = {text!r}\n",
        "printed": f"<<<--->>> The best : Structure(4 nodes with {text})\n",
        "as lists": json.dumps(nodes),
        "as tuples": repr(tuple(map(tuple, nodes))),
        "a log": f"[2023-01-02-10:11:12] epoch 1\n[2023-01-02-10:11:13] arch Structure(4 nodes with {text})\n",
    }
