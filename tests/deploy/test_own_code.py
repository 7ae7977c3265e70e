"""Advice on files and names that refer to a torch network in the user's own code, or saved by torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rapdarts.cli.main import main

CODE = """from torch import nn

HIDDEN = 3


class Block(nn.Module):
    pass


class Net(nn.Module):
    def forward(self, image):
        return image
"""
SAVED = "networks saved by torch (modules, weights or TorchScript) are not read"
ONLY = "a network in your own code can only be counted and measured"
ADVICE = "; if it defines a torch network, write {} (MODULE:CALLABLE)."
WANTED = "; pass a run folder created by rapdarts retrain, its network.safetensors, or an ONNX file written by rapdarts export."
PICKLED = (
    "{} is a binary file and contains no genotype: rapdarts reads genotypes from text; rapdarts derive FILE space=NAME derives one"
    f" from the alpha arrays of a .npz or .pt file; {SAVED}"
)
HERE = "there is no network '{}'; for a network in the Python file {}, write {}:NAME."

MESSAGES = {
    "cost mynet.py": "mynet.py contains no genotype" + ADVICE.format("mynet:Net"),
    "cost mynet.py:Net": "mynet.py contains no genotype" + ADVICE.format("mynet:Net"),
    "cost ./models/own.py": "models/own.py contains no genotype" + ADVICE.format("models.own:Net"),
    "cost functions.py": "functions.py contains no genotype" + ADVICE.format("functions:NAME"),
    "cost my-net.py": "my-net.py contains no genotype" + ADVICE.format("package.module:Net"),
    "cost broken.py": "broken.py contains no genotype" + ADVICE.format("broken:NAME"),
    "cost mynet": HERE.format("mynet", "mynet.py", "mynet"),
    "measure mynet": HERE.format("mynet", "mynet.py", "mynet"),
    "cost models.own": HERE.format("models.own", "models/own.py", "models.own"),
    "measure mynet.py": "mynet.py contains no genotype" + ADVICE.format("mynet:Net"),
    "retrain mynet.py digits": f"mynet.py contains no genotype; {ONLY}, as mynet:Net.",
    "export mynet.py": f"mynet.py contains no genotype; {ONLY}, as mynet:Net.",
    "retrain mynet:Net digits": f"mynet:Net cannot be used here: {ONLY}; pass a genotype.",
    "evaluate mynet.py": f"mynet.py is not a trained network: {ONLY}, as mynet:Net{WANTED}",
    "evaluate mynet.py:Net": f"mynet.py:Net is not a trained network: {ONLY}, as mynet:Net{WANTED}",
    "cost module.pt": PICKLED.format("module.pt") + "; pass package.module:callable, or an ONNX file.",
    "cost weights.pth": PICKLED.format("weights.pth") + "; pass package.module:callable, or an ONNX file.",
    "measure script.pt": PICKLED.format("script.pt") + "; pass package.module:callable, or an ONNX file.",
    "export module.pt": PICKLED.format("module.pt") + ".",
    "evaluate module.pt": f"module.pt is not a trained network: {SAVED}{WANTED}",
    "cost gone.onnx": "there is no file or folder gone.onnx; pass an existing path or the name of a network.",
    "cost gone.py:Net": "there is no file or folder gone.py; pass an existing path or the name of a network.",
    "export gone.json": "there is no file or folder gone.json; pass an existing path or the name of a genotype.",
    "retrain models/gone digits": "there is no file or folder models/gone; pass an existing path or the name of a network.",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    for name in ("mynet.py", "models/own.py", "my-net.py"):
        Path(name).write_text(CODE)
    Path("functions.py").write_text("def net():\n    return 1\n")
    Path("broken.py").write_text("def net(:\n")
    layer = nn.Linear(2, 2)
    torch.save(layer, "module.pt")
    torch.save(layer.state_dict(), "weights.pth")
    torch.jit.script(layer).save("script.pt")


@pytest.mark.parametrize("line", MESSAGES)
@pytest.mark.usefixtures("files")
def test_networks_of_other_programs_are_explained(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"rapdarts: error: {MESSAGES[line]}\n"
