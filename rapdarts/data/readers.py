"""Images and labels from files, with one reader for each format.

`digits` ships with the package. Its test images are the first 60 images of each class in
`randomness.permutation(0, "digits test", 0, 1797)`. An .npz file with x and y may mark its test images with a mask `test`.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.config.experiment import DATA_SETS, DataConfig
from rapdarts.data import archives, download, foreign
from rapdarts.data.archives import read_npz
from rapdarts.data.folders import read_folder
from rapdarts.data.images import InMemory, ReadImages
from rapdarts.data.labels import as_labels
from rapdarts.data.pixels import Array, Form, Lost
from rapdarts.data.statistics import is_published
from rapdarts.errors import DamagedError, InputError
from rapdarts.files.regular import open_regular

TRAIN_KEYS = ("x_train", "y_train")
TEST_KEYS = (("x_test", "y_test"), ("x_val", "y_val"), ("x_valid", "y_valid"))
"""Keys of images and labels in an .npz file with separate test images; the first pair of test keys that it contains is used."""

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

CIFAR_RECORDS = {
    "cifar10": {**{f"data_batch_{i}.bin": 10_000 for i in range(1, 6)}, "test_batch.bin": 10_000},
    "cifar100": {"train.bin": 50_000, "test.bin": 10_000},
}
"""Number of records (label bytes and 3,072 pixel values) in each file of the binary version, the test file last."""

FASHION_NAMES = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle_boot".split()  # noqa: SIM905


# --- one reader for each format ----------------------------------------------------------------------------------


def read_images(config: DataConfig) -> ReadImages:
    """Read the images that the settings name; if no test images are marked, all images are training images.

    Raises InputError for invalid settings or data, and DamagedError for a truncated or altered file.
    """
    if config.name == "memory":
        raise InputError(
            "data.name=memory refers to images passed by a program; pass them again with data=(images, labels), or use other"
            " data, such as data.name=npz data.path=FILE."
        )
    try:
        return READERS[DATA_SETS[config.name]](config)
    except OSError as error:  # a folder without read permission, or a path that is too long
        raise InputError(f"{error.filename or config.path} cannot be read: {error.strerror or error}.") from None


def _read_npz(config: DataConfig) -> ReadImages:
    """Read `digits`, or a user's file with x, y and an optional mask test, or with x_train, y_train, x_test and y_test.

    If the file has no x_test, x_val or x_valid contains the test images.
    """
    file, arrays = _load_npz(config)
    train = TRAIN_KEYS if set(TRAIN_KEYS) <= arrays.keys() else ("x", "y")
    if not set(train) <= arrays.keys():
        found = ", ".join(arrays) or "nothing"
        raise InputError(f"{file} must contain x and y, or x_train, y_train, x_test and y_test, not {found}.")
    test = next((keys for keys in TEST_KEYS if train == TRAIN_KEYS and set(keys) <= arrays.keys()), None)
    mask = _test_mask(arrays, train, file)
    for_training = arrays[train[0]] if mask is None else arrays["x"][~mask]
    form = Form.of(for_training, config, f"{file}, {train[0]}")
    if mask is not None:
        form.range.check_half(arrays["x"][mask], f"{file}, x of the test images")
    named = {key: (arrays[key], f"{file}, {key}") for keys in filter(None, (train, test)) for key in keys}
    halves, losses = _halves(form, [(named[x], named[y]) for x, y in filter(None, (train, test))], config)
    names = numbers(int(halves[0].labels.max()) + 1)
    used = {*train, *(test or ()), *(("test",) if train == ("x", "y") else ())}
    unused = [f"{key} {arrays[key].shape} is not used" for key in arrays if key not in used]
    remarks = (*losses, *unused)
    if test:
        return ReadImages(halves[0], halves[1], names, remarks)
    if mask is None:
        return ReadImages(halves[0], None, names, remarks)
    chosen = torch.from_numpy(mask)
    train_half, test_half = (halves[0].take(part.nonzero().flatten()) for part in (~chosen, chosen))
    return ReadImages(train_half, test_half, names, remarks)


def _test_mask(arrays: Mapping[str, Array], train: tuple[str, str], file: Path) -> Array | None:
    """Return the boolean mask (n,) of the test images in x (n, ...), or None if there is none. Raises InputError for an invalid mask."""
    if train == TRAIN_KEYS or "test" not in arrays:
        return None
    mask, count = arrays["test"], len(arrays["x"]) if arrays["x"].ndim else 0
    if mask.shape != (count,) or not np.isin(mask, (0, 1)).all() or len(np.unique(mask)) < 2:
        raise InputError(
            f"{file}, test: the mask must be 1 (test) or 0 (train) for each of the {count} images, with at least one of each."
        )
    return mask.astype(bool)


def _load_npz(config: DataConfig) -> tuple[Path, dict[str, Array]]:
    """Return the path and the arrays of the .npz file in the settings; digits are scaled from their original values 0..16."""
    if config.name == "digits" and config.path:
        raise InputError(
            "data.path cannot be set for data.name=digits, which ships with the package; for your own data, use"
            " data.name=npz or data.name=folder."
        )
    file = Path(__file__).with_name("digits.npz") if config.name == "digits" else download.place(config)
    if file.is_dir():
        inside = sorted(file.glob("*.npz"))
        if len(inside) != 1:
            there = foreign.advice(file) if not inside else "set data.path to the file to read"
            raise InputError(
                f"{file} contains {len(inside)} .npz files; {there or 'set data.path to the file to read'}."
            )
        file = inside[0]
    with open_regular(file) as stored:
        is_npz = zipfile.is_zipfile(stored)
    if not is_npz:
        if there := foreign.advice(file):
            raise InputError(f"data.path={file}: {there}.")
        raise DamagedError(f"{file} ({file.stat().st_size} bytes) is not an .npz file or is truncated; save it again.")
    try:
        arrays = read_npz(file)
    except ValueError as error:
        raise InputError(f"{file} cannot be read ({error}); save plain arrays with numpy.savez.") from None
    except zipfile.BadZipFile as error:
        raise DamagedError(f"{file} is damaged ({error}); save it again.") from None
    if config.name == "digits":
        arrays["x"] = (arrays["x"].astype(np.int64) * 255 // 16).astype(np.uint8)
    return file, arrays


def _read_cifar(config: DataConfig) -> ReadImages:
    """Read the binary version of CIFAR, with records of 1 (CIFAR-10) or 2 (CIFAR-100: coarse, fine) label bytes and 3,072 pixel values."""
    formats = {"cifar10": (1, 10, "batches.meta.txt"), "cifar100": (2, 100, "fine_label_names.txt")}
    label_bytes, classes, meta = formats[config.name]
    sizes = {file: records * (label_bytes + 3072) for file, records in CIFAR_RECORDS[config.name].items()}
    archive = download.SOURCES[config.name][0][0].rsplit("/", 1)[1]
    place = download.find(config, (next(iter(sizes)), archive))
    in_tar = not (place / next(iter(sizes))).is_file()
    if in_tar:
        contents = archives.read_tar(place / archive, sizes, meta, download.MOST_META_BYTES)
    else:
        contents = download.read_files(place, sizes, meta)
    halves = []
    for files in (list(sizes)[:-1], list(sizes)[-1:]):
        pixels, labels = [], []
        for file in files:
            records = np.frombuffer(contents[file], np.uint8).reshape(-1, label_bytes + 3072)
            labels.append(as_labels(records[:, label_bytes - 1], len(records), classes, str(place / file)))
            pixels.append(torch.from_numpy(records[:, label_bytes:].reshape(-1, 3, 32, 32).copy()))
        halves.append(InMemory(torch.cat(pixels), torch.cat(labels)))
    names = contents.get(meta, b"").decode("utf-8", "replace").split()
    return ReadImages(halves[0], halves[1], names if len(names) == classes else numbers(classes))


def _read_idx(config: DataConfig) -> ReadImages:
    """Read LeCun's MNIST format, plain or gzipped: first the type and the sizes (big-endian, 4 bytes each), then the values."""
    folder = download.find(config, [IDX_FILES[0], IDX_FILES[0] + ".gz"])
    arrays = {name: (_read_idx_file(folder, name), str(folder / name)) for name in (*IDX_FILES[::2], *IDX_FILES[1::2])}
    form = Form.of(arrays[IDX_FILES[0]][0], config, arrays[IDX_FILES[0]][1])
    pairs = [(arrays[images], arrays[labels]) for images, labels in (IDX_FILES[:2], IDX_FILES[2:])]
    halves, remarks = _halves(form, pairs, config)
    names = numbers(int(halves[0].labels.max()) + 1)
    is_fashion = config.name == "fashion_mnist" and is_published(config.name, halves[0])
    return ReadImages(halves[0], halves[1], FASHION_NAMES if is_fashion else names, tuple(remarks))


def _read_idx_file(folder: Path, name: str) -> Array:
    """Return the array in a file. The file name determines the number of dimensions; images may have one more, for channels."""
    file = folder / name if (folder / name).is_file() else folder / f"{name}.gz"
    if not file.is_file():
        raise InputError(f"{folder} contains no {name}.gz; copy it there or change data.path.")
    content, packed = bytearray(), file.suffix == ".gz"
    head, expected = 4, 4
    with open_regular(file) as stored, gzip.GzipFile(fileobj=stored) if packed else stored as stream:
        size = archives.size_of(stored)
        most = archives.most_unpacked(size) if packed else size
        try:
            while len(content) <= min(expected, most) and (
                chunk := stream.read(head - len(content) if head > len(content) else 1 << 20)
            ):
                content += chunk
                if len(content) == 4:
                    kind, dimensions = _idx_kind(file, bytes(content), 3 if "images" in name else 1)
                    head = expected = 4 + 4 * dimensions
                elif len(content) == head:
                    shape = np.frombuffer(bytes(content[4:]), ">u4").tolist()
                    expected += int(np.prod(shape, dtype=object)) * kind.itemsize
                    if not packed:
                        archives.check_size(str(file), expected, size)
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedError(
                f"{file} is damaged: expected {expected} bytes, found {len(content)} ({error}); download it again."
            ) from None
    archives.check_size(str(file), expected, len(content))
    if expected == head:
        raise InputError(f"{file} contains no data; change data.path.")
    found = np.frombuffer(bytes(content[head:]), kind).reshape(shape)
    return found.astype(kind.newbyteorder("="))


IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Types of values in an IDX file, by the third byte of the file."""


def _idx_kind(file: Path, magic: bytes, dimensions: int) -> tuple[np.dtype[Any], int]:
    """Return the type of the values and the number of dimensions of an IDX file, from its first four bytes."""
    is_image = dimensions == 3
    if magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES or magic[3] not in ((3, 4) if is_image else (1,)):
        raise DamagedError(f"{file} starts with {magic.hex()}, not 000008{dimensions:02x}; download it again.")
    return np.dtype(IDX_TYPES[magic[2]]), magic[3]


Sourced = tuple[Array, str]
"""An array, and its source as named in messages."""


def _halves(
    form: Form, pairs: Sequence[tuple[Sourced, Sourced]], config: DataConfig
) -> tuple[list[InMemory], list[str]]:
    """Return the halves of images and labels, the training half first, and remarks on conversion losses.

    The labels of the training half determine the number of classes. Raises InputError for invalid images or labels.
    """
    halves: list[InMemory] = []
    lost = Lost()
    for (images, source), (labels, source_of_labels) in pairs:
        pixels, lost_here = form.read(images, source)
        classes = int(halves[0].labels.max()) + 1 if halves else None
        halves.append(InMemory(pixels, as_labels(labels, len(pixels), classes, source_of_labels)))
        lost += lost_here
    return halves, lost.in_words(config.range, sum(half.pixels.numel() for half in halves))


READERS: dict[str, Callable[[DataConfig], ReadImages]] = {
    "npz": _read_npz,
    "cifar": _read_cifar,
    "idx": _read_idx,
    "folder": read_folder,
}
"""Readers of the formats in rapdarts.config.experiment.DATA_SETS."""


def numbers(classes: int) -> list[str]:
    """Return the class numbers as strings, for classes without names."""
    return [str(label) for label in range(classes)]
