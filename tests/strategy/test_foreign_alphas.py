"""Architecture parameters of other programs: every form gives the same genotype and counts, and anything else is rejected."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.architecture.reading import parse_genotype
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError, RapdartsError
from rapdarts.strategy import foreign_alphas
from rapdarts.strategy.foreign_alphas import read_arrays
from tests.architecture.corpus import BENCH, Cells, G, bench_by_hand, call

DARTS = named_space("darts")
PER_NODE = [range(0, 2), range(2, 5), range(5, 9), range(9, 14)]
"""Rows of each node."""


def alphas_of(cells: Cells) -> dict[str, np.ndarray]:
    """Return alpha (14, 8) of both kinds of cell, in which the edges of some cells are the strongest."""
    rng = np.random.default_rng(0)
    found = {}
    for kind in ("normal", "reduce"):
        alpha = rng.normal(0, 0.1, (14, 8))
        for number, node in enumerate(cells.nodes(kind)):
            for name, source in node:
                alpha[PER_NODE[number][source], DARTS.columns[name]] = 3 + rng.random()
        found[kind] = alpha
    return found


ALPHAS = alphas_of(G)
CELLS = {
    kind: replace(cell, nodes=tuple(tuple(sorted(node, key=lambda edge: edge[1])) for node in cell.nodes))
    for kind, cell in parse_genotype(call(G), "G").cells.items()
}
"""The cells of G as a derivation writes them: the edges of a node in the order of their inputs."""
NORMAL, REDUCE = ALPHAS["normal"], ALPHAS["reduce"]
PARAMETERS = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (NORMAL, REDUCE)]


def write_npz(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> Path:
    np.savez(path, *arrays, **named)
    return path


def write_json(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree))
    return path


def write_pt(path: Path, tree: Any) -> Path:
    torch.save(tree, path)
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "npz": lambda at: write_npz(at / "a.npz", normal=NORMAL, reduce=REDUCE),
    "npz, names of DARTS": lambda at: write_npz(at / "a.npz", alphas_reduce=REDUCE, alphas_normal=NORMAL, epoch=np.array(49)),
    "npz, in order": lambda at: write_npz(at / "a.npz", NORMAL, REDUCE),
    "json": lambda at: write_json(at / "a.json", {"normal": NORMAL.tolist(), "reduce": REDUCE.tolist()}),
    "json, in order": lambda at: write_json(at / "a.json", [NORMAL.tolist(), REDUCE.tolist()]),
    "json, by node": lambda at: write_json(
        at / "a.json",
        {kind: {str(number): array[rows].tolist() for number, rows in enumerate(PER_NODE)} for kind, array in ALPHAS.items()},
    ),
    "pt, parameters": lambda at: write_pt(at / "a.pt", PARAMETERS),
    "pt, a state": lambda at: write_pt(
        at / "a.pth",
        {"epoch": 3, "model": {"stem.weight": torch.rand(16, 3, 3, 3), "alphas_normal": PARAMETERS[0], "alphas_reduce": PARAMETERS[1]}},
    ),
    "pt, by node": lambda at: write_pt(
        at / "a.pt",
        {
            f"arch.alpha_{kind}.{number}": torch.tensor(array[list(rows)])
            for kind, array in ALPHAS.items()
            for number, rows in enumerate(PER_NODE)
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_arrays_in_any_form_give_the_same_genotype(form: str, tmp_path: Path) -> None:
    file = FORMS[form](tmp_path)
    found = rapdarts.derive(file, space="darts", progress=False)
    assert found.genotype.cells == CELLS
    assert (found.costs["params"], found.costs["macs"]) == (G.params, G.macs)
    assert found.skeleton.layers == 20 and found.skeleton.channels == 36
    assert found.genotype.provenance["alphas"] == file.name and "config_sha256" not in found.genotype.provenance
    torch.testing.assert_close(
        read_arrays(file, DARTS).alpha[1].double(), torch.as_tensor(REDUCE), rtol=1e-6, atol=1e-6
    )


def test_a_budget_and_a_skeleton_hold_for_arrays_too(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", normal=NORMAL, reduce=REDUCE)
    found = rapdarts.derive(file, {"budget.params": "2.5M"}, space="darts", progress=False)
    assert 2_250_000 <= found.costs["params"] <= 2_500_000
    assert rapdarts.derive(file, space="darts", layers=8, channels=16, progress=False).skeleton.layers == 8


def test_two_searches_are_averaged(tmp_path: Path) -> None:
    files = [write_npz(tmp_path / f"{n}.npz", normal=NORMAL + n / 10 * REDUCE, reduce=REDUCE) for n in range(2)]
    found = rapdarts.derive(files, space="darts", progress=False)
    assert found.genotype.cells["reduce"] == CELLS["reduce"]
    with pytest.raises(InputError, match="two of these searches have identical mixing weights"):
        rapdarts.derive([files[0], files[0]], space="darts", progress=False)


def test_the_only_array_is_that_of_the_only_cell(tmp_path: Path) -> None:
    text, convolutions = next(iter(BENCH.items()))
    space = named_space("nasbench201")
    alpha = np.zeros((6, 5))
    names = [edge.split("~")[0] for part in text.split("+") for edge in part.strip("|").split("|")]
    for row, name in enumerate(names):
        alpha[row, space.columns[name]] = 4.0
    for file in (
        write_pt(tmp_path / "a.pt", {"arch_parameters": torch.tensor(alpha)}),
        write_npz(tmp_path / "a.npz", alpha),
    ):
        found = rapdarts.derive(file, space="nasbench201", rule="pdarts", max_skips=3, progress=False)
        none = text.replace("none~0", found.genotype.to_nasbench201().split("+")[1].split("|")[1])  # never derived
        assert found.genotype.to_nasbench201() == none
        assert found.costs["params"] >= bench_by_hand(*convolutions)[0]


def test_weights_of_edges_are_used(tmp_path: Path) -> None:
    """With equal alphas, the edges with the largest beta are kept."""
    alpha, beta = np.zeros((14, 8)), np.zeros(14)
    alpha[:, DARTS.columns["sep_conv_3x3"]] = 2
    beta[[3, 4, 7, 8, 12, 13]] = 2
    file = write_npz(tmp_path / "a.npz", alphas_normal=alpha, alphas_reduce=alpha, betas_normal=beta, betas_reduce=beta)
    found = rapdarts.derive(file, space="darts", progress=False).genotype.cells["normal"]
    assert [[source for _, source in node] for node in found.nodes] == [[0, 1], [1, 2], [2, 3], [3, 4]]
    file = write_npz(tmp_path / "b.npz", alphas_normal=alpha, alphas_reduce=alpha, betas_normal=beta)
    with pytest.raises(
        InputError,
        match=r"has edge weights \(beta\) for only one kind of cell; add those of the other kind, or remove them",
    ):
        rapdarts.derive(file, space="darts", progress=False)


def hostile(path: Path) -> Path:
    class Command:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    torch.save({"normal": Command()}, path)
    return path


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("normal.npy", b"\0" * 30_000_000)
    return path


def crowded(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(foreign_alphas.MOST_TENSORS + 1):
            archive.writestr(str(number), b"")
    return path


def probabilities(alpha: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True))


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "transposed": (
        lambda at: write_npz(at / "a.npz", normal=NORMAL.T, reduce=REDUCE.T),
        "needs an array of shape (14, 8) for the normal cell of the space darts, with a row for every edge and a column for every "
        "primitive (none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, dil_conv_5x5); it has "
        "normal (8, 14), reduce (8, 14).",
    ),
    "no reduction cell": (lambda at: write_npz(at / "a.npz", normal=NORMAL), "for the reduce cell of the space darts"),
    "no arrays": (lambda at: write_json(at / "a.json", {"a": "b"}), "primitive (none, "),
    "not finite": (lambda at: write_npz(at / "a.npz", normal=NORMAL * np.nan, reduce=REDUCE), "values that are not finite"),
    "probabilities": (
        lambda at: write_npz(at / "a.npz", normal=probabilities(NORMAL), reduce=probabilities(REDUCE)),
        "the rows of the normal cell sum to 1, like weights after a softmax; save alpha itself, or the logarithms of these weights.",
    ),
    "objects": (lambda at: write_npz(at / "a.npz", normal=np.array([{}])), "cannot be read as arrays ("),
    "code": (lambda at: hostile(at / "a.pt"), "it holds objects or code, not only tensors); save a dictionary of tensors with torch.save"),
    "a bomb": (lambda at: bomb(at / "a.npz"), "unpacks to more than 20,000,000 bytes; save fewer arrays."),
    "too many members": (lambda at: crowded(at / "a.pt"), "cannot be read as tensors (it has more than 50,000 members); "),
    "damaged npz": (lambda at: _written(at / "a.npz", b"PK\3\4broken"), "cannot be read as arrays ("),
    "damaged pt": (lambda at: _written(at / "a.pt", b"PK\3\4broken"), "cannot be read as tensors ("),
    "damaged json": (lambda at: _written(at / "a.json", b'[{"a": 1'), "line 1, column 9: not JSON: "),
    "a text": (
        lambda at: _written(at / "a.txt", b"alphas"),
        "is neither the folder nor the alphas.json of a search, nor a .npz, .json or .pt file with the alpha arrays of another program; ",
    ),
    "a missing file": (lambda at: at / "a.npz", "there is no file or folder "),
}  # fmt: skip


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, words = WRONG[case]
    with pytest.raises(RapdartsError) as refusal:
        rapdarts.derive(write(tmp_path), space="darts", progress=False)
    message = str(refusal.value)
    assert refusal.value.exit_code in (2, 4)
    assert words in message and message.endswith(".") and "\n" not in message
    assert capsys.readouterr().out == ""


def test_the_space_must_be_named(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", normal=NORMAL, reduce=REDUCE)
    with pytest.raises(InputError, match="does not name its search space; add space=darts, which fits its arrays"):
        rapdarts.derive(file, progress=False)
    file = write_npz(tmp_path / "b.npz", normal=NORMAL[:, :3], reduce=REDUCE)
    with pytest.raises(InputError, match="does not name its search space; add space=NAME or --space FILE"):
        rapdarts.derive(file, progress=False)
    with pytest.raises(InputError, match="there is no search space 'drats'; the nearest is darts"):
        rapdarts.derive(file, {"space": "drats"}, progress=False)
