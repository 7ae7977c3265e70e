"""Augmentation against loops over single images that are obviously right."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rapdarts.training.augment import DRAWS, Augment, cutout, normalise, random_crop, random_flip
from rapdarts.training.randomness import uniform


def pictures(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)


def draws(batch: int, count: int, seed: int = 0) -> Tensor:
    return uniform(seed, "test", 0, torch.arange(batch), count)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99)
)
def test_crop_is_a_window_of_the_padded_image(b: int, c: int, h: int, w: int, padding: int, seed: int) -> None:
    images, numbers = pictures(b, c, h, w, seed), draws(b, 2, seed)
    result = random_crop(images, padding, numbers)
    for i in range(b):
        border = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=torch.uint8)
        border[:, padding : padding + h, padding : padding + w] = images[i]
        top, left = (math.floor(float(u) * (2 * padding + 1)) for u in numbers[i])
        assert torch.equal(result[i], border[:, top : top + h, left : left + w])
    assert result.dtype == torch.uint8


def test_every_window_of_the_crop_occurs_and_none_beyond() -> None:
    image = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    image[:, :, 2, 2] = 1  # where this pixel lands tells the window
    result = random_crop(image, 2, draws(2000, 2))
    counts = result.sum(dim=(0, 1))
    assert int(counts.sum()) == 2000
    assert (counts > 40).all(), "25 windows share 2,000 draws, 80 each"
    largest = torch.full((1, 2), 1 - 2.0**-24)
    for padding in range(1, 300):
        assert int((largest * (2 * padding + 1)).long().max()) == 2 * padding


def test_flip_exchanges_left_and_right_of_half_the_images() -> None:
    images, numbers = pictures(400, 2, 3, 4), draws(400, 1)[:, 0]
    result = random_flip(images, numbers)
    for image, number, flipped in zip(images, numbers, result, strict=True):
        expected = torch.stack([image[:, :, 3 - x] for x in range(4)], dim=2) if number < 0.5 else image
        assert torch.equal(flipped, expected)
    assert 150 < int((numbers < 0.5).sum()) < 250


def test_normalise_is_channel_by_channel() -> None:
    images = pictures(2, 3, 4, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    result = normalise(images, mean, std)
    assert result.dtype == torch.float32
    for c in range(3):
        torch.testing.assert_close(result[:, c], (images[:, c].float() / 255 - mean[c]) / std[c])


@pytest.mark.parametrize("side", [1, 2, 5, 8, 16, 40])
def test_cutout_is_that_of_darts(side: int) -> None:
    images = torch.ones(200, 2, 8, 11)
    numbers = draws(200, 2)
    result = cutout(images, side, numbers)
    for i in range(200):
        y, x = math.floor(float(numbers[i, 0]) * 8), math.floor(float(numbers[i, 1]) * 11)
        mask = torch.ones(8, 11)
        y1, y2 = min(max(y - side // 2, 0), 8), min(max(y + side // 2, 0), 8)
        x1, x2 = min(max(x - side // 2, 0), 11), min(max(x + side // 2, 0), 11)
        mask[y1:y2, x1:x2] = 0
        assert torch.equal(result[i], images[i] * mask)
    assert images.min() == 1, "the argument must stay as it was"


def test_without_draws_only_normalised() -> None:
    images = pictures(3, 3, 8, 8)
    augment = Augment((0.5,) * 3, (0.25,) * 3, crop=4, flip=True, cutout=4)
    assert torch.equal(augment(images, None), normalise(images, augment.mean, augment.std))


def test_order_of_the_steps() -> None:
    """Black borders are black before normalisation; the cut square is zero after it."""
    images = torch.full((300, 1, 6, 6), 255, dtype=torch.uint8)
    numbers = draws(300, DRAWS)
    border = Augment((0.5,), (0.25,), crop=2)(images, numbers)
    assert sorted(border.unique().tolist()) == [-2.0, 2.0]
    cut = Augment((0.5,), (0.25,), cutout=2)(images, numbers)
    assert sorted(cut.unique().tolist()) == [0.0, 2.0]
    everything = Augment((0.5,), (0.25,), crop=2, flip=True, cutout=2)(images, numbers)
    expected = random_flip(random_crop(images, 2, numbers[:, :2]), numbers[:, 2])
    assert torch.equal(everything, cutout(normalise(expected, (0.5,), (0.25,)), 2, numbers[:, 3:5]))


def test_batch_and_single_images_agree() -> None:
    images, numbers = pictures(6, 3, 8, 8), draws(6, DRAWS)
    augment = Augment((0.5,) * 3, (0.25,) * 3, crop=4, flip=True, cutout=4)
    alone = torch.cat([augment(images[i : i + 1], numbers[i : i + 1]) for i in range(6)])
    assert torch.equal(augment(images, numbers), alone)
