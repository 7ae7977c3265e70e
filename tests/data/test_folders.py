"""Folders of images: splits of all names, files that stay unused, upright and opaque images, and the remarks on them."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from rapdarts.config.experiment import DataConfig
from rapdarts.data import dataset, foreign
from rapdarts.data.dataset import DataSet, load_dataset
from rapdarts.data.in_memory import read_in_memory
from rapdarts.data.pictures import ORIENTATION, Pictures, pixels_of
from rapdarts.data.readers import read_images
from rapdarts.errors import InputError

CLASSES = ("ant", "bee")


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def draw(folder: Path, count: int, seed: int = 0, suffix: str = "png") -> None:
    """Save `count` images of 12 x 10 pixels for each class."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture = Image.fromarray(noise(10, 12, 3, seed=seed + 100 * label + number))
            picture.save(folder / name / f"{number}.{suffix}")


def load(folder: Path, **knobs: Any) -> DataSet:
    return load_dataset(DataConfig("folder", str(folder), **knobs), torch.device("cpu"), 0)


# --- which files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [".", "download"])
@pytest.mark.parametrize("train", ["train", "Train", "Training"])
@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation", "Test", "Testing", "VAL", "dev", "holdout"])
def test_every_usual_name_of_the_halves_is_read(train: str, held_out: str, inside: str, tmp_path: Path) -> None:
    draw(tmp_path / inside / train, 3)
    draw(tmp_path / inside / held_out, 2, seed=50)
    found = load(tmp_path)
    assert (len(found.train), len(found.test), found.class_names, found.remarks) == (6, 4, CLASSES, ())


def test_a_second_folder_of_a_half_is_not_used_and_said(tmp_path: Path) -> None:
    draw(tmp_path / "train", 3)
    draw(tmp_path / "test", 2, seed=50)
    draw(tmp_path / "val", 1, seed=70)
    draw(tmp_path / "Training", 1, seed=80)
    found = load(tmp_path)
    assert (len(found.train), len(found.test)) == (6, 4)
    assert found.remarks == ("Training/ (2 images) is not used", "val/ (2 images) is not used")


def test_a_test_folder_without_classes_is_not_used_and_said(tmp_path: Path) -> None:
    draw(tmp_path / "train", 6)
    (tmp_path / "test").mkdir()
    Image.fromarray(noise(10, 12, 3)).save(tmp_path / "test" / "0.png")
    found = load(tmp_path)
    assert (len(found.train), len(found.test)) == (8, 4)
    assert found.remarks == (
        "test/ (1 image) has no class folders and is not used",
        "no test images are marked, so a third of the images of each class is held out for testing",
    )


STRAY = {
    "beside the classes": (("train", "test"), ["train/a.png"], "1 image", "train/a.png"),
    "in both halves": (("train", "test"), ["train/b.png", "test/a.jpg", "train/a.PNG"], "3 images", "test/a.jpg"),
    "beside the halves": (("train", "test"), ["x.png", "unlabelled/7/x.png"], "2 images", "unlabelled/7/x.png"),
    "without a split": ((".",), ["x.png"], "1 image", "x.png"),
    "around a split": (("download/train",), ["x.png", "download/y.png"], "2 images", "download/y.png"),
    "elsewhere than val/": (("train", "test", "val"), ["val/x.png", "val/ant/deep/x.png", "y.png"], "1 image", "y.png"),
    "none: hidden, or not images": (("train", "test"), ["._x.png", ".cache/x.png", "__MACOSX/x.png", "x.txt"], "", ""),
}


@pytest.mark.parametrize("case", STRAY)
def test_images_outside_the_folders_of_classes_are_counted_and_not_read(case: str, tmp_path: Path) -> None:
    folders, strays, count, example = STRAY[case]
    for folder in folders:
        draw(tmp_path / folder, 3)
    for stray in strays:
        put(tmp_path / stray, (tmp_path / folders[0] / "ant" / "0.png").read_bytes())
    found = load(tmp_path)
    read = len(folders) if len(folders) < 3 else 2
    assert len(found.train) + len(found.test) == 6 * read
    lines = [remark for remark in found.remarks if "no test images are marked" not in remark]
    spare = ["val/ (8 images) is not used"] if "val" in folders else []
    said = f"not used: {count} outside the class folders, such as {example}"
    assert lines == spare + ([said] if count else [])


NESTED: dict[str, tuple[list[str], str]] = {
    "beside images": (["train/ant/deep/er/a.png"], "train: {}ant (deep/er)"),
    "two folders": (["train/cow/a/0.png", "train/cow/b/0.png"], "train: {}cow (a, b)"),
    "in the test half": (["test/bee/a/0.png", "test/bee/b/0.jpg"], "test: {}bee (a, b)"),
    "many": ([f"train/cow/{i}/0.png" for i in range(5)], "train: {}cow (0, 1, 2, and 2 others)"),
    "many classes": ([f"train/{name}/a/0.png" for name in CLASSES], "train: {}ant (a), bee (a)"),
    "none: one folder": (["train/cow/images/0.png", "train/cow/images/1.png"], ""),
    "none: without images": (["train/ant/notes/x.txt"], ""),
}


@pytest.mark.parametrize("case", NESTED)
def test_folders_inside_a_class_are_read_as_the_class_and_named(case: str, tmp_path: Path) -> None:
    nested, remark = NESTED[case]
    draw(tmp_path / "train", 2)
    draw(tmp_path / "test", 2)
    for file in nested:
        put(tmp_path / file, (tmp_path / "train" / "ant" / "0.png").read_bytes())
    found = load(tmp_path)
    assert len(found.train) + len(found.test) == 8 + sum(not file.endswith("txt") for file in nested)
    assert found.class_names == (("ant", "bee", "cow") if "cow" in nested[0] else CLASSES)
    said = [line for line in found.remarks if "folder" in line]
    assert said == ([remark.format("subfolders of a class folder are read as part of the class: ")] if remark else [])


def test_links_to_halves_are_followed_but_no_links_beside_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw(tmp_path / "elsewhere", 3)
    draw(data / "test", 3)
    put(tmp_path / "elsewhere" / "x.png")
    (data / "train").symlink_to(tmp_path / "elsewhere")
    (data / "loop").symlink_to(data)
    found = load(data)
    assert len(found.train) == 6
    assert found.remarks == ("not used: 1 image outside the class folders, such as train/x.png",)


@pytest.mark.parametrize("inside", [".", "download"])
def test_folders_of_classes_without_a_split_are_split_like_arrays(inside: str, tmp_path: Path) -> None:
    draw(tmp_path / "pets" / inside, 6)
    found = load(tmp_path / "pets")
    pixels = np.stack([noise(10, 12, 3, seed=100 * label + number) for label in (0, 1) for number in range(6)])
    np.savez(tmp_path / "pets.npz", x=pixels, y=np.repeat([0, 1], 6))
    arrays = load_dataset(DataConfig("npz", str(tmp_path / "pets.npz"), layout="channels_last"), torch.device("cpu"), 0)
    assert torch.equal(found.train.fetch(torch.arange(8)), arrays.train.fetch(torch.arange(8)))
    assert torch.equal(found.test.labels, arrays.test.labels)
    assert found.class_names == CLASSES
    assert found.lines == (
        "8 training and 4 test images, 3x10x12, 2 classes (4 training images each), from pets",
        "classes: ant, bee",
        "no test images are marked, so a third of the images of each class is held out for testing",
    )


def test_hidden_files_and_those_of_macos_are_skipped_and_others_are_counted(tmp_path: Path) -> None:
    draw(tmp_path / "train", 2)
    draw(tmp_path / "test", 2, seed=50)
    (tmp_path / "train" / "ant" / "._0.png").write_bytes(b"not an image")
    draw(tmp_path / "train" / "__MACOSX", 1)
    draw(tmp_path / "train" / ".cache", 1)
    for name in ("a.txt", "b.txt", "c.XML"):
        (tmp_path / "train" / "bee" / name).write_text("a note")
    (tmp_path / "test" / "bee" / "LICENSE").write_text("a note")
    found = load(tmp_path)
    assert (len(found.train), found.class_names) == (4, CLASSES)
    assert found.remarks == ("files that are not images are ignored: 2 .txt, 1 .xml, 1 without a suffix",)


def put(file: Path, content: bytes = b"\0") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


NOT_READ: dict[str, tuple[str, str, str]] = {
    "numpy": ("npz", "x.npy", "x.npy contains a single array; convert it for data.name=npz with numpy.savez('data.npz', x=numpy"),
    "numpy, as a folder": ("folder", "x.npy", "x.npy contains a single array"),
    "matlab": ("npz", "train_32x32.mat", "train_32x32.mat is a MATLAB file; .* m = scipy.io.loadmat('train_32x32.mat');"),
    "hdf5": ("npz", "a.h5", "a.h5 is an HDF5 file; .* f = h5py.File('a.h5');"),
    "parquet": ("npz", "0000.parquet", "0000.parquet is a Parquet file; pass its rows from Python: rapdarts.search"),
    "pickles of CIFAR": ("cifar10", "data_batch_1", "data_batch_1 belongs to the Python version of CIFAR, .* use the binary version"),
    "archive of pickles": ("cifar10", "cifar-10-python.tar.gz", "cifar-10-python.tar.gz belongs to the Python version of CIFAR"),
    "dots in MNIST": ("mnist", "train-images.idx3-ubyte", "rename it: mv train-images.idx3-ubyte train-images-idx3-ubyte"),
    "a table": ("npz", "train.csv", "train.csv is a table; .* numpy.loadtxt('train.csv', delimiter=',', skiprows=1);"),
    "a pickle": ("npz", "all.pkl", "all.pkl is a pickle file, which can run code and is never loaded; save its arrays with numpy.savez"),
}  # fmt: skip


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("case", NOT_READ)
def test_files_of_other_kinds_are_refused_with_the_line_that_converts_them(
    case: str, as_file: bool, tmp_path: Path
) -> None:
    name, file, words = NOT_READ[case]
    put(tmp_path / "data" / file)
    given = tmp_path / "data" / file if as_file else tmp_path / "data"
    with pytest.raises(InputError) as caught:
        load_dataset(DataConfig(name, str(given)), torch.device("cpu"), 0)
    message = str(caught.value)
    at = 0
    for part in words.split(" .* "):
        assert part in message[at:], message
        at = message.index(part)
    assert message.endswith(".") and "\n" not in message


def test_the_line_for_matlab_files_converts_those_of_svhn(tmp_path: Path) -> None:
    """SVHN stores images as (h, w, c, n) and the digit 0 as the label 10."""
    pixels = noise(10, 32, 32, 3)
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": pixels.transpose(1, 2, 3, 0), "y": np.arange(1, 11)[:, None]})
    line = foreign.advice(tmp_path).partition("SVHN with ")[2]
    subprocess.run([sys.executable, "-c", f"import numpy, scipy.io; {line}"], cwd=tmp_path, check=True)
    train = read_images(DataConfig("npz", str(tmp_path / "data.npz"))).train
    assert (train.fetch(torch.arange(10)).permute(0, 2, 3, 1).numpy() == pixels).all()
    assert train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "only a test half": (lambda f: draw(f / "test", 2), "contains test/ but no train/; it must contain train/CLASS/"),
    "no folders": (lambda f: put(f / "a.png"), "contains no folders of images; it must contain train/CLASS/ and"),
    "an empty train": (
        lambda f: (f / "train").mkdir(parents=True),
        "train contains no folders of images; it needs one",
    ),
    "halves of other names": (
        lambda f: [draw(f / half, 2) for half in ("seg_train", "seg_test")],
        r"seg_test contains no images, only folders of images \(ant, bee\), so it may be a class or a half of the data; name the",
    ),
    "a class of classes": (
        lambda f: [draw(f, 2), draw(f / "cow", 2)],
        r"cow contains no images, only folders of images",
    ),
    "an empty class": (lambda f: [draw(f, 2), (f / "cow").mkdir()], "cow contains no images \\(.bmp, .gif"),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_without_usable_images_are_refused(case: str, tmp_path: Path) -> None:
    make, words = BAD[case]
    make(tmp_path / "data")
    with pytest.raises(InputError, match=words):
        load(tmp_path / "data")


# --- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    upright = Image.fromarray(noise(10, 12, 3))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    draw(tmp_path / "train", 2)
    draw(tmp_path / "test", 2)
    stored.save(tmp_path / "train" / "ant" / "9.png", exif=exif)
    found = load(tmp_path).train.fetch(torch.tensor([2]))[0].permute(1, 2, 0).numpy()
    assert (found == np.asarray(upright)).all()
    with Image.open(tmp_path / "train" / "ant" / "9.png") as picture:
        assert (pixels_of(picture) == np.asarray(upright)).all()


def test_transparency_is_placed_on_white_and_every_change_is_said(tmp_path: Path) -> None:
    colour, grey = noise(10, 12, 3, seed=2), noise(10, 12, seed=1)
    alpha = noise(10, 12, seed=3)
    palette = Image.fromarray(colour).quantize(16)
    draw(tmp_path / "train", 2)
    draw(tmp_path / "test", 2)
    ant = tmp_path / "train" / "ant"
    Image.fromarray(np.dstack([colour, alpha]), "RGBA").save(ant / "p0.png")
    Image.fromarray(np.dstack([grey, alpha]), "LA").save(ant / "p1.png")
    palette.save(ant / "p2.png", transparency=3)
    palette.save(ant / "p3.png")
    Image.fromarray(grey).save(ant / "p4.png")
    Image.fromarray(colour).convert("CMYK").save(ant / "p5.tif")
    Image.fromarray(grey).convert("1").save(ant / "p6.png")
    Image.fromarray(colour).save(ant / "p7.gif", save_all=True, append_images=[Image.fromarray(255 - colour)])
    Image.fromarray(np.dstack([colour, np.full_like(alpha, 255)]), "RGBA").save(ant / "p8.png")  # opaque
    found = load(tmp_path)
    pixels = found.train.fetch(torch.arange(2, 10)).permute(0, 2, 3, 1).numpy().astype(int)
    share = alpha[..., None] / 255
    assert (abs(pixels[0] - (colour * share + 255 * (1 - share))) <= 1).all()
    assert (abs(pixels[1] - (grey[..., None] * share + 255 * (1 - share))) <= 1).all()
    hidden = np.asarray(palette) == 3
    plain = np.asarray(palette.convert("RGB"))
    assert (pixels[2][hidden] == 255).all()
    assert (pixels[2][~hidden] == plain[~hidden]).all()
    assert (pixels[3] == plain).all()
    assert (pixels[4] == grey[..., None]).all()
    assert (abs(pixels[5] - colour) <= 1).all()
    assert set(np.unique(pixels[6])) == {0, 255}
    assert (found.train.fetch(torch.tensor([10]))[0].permute(1, 2, 0).numpy() == colour).all()
    assert found.remarks == (
        "train: 3 grey images are read as RGB",
        "train: 3 images with a palette are read as RGB",
        "train: 3 transparent images are placed on white",
        "train: 1 animated image is reduced to the first frame",
        "train: 1 image in other colour systems is converted to RGB",
        "the classes are very unequal (ant: 11 images, bee: 2); "
        "set search.class_weights=balanced and retrain.class_weights=balanced to give them equal weight",
    )


def deep_png(values: np.ndarray[Any, Any]) -> bytes:
    """Return a PNG file of colours (h, w, 3) with 16 bits per value, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "ppm"])
def test_colours_of_16_bits_are_said_to_be_reduced(suffix: str, tmp_path: Path) -> None:
    draw(tmp_path / "train", 2)
    draw(tmp_path / "test", 2)
    deep = noise(10, 12, 3).astype(np.uint16) * 257
    content = deep_png(deep) if suffix == "png" else b"P6 12 10 65535\n" + deep.astype(">u2").tobytes()
    (tmp_path / "train" / "ant" / f"9.{suffix}").write_bytes(content)
    found = load(tmp_path)
    assert (found.train.fetch(torch.tensor([2]))[0].permute(1, 2, 0).numpy() == noise(10, 12, 3)).all()
    assert found.remarks == ("train: 1 colour image with 16 bits per value is reduced to 8 bits",)


def test_deep_test_pictures_follow_the_training_pictures(tmp_path: Path) -> None:
    draw(tmp_path / "train", 2)
    draw(tmp_path / "test", 2)
    Image.fromarray(noise(10, 12).astype(np.uint16) * 257).save(tmp_path / "test" / "ant" / "9.png")
    with pytest.raises(
        InputError, match=r"9\.png has more than 8 bits per pixel, but no training image does; .*data\.range"
    ):
        load(tmp_path)
    found = load(tmp_path, range=[0, 65535])
    assert (found.test.fetch(torch.tensor([2]))[0, 0].numpy() == noise(10, 12)).all()
    assert int(found.train.fetch(torch.tensor([0])).max()) == 1  # the range holds for all images


def test_pictures_of_a_program_are_read_like_files() -> None:
    colour, alpha = noise(8, 8, 3), noise(8, 8, seed=3)
    pictures = [
        Image.fromarray(colour),
        Image.fromarray(np.dstack([colour, alpha]), "RGBA"),
        Image.fromarray(colour).convert("RGBA"),
    ]
    items = [(picture, label) for label, picture in enumerate(pictures)]
    found = read_in_memory(DataConfig(), items).train.pixels
    share = alpha[..., None] / 255
    assert read_in_memory(DataConfig(), items).remarks == ("data: 1 transparent image is placed on white",)
    assert (found[0].permute(1, 2, 0).numpy() == colour).all()
    assert (abs(found[1].permute(1, 2, 0).numpy() - (colour * share + 255 * (1 - share))) <= 1).all()


def test_broken_pictures_of_a_program_are_named(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.fromarray(noise(64, 64, 3)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"data: image 0 cannot be decoded \(.*\); repair or remove it"):
        read_in_memory(DataConfig(), [(Image.open(file), 0)])
    mixed = [(Image.fromarray(noise(8, 8)), 0), (Image.fromarray(noise(8, 8, 3)), 1)]
    with pytest.raises(InputError, match=r'convert all images to one mode, for example with picture\.convert\("RGB"\)'):
        read_in_memory(DataConfig(), mixed)


def test_clipped_pixels_are_counted_for_each_half(tmp_path: Path) -> None:
    """The losses of one half do not count in the other, and a large folder reports those of some images."""
    draw(tmp_path, 6)
    found = load(tmp_path, range=[0, 128])
    clipped = {
        half: sum(int((noise(10, 12, 3, seed=seed) > 128).sum()) for seed in seeds)
        for half, seeds in halves(found).items()
    }
    pixels = {"training": 8 * 360, "test": 4 * 360}
    assert [remark for remark in found.remarks if "clipped" in remark] == [
        f"{half} images: pixel values outside data.range=0,128 were clipped: {clipped[half]:,}"
        + f" ({100 * clipped[half] / pixels[half]:.3f}".rstrip("0").rstrip(".")
        + " % of all)"
        for half in ("training", "test")
    ]


def halves(found: DataSet) -> dict[str, list[int]]:
    """Return the seeds of the images in each half of a folder that `draw` has filled with six images per class."""
    every = {label: {number: noise(10, 12, 3, seed=100 * label + number) for number in range(6)} for label in (0, 1)}
    plain = {"training": found.train, "test": found.test}
    result: dict[str, list[int]] = {}
    for half, images in plain.items():
        pixels = images.fetch(torch.arange(len(images))).permute(0, 2, 3, 1).numpy()
        result[half] = [
            100 * label + number
            for one, label in zip(pixels, images.labels.tolist(), strict=True)
            for number, drawn in every[label].items()
            if (np.rint(np.clip(drawn.astype(float), 0, 128) * 255 / 128).astype(np.uint8) == one).all()
        ]
    return result


def test_a_large_folder_reports_the_losses_of_some_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "IN_MEMORY_BYTES", 0)
    draw(tmp_path, 6)
    found = load(tmp_path, range=[0, 128])
    lines = [remark for remark in found.remarks if "clipped" in remark]
    assert [line.rpartition(", ")[2] for line in lines] == [
        "in a sample of 8 of 8 images",
        "in a sample of 4 of 4 images",
    ]
    assert isinstance(found.train, Pictures)
    found.train.fetch(torch.arange(8))
    assert found.train.lost is None
