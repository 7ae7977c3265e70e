"""Every file that a user can name is read in the same way: only a regular file of moderate size, without waiting for anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rapdarts.cli.main import main
from rapdarts.config import key_values
from rapdarts.config.resolve import resolve_experiment
from rapdarts.data import readers
from tests.hung import in_time

FILES = {
    "experiment": ("mine.yaml", "search mine.yaml --print-config"),
    "genotype in JSON": ("cell.json", "cost cell.json"),
    "genotype in text": ("cell.txt", "retrain cell.txt digits run=new"),
    "genotype in Python": ("cell.py", "cost cell.py"),
    "genotype without a suffix": ("cell", "export cell to=darts"),
    "one of several genotypes": ("cells.json", "cost cells.json:second"),
    "arrays of alphas": ("alphas.npz", "derive alphas.npz space=darts"),
    "alphas in JSON": ("alphas.json", "derive alphas.json space=darts"),
    "alphas of torch": ("alphas.pt", "derive alphas.pt space=darts"),
    "hardware table": ("energy.yaml", "cost PDARTS hardware=energy.yaml"),
    "hardware table of a search": ("energy.yaml", "search digits search.hardware=energy.yaml run=new cost.energy=1"),
    "latency table": (
        "times.json",
        "search digits search.latency=times.json search.space=nasbench201 skeleton.layers=3 cost.latency=1 run=new",
    ),
    "plan": ("plan.json", "find digits budget.params=100k find.plan=plan.json run=new"),
    "own space": ("mine.py", "search digits --space mine.py run=new"),
    "weights": ("net.safetensors", "evaluate net.safetensors"),
    "weights to export": ("net.safetensors", "export net.safetensors to=safetensors out=copy.safetensors"),
    "weights of a run": ("first/network.safetensors", "evaluate first"),
    "ONNX file": ("net.onnx", "evaluate net.onnx"),
    "ONNX file to count": ("net.onnx", "cost net.onnx"),
    "arrays": ("images.npz", "search digits data.name=npz data.path=images.npz run=new"),
    "folder of arrays": ("images/images.npz", "search digits data.name=npz data.path=images run=new"),
    "CIFAR": ("cifar/data_batch_1.bin", "search digits data.name=cifar10 data.path=cifar run=new"),
    "second file of CIFAR": ("cifar/data_batch_2.bin", "search digits data.name=cifar10 data.path=cifar run=new"),
    "CIFAR archive": ("cifar/cifar-10-binary.tar.gz", "search digits data.name=cifar10 data.path=cifar run=new"),
    "IDX": ("mnist/train-images-idx3-ubyte", "search digits data.name=mnist data.path=mnist run=new"),
    "packed IDX": ("mnist/train-images-idx3-ubyte.gz", "search digits data.name=mnist data.path=mnist run=new"),
    "picture": ("photos/cat/1.png", "search digits data.name=folder data.path=photos run=new"),
    "data of any kind": ("photos", "search digits data.name=folder data.path=photos run=new"),
    "configuration of a run": ("first/config.yaml", "derive first"),
    "configuration in a report": ("first/config.yaml", "report first"),
    "result": ("first/result.json", "report first"),
    "environment": ("first/environment.json", "report first"),
    "alphas of a run": ("first/alphas.json", "derive first"),
    "genotype of a run": ("first/genotype.json", "cost first"),
    "candidates": ("first/candidates.json", "cost first/candidates.json:a"),
    "best genotype": ("first/best.json", "retrain first digits run=new"),
}
"""Path of each file, and a command that reads it."""

CAN_BE_EMPTY = {
    "experiment",
    "hardware table",
    "hardware table of a search",
    "configuration of a run",
    "configuration in a report",
}
"""Without a line, every setting keeps its default."""


def unreadable(path: Path) -> None:
    """Create a regular file whose content cannot be read; root may read a file without permissions."""
    if os.geteuid():
        path.touch(mode=0)
    else:
        path.symlink_to("/proc/self/mem")  # address 0 is not mapped


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))  # its length is limited


def enormous(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**36)


FAULTS: dict[str, Callable[[Path], Any]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a socket": listening,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "enormous": enormous,
    "empty": Path.touch,
    "unreadable": unreadable,
}


@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(readers.CIFAR_RECORDS, "cifar10", {"data_batch_1.bin": 10, "data_batch_2.bin": 10})
    place, command = FILES[name]
    for fault, create in FAULTS.items():
        if fault == "empty" and name in CAN_BE_EMPTY:
            continue
        folder = tmp_path / fault
        path = folder / place
        path.parent.mkdir(parents=True)
        monkeypatch.chdir(folder)
        prepare(name, path)
        create(path)
        with in_time():
            code = main(command.split())
        *_, last = capsys.readouterr().err.splitlines()
        assert code in (2, 4), (fault, last)
        assert last.startswith("rapdarts: error: ") and last.endswith(".") and len(last) < 1000, (fault, last)
        assert Path(place).parts[0].split(".")[0] in last, "the message names neither the file nor its folder"
        assert "new" not in os.listdir(folder)


def prepare(name: str, path: Path) -> None:
    """Create the files next to the one that is read."""
    if path.parent.name == "first":
        (path.parent / "config.yaml").write_text(key_values.save_yaml(resolve_experiment("digits", [], "search")))
        (path.parent / "result.json").write_text("{}")
        path.unlink(missing_ok=True)
    if name == "second file of CIFAR":
        path.with_name("data_batch_1.bin").write_bytes(bytes(10 * 3073))
