"""Weights of the classes in the loss, so that rare classes count as much as common ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def class_weights(kind: str, labels: Tensor, classes: int) -> Tensor | None:
    """Return the weight of each class (classes,) float32 for training labels (n,); None if `kind` is none.

    With `balanced`, the weight of class c is n / (classes x n_c), as in King and Zeng (2001). Every class then has the same
    total weight, and the mean weight over images is 1.
    """
    if kind == "none":
        return None
    sizes = torch.bincount(labels, minlength=classes)
    return (len(labels) / (classes * sizes)).float()


def mean_loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean cross-entropy of logits (n, classes) and labels (n,) as a scalar.

    The loss of each image is multiplied by the weight of its class, from `weights` (classes,), if given. The sum is divided
    by n, not by the sum of the weights in the batch, so that a batch with more images of rare classes counts more.
    """
    if weights is None:
        return cross_entropy(logits, labels)
    return cross_entropy(logits, labels, weights, reduction="sum") / len(labels)
