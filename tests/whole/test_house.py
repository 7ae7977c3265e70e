"""Automatic checks of the project rules: style, types, import directions, forbidden code and text, the wheel."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rapdarts", "search_spaces")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


# --- style, types, directions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("ruff", "check", "."), ("mypy",)], ids=lambda command: command[0])
def test_lint_and_type_checks_pass(command: tuple[str, ...]) -> None:
    result = run(sys.executable, "-m", *command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_imports_run_one_way() -> None:
    lint = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    result = run(sys.executable, "-c", lint, COLUMNS="200")
    assert result.returncode == 0, result.stdout + result.stderr
    kept = re.search(r"Contracts: (\d+) kept, (\d+) broken", result.stdout)
    written = (ROOT / "setup.cfg").read_text().count("[importlinter:contract:")
    assert kept and written and kept.groups() == (str(written), "0"), result.stdout


def test_functions_and_files_stay_short() -> None:
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 400, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno and node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name}"


# --- forbidden code ----------------------------------------------------------------------------------------------

BUILTINS = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
METHODS = {"extractall", "unsafe_load", "full_load", "system", "popen"}
NEEDED = {"torch.load": "weights_only", "np.load": "allow_pickle", "Image.open": "formats"}
ARGUMENTS = {("weights_only", False), ("shell", True), ("allow_pickle", True), ("trust_remote_code", True)}


def offences(source: str) -> Iterator[str]:
    """Yield `line: construct` for every construct that could run code from a file or a user."""
    tree = ast.parse(source)
    safe_loaders = {"SafeLoader", "CSafeLoader"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(name_of(base) in safe_loaders for base in node.bases):
            safe_loaders.add(node.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if names == ["pickle"] and [alias.name for alias in node.names] == ["UnpicklingError"]:
                continue  # raised by torch.load(weights_only=True)
            yield from (f"{node.lineno}: import of {name}" for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f"{node.lineno}: {node.attr}"
        if isinstance(node, ast.Name) and node.id in BUILTINS and isinstance(node.ctx, ast.Load):
            yield f"{node.lineno}: {node.id}"
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        for argument, value in keywords.items():
            if isinstance(value, ast.Constant) and (argument, value.value) in ARGUMENTS:
                yield f"{node.lineno}: {argument}={value.value}"
        if called(node) in {"yaml.load", "yaml.load_all"}:
            loader = keywords.get("Loader", node.args[1] if len(node.args) > 1 else None)
            if loader is None or name_of(loader) not in safe_loaders:
                yield f"{node.lineno}: {called(node)} without a safe loader"
        for function, argument in NEEDED.items():
            if called(node) == function and argument not in keywords:
                yield f"{node.lineno}: {function} without {argument}="


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def called(call: ast.Call) -> str:
    function = call.func
    return f"{name_of(function.value)}.{function.attr}" if isinstance(function, ast.Attribute) else name_of(function)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_cannot_execute_files(path: Path) -> None:
    assert list(offences(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "f = exec",
        "import pickle",
        "from pickle import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "Image.open(f)",
        "np.load(f, allow_pickle=True)",
        "run(x, shell=True)",
        "os.system(x)",
        "archive.extractall(x)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.full_load(text)",
    ],
)
def test_the_scan_finds_forbidden_code(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile('a')",
        "class Recipe:\n    compile: bool = False",  # a setting of that name
        "from pickle import UnpicklingError",
        "torch.load(f, weights_only=True)",
        "np.load(f, allow_pickle=False)",
        "Image.open(f, formats=('PNG',))",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Strict(yaml.SafeLoader): pass\nyaml.load(text, Strict)",
    ],
)
def test_the_scan_accepts_safe_code(source: str) -> None:
    assert not list(offences(source))


OWN_FILES = {
    "files/regular.py": {"os.open"},  # the only place where a file of the user is opened
    "files/atomic.py": {"os.open"},
    "training/board.py": {"open"},
    "training/checkpoint.py": {"zipfile.ZipFile"},
    "training/claim.py": {"os.open"},
    "training/log.py": {"open", "os.open"},
    "training/status.py": {"os.open"},
    "networks/batched/verified.py": {"file.read_bytes"},
    "training/memory.py": {"file.read_text", "read_text"},  # /proc and /sys
    "cost/latency.py": {"read_text"},  # /proc/cpuinfo
    "data/download.py": {"os.open", "part.open"},
    "deploy/runtimes.py": {"open"},  # /dev/null
    "cli/output.py": {"open"},  # /dev/null
}
"""Files that may open others than those of the user, and how."""
OPENING = ("open", "read_text", "read_bytes", "fromfile", "ZipFile", "is_zipfile")
OF_OPEN_FILES = {
    "data/archives.py": {"tarfile.open", "zipfile.ZipFile", "archive.open"},
    "data/readers.py": {"zipfile.is_zipfile"},
    "data/pictures.py": {"Image.open"},
    "strategy/foreign_alphas.py": {"zipfile.ZipFile", "zipfile.is_zipfile"},
}
"""Functions that read a file which is already open."""
METHODS_CALLED_OPEN = {"network.open", "runtime.open", "one.open"}
"""Networks in files, which have read these before."""


def openings(source: str) -> Iterator[str]:
    """Yield the functions in a source that open a file by themselves."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and name_of(node.func) in OPENING:
            if isinstance(node.func, ast.Name) and node.func.id in ("read_text", "read_bytes"):
                continue  # those of rapdarts.files
            yield called(node).lstrip(".")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_of_the_user_are_opened_in_one_place(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix().removeprefix("rapdarts/")
    allowed = OWN_FILES.get(name, set()) | OF_OPEN_FILES.get(name, set()) | METHODS_CALLED_OPEN
    assert set(openings(path.read_text(encoding="utf-8"))) - allowed == set()


@pytest.mark.parametrize("source", ["open(f)", "path.open()", "Path(f).read_text()", "np.fromfile(f)", "os.open(f, 0)"])
def test_openings_are_found(source: str) -> None:
    assert list(openings(source))


# --- forbidden text ----------------------------------------------------------------------------------------------

FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|opt)/\w"),
    "a local address": re.compile(r"file:///\w"),
    "a folder beside the checkout": re.compile(r"\.\./shared"),
}
ALLOWED = {(".ci/run", "a folder beside the checkout")}


def tracked_files() -> list[Path]:
    """Return every file of the repository, including new files that git does not ignore."""
    listed = run("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, listed.stderr
    return [ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name and (ROOT / name).is_file()]


def test_files_contain_no_machine_paths() -> None:
    found = []
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for what, pattern in FORBIDDEN.items():
            if (name, what) not in ALLOWED:
                found += [f"{name}: {what}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


def test_citation_is_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r'__version__ = "(.+)"', (ROOT / "rapdarts/version.py").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["title"] and citation["message"]
    assert version and citation["version"] == version.group(1)
    for work in [citation, *citation["references"]]:
        assert work["title"] and work["authors"] and work["type"]


# --- the wheel ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built from a copy, so that the build leaves no files and the wheel contains no stale ones."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in (*PACKAGES, "experiments"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = ("pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out))
    result = run(sys.executable, "-m", *command, cwd=source)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = out.glob("rapdarts-*.whl")
    return built


def test_wheel_is_complete(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    expected |= {f"rapdarts/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")}
    shipped = ("digits.npz", "DIGITS.txt", "nasbench201.npz", "NASBENCH201.txt")
    expected |= {"rapdarts/py.typed", *(f"rapdarts/data/{name}" for name in shipped)}
    assert expected - set(names) == set()
    assert "rapdarts/experiments/digits.yaml" in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not [name for name in names if "evidence" in name]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)


def test_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ("pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    installed = run(sys.executable, "-m", *command, cwd=elsewhere)
    assert installed.returncode == 0, installed.stdout + installed.stderr

    here = (sys.executable, "-c", "import rapdarts; print(rapdarts.__file__)")
    where = run(*here, cwd=elsewhere, PYTHONPATH=str(target))
    assert Path(where.stdout.strip()).is_relative_to(target), where.stdout + where.stderr

    search = (sys.executable, "-m", "rapdarts", "search", "digits", "--print-config")
    printed = run(*search, cwd=elsewhere, PYTHONPATH=str(target))
    assert printed.returncode == 0, printed.stdout + printed.stderr
    assert "name: digits" in printed.stdout
    assert list(elsewhere.iterdir()) == []
