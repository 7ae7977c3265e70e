"""Augmentation, compared with straightforward loops over single images."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rapdarts.data.augment import (
    DRAWS,
    Augment,
    colour_jitter,
    cutout,
    normalise,
    random_crop,
    random_flip,
    random_zoom,
)
from rapdarts.data.randomness import uniform_draws


def pixels(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)


def draws(batch: int, count: int, seed: int = 0) -> Tensor:
    return uniform_draws(seed, "test", 0, torch.arange(batch), count)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99)
)
def test_crop_is_a_window_of_the_padded_image(b: int, c: int, h: int, w: int, padding: int, seed: int) -> None:
    images, numbers = pixels(b, c, h, w, seed), draws(b, 2, seed)
    result = random_crop(images, padding, numbers)
    for i in range(b):
        border = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=torch.uint8)
        border[:, padding : padding + h, padding : padding + w] = images[i]
        top, left = (math.floor(float(u) * (2 * padding + 1)) for u in numbers[i])
        assert torch.equal(result[i], border[:, top : top + h, left : left + w])
    assert result.dtype == torch.uint8


def test_all_crop_windows_occur_and_none_is_out_of_range() -> None:
    image = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    image[:, :, 2, 2] = 1  # the new position of this pixel identifies the window
    result = random_crop(image, 2, draws(2000, 2))
    counts = result.sum(dim=(0, 1))
    assert int(counts.sum()) == 2000
    assert (counts > 40).all(), "25 windows share 2,000 draws, about 80 each"
    largest = torch.full((1, 2), 1 - 2.0**-24)
    for padding in range(1, 300):
        assert int((largest * (2 * padding + 1)).long().max()) == 2 * padding


def test_flip_mirrors_half_the_images() -> None:
    images, numbers = pixels(400, 2, 3, 4), draws(400, 1)[:, 0]
    result = random_flip(images, numbers)
    for image, number, flipped in zip(images, numbers, result, strict=True):
        expected = torch.stack([image[:, :, 3 - x] for x in range(4)], dim=2) if number < 0.5 else image
        assert torch.equal(flipped, expected)
    assert 150 < int((numbers < 0.5).sum()) < 250


def test_normalise_uses_each_channels_statistics() -> None:
    images = pixels(2, 3, 4, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    result = normalise(images, mean, std)
    assert result.dtype == torch.float32
    for c in range(3):
        torch.testing.assert_close(result[:, c], (images[:, c].float() / 255 - mean[c]) / std[c])


@pytest.mark.parametrize("side", [1, 2, 5, 8, 16, 40])
def test_cutout_matches_darts(side: int) -> None:
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
    assert images.min() == 1, "the argument must not be modified"


def test_without_draws_images_are_only_normalised() -> None:
    images = pixels(3, 3, 8, 8)
    augment = Augment((0.5,) * 3, (0.25,) * 3, crop=4, flip=True, cutout=4)
    assert torch.equal(augment(images, None), normalise(images, augment.mean, augment.std))


def test_images_are_padded_before_normalisation_and_cut_out_after_it() -> None:
    """Borders are black before normalisation, and the square of the cutout is zero after it."""
    images = torch.full((300, 1, 6, 6), 255, dtype=torch.uint8)
    numbers = draws(300, DRAWS)
    border = Augment((0.5,), (0.25,), crop=2)(images, numbers)
    assert sorted(border.unique().tolist()) == [-2.0, 2.0]
    cut = Augment((0.5,), (0.25,), cutout=2)(images, numbers)
    assert sorted(cut.unique().tolist()) == [0.0, 2.0]
    everything = Augment((0.5,), (0.25,), crop=2, flip=True, cutout=2)(images, numbers)
    expected = random_flip(random_crop(images, 2, numbers[:, :2]), numbers[:, 2])
    assert torch.equal(everything, cutout(normalise(expected, (0.5,), (0.25,)), 2, numbers[:, 3:5]))


def test_batches_and_single_images_agree() -> None:
    images, numbers = pixels(6, 3, 8, 8), draws(6, DRAWS)
    augment = Augment((0.5,) * 3, (0.25,) * 3, crop=4, flip=True, cutout=4)
    alone = torch.cat([augment(images[i : i + 1], numbers[i : i + 1]) for i in range(6)])
    assert torch.equal(augment(images, numbers), alone)


# --- colours and zoom --------------------------------------------------------------------------------------------

HALF = 0.5
"""A draw that leaves colours and shapes unchanged."""


def coloured(n: int = 4) -> Tensor:
    """Return images in 0..1 that stay in that range in the tests below."""
    return 0.4 + 0.2 * torch.rand(n, 3, 6, 5, generator=torch.Generator().manual_seed(3))


def changed(which: int, draw: float, strength: float = 0.3) -> Tensor:
    numbers = torch.full((4, 4), HALF)
    numbers[:, which] = draw
    return colour_jitter(coloured(), strength, numbers)


def luma(images: Tensor) -> Tensor:
    return 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]


def test_draws_in_the_middle_change_no_colour() -> None:
    torch.testing.assert_close(changed(0, HALF), coloured(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("draw", [0.0, 0.25, 1 - 2.0**-24])
def test_each_colour_change_matches_its_formula(draw: float) -> None:
    images, factor = coloured(), 1 + 0.3 * (2 * draw - 1)
    grey = luma(images)
    mean = grey.mean((1, 2))[:, None, None, None]
    torch.testing.assert_close(changed(0, draw), images * factor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(changed(1, draw), mean + factor * (images - mean), rtol=1e-4, atol=1e-5)
    saturated = grey[:, None] + factor * (images - grey[:, None])
    torch.testing.assert_close(changed(2, draw), saturated, rtol=1e-4, atol=1e-5)
    turned = changed(3, draw)
    torch.testing.assert_close(luma(turned), grey, rtol=1e-3, atol=1e-3)
    assert (turned - images).abs().amax((1, 2, 3)).min() > 0.01


def test_the_hue_wraps_around() -> None:
    """A strength of 1 rotates the hue by up to half a turn; both extremes give the opposite colours."""
    one, other = changed(3, 0.0, 1.0), changed(3, 1 - 2.0**-24, 1.0)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    chroma = coloured() - luma(coloured())[:, None]
    torch.testing.assert_close(one, luma(coloured())[:, None] - chroma, rtol=1e-2, atol=1e-2)


def test_grey_stays_grey_and_single_channel_images_have_no_hue() -> None:
    numbers = draws(4, 4)
    grey = coloured()[:, :1].expand(4, 3, 6, 5)
    jittered = colour_jitter(grey, 0.4, numbers)
    torch.testing.assert_close(jittered, jittered[:, :1].expand_as(jittered), rtol=1e-3, atol=1e-3)
    alone = colour_jitter(coloured()[:, :1], 0.4, numbers)
    torch.testing.assert_close(alone, jittered[:, :1], rtol=1e-3, atol=1e-3)


def test_jittered_colours_stay_in_range() -> None:
    jittered = colour_jitter(torch.rand(200, 3, 4, 4), 1.0, draws(200, 4))
    assert jittered.min() >= 0 and jittered.max() <= 1


def test_a_zoom_onto_the_whole_image_is_the_identity() -> None:
    images = pixels(3, 3, 7, 5)
    whole = torch.tensor([1 - 2.0**-24, HALF, 0.3, 0.9]).expand(3, 4)
    torch.testing.assert_close(random_zoom(images, 0.08, whole), images.float(), rtol=1e-3, atol=1e-2)


def test_a_zoom_crops_the_window_of_its_draws() -> None:
    """The windows have a quarter of the image's area and the same shape: the top-left and bottom-right 4 x 4 of 8 x 8 pixels."""
    ramp = torch.arange(64.0).view(1, 1, 8, 8).repeat(2, 1, 1, 1)
    corners = torch.tensor([[0.0, HALF, 0.0, 0.0], [0.0, HALF, 1 - 2.0**-24, 1 - 2.0**-24]])
    top, bottom = random_zoom(ramp, 0.25, corners)
    assert top.min() == 0 and top.max() == 3.25 * 8 + 3.25  # rows and columns 0 to 3, and a quarter of the next
    assert bottom.max() == 63 and bottom.min() == 3.75 * 8 + 3.75
    assert top.unique().numel() > 16  # interpolated


def test_areas_and_shapes_of_zooms_are_in_range() -> None:
    """The images contain their own coordinates, so that their windows can be measured."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 65), torch.linspace(0, 1, 65), indexing="ij")
    images = torch.stack([rows, columns])[None].repeat(500, 1, 1, 1)
    numbers = draws(500, 4)
    windows = random_zoom(images, 0.08, numbers)
    height, width = (windows[:, i].amax((1, 2)) - windows[:, i].amin((1, 2)) for i in (0, 1))
    area, shape = height * width, width / height
    expected = (0.08 + 0.92 * numbers[:, 0]).clamp(max=1)
    inside = (height < 0.95) & (width < 0.95)
    assert (area - expected)[inside].abs().max() < 0.05
    assert shape[inside].min() > 0.7 and shape[inside].max() < 1.4
    assert shape[inside].min() < 0.8 and shape[inside].max() > 1.25


def test_zoom_and_jitter_use_more_draws() -> None:
    plain, jittered, zoomed = (
        Augment((0.5,) * 3, (0.25,) * 3, **more) for more in ({}, {"jitter": 0.4}, {"smallest_crop": 0.5})
    )
    assert (plain.draws, jittered.draws, zoomed.draws) == (DRAWS, DRAWS + 8, DRAWS + 8)
    images, numbers = pixels(6, 3, 8, 8), draws(6, DRAWS + 8)
    for augment in (jittered, zoomed):
        result = augment(images, numbers)
        assert result.shape == images.shape
        assert (result - plain(images, numbers)).abs().amax((1, 2, 3)).min() > 0.01
        alone = torch.cat([augment(images[i : i + 1], numbers[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(result, alone, rtol=1e-5, atol=1e-5)
