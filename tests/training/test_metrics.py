"""Metrics of a trained network, compared with values computed by hand: calibration, top-k, confusion matrix and loss."""

from __future__ import annotations

import math

import pytest
import torch

from rapdarts.errors import DivergedError
from rapdarts.training.metrics import calibration, confusion, measures, predict, topk_correct


def certain(probability: float, label: list[int], classes: int = 2) -> torch.Tensor:
    """Return logits that give each image's class in `label` the given probability, and the other classes equal shares of the rest."""
    rest = (1 - probability) / (classes - 1)
    shares = torch.full((len(label), classes), rest, dtype=torch.float64)
    shares[torch.arange(len(label)), label] = probability
    return shares.log()


def test_perfect_calibration_has_no_error() -> None:
    logits = torch.cat([certain(0.8, [0] * 10), certain(0.6, [1] * 10)])
    labels = torch.tensor([0] * 8 + [1] * 2 + [1] * 6 + [0] * 4)
    found = calibration(logits, labels)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert sum(found.n) == 20 and found.n[11] == found.n[8] == 10  # 0.8 in (11/15, 12/15], 0.6 in (8/15, 9/15]
    assert (found.confidence[11], found.accuracy[11]) == pytest.approx((0.8, 0.8))
    assert (found.confidence[8], found.accuracy[8]) == pytest.approx((0.6, 0.6))


def test_the_error_of_overconfident_logits() -> None:
    logits = torch.cat([certain(0.99, [0] * 60), certain(0.7, [0] * 40)])
    labels = torch.tensor([0] * 30 + [1] * 30 + [0] * 36 + [1] * 4)
    found = calibration(logits, labels)
    assert found.error == pytest.approx(0.6 * (0.99 - 0.5) + 0.4 * (0.9 - 0.7))
    assert calibration(logits, labels, bins=1).error == pytest.approx(abs(0.66 - (0.6 * 0.99 + 0.4 * 0.7)))


def test_a_bin_includes_its_upper_edge() -> None:
    found = calibration(certain(0.5, [0, 0]), torch.tensor([0, 1]), bins=4)
    assert found.n == (0, 2, 0, 0) and found.error == pytest.approx(0)
    alone = calibration(torch.tensor([[1e4, 0.0]]), torch.tensor([0]))
    assert (alone.n[-1], alone.confidence[-1], alone.accuracy[-1]) == (1, 1, 1)
    assert calibration(torch.zeros(3, 30), torch.tensor([0, 1, 2])).n[0] == 3  # a confidence of 1/30


def test_top_k_counts_labels_among_the_largest_logits() -> None:
    logits = torch.arange(10.0).repeat(10, 1).double()  # class 9 has the largest logit
    assert topk_correct(logits, torch.arange(10), 5).tolist() == [False] * 5 + [True] * 5
    assert topk_correct(logits, torch.arange(10)).tolist() == [False] * 9 + [True]
    assert topk_correct(torch.zeros(10, 10), torch.arange(10), 5).tolist() == [True] * 5 + [False] * 5
    values = measures(logits, torch.arange(10), [str(name) for name in range(10)])
    assert (values["test_accuracy"], values["top5_accuracy"]) == (0.1, 0.5)
    assert values["top5_standard_error"] == pytest.approx(math.sqrt(0.5 * 0.5 / 10))
    assert "top5_accuracy" not in measures(logits[:, :5], torch.arange(5).repeat(2), list("abcde"))


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    logits = torch.eye(3)[[0, 0, 1, 2, 2, 2, 1]].double()
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 2])
    assert confusion(logits, labels).tolist() == [[2, 1, 0], [0, 0, 1], [0, 1, 2]]
    assert confusion(logits[:2], labels[:2]).tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    values = measures(logits, labels, ["cat", "dog", "emu"])
    assert values["confusion"] == [[2, 1, 0], [0, 0, 1], [0, 1, 2]] and values["n"] == 7
    assert values["test_accuracy"] == sum(values["confusion"][k][k] for k in range(3)) / 7
    assert values["test_loss"] == pytest.approx((4 * (math.log(math.e + 2) - 1) + 3 * math.log(math.e + 2)) / 7)


def test_logits_that_are_not_finite_are_refused() -> None:
    batches = [(torch.ones(2, 1, 1, 1), torch.tensor([0, 1]))] * 2
    with pytest.raises(DivergedError, match="not finite for image 0"):
        predict(lambda images: images.flatten(1).expand(-1, 2) * math.nan, batches)
    logits, labels = predict(lambda images: images.flatten(1).expand(-1, 2), batches)
    assert logits.shape == (4, 2) and labels.tolist() == [0, 1, 0, 1]
