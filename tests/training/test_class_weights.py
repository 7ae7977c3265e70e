"""Unequal classes: weights in the loss, and accuracies that count every class alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.config.experiment import RetrainConfig
from rapdarts.loops.retrain import losses
from rapdarts.training.class_weights import class_weights, mean_loss
from rapdarts.training.intervals import mean_of_shares, percent
from rapdarts.training.metrics import balanced_accuracy, evaluate_logits

LABELS = torch.tensor([0] * 9 + [1] * 2 + [2])


def test_balanced_weights_give_every_class_the_same_total() -> None:
    weights = class_weights("balanced", LABELS, 3)
    assert weights is not None
    assert weights.tolist() == pytest.approx([12 / 27, 2, 4])
    assert weights[LABELS].mean().item() == pytest.approx(1)
    assert class_weights("none", LABELS, 3) is None


def test_losses_are_weighted_by_class_and_divided_by_the_number_of_images() -> None:
    torch.manual_seed(0)
    logits, weights = torch.randn(12, 3), class_weights("balanced", LABELS, 3)
    assert weights is not None
    each = torch.nn.functional.cross_entropy(logits, LABELS, reduction="none")
    expected = sum((weights[label] * loss).item() for label, loss in zip(LABELS, each, strict=True))
    assert mean_loss(logits, LABELS, weights).item() == pytest.approx(expected / 12)
    assert mean_loss(logits, LABELS, None).item() == pytest.approx(each.mean().item())
    total, main, _ = losses((logits, 2 * logits), LABELS, RetrainConfig(auxiliary=0.4), weights)
    assert main.item() == pytest.approx(expected)
    again = torch.nn.functional.cross_entropy(2 * logits, LABELS, weights, reduction="sum").item()
    assert total.item() == pytest.approx(expected + 0.4 * again)


def test_balanced_accuracy_is_the_mean_recall_with_its_error() -> None:
    correct = LABELS == 0
    assert balanced_accuracy(correct, LABELS) == pytest.approx((1 / 3, 0, *mean_of_shares([1, 0, 0], [9, 2, 1])))
    correct[:3], correct[9] = False, True  # recalls 6/9, 1/2 and 0
    mean, error = (6 / 9 + 1 / 2) / 3, math.sqrt((6 / 9 * 3 / 9) / 9 + 0.25 / 2) / 3
    low, high = mean_of_shares([6 / 9, 1 / 2, 0], [9, 2, 1])
    assert balanced_accuracy(correct, LABELS) == pytest.approx((mean, error, low, high))
    logits = torch.nn.functional.one_hot(torch.where(correct, LABELS, (LABELS + 1) % 3), 3).double()
    found = evaluate_logits(logits, LABELS)
    assert str(found).endswith(f", balanced accuracy {percent(mean, (low, high), ', mean over classes')}")
    assert found.plain["balanced_accuracy"] == pytest.approx(mean)
    assert found.plain["balanced_interval"] == pytest.approx([low, high])


def test_classes_of_similar_size_have_no_balanced_accuracy() -> None:
    labels = torch.tensor([0] * 14 + [1] * 10)
    assert balanced_accuracy(labels == 0, labels) is None
    labels_at_the_bound = torch.tensor([0] * 15 + [1] * 10)
    assert balanced_accuracy(labels_at_the_bound == 0, labels_at_the_bound) is not None
    assert "balanced_accuracy" not in evaluate_logits(torch.randn(24, 2), labels).plain


TINY: dict[str, Any] = {
    "threads": 1,
    "data": {"crop": 0, "flip": False},
    "skeleton": {"layers": 3, "channels": 4},
    "search": {"channels": 2, "layers": [3], "candidates": [0], "skip_dropout": [0.0], "epochs": 2, "warmup_epochs": 1,
               "batch": 20, "class_weights": "balanced"},
    "retrain": {"epochs": 3, "batch": 20, "drop_path": 0.0, "auxiliary": 0.0, "cutout": 0, "lr": 0.1},
    "rank": {"epochs": 1},
}  # fmt: skip


def test_rare_classes_are_said_weighted_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With nine of ten images in one class, only weights keep the network from answering that class always."""
    rng = np.random.default_rng(0)
    labels = np.array(([0] * 18 + [1, 2]) * 12)
    images = rng.integers(0, 60, (240, 1, 8, 8), dtype=np.uint8)
    images[labels == 1, :, :4] += 8
    images[labels == 2, :, 4:] += 8
    given: dict[str, Any] = {"data": (images, labels)}
    found = rapdarts.search(TINY, run=tmp_path / "search", **given)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "160 training and 80 test images, 1x8x8, 3 classes (8 to 144 training images each), from memory",
        "no test images are marked, so a third of the images of each class is held out for testing",
        "the classes are very unequal (0: 144 images, 1: 8); "
        "set search.class_weights=balanced and retrain.class_weights=balanced to give them equal weight",
        f"search memory in {tmp_path / 'search'}, on the CPU with 1 thread",
    ]
    recalls = {}
    for kind in ("none", "balanced"):
        keys = {"retrain.class_weights": kind}
        trained = rapdarts.retrain(found.genotype, TINY, keys, run=tmp_path / kind, progress=False, epochs=6, **given)
        assert trained.test.balanced is not None
        recalls[kind] = trained.test.balanced[0]
    assert recalls["none"] < 0.4
    assert recalls["balanced"] > recalls["none"] + 0.15
    assert "balanced accuracy" in str(rapdarts.evaluate(trained, timing=False, **given))
    ranked = rapdarts.rank(found, count=2, run=tmp_path / "rank", progress=False, **given)
    assert "balanced accuracy" in str(ranked)
    assert all(0 <= network["balanced_accuracy"] <= 1 for network in ranked.report["networks"])


def test_images_that_are_all_alike_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.full((240, 1, 8, 8), 7, np.uint8)
    rapdarts.search(TINY, data=(images, np.arange(240) % 3), run=tmp_path / "search")
    assert "all training images are identical" in capsys.readouterr().err.splitlines()
