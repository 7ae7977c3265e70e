"""House rules for docstrings: how they begin, and that functions on tensors give shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("rapdarts", "search_spaces", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LIBRARY = [path for path in FILES if path.relative_to(ROOT).parts[0] == "rapdarts"]

BEGINNINGS = {"What", "Whether", "One", "Of", "Where"}
SIZE = r"(?:\*?[\w.]+(?: ?[*+/-] ?\w+)*|\.\.\.)"
SHAPE = re.compile(
    rf"\((?:{SIZE}, ?)+(?:{SIZE})?\)"  # (n, c, h, w), (n,), (n, 3 * c)
    r"|\bscalar|\b(?:any|same|equal|its|their|whose) shapes?\b|\bshapes? (?:of|as)\b"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def badly_begun(tree: ast.Module) -> Iterator[str]:
    """Yield the first line of every docstring that begins with one of `BEGINNINGS`."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            if text.split(maxsplit=1)[:1] and text.split()[0] in BEGINNINGS:
                yield text.splitlines()[0]


def shapeless(tree: ast.Module) -> Iterator[str]:
    """Yield the public functions that have a Tensor in their signature and no shape in their docstring.

    A method may leave the shapes to the docstring of its class. A function without a docstring is reported too.
    """
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.Module | ast.ClassDef):
            continue
        if isinstance(owner, ast.ClassDef) and owner.name.startswith("_"):
            continue
        above = ast.get_docstring(owner) or "" if isinstance(owner, ast.ClassDef) else ""
        public = (node for node in owner.body if isinstance(node, Function) and not node.name.startswith("_"))
        for node in public:
            if has_tensor(node) and not SHAPE.search(above + (ast.get_docstring(node) or "")):
                yield f"{node.lineno}: {node.name}"


def has_tensor(function: Function) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = [function.returns, *(argument.annotation for argument in every if argument)]
    return any(re.search(r"\bTensor\b", ast.unparse(annotation)) for annotation in annotations if annotation)


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(badly_begun(parsed(path))) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_public_functions_on_tensors_give_shapes() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(shapeless(parsed(path))) for path in LIBRARY}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_checks_find_what_they_look_for() -> None:
    tree = ast.parse(
        '"""What a module does."""\n'
        "def bare(x: Tensor) -> int: ...\n"
        'def vague(x: int) -> "Tensor":\n    """Return an image."""\n'
        'def shaped(x: Tensor) -> int:\n    """Return the batch size of images (n, c, h, w)."""\n'
        "def _private(x: Tensor) -> int: ...\n"
        "def plain(x: int) -> int: ...\n"
        'class Layer:\n    """Map (n, c) to (n, d)."""\n    def forward(self, x: Tensor) -> Tensor: ...\n'
        'class Other:\n    """Map images."""\n    def forward(self, *, x: list[Tensor]) -> None: ...\n'
    )
    assert list(badly_begun(tree)) == ["What a module does."]
    assert [line.split(": ")[1] for line in shapeless(tree)] == ["bare", "vague", "forward"]
