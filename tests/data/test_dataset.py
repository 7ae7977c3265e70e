"""Data sets: all readers, invalid and damaged files, downloads from a local server, splits, and batches read by position."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rapdarts.config.experiment import DATA_SETS, DataConfig
from rapdarts.data import dataset as data
from rapdarts.data import download, readers
from rapdarts.data.augment import Augment
from rapdarts.data.batches import Batches, ordered
from rapdarts.data.dataset import DataSet, split
from rapdarts.data.images import InMemory
from rapdarts.data.pictures import Pictures
from rapdarts.data.randomness import permutation
from rapdarts.data.statistics import statistics
from rapdarts.errors import DamagedError, InputError, StorageError

CPU = torch.device("cpu")
REAL = Path(os.environ.get("RAPDARTS_DATA", "/nowhere"))
real = pytest.mark.skipif(
    "RAPDARTS_DATA" not in os.environ, reason="RAPDARTS_DATA is not set to a folder with real data"
)


def load(seed: int = 0, **knobs: Any) -> DataSet:
    return data.load_dataset(DataConfig(**knobs), CPU, seed)


# --- names -------------------------------------------------------------------------------------------------------


def test_every_data_set_has_a_reader() -> None:
    assert set(DATA_SETS.values()) == set(readers.READERS)
    fetched = {name for name, form in DATA_SETS.items() if form in ("cifar", "idx")}
    assert set(download.SOURCES) == set(download.FOLDERS) == fetched
    assert set(readers.CIFAR_RECORDS) == {name for name, form in DATA_SETS.items() if form == "cifar"}


# --- digits and npz ----------------------------------------------------------------------------------------------


def test_digits() -> None:
    digits = load()
    assert (len(digits.train), len(digits.test), digits.image, digits.classes) == (1197, 600, (1, 8, 8), 10)
    assert torch.bincount(digits.test.labels).tolist() == [60] * 10
    pixels = digits.train.fetch(torch.arange(1197))
    assert pixels.dtype == torch.uint8
    assert sorted(pixels.unique().tolist()) == [value * 255 // 16 for value in range(17)]
    assert digits.mean[0] == pytest.approx(float((pixels.double() / 255).mean()), abs=1e-12)
    assert digits.std[0] == pytest.approx(float((pixels.double() / 255).std(correction=0)), abs=1e-12)
    assert (Path(data.__file__).parent / "DIGITS.txt").read_text().count("Alpaydin")


def test_digits_are_split_as_documented() -> None:
    with np.load(Path(data.__file__).with_name("digits.npz")) as stored:
        y, test = stored["y"], stored["test"]
    order = permutation(0, "digits test", 0, 1797).numpy()
    expected = np.zeros(1797)
    for label in range(10):
        expected[order[y[order] == label][:60]] = 1
    assert (test == expected).all()


def test_fingerprint_depends_on_labels_pixels_and_fraction(tmp_path: Path) -> None:
    x, y = np.arange(48, dtype=np.uint8).reshape(12, 2, 2), np.arange(12) % 2
    prints = set()
    for i, (pixels, labels) in enumerate([(x, y), (x + 1, y), (x, 1 - y)]):
        np.savez(tmp_path / f"{i}.npz", x=pixels, y=labels)
        prints.add(load(name="npz", path=str(tmp_path / f"{i}.npz")).fingerprint)
    assert len(prints) == 3
    assert load(fraction=0.5).fingerprint != load().fingerprint
    assert load().fingerprint == load(seed=3).fingerprint
    assert len(load().fingerprint) == 64


def test_fraction_is_balanced_and_seeded_and_keeps_the_test_half() -> None:
    whole, part, other = load(), load(fraction=0.25), load(fraction=0.25, seed=1)
    sizes = torch.bincount(whole.train.labels)
    assert torch.equal(torch.bincount(part.train.labels), (sizes * 0.25 + 0.5).long())
    assert torch.equal(part.test.labels, whole.test.labels)
    assert part.fingerprint == load(fraction=0.25).fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("shape", "image"), [((12, 6, 5), (1, 6, 5)), ((12, 17, 5, 3), (3, 17, 5)), ((12, 3, 6, 17), (3, 6, 17))]
)
def test_npz_layouts(tmp_path: Path, shape: tuple[int, ...], image: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape)
    file = tmp_path / "a.npz"
    np.savez(file, x_train=x, y_train=np.arange(12) % 3, x_test=x[:5].astype(np.float32), y_test=np.arange(5) % 3)
    found = load(name="npz", path=str(tmp_path))
    assert (found.image, found.classes, len(found.test)) == (image, 3, 5)
    expected = x.transpose(0, 3, 1, 2) if shape[-1] == 3 else x.reshape(12, *image)
    assert (found.train.fetch(torch.arange(12)).numpy() == expected).all()
    assert (found.test.fetch(torch.arange(5)).numpy() == expected[:5]).all()


def test_npz_without_a_test_half_is_split_by_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(120 * 4, dtype=np.int64).reshape(120, 2, 2) % 256, y=np.arange(120) % 4)
    found = load(name="npz", path=str(tmp_path / "a.npz"), seed=5)
    assert torch.bincount(found.train.labels).tolist() == [20] * 4
    assert torch.bincount(found.test.labels).tolist() == [10] * 4
    assert found.fingerprint == load(name="npz", path=str(tmp_path / "a.npz"), seed=6).fingerprint


X = np.zeros((6, 4, 4), np.uint8)
Y = np.array([0, 1, 0, 1, 0, 1])
BAD_NPZ = {
    "negative": ({"x": X, "y": np.array([0, 1, -3, 1, 0, 1])}, "y: the label of image 2 is -3"),
    "gap": ({"x": X, "y": np.array([0, 1, 0, 1, 0, 7])}, "y: the label of image 5 is 7"),
    "float": ({"x": X, "y": np.array([0, 1, 0, 1.5, 0, 1])}, "y: the label of image 3 is 1.5"),
    "whole floats": ({"x": X, "y": Y.astype(np.float32)}, "save labels as int64"),
    "length": ({"x": X, "y": Y[:5]}, r"\(6,\), not \(5,\)"),
    "column": ({"x": X, "y": Y[:, None]}, r"not \(6, 1\)"),
    "one class": ({"x": X, "y": Y * 0}, "at least two"),
    "keys": ({"images": X, "y": Y}, "not images, y"),
    "objects": ({"x": X, "y": np.array([0, "a", None, 1, 2, 3], dtype=object)}, "numpy.savez"),
    "range": ({"x": X.astype(int) + 300, "y": Y}, "0 to 255"),
    "nan": ({"x": X * np.nan, "y": Y}, "x: the images contain 96 NaN or infinite values; repair them"),
    "beyond fractions": ({"x": X + 1.5, "y": Y}, "x: pixels are fractions from 1.5 to 1.5"),
    "layout": (
        {"x": np.zeros((6, 3, 4, 4), np.uint8), "y": Y},
        "x: the channels of images .* data.layout=channels_first",
    ),
    "flat": ({"x": X.reshape(6, 16), "y": Y}, r"not \(6, 16\)"),
    "empty": ({"x": X[:0], "y": Y[:0]}, r"not \(0, 4, 4\)"),
    "test label": ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y * 4}, "y_test: the label of image 1 is 4"),
    "test image": ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, r"test images are \(1, 2, 4\)"),
    "mask": ({"x": X, "y": Y, "test": Y * 2}, "test: the mask must be 1"),
    "no training image": ({"x": X, "y": Y, "test": Y}, "class 1 has no training image"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path: Path, case: str) -> None:
    arrays, words = BAD_NPZ[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=words):
        load(name="npz", path=str(tmp_path / "bad.npz"))


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_truncated_npz(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "cut.npz"
    np.savez(file, x=X, y=Y)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DamagedError, match=r"cut\.npz"):
        load(name="npz", path=str(file))


def test_damaged_member_of_npz(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=X + 7, y=Y)
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"\x07" * 20)] = 8
    file.write_bytes(raw)
    with pytest.raises(DamagedError, match=r"a\.npz is damaged"):
        load(name="npz", path=str(file))


def test_wrong_paths_and_statistics(tmp_path: Path) -> None:
    for name in ("npz", "folder"):
        with pytest.raises(InputError, match=r"needs data\.path"):
            load(name=name)
    with pytest.raises(InputError, match="gone does not exist"):
        load(name="cifar10", path=str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"data_batch_1\.bin"):
        load(name="cifar10", path=str(tmp_path))
    with pytest.raises(InputError, match=r"data\.mean must have one value per channel of the images \(1\), not 3"):
        load(mean=[0.5] * 3, std=[0.5] * 3)
    assert load(mean=[0.5], std=[0.25]).mean == (0.5,)


def test_constant_channel_has_a_deviation_of_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X + 51, y=Y)
    found = load(name="npz", path=str(tmp_path / "a.npz"))
    assert found.mean == pytest.approx((0.2,))
    assert found.std == (1.0,)


# --- CIFAR and IDX -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        readers.CIFAR_RECORDS, "cifar10", {**{f"data_batch_{i}.bin": 20 for i in range(1, 6)}, "test_batch.bin": 20}
    )
    monkeypatch.setitem(readers.CIFAR_RECORDS, "cifar100", {"train.bin": 200, "test.bin": 100})


def cifar_files(name: str, seed: int = 0) -> dict[str, bytes]:
    generator = np.random.default_rng(seed)
    files = {}
    for file, count in readers.CIFAR_RECORDS[name].items():
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)[:, None]
        labels = labels % 10 if name == "cifar10" else np.concatenate([labels % 20, labels % 100], axis=1)
        files[file] = np.concatenate([labels, pixels], axis=1).tobytes()
    files["batches.meta.txt"] = "\n".join(f"name{i}" for i in range(10)).encode()
    return files


def tar_of(files: dict[str, bytes], prefix: str = "cifar-10-batches-bin/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize("where", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path: Path, where: str) -> None:
    folder = tmp_path / where
    folder.mkdir(exist_ok=True)
    files = cifar_files("cifar10")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    found = load(name="cifar10", path=str(tmp_path))
    assert (len(found.train), len(found.test), found.image, found.classes) == (100, 20, (3, 32, 32), 10)
    assert found.class_names[3] == "name3"
    record = files["data_batch_2.bin"][3073 : 2 * 3073]  # the 22nd training image
    image = found.train.fetch(torch.tensor([21]))[0]
    assert found.train.labels[21] == record[0]
    assert image[1, 2, 3] == record[1 + 1024 + 2 * 32 + 3]

    (folder / "data_batch_3.bin").write_bytes(files["data_batch_3.bin"][: 10 * 3073])  # whole records, but too few
    with pytest.raises(DamagedError, match=r"data_batch_3\.bin is damaged: expected 61460 bytes, found 30730"):
        load(name="cifar10", path=str(tmp_path))
    (folder / "data_batch_3.bin").write_bytes(b"\x0b" + files["data_batch_3.bin"][1:])
    with pytest.raises(InputError, match=r"data_batch_3\.bin: the label of image 0 is 11"):
        load(name="cifar10", path=str(tmp_path))
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"contains no data_batch_3\.bin"):
        load(name="cifar10", path=str(tmp_path))


@pytest.mark.usefixtures("small_cifar")
def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    for name, content in cifar_files("cifar100").items():
        (tmp_path / name).write_bytes(content)
    found = load(name="cifar100", path=str(tmp_path))
    assert found.classes == 100
    assert found.train.labels.tolist() == list(range(100)) * 2
    assert found.mean == statistics(found.train)[0] != (0.5071, 0.4867, 0.4408)
    assert found.remarks == ("these are not the images of cifar100, so their own mean and standard deviation are used",)


@pytest.mark.usefixtures("small_cifar")
def test_tar_is_read_without_unpacking_and_unsafe_members_are_skipped(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    files = cifar_files("cifar10")
    archive.write_bytes(tar_of(files))
    assert len(load(name="cifar10", path=str(tmp_path)).train) == 100
    assert [file.name for file in tmp_path.iterdir()] == [archive.name]
    archive.write_bytes(tar_of(files, prefix="../"))
    with pytest.raises(DamagedError, match=r"contains no file data_batch_1\.bin"):
        load(name="cifar10", path=str(tmp_path))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as writer:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        writer.addfile(link)
    archive.write_bytes(buffer.getvalue())
    with pytest.raises(DamagedError, match=r"contains no file data_batch_1\.bin"):
        load(name="cifar10", path=str(tmp_path))
    whole = tar_of(files)
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        load(name="cifar10", path=str(tmp_path))


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(">I", 0x800 + array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_files() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    files = {}
    for half, count in (("train", 40), ("t10k", 20)):
        pixels = generator.integers(0, 256, (count, 6, 5), dtype=np.uint8)
        files[f"{half}-images-idx3-ubyte.gz"] = gzip.compress(idx(pixels), mtime=0)
        files[f"{half}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10), mtime=0)
    return files


@pytest.mark.parametrize("packed", [True, False])
def test_idx(tmp_path: Path, packed: bool) -> None:
    for name, content in idx_files().items():
        (tmp_path / (name if packed else name[:-3])).write_bytes(content if packed else gzip.decompress(content))
    found = load(name="mnist", path=str(tmp_path))
    assert (len(found.train), len(found.test), found.image, found.classes) == (40, 20, (1, 6, 5), 10)
    expected = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)
    assert (found.train.fetch(torch.arange(40))[:, 0].numpy() == expected).all()
    pixels = expected / 255
    assert found.mean + found.std == pytest.approx((pixels.mean(), pixels.std()))
    other = load(name="fashion_mnist", path=str(tmp_path))
    assert (other.class_names, other.mean) == (found.class_names, found.mean)
    assert other.remarks == (
        "these are not the images of fashion_mnist, so their own mean and standard deviation are used",
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: raw[:-7], "expected 1216 bytes, found 1209"),
        (lambda raw: raw + b"x", "expected 1216 bytes, found 1217"),
        (lambda raw: raw[:9], "found 9"),
        (lambda raw: b"", "found 0"),
        (lambda raw: b"\x00\x00\x08\x01" + raw[4:], "starts with 00000801"),
        (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "expected 79228162458924105385300197391, found 1216"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_idx(tmp_path: Path, damage: Any, words: str, packed: bool) -> None:
    for name, content in idx_files().items():
        raw = gzip.decompress(content)
        raw = damage(raw) if name.startswith("train-images") else raw
        (tmp_path / (name if packed else name[:-3])).write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(DamagedError, match=words.replace("79228162458924105385300197391", r"\d{29} bytes")) as failure:
        load(name="mnist", path=str(tmp_path))
    assert "train-images" in str(failure.value)


def test_truncated_gzip_and_mismatched_labels(tmp_path: Path) -> None:
    files = idx_files()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    images, labels = (tmp_path / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    images.write_bytes(images.read_bytes()[:-20])
    with pytest.raises(DamagedError, match="expected 1216 bytes"):
        load(name="mnist", path=str(tmp_path))
    images.write_bytes(files[images.name][:-8] + b"\0\0\0\0" + files[images.name][-4:])
    with pytest.raises(DamagedError, match="CRC"):
        load(name="mnist", path=str(tmp_path))
    images.write_bytes(files[images.name])
    labels.write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    with pytest.raises(InputError, match=r"\(40,\), not \(39,\)"):
        load(name="mnist", path=str(tmp_path))
    labels.unlink()
    with pytest.raises(InputError, match="train-labels"):
        load(name="mnist", path=str(tmp_path))


def test_mnist_is_not_read_from_the_folder_of_fashion_mnist(tmp_path: Path) -> None:
    (tmp_path / "fashion-mnist").mkdir()
    for name, content in idx_files().items():
        (tmp_path / "fashion-mnist" / name).write_bytes(content)
    assert len(load(name="fashion_mnist", path=str(tmp_path)).train) == 40
    with pytest.raises(InputError, match=r"change data\.path"):
        load(name="mnist", path=str(tmp_path))


# --- image folders -----------------------------------------------------------------------------------------------


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a folder with two classes of 3 training and 2 test images each, of 12 x 10 pixels."""
    root = tmp_path / "pictures"
    for half, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            (root / half / name).mkdir(parents=True)
            for i in range(count):
                pixels = noise(10, 12, 3, seed=100 * label + 10 * i + (half == "val"))
                Image.fromarray(pixels).save(root / half / name / f"{i}.png")
    return root


@pytest.mark.parametrize("above", [False, True])
def test_folder(folder: Path, above: bool) -> None:
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    found = load(name="folder", path=str(folder.parent if above else folder))
    assert (found.image, found.class_names, len(found.train), len(found.test)) == ((3, 10, 12), ("ant", "bee"), 6, 4)
    assert isinstance(found.train, InMemory)
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (found.train.fetch(torch.tensor([4]))[0].permute(1, 2, 0).numpy() == noise(10, 12, 3, seed=110)).all()


def test_streaming_equals_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = load(name="folder", path=str(folder))
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    stream = load(name="folder", path=str(folder))
    assert isinstance(stream.train, Pictures)
    assert (stream.mean, stream.std) == (memory.mean, memory.std)
    assert stream.fingerprint == load(name="folder", path=str(folder)).fingerprint
    for one, other in zip(batches(memory, 2).epoch(3), batches(stream, 2).epoch(3), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    part = load(name="folder", path=str(folder), fraction=0.34)
    assert part.train.labels.tolist() == [0, 1]
    chosen = split(memory.train.labels, 0.34, 0, "data fraction")[0]
    assert torch.equal(part.train.fetch(torch.arange(2)), memory.train.fetch(chosen))
    (folder / "train" / "ant" / "0.png").write_bytes(b"changed while it ran")
    with pytest.raises(InputError, match=r"0\.png is not a readable image"):
        list(batches(stream, 2).epoch(0))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello", "cut"])
def test_broken_image_is_named(folder: Path, content: bytes | str) -> None:
    file = folder / "train" / "bee" / "7.png"
    if isinstance(content, str):
        content = (folder / "train" / "bee" / "1.png").read_bytes()[:200]
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"train/bee/7\.png is " + ("empty" if not content else "not a readable image")
    ):
        load(name="folder", path=str(folder))


def test_images_of_different_sizes(folder: Path) -> None:
    bands = np.zeros((30, 60, 3), np.uint8)
    bands[:, :15], bands[:, 15:45], bands[:, 45:] = 10, 200, 90  # a centre crop contains only the middle band
    Image.fromarray(bands).save(folder / "train" / "ant" / "wide.png")
    with pytest.raises(InputError, match=r"wide\.png has 60x30 pixels but .*0\.png has 12x10; set data\.size"):
        load(name="folder", path=str(folder))
    found = load(name="folder", path=str(folder), size=6)
    assert found.image == (3, 6, 6)
    crop = found.train.fetch(torch.tensor([3]))[0].permute(1, 2, 0).numpy()
    scaled = Image.fromarray(bands).resize((12, 6), Image.Resampling.BILINEAR).crop((3, 0, 9, 6))
    assert (crop == np.array(scaled)).all()
    assert (crop[:, 1:5] == 200).all()
    Image.fromarray(bands.transpose(1, 0, 2)).save(folder / "train" / "ant" / "wide.png")
    assert (load(name="folder", path=str(folder), size=40).train.fetch(torch.tensor([3]))[..., 2:38, :] == 200).all()


def test_folders_that_are_not_a_data_set(folder: Path) -> None:
    (folder / "val" / "cow").mkdir()
    with pytest.raises(InputError, match="val/cow is a class without training images"):
        load(name="folder", path=str(folder))
    (folder / "train" / "cow").mkdir()
    with pytest.raises(InputError, match="train/cow contains no images"):
        load(name="folder", path=str(folder))
    with pytest.raises(
        InputError, match="ant contains no folders of images; it must contain train/CLASS/ and test/CLASS/, or"
    ):
        load(name="folder", path=str(folder / "train" / "ant"))


# --- downloads ---------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    log: list[tuple[str, str | None]]
    ranges = True
    cut: int | None = None  # bytes after which the connection breaks
    pause = 0.0  # seconds to wait after half of a file


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.log.append((self.path, asked))
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:][: self.server.cut]
        self.wfile.write(rest[: len(rest) // 2])
        time.sleep(self.server.pause)
        self.wfile.write(rest[len(rest) // 2 :])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server on this machine with small files for mnist; the cache is tmp_path/rapdarts/mnist."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files, running.log = idx_files(), []
        address = f"http://127.0.0.1:{running.server_port}/"
        order = [f"{name}.gz" for name in readers.IDX_FILES]
        sources = [
            (address + name, hashlib.md5(running.files[name], usedforsecurity=False).hexdigest()) for name in order
        ]
        monkeypatch.setitem(download.SOURCES, "mnist", sources)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


IMAGES = "train-images-idx3-ubyte.gz"


def test_files_are_downloaded_once(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    level = pooch.get_logger().level
    assert len(load(name="mnist").train) == 40
    assert pooch.get_logger().level == level
    assert len(server.log) == 4
    assert len(load(name="mnist", download=False).train) == 40
    assert len(load(name="mnist").train) == 40
    assert len(server.log) == 4
    assert sorted(file.name for file in (tmp_path / "rapdarts" / "mnist").iterdir()) == sorted(server.files)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ranges", [True, False])
def test_download_continues_where_it_stopped(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(download, "CHUNK_BYTES", 32)
    server.cut = 100
    with pytest.raises(
        InputError, match=f"{IMAGES} cannot be downloaded from 127.0.0.1.*set data.path=FOLDER, or put {IMAGES} in"
    ):
        load(name="mnist")
    assert (tmp_path / "rapdarts" / "mnist" / f"{IMAGES}.part").read_bytes() == server.files[IMAGES][:96]
    server.cut, server.ranges = None, ranges
    server.log.clear()
    assert len(load(name="mnist").train) == 40
    assert server.log[0] == (f"/{IMAGES}", "bytes=96-")
    assert not list((tmp_path / "rapdarts" / "mnist").glob("*.part"))


def test_complete_part_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "rapdarts" / "mnist").mkdir(parents=True)
    (tmp_path / "rapdarts" / "mnist" / f"{IMAGES}.part").write_bytes(server.files[IMAGES])
    assert len(load(name="mnist").train) == 40


FETCH = """
import json, sys
import pooch, requests
from rapdarts.config.experiment import DataConfig
from rapdarts.data import download

download.CHUNK_BYTES = 32  # so that half a file is seen in NAME.part
download.SOURCES["mnist"] = json.loads(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(download.find(DataConfig(name="mnist"), []))
"""


def test_two_processes_download_every_file_once(server: Server, tmp_path: Path) -> None:
    server.pause = 0.3
    command = [sys.executable, "-c", FETCH, json.dumps(download.SOURCES["mnist"])]
    root = Path(data.__file__).parents[2]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    processes = [subprocess.Popen(command, cwd=root, text=True, **pipes) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        # Both start now; the first download takes longer than the second process needs to reach it.
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        folder = tmp_path / "rapdarts" / "mnist"
        for process in processes:
            assert process.communicate(timeout=60) == (f"{folder}\n", "")
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sorted(server.log) == sorted((f"/{name}", None) for name in server.files)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == server.files


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    right = server.files[IMAGES]
    server.files[IMAGES] = right[:-1] + b"?"
    with pytest.raises(DamagedError, match=f"{IMAGES} was removed because its MD5 is not"):
        load(name="mnist")
    assert list((tmp_path / "rapdarts" / "mnist").iterdir()) == []
    server.files[IMAGES] = right
    assert len(load(name="mnist").train) == 40
    (tmp_path / "rapdarts" / "mnist" / IMAGES).write_bytes(b"altered later")
    with pytest.raises(DamagedError, match="does not have the official MD5"):
        load(name="mnist", download=False)
    assert len(load(name="mnist").train) == 40


def test_downloads_that_are_missing_disabled_or_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"data\.download=false; set data\.path=FOLDER, or put"):
        load(name="mnist", download=False)
    assert server.log == []
    del server.files[IMAGES]
    with pytest.raises(InputError, match="HTTP status 404"):
        load(name="mnist")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening, so that it refuses connections
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setitem(download.SOURCES, "mnist", [(f"http://{address}/{IMAGES}", "0" * 32)])
        with pytest.raises(
            InputError, match=f"cannot be downloaded from {address} .ConnectionError.*set data.path=FOLDER"
        ):
            load(name="mnist")


@pytest.mark.usefixtures("server")
def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "rapdarts").write_text("a file where the cache should be")
    with pytest.raises(StorageError, match="rapdarts/mnist cannot be written"):
        load(name="mnist")


@pytest.mark.usefixtures("small_cifar")
def test_download_of_an_archive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar_of(cifar_files("cifar10"))
    server.files["cifar-10-binary.tar.gz"] = archive
    url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
    monkeypatch.setitem(download.SOURCES, "cifar10", [(url, hashlib.md5(archive, usedforsecurity=False).hexdigest())])
    found = load(name="cifar10")
    assert (len(found.train), found.class_names[9]) == (100, "name9")


# --- splits and batches ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_split_is_balanced_disjoint_and_complete(sizes: list[int], fraction: float, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[permutation(seed, "order of the labels", 0, len(labels))]
    first, second = split(labels, fraction, seed, "test")
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(len(labels)))
    expected = [min(max(int(size * fraction + 0.5), 1), size - 1) for size in sizes]
    assert torch.bincount(labels[first], minlength=len(sizes)).tolist() == expected
    again = split(labels, fraction, seed, "test")
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_split_depends_on_seed_and_stream_and_is_uniform() -> None:
    labels = torch.arange(40) % 4
    first = split(labels, 0.5, 0, "a")[0].tolist()
    assert first != split(labels, 0.5, 1, "a")[0].tolist()
    assert first != split(labels, 0.5, 0, "b")[0].tolist()
    counts = torch.zeros(40)
    for seed in range(300):
        counts[split(labels, 0.5, seed, "a")[0]] += 1
    assert counts.min() > 100
    assert counts.max() < 200


def test_a_class_with_a_single_image_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"class 2 has a single image.*add images"):
        split(torch.tensor([0, 0, 1, 1, 2]), 0.5, 0, "test")
    with pytest.raises(InputError, match=r"class emu has a single image"):
        split(torch.tensor([0, 0, 1, 1, 2]), 0.5, 0, "test", ("ant", "bee", "emu"))
    assert [len(part) for part in split(torch.tensor([0, 0, 3, 3]), 0.5, 0, "test")] == [2, 2]


def batches(dataset: DataSet, batch: int, count: int | None = None, **knobs: Any) -> Batches:
    index = torch.arange(len(dataset.train))[:count]
    augment = Augment(dataset.mean, dataset.std, crop=2, flip=True, cutout=2)
    return Batches(dataset.train, index, batch, 0, "train", augment, **knobs)


def test_an_epoch_can_start_at_any_step() -> None:
    stream = batches(load(), 96, 500)
    whole = list(stream.epoch(4))
    assert [len(labels) for _, labels in whole] == [96] * 5 + [20]
    assert len(whole) == stream.steps == 6
    assert whole[0][0].dtype == torch.float32
    for start in range(7):
        tail = list(stream.epoch(4, start))
        assert len(tail) == 6 - start
        for one, other in zip(tail, whole[start:], strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_an_image_and_its_crop_do_not_depend_on_the_batch_size() -> None:
    small, large = batches(load(), 32, 500), batches(load(), 100, 500)
    for part in (0, 1):
        assert torch.equal(torch.cat([b[part] for b in small.epoch(2)]), torch.cat([b[part] for b in large.epoch(2)]))


def test_an_image_and_its_crop_do_not_depend_on_other_images() -> None:
    """Augmentation depends on the position in the data set, not on the position in the stream."""
    digits = load()
    augment = Augment(digits.mean, digits.std, crop=2)
    wide = Batches(digits.train, torch.arange(100), 100, 0, "s", augment)
    narrow = Batches(digits.train, torch.tensor([90, 7]), 2, 0, "s", augment)
    images = next(wide.epoch(1))[0]
    order = permutation(0, "s order", 1, 100).tolist()
    found = next(narrow.epoch(1))[0]
    places = torch.tensor([90, 7])[permutation(0, "s order", 1, 2)].tolist()
    for image, place in zip(found, places, strict=True):
        assert torch.equal(image, images[order.index(place)])


def test_every_epoch_yields_each_image_once_with_its_label_in_a_new_order() -> None:
    digits = load()
    index = torch.arange(3, 300, 3)
    stream = Batches(digits.train, index, 10, 0, "train", Augment((0.0,), (1.0,)))
    epochs = [[torch.cat(parts) for parts in zip(*stream.epoch(epoch), strict=True)] for epoch in (0, 1)]
    for epoch, (images, labels) in enumerate(epochs):
        chosen = index[permutation(0, "train order", epoch, len(index))]
        assert torch.equal(images, digits.train.fetch(chosen).float() / 255)
        assert torch.equal(labels, digits.train.labels[chosen])
    assert not torch.equal(epochs[0][1], epochs[1][1])


@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        ({"crop": 2}, 0.0, 0.12),  # an image has 25 crops
        ({"flip": True}, 0.35, 0.65),
        ({"cutout": 4}, 0.0, 0.12),
        ({"smallest_crop": 0.3}, 0.0, 0.0),
        ({"jitter": 0.5}, 0.0, 0.1),  # a black pixel stays black, and so on
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_image_is_augmented_anew_in_every_epoch_and_stream(
    change: dict[str, Any], least: float, most: float
) -> None:
    """The share of images that come out equal in two epochs, streams or seeds is that of equal draws."""
    digits = load()
    index = torch.arange(400)

    def augmented(seed: int, stream: str, epoch: int) -> torch.Tensor:
        """Return the images of an epoch in the order of the data set."""
        source = Batches(digits.train, index, 100, seed, stream, Augment((0.0,), (1.0,), **change))
        images = torch.cat([images for images, _ in source.epoch(epoch)])
        return images[torch.argsort(permutation(seed, f"{stream} order", epoch, len(index)))]

    found = [augmented(*place) for place in ((0, "a", 0), (0, "a", 1), (0, "a", 7), (0, "b", 0), (1, "a", 0))]
    for one, other in combinations(found, 2):
        same = (one == other).flatten(1).all(1).double().mean().item()
        assert least <= same <= most
    assert torch.equal(found[1], augmented(0, "a", 1))


@pytest.mark.parametrize(("count", "sizes"), [(40, [20, 20]), (41, [20, 20]), (42, [20, 20, 2]), (20, [20])])
def test_last_batch_has_at_least_two_images(count: int, sizes: list[int]) -> None:
    stream = batches(load(), 20, count)
    assert [len(labels) for _, labels in stream.epoch(0)] == sizes
    assert stream.steps == len(sizes)


def test_batch_larger_than_the_stream_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"search\.batch=512 is larger than the 256 training images that batches are drawn from;"
    ):
        batches(load(), 512, 256, what="search.batch")


@pytest.mark.parametrize("limit", [0, 10**9])
def test_ordered_batches(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", limit)
    found = load(name="folder", path=str(folder))
    plain = Augment(found.mean, found.std, crop=4, flip=True, cutout=4)
    parts = list(ordered(found.train, None, 5, plain))
    assert [len(labels) for _, labels in parts] == [5, 1]
    expected = plain(found.train.fetch(torch.arange(6)), None)
    assert torch.equal(torch.cat([images for images, _ in parts]), expected)
    some = list(ordered(found.train, torch.tensor([5, 0]), 5, plain))
    assert torch.equal(some[0][0], expected[[5, 0]])
    assert some[0][1].tolist() == [1, 0]


# --- real data ---------------------------------------------------------------------------------------------------


@real
def test_real_cifar10() -> None:
    found = load(name="cifar10", path=str(REAL))
    assert (len(found.train), len(found.test), found.class_names[0]) == (50_000, 10_000, "airplane")
    assert torch.bincount(found.train.labels).tolist() == [5000] * 10
    mean, std = statistics(found.train)
    assert mean == pytest.approx(found.mean, abs=1e-4)
    assert std == pytest.approx(found.std, abs=1e-4)
    assert batches(found, 96, 25_000).steps == 261


@real
def test_real_fashion_mnist() -> None:
    found = load(name="fashion_mnist", path=str(REAL))
    assert (len(found.train), len(found.test), found.image) == (60_000, 10_000, (1, 28, 28))
    mean, std = statistics(found.train)
    assert mean + std == pytest.approx(found.mean + found.std, abs=1e-4)
    assert (found.mean, found.class_names[9], found.remarks) == ((0.2860,), "Ankle_boot", ())


@real
def test_real_imagenette() -> None:
    found = load(name="folder", path=str(REAL / "imagenette224"), size=64)
    assert (len(found.train), len(found.test), found.image, found.classes) == (200, 100, (3, 64, 64), 10)
