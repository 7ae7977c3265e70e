"""Advice for files that hold a network of the user instead of a genotype: Python code, or a network saved by torch.

Python code is parsed, never run, and torch is not imported.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

from rapdarts.errors import InputError
from rapdarts.files.text import read_text

PICKLED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".tar", ".torchscript", ".ts")
"""Suffixes of files in which torch saves modules, weights and TorchScript programs."""
MOST_BYTES = 1_000_000

ONLY_COUNTED = "a network in your own code can only be counted and measured"
SAVED = "networks saved by torch (modules, weights or TorchScript) are not read"


def advice_on(path: Path, counts: bool) -> str:
    """Return advice, as a clause, on a file without a genotype that may hold a network; empty if there is none.

    `counts` says whether the command counts or measures networks, so that it also accepts networks in code and ONNX files.
    """
    suffix = path.suffix.lower()
    if suffix == ".py":
        code = f"{module_of(path) or 'package.module'}:{_network_in(path) or 'NAME'}"
        if counts:
            return f"if it defines a torch network, write {code} (MODULE:CALLABLE)"
        return f"{ONLY_COUNTED}, as {code}"
    if suffix in PICKLED:
        return f"{SAVED}; pass package.module:callable, or an ONNX file" if counts else SAVED
    return ""


def file_of(module: str) -> str:
    """Return the Python file of a module in or below the current folder; an empty string if there is none."""
    file = f"{module.replace('.', os.sep)}.py"
    return file if module and os.path.isfile(file) else ""


def module_of(path: Path) -> str:
    """Return the dotted name of a Python file below the current folder, from which modules are imported; empty for other files."""
    inside = os.path.relpath(os.path.abspath(path.with_suffix("")))
    parts = inside.split(os.sep)
    return ".".join(parts) if all(part.isidentifier() for part in parts) else ""


def _network_in(path: Path) -> str:
    """Return the name of the last class in a Python file that is derived from a class called Module; empty if there is none."""
    try:
        tree = ast.parse(read_text(path, str(path), MOST_BYTES, "is too large"))
    except (InputError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    classes = (one for one in tree.body if isinstance(one, ast.ClassDef))
    found = [one.name for one in classes if any(ast.unparse(base).endswith("Module") for base in one.bases)]
    return found[-1] if found else ""
