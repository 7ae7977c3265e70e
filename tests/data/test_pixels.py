"""Scale and layout of arrays: values read, errors and remarks, for every way of passing images."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rapdarts.config.experiment import DataConfig
from rapdarts.data.dataset import load_dataset
from rapdarts.data.images import InMemory
from rapdarts.data.in_memory import read_in_memory
from rapdarts.data.pixels import Form, layout_of, range_of
from rapdarts.data.readers import read_images
from rapdarts.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 8, 8))
LABELS = np.arange(12) % 3


def read(pixels: np.ndarray[Any, Any], **knobs: Any) -> torch.Tensor:
    """Return images as a program's arrays are read."""
    return read_in_memory(DataConfig(**knobs), (pixels, LABELS[: len(pixels)])).train.pixels


# --- scale -------------------------------------------------------------------------------------------------------

READ = {
    "bytes": (GREY.astype(np.uint8), GREY),
    "integers": (GREY.astype(np.int64), GREY),
    "whole floats": (GREY.astype(np.float32), GREY),
    "fractions": ((GREY / 255).astype(np.float32), GREY),
    "fractions of half precision": ((GREY / 255).astype(np.float16), GREY),
    "one fraction above all": (np.full((12, 8, 8), 0.3), np.full((12, 8, 8), 76)),
    "dark bytes": (GREY.astype(np.uint8) // 64, GREY // 64),
    "black": (np.zeros((12, 8, 8), np.uint8), np.zeros((12, 8, 8))),
}


@pytest.mark.parametrize("case", READ)
def test_pixels_are_scaled_by_their_values(case: str) -> None:
    pixels, expected = READ[case]
    assert (read(pixels)[:, 0].numpy() == expected).all()


REFUSED = {
    "bits as bytes": (
        GREY.astype(np.uint8) % 2,
        "the pixels are only 0 and 1, which may be .* set data.range=0,1 or data.range=0,255",
    ),
    "booleans": (GREY > 99, "the pixels are only 0 and 1"),
    "just above 1": (GREY / 255 * 1.001, "pixels are fractions from 0 to 1.001, neither .* data.range=LOW,HIGH"),
    "interpolated": (GREY / 255 * 1.2 - 0.1, "pixels are fractions from -0.1 to 1.1, neither"),
    "normalised": ((GREY / 255 - 0.5) / 0.25, "pixels are fractions from -2 to 2, neither"),
    "bytes with fractions": (GREY + 0.0 + (GREY == 7) / 2, "pixels are fractions from 0 to 255, neither"),
    "12 bits": (GREY.astype(np.uint16) * 16, "pixels are whole numbers from 0 to 4080, neither"),
    "negative": (GREY - 128, "pixels are whole numbers from -128 to 127, neither"),
    "missing": (np.where(GREY == 7, np.nan, GREY / 255), "NaN or infinite values?; repair them"),
    "infinite": (np.where(GREY == 7, np.inf, GREY / 255), "NaN or infinite value"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pixels_of_unclear_scale_are_refused_with_the_key_that_says_it(case: str) -> None:
    pixels, words = REFUSED[case]
    with pytest.raises(InputError, match=words):
        read(pixels)


RANGED = {
    "bits": (GREY % 2, [0, 1], (GREY % 2) * 255),
    "booleans": (GREY > 99, [0, 1], (GREY > 99) * 255),
    "12 bits": (GREY * 16, [0, 4080], GREY),
    "signed": (GREY - 128, [-128, 127], GREY),
    "clipped": (GREY / 255 * 1.21 - 0.113, [0, 1], np.rint(np.clip(GREY * 1.21 - 28.815, 0, 255))),
    "a wider range": (GREY, [0, 510], np.rint(GREY / 2)),
}


@pytest.mark.parametrize("case", RANGED)
def test_a_range_scales_linearly_and_clips(case: str) -> None:
    pixels, low_high, expected = RANGED[case]
    assert (read(pixels, range=low_high)[:, 0].numpy() == expected).all()


def test_losses_are_counted_and_said() -> None:
    pixels = np.linspace(-0.1, 1.1, 12 * 64).reshape(12, 8, 8)
    outside = int(((pixels < 0) | (pixels > 1)).sum())
    found = read_in_memory(DataConfig(range=[0, 1]), (pixels, LABELS))
    share = f"{100 * outside / pixels.size:.3f}"
    assert found.remarks == (
        f"pixel values outside data.range=0,1 were clipped: {outside:,} ({share} % of all)",
        "pixel values were rounded to 256 levels",
    )
    assert read_in_memory(DataConfig(), (GREY / 255, LABELS)).remarks == ()
    assert read_in_memory(DataConfig(), (RNG.random((12, 8, 8)), LABELS)).remarks == (
        "pixel values were rounded to 256 levels",
    )


def test_test_images_are_scaled_like_the_training_images() -> None:
    def test_half(train: Any, test: Any) -> np.ndarray[Any, Any]:
        held_out = read_in_memory(DataConfig(), (train, LABELS), (test, LABELS)).test
        assert held_out is not None
        return held_out.pixels[:, 0].numpy()

    dark = GREY // 255
    assert (test_half(GREY / 255, dark.astype(np.uint8)) == dark * 255).all()
    assert (test_half(GREY, GREY / 2 // 1) == GREY // 2).all()
    with pytest.raises(InputError) as caught:
        test_half(GREY / 255, GREY)
    assert str(caught.value) == (
        "test, images: pixels are from 0 to 255, but those of the training images are 0 to 1; store both on one scale, or"
        " set data.range=LOW,HIGH to the values of black and white in both."
    )
    with pytest.raises(
        InputError,
        match=r"test, images: pixels are fractions from 0 to 127\.5, but those of the training images are whole numbers from 0",
    ):
        test_half(GREY, GREY / 2)


# --- layout ------------------------------------------------------------------------------------------------------

LAYOUTS = {
    (24, 24, 10): "channels_last",
    (7, 7, 60): "channels_last",
    (11, 40, 40): "channels_first",
    (3, 32, 32): "channels_first",
    (32, 32, 3): "channels_last",
    (1, 5, 5): "channels_first",
    (3, 32, 48): "channels_first",
    (48, 32, 3): "channels_last",
    (48, 3, 4): "channels_last",
    (4, 20, 17): "channels_first",
    (6, 18, 4): "",
    (3, 20, 3): "",
    (12, 32, 48): "",
    (8, 8, 8): "",
    (3, 4, 4): "",
    (3, 8, 16): "",
    (2, 32, 48): "",
    (24, 10, 24): "",
}


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_layouts(shape: tuple[int, int, int]) -> None:
    pixels, known = RNG.integers(0, 256, (6, *shape)), LAYOUTS[shape]
    assert layout_of((6, *shape)) == known
    first = pixels if known == "channels_first" else pixels.transpose(0, 3, 1, 2)
    if known:
        assert (read(pixels).numpy() == first).all()
    else:
        with pytest.raises(
            InputError, match=r"could be the first or the last axis; set data\.layout=channels_first or "
        ):
            read(pixels)
    assert (read(pixels, layout="channels_first").numpy() == pixels).all()
    assert (read(pixels, layout="channels_last").numpy() == pixels.transpose(0, 3, 1, 2)).all()


def test_the_layout_of_the_training_images_applies_to_the_test_images() -> None:
    """A shape that shows another layout is rejected; a shape that shows none is read like the training images."""
    first = RNG.integers(0, 256, (12, 3, 8, 8))
    last = first.transpose(0, 2, 3, 1)
    for train, test, words in (
        (
            first,
            last,
            r"test, images: the channels of images \(8, 8, 3\) are the last axis, but .* are the first axis; store both",
        ),
        (
            last,
            first,
            r"test, images: the channels of images \(3, 8, 8\) are the first axis, but .* are the last axis; store both",
        ),
    ):
        with pytest.raises(InputError, match=words):
            read_in_memory(DataConfig(), (train, LABELS), (test, LABELS))
    for train, test in ((first, RNG.integers(0, 256, (12, 3, 8, 16))), (last, RNG.integers(0, 256, (12, 16, 8, 3)))):
        found = read_in_memory(DataConfig(), (train, LABELS), (test, LABELS)).test
        assert found is not None and found.pixels.shape[1] == 3


def test_grey_test_images_may_have_an_axis_of_channels() -> None:
    grey = RNG.integers(0, 256, (12, 8, 8))
    for train, test in ((grey, grey[:, None]), (grey, grey[..., None]), (grey[..., None], grey), (grey[:, None], grey)):
        found = read_in_memory(DataConfig(), (train, LABELS), (test, LABELS))
        assert found.test is not None
        assert torch.equal(found.train.pixels, found.test.pixels)


# --- every way in ------------------------------------------------------------------------------------------------


IDX_TYPES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def write_idx(folder: Path, half: str, pixels: np.ndarray[Any, Any]) -> None:
    def idx(array: np.ndarray[Any, Any]) -> bytes:
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, IDX_TYPES[str(array.dtype)], array.ndim, *array.shape)
        return head + array.astype(array.dtype.newbyteorder(">")).tobytes()

    (folder / f"{half}-images-idx3-ubyte").write_bytes(idx(pixels))
    (folder / f"{half}-labels-idx1-ubyte").write_bytes(idx(LABELS[: len(pixels)].astype(np.uint8)))


def as_idx(folder: Path, pixels: np.ndarray[Any, Any], config: dict[str, Any]) -> Found:
    for half in ("train", "t10k"):
        write_idx(folder, half, pixels)
    found = read_images(DataConfig("mnist", str(folder), **config))
    assert isinstance(found.train, InMemory)
    return found.train.pixels, found.remarks


WAYS = ("npz", "folder", "pictures", "arrays", "idx")
KEEPS = {
    "npz": {"bool", "uint8", "int8", "uint16", "int32", "float16", "float32", "float64"},
    "arrays": {"bool", "uint8", "int8", "uint16", "int32", "float16", "float32", "float64"},
    "idx": {"uint8", "int8", "int32", "float32", "float64"},
    "folder": {"uint8", "uint16", "int32", "float32"},
    "pictures": {"uint8", "uint16", "int32", "float32"},
}
"""Types that each way can carry."""

DEEP = {
    "12 bits": (GREY.astype(np.uint16) * 16, [0, 4080]),
    "16 bits": (GREY.astype(np.uint16) * 257, [0, 65535]),
    "32 bits": (GREY.astype(np.int32) * 257, [0, 65535]),
    "floats": ((GREY / 255).astype(np.float32), None),
    "floats of another range": ((GREY / 100).astype(np.float32), [0, 2.55]),
}


FRACTIONS, BITS = (GREY / 255).astype(np.float32), GREY % 2
BYTES, WHOLE = GREY.astype(np.uint8), GREY.astype(np.float32)
LITTLE = np.nextafter(np.float32(1), np.float32(2))
ON_0_TO_1, ON_0_TO_255 = "are 0 to 1; ", "are 0 to 255; "
HALVES: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Any]] = {
    "bytes and fractions": (BYTES, FRACTIONS, "from 0 to 1, but .* " + ON_0_TO_255),
    "bytes and floats of 0 and 1": (BYTES, BITS.astype(np.float32), "from 0 to 1, but .* " + ON_0_TO_255),
    "bytes and bytes of 0 and 1": (BYTES, BITS.astype(np.uint8), "from 0 to 1, but .* " + ON_0_TO_255),
    "bytes and booleans": (BYTES, BITS.astype(bool), "from 0 to 1, but .* " + ON_0_TO_255),
    "bytes and dark fractions": (BYTES, FRACTIONS / 16, "from 0 to 0.0625, but .* " + ON_0_TO_255),
    "whole floats and fractions": (WHOLE, FRACTIONS, "from 0 to 1, but .* " + ON_0_TO_255),
    "fractions and bytes": (FRACTIONS, BYTES, "from 0 to 255, but .* " + ON_0_TO_1),
    "fractions and whole floats": (FRACTIONS, WHOLE, "from 0 to 255, but .* " + ON_0_TO_1),
    "fractions and dark bytes": (FRACTIONS, BYTES // 64, "from 0 to 3, but .* " + ON_0_TO_1),
    "fractions and a little more": (FRACTIONS, FRACTIONS * LITTLE, r"from 0 to 1\.0000001, but .* " + ON_0_TO_1),
    "bytes and darker bytes": (BYTES, BYTES // 100, GREY // 100),
    "bytes and black bytes": (BYTES, BYTES * 0, GREY * 0),
    "bytes and black floats": (BYTES, WHOLE * 0, GREY * 0),
    "bytes and bytes of 0 and 255": (BYTES, BITS.astype(np.uint8) * 255, BITS * 255),
    "bytes and darker whole floats": (BYTES, np.minimum(WHOLE, 200), np.minimum(GREY, 200)),
    "fractions and darker fractions": (FRACTIONS, BITS.astype(np.float32) / 5, BITS * 51),
    "fractions and black fractions": (FRACTIONS, FRACTIONS * 0, GREY * 0),
}
"""Training images, test images, and the test images as they are read or the words of the refusal."""


def write_pictures(folder: Path, pixels: np.ndarray[Any, Any]) -> None:
    for number, one in enumerate(pixels):
        file = folder / "abc"[LABELS[number]] / f"{number:02}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(file)


Found = tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]
"""Training images, test images, and the remarks on them."""


def two_halves(way: str, folder: Path, train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], **knobs: Any) -> Found:
    """Return images that are given in one of the WAYS (one channel of the images in a folder) as they are read."""
    config, labels = (
        DataConfig("npz", str(folder / "data.npz"), **knobs),
        [LABELS[: len(half)] for half in (train, test)],
    )
    if way == "npz":
        np.savez(folder / "data.npz", x_train=train, y_train=labels[0], x_test=test, y_test=labels[1])
    elif way == "npz with a mask":
        both, mask = np.concatenate([train, test]), np.repeat([0, 1], [len(train), len(test)])
        np.savez(folder / "data.npz", x=both, y=np.concatenate(labels), test=mask)
    elif way == "idx":
        config = DataConfig("mnist", str(folder), **knobs)
        write_idx(folder, "train", train)
        write_idx(folder, "t10k", test)
    elif way == "folder":
        write_pictures(folder / "train", train)
        write_pictures(folder / "test", test)
        found = load_dataset(DataConfig("folder", str(folder), **knobs), torch.device("cpu"), 0)
        orders = [
            torch.from_numpy(np.argsort(np.argsort(half, kind="stable"))) for half in labels
        ]  # files lie by class
        read_train, read_test = (
            half.fetch(order)[:, :1] for half, order in zip((found.train, found.test), orders, strict=True)
        )
        return read_train, read_test, tuple(remark for remark in found.remarks if "read as RGB" not in remark)
    if way in ("npz", "npz with a mask", "idx"):
        images = read_images(config)
    else:
        given = [
            [(Image.fromarray(one), int(label)) for one, label in zip(half, own, strict=True)]
            if way == "pictures"
            else (half, own)
            for half, own in zip((train, test), labels, strict=True)
        ]
        images = read_in_memory(DataConfig(**knobs), *given)
    assert isinstance(images.train, InMemory) and isinstance(images.test, InMemory)
    return images.train.pixels, images.test.pixels, images.remarks


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", DEEP)
def test_deep_pictures_are_read_alike(way: str, case: str, tmp_path: Path) -> None:
    pixels, low_high = DEEP[case]
    if way == "idx" and pixels.dtype == np.uint16:
        pixels = pixels.astype(np.int32)
    mirrored = pixels[:, :, ::-1].copy()
    if low_high:
        with pytest.raises(InputError, match=r"data\.range=LOW,HIGH"):
            two_halves(way, tmp_path, pixels, mirrored)
    train, test, _ = two_halves(way, tmp_path, pixels, mirrored, **({"range": low_high} if low_high else {}))
    assert (train[:, 0].numpy() == GREY).all()
    assert (test[:, 0].numpy() == GREY[:, :, ::-1]).all()


@pytest.mark.parametrize("way", [*WAYS, "npz with a mask"])
@pytest.mark.parametrize("case", HALVES)
def test_test_images_on_another_scale_than_the_training_images_are_refused(way: str, case: str, tmp_path: Path) -> None:
    train, test, expected = HALVES[case]
    mixed = train.dtype != test.dtype
    if str(test.dtype) not in KEEPS.get(way, {str(train.dtype)}) or (way == "folder" and mixed):
        return  # images of 8 bits state their own scale, so a folder that also has deeper ones has no common scale
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected + "store both on one scale, .* data.range=LOW,HIGH"):
            two_halves(way, tmp_path, train, test)
    else:
        assert (two_halves(way, tmp_path, train, test)[1][:, 0].numpy() == expected).all()


def layout_by_rule(shape: tuple[int, ...]) -> str:
    """Return the layout of images (h, w), (h, w, c) or (c, h, w) by the documented rule, "" if it leaves two or none."""
    if len(shape) == 2:
        return "channels_first"
    first, middle, last = shape
    found = {
        "channels_first": middle == last > 4 or (first in (1, 3, 4) and last > 16),
        "channels_last": first == middle > 4 or (last in (1, 3, 4) and first > 16),
    }
    return "".join(layout for layout in found if found[layout]) if sum(found.values()) == 1 else ""


def scale_by_rule(pixels: np.ndarray[Any, Any]) -> int:
    """Return the factor of training images, 1 or 255, by the documented rule, or 0 if they are ambiguous or out of range."""
    values, is_float = np.unique(pixels.astype(np.float64)), pixels.dtype.kind == "f"
    if is_float and all(0 <= value <= 1 for value in values):
        return 255
    if not all(0 <= value <= 255 and value.is_integer() for value in values):
        return 0
    return 0 if set(values) in ({0, 1}, {1}) else 1


def fits_by_rule(pixels: np.ndarray[Any, Any], scale: int) -> bool:
    """Return whether test images can be on the scale of the training images: black, or read alike on their own."""
    return not pixels.any() or scale_by_rule(pixels) == scale


SIDES = st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 20])
SHAPES = st.one_of(
    st.tuples(SIDES, SIDES),
    st.tuples(SIDES, SIDES, SIDES),
    st.builds(lambda side, channels: (side, side, channels), SIDES, SIDES),
    st.builds(lambda side, channels: (channels, side, side), SIDES, SIDES),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    data=st.data(),
    extents=st.lists(
        st.sampled_from([(0, 1), (0, 255), (0, 4095), (-1, 1), (0, 1.01), (0, 100), (5, 9), (0, 0.4)]),
        min_size=1,
        max_size=2,
    ),
    whole=st.booleans(),
    seed=st.integers(0, 2**31),
)
@pytest.mark.parametrize("way", WAYS)
def test_images_are_read_by_the_documented_rule(
    way: str,
    data: st.DataObject,
    extents: list[tuple[float, float]],
    whole: bool,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Both halves are read as the rule says, or refused if it does not read them; a loss of half the levels is reported."""
    dtype = data.draw(st.sampled_from(sorted(KEEPS[way])))
    shape = data.draw(st.tuples(SIDES, SIDES) if way in ("folder", "pictures") else SHAPES)
    rng = np.random.default_rng(seed)
    halves = []
    for extent, count in ((extents[0], 5), (extents[-1], 4)):
        values = rng.uniform(*extent, (count, *shape))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # casts of negative values
            halves.append((np.rint(values) if whole else values).astype(dtype))
    train, test = halves
    layout, scale = layout_by_rule(shape), scale_by_rule(train)
    readable = layout and scale and fits_by_rule(test, scale)
    if not readable:
        with pytest.raises(InputError, match=r"data\.range=" if layout else r"data\.layout="):
            two_halves(way, tmp_path_factory.mktemp("data"), train, test)
        return
    *read_halves, said = two_halves(way, tmp_path_factory.mktemp("data"), train, test)
    for pixels, found in zip(halves, read_halves, strict=True):
        stacked = pixels[:, None] if len(shape) == 2 else pixels
        ordered = stacked if layout == "channels_first" else stacked.transpose(0, 3, 1, 2)
        assert found.shape == ordered.shape
        assert np.abs(found.numpy() - scale * ordered.astype(np.float64)).max() <= 0.5 + 1e-9
        assert 2 * len(np.unique(found)) >= len(np.unique(pixels)) or any(
            "rounded to 256 levels" in line for line in said
        )


def test_the_rule_is_the_same_in_all_functions() -> None:
    form = Form.of(GREY / 255, DataConfig(), "x")
    assert (form.range, form.layout) == (range_of(GREY / 255, (), "x"), "")
