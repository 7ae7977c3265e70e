"""A folder of photographs of mixed kinds: from nothing to a network, by the command that a photographer would type."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import rapdarts
from rapdarts.cli.main import main
from tests.photographs import COUNT, FOLDERS, LABELS, MISSING, write_photographs

pytestmark = [pytest.mark.proof, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

CLASSES = sorted([*FOLDERS, *LABELS])
BUDGET = 5_000_000
HELD_OUT = 202
"""Number of test images: a third of each class, rounded."""
EFFORT = "effort=0.01"
"""The shortest plan: one epoch of every search and training, in which a network learns next to nothing."""
SIZE = 48
"""Side of the images in pictures.yaml, in pixels."""

ALONE = """
import json, sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
logits = session.run(None, {"pixels": numpy.load(sys.argv[2])})[0]
facts = session.get_modelmeta().custom_metadata_map
others = [name for name in ("torch", "rapdarts") if name in sys.modules]
print(json.dumps({"logits": logits.tolist(), "classes": json.loads(facts["class_names"]), "others": others}))
"""
"""Run an ONNX file on pixels without torch and without rapdarts."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command: exit code, printed text, messages, and the folders of the photographs and of the run."""

    code: int
    printed: str
    said: str
    photographs: Path
    run: Path


def find(photographs: Path, run: Path) -> Outcome:
    """Run `rapdarts find pictures` on a folder."""
    arguments = ["find", "pictures", f"data.path={photographs}", "budget.macs=5M", EFFORT, f"run={run}"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return Outcome(code, out.getvalue(), err.getvalue(), photographs, run)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("pictures")
    return find(write_photographs(folder / "holiday"), folder / "run")


def test_the_network_found_uses_its_budget(found: Outcome) -> None:
    assert found.code == 0, found.said
    result = json.loads((found.run / "result.json").read_text())
    assert 0.9 * BUDGET <= result["costs"]["macs"] <= BUDGET
    assert rapdarts.costs(found.run / "network" / "genotype.json")["macs"] == result["costs"]["macs"]
    assert result["n"] == HELD_OUT
    assert f"{result['costs']['macs']:,}" in found.printed


def test_the_messages_state_what_was_read_and_what_was_not(found: Outcome) -> None:
    lines = found.said.splitlines()
    assert lines[:7] == [
        f"{COUNT - HELD_OUT} training and {HELD_OUT} test images, 3x{SIZE}x{SIZE}, 10 classes (20 to 53 training images each),"
        " from holiday",
        f"classes: {', '.join(CLASSES)}",
        "files that are not images are ignored: 1 .txt",
        "not used: 1 image outside the class folders, such as cover.jpg",
        "holiday: 120 grey images are read as RGB",
        "holiday: 60 images with a palette are read as RGB",
        "holiday: 120 transparent images are placed on white",
    ]
    assert lines[7] == "no test images are marked, so a third of the images of each class is held out for testing"
    assert "DS_Store" not in found.said
    assert sum(line.startswith("step ") for line in lines) == 4


def test_the_page_names_the_data(found: Outcome) -> None:
    assert (found.run / "report.md").read_text().startswith("# A network for holiday\n")


def test_the_exported_network_runs_on_a_photograph_without_us(found: Outcome, tmp_path: Path) -> None:
    """The photograph is one that was stored lying on its side."""
    pytest.importorskip("onnxruntime")
    photograph = next(found.photographs.glob("church/IMG_*1.JPG"))
    with Image.open(photograph) as stored:
        picture = ImageOps.fit(ImageOps.exif_transpose(stored), (SIZE, SIZE), Image.Resampling.BILINEAR)
    assert stored.getexif()[0x0112] == 6
    pixels = (np.asarray(picture, np.float32) / 255).transpose(2, 0, 1)[None]
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, "-c", ALONE, str(found.run / "network" / "network.onnx"), str(tmp_path / "pixels.npy")]
    answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert (answer["classes"], answer["others"]) == (CLASSES, [])
    network = rapdarts.load(found.run / "network" / "network.safetensors")
    assert np.allclose(answer["logits"], network(torch.from_numpy(pixels)).numpy(force=True), atol=1e-4)


def test_a_broken_photograph_is_named_before_any_work(found: Outcome, tmp_path: Path) -> None:
    """The file is cut in the middle, so that only decoding it shows that it is broken."""
    shutil.copytree(found.photographs, tmp_path / "holiday")
    broken = next((tmp_path / "holiday" / "ship").glob("*.JPG"))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    refused = find(tmp_path / "holiday", tmp_path / "run")
    assert refused.code == 2
    assert refused.said.startswith(f"rapdarts: error: {broken} is not a readable image (")
    assert refused.said.endswith("; repair or remove it.\n")
    assert refused.said.count("\n") == 1
    assert not (tmp_path / "run").exists()
