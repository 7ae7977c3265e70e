"""From a published genotype to exported networks on real photographs: train, stop, resume, export and open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.cli.main import main

CIFAR10 = Path(os.environ.get("RAPDARTS_DATA", "/nowhere")) / "cifar-10-batches-bin"
SETTINGS = [
    "skeleton.channels=8",
    "data.fraction=0.02",
    "epochs=3",
    "save_seconds=0",
    "threads=1",
    f"data.path={CIFAR10}",
]


@pytest.mark.proof
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="RAPDARTS_DATA is not a folder with cifar-10-batches-bin")
def test_a_network_is_trained_stopped_resumed_exported_and_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    command = ["retrain", "PDARTS", "cifar10_small", *SETTINGS]
    assert main([*command, f"run={whole}"]) == 0

    process = subprocess.Popen(
        [sys.executable, "-m", "rapdarts", *command, f"run={stopped}"], stderr=subprocess.DEVNULL
    )
    while not (record := stopped / "metrics.jsonl").exists() or not record.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # in the second epoch
    process.wait()
    assert not (stopped / "network.safetensors").exists()
    assert main([*command, f"run={stopped}", "resume=true"]) == 0
    assert (stopped / "network.safetensors").read_bytes() == (whole / "network.safetensors").read_bytes()

    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = rapdarts.load(stopped)(images).detach()
    capsys.readouterr()
    for form, bound in (("onnx", 1e-4), ("pt2", 1e-4), ("safetensors", 0.0)):
        file = tmp_path / f"net.{form}"
        assert main(["export", str(stopped), f"to={form}", f"out={file}", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        if form == "onnx":
            onnxruntime = pytest.importorskip("onnxruntime")
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
        elif form == "pt2":
            found = torch.export.load(file).module()(images)
        else:
            found = rapdarts.load(file)(images)
        assert float((found.detach() - logits).abs().max()) <= bound
        if form != "safetensors":
            assert report["largest_difference"] < 1e-4
    assert (
        main(["evaluate", str(tmp_path / "net.onnx"), "cifar10_small", *SETTINGS[-1:], "timing=false", "--json"]) == 0
    )
    measured = json.loads(capsys.readouterr().out)
    trained = json.loads((whole / "result.json").read_text())
    assert np.isclose(measured["test_accuracy"], trained["test_accuracy"], atol=2e-4)
