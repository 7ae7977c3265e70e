"""The images: data sets read from disk or fetched once, split by class, and dealt out in batches that resume anywhere.

A data set has a train half and a test half. `digits` ships with the package: its 60 test images of each class are the
first 60 of that class in `randomness.permutation(0, "digits test", 0, 1797)`. An .npz with x and y only may mark its
test images in a mask `test`; without one, `split(y, 2/3, 0, "npz test")` parts them, the same for every seed of a run.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

from rapdarts.config import DataConfig
from rapdarts.errors import DamagedError, InputError, StorageError
from rapdarts.training.augment import DRAWS, Augment
from rapdarts.training.randomness import permutation, uniform

IN_MEMORY_BYTES = 256 * 10**6  # decoded image folders up to this size are kept in memory
STATISTICS_IMAGES = 1000  # of a streaming folder, for its mean and deviation
CHUNK_BYTES = 1 << 16  # of a download; what a broken line can lose
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SOURCES: dict[str, list[tuple[str, str]]] = {
    "cifar10": [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
    "cifar100": [("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")],
    "mnist": [
        (_MNIST_URL + "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        (_MNIST_URL + "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        (_MNIST_URL + "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        (_MNIST_URL + "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ],
    "fashion_mnist": [
        (_FASHION_URL + "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (_FASHION_URL + "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        (_FASHION_URL + "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        (_FASHION_URL + "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ],
}
"""The official (address, MD5) of every file that can be downloaded."""

FOLDERS = {
    "cifar10": ("cifar-10-batches-bin",),
    "cifar100": ("cifar-100-binary",),
    "mnist": ("mnist", "MNIST", "MNIST/raw"),
    "fashion_mnist": ("fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"),
}
"""Where the files of a data set may lie inside data.path."""

CIFAR_RECORDS = {
    "cifar10": {**{f"data_batch_{i}.bin": 10_000 for i in range(1, 6)}, "test_batch.bin": 10_000},
    "cifar100": {"train.bin": 50_000, "test.bin": 10_000},
}
"""Records (label bytes and 3,072 pixels) in each file of the binary version, the test file last."""

STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}
FASHION_NAMES = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle_boot".split()  # noqa: SIM905


# --- where pictures come from ------------------------------------------------------------------------------------


class Images(Protocol):
    """One half of a data set: pictures by their position, and their labels."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64 on the device."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Tensor:
        """(b, c, h, w) uint8 on the device, for positions (b,) int64 on whatever device."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """All pictures as one tensor on the device."""

    pixels: Tensor  # (n, c, h, w) uint8
    labels: Tensor  # (n,) int64

    @property
    def image(self) -> tuple[int, int, int]:
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, index: Tensor) -> Tensor:
        return self.pixels[index.to(self.pixels.device)]

    def take(self, index: Tensor) -> InMemory:
        return InMemory(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> InMemory:
        return InMemory(self.pixels.to(device), self.labels.to(device))

    def digest(self) -> bytes:
        hashed = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        hashed.update(self.labels.numpy().tobytes())
        hashed.update(np.ascontiguousarray(self.pixels.numpy()).data)
        return hashed.digest()


@dataclass(frozen=True, eq=False)
class Pictures:
    """Picture files, decoded whenever they are asked for; every kind of picture becomes RGB, 8 bits a channel."""

    root: Path
    files: Sequence[str]  # inside root
    labels: Tensor  # (n,) int64
    image: tuple[int, int, int]  # 3, height, width: another size is scaled and cropped to it

    def __len__(self) -> int:
        return len(self.files)

    def begin(self, index: Tensor) -> list[Future[Tensor]]:
        """Starts to decode the pictures at `index` (CPU) in the background."""
        return [_pool().submit(self._decode, i) for i in index.tolist()]

    def collect(self, decoding: list[Future[Tensor]]) -> Tensor:
        """(b, 3, h, w) uint8 on the device, once they are there. Raises InputError, naming it, for a broken picture."""
        pixels = torch.stack([picture.result() for picture in decoding])
        if self.labels.is_cuda:
            pixels = pixels.pin_memory()
        return pixels.to(self.labels.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()

    def fetch(self, index: Tensor) -> Tensor:
        return self.collect(self.begin(index))

    def take(self, index: Tensor) -> Pictures:
        return Pictures(self.root, [self.files[i] for i in index.tolist()], self.labels[index], self.image)

    def to(self, device: torch.device) -> Pictures:
        return Pictures(self.root, self.files, self.labels.to(device), self.image)

    def digest(self) -> bytes:
        """Of the names and sizes of the files: reading them all would take as long as an epoch."""
        hashed = hashlib.sha256(repr((len(self), *self.image)).encode())
        hashed.update(self.labels.numpy().tobytes())
        for file in self.files:
            hashed.update(f"{file}\0{(self.root / file).stat().st_size}\0".encode())
        return hashed.digest()

    def _decode(self, position: int) -> Tensor:
        """(h, w, 3) uint8."""
        from PIL import Image

        file = self.root / self.files[position]
        _, height, width = self.image
        try:
            with Image.open(file) as picture:
                if picture.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
                    high = np.asarray(picture).astype(np.int64) >> 8
                    colour = Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
                elif picture.mode in ("P", "PA"):  # by way of RGBA: a transparent colour would warn
                    colour = picture.convert("RGBA").convert("RGB")
                else:
                    colour = picture.convert("RGB")
            if colour.size != (width, height):
                # The largest centred square is what scaling the shorter side and cropping the centre leaves.
                left, top = (colour.width - min(colour.size)) / 2, (colour.height - min(colour.size)) / 2
                box = (left, top, colour.width - left, colour.height - top)
                colour = colour.resize((width, height), Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(colour))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} is not a picture that can be read ({error}); repair or remove it.") from None


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pictures")


def open_pictures(root: Path, files: Sequence[str], labels: Tensor, size: int) -> Pictures:
    """Pictures whose headers have been read; `size` is the side they are scaled to, 0: as they are.

    Raises InputError, naming the file, for one that is no picture, or that has another size than the first (size 0).
    """
    from PIL import Image

    def header(file: str) -> tuple[int, int]:
        try:
            with Image.open(root / file) as picture:
                return picture.size
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            kind = "is empty" if (root / file).stat().st_size == 0 else f"is not a picture that can be read ({error})"
            raise InputError(f"{root / file} {kind}; repair or remove it.") from None

    first: tuple[int, int] | None = None
    for start in range(0, len(files), 4096):  # ImageNet at once would queue a million calls
        some = files[start : start + 4096]
        for file, found in zip(some, _pool().map(header, some), strict=True):
            first = first or found
            if not size and found != first:
                raise InputError(
                    f"{root / file} has {found[0]}x{found[1]} pixels but {root / files[0]} has {first[0]}x{first[1]}; "
                    "set data.size to scale them."
                )
    width, height = (size, size) if size or not first else first
    return Pictures(root, files, labels, (3, height, width))


# --- data sets ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set on the device, and what a network and a run folder need to know of it."""

    name: str
    train: Images
    test: Images
    image: tuple[int, int, int]  # channels, height, width
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # of each channel, in 0..1
    std: tuple[float, ...]
    fingerprint: str  # sha256 of labels, shapes and pixels (streaming folders: names and sizes of the files)


def load(config: DataConfig, device: torch.device, seed: int) -> DataSet:
    """Reads (and where needed fetches) a data set; `seed` draws the share `config.fraction` of its training images.

    Raises InputError for what the user must mend, DamagedError for a file that is cut or altered.
    """
    train: InMemory | Pictures
    test: InMemory | Pictures
    if config.name == "folder":
        train, test, names = _read_folder(config)
    elif config.name in CIFAR_RECORDS:
        train, test, names = _read_cifar(config)
    elif config.name in SOURCES:
        train, test, names = _read_idx(config)
    else:
        train, test, names = _read_npz(config)
    if train.image != test.image:
        raise InputError(f"data.name={config.name}: training images are {train.image}, test images {test.image}.")
    if len(names) < 2:
        raise InputError(f"data.name={config.name}: all images are of one class; a classifier needs at least two.")
    absent = (torch.bincount(train.labels, minlength=len(names)) == 0).nonzero()
    if len(absent):
        raise InputError(f"data.name={config.name}: class {names[int(absent[0])]} has no training image; add some.")
    if config.fraction < 1:
        train = train.take(split(train.labels, config.fraction, seed, "data fraction")[0])
    train, test = _decode_small(train), _decode_small(test)

    mean, std = tuple(config.mean), tuple(config.std)
    if not mean:
        mean, std = STATISTICS[config.name] if config.name in STATISTICS else statistics(train)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != train.image[0]:
            raise InputError(f"data.{key} has {len(values)} entries but the images have {train.image[0]} channels.")
    fingerprint = hashlib.sha256(train.digest() + test.digest()).hexdigest()
    train, test = train.to(device), test.to(device)
    return DataSet(config.name, train, test, train.image, len(names), tuple(names), mean, std, fingerprint)


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, in 0..1; of a streaming folder, from at most 1,000 pictures all over it."""
    count = min(len(images), STATISTICS_IMAGES) if isinstance(images, Pictures) else len(images)
    chosen = torch.arange(count) * len(images) // count
    channels = images.image[0]
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for part in torch.split(chosen, 500):
        pixels = images.fetch(part).cpu()
        counts += torch.stack([torch.bincount(pixels[:, c].flatten(), minlength=256) for c in range(channels)])
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std[std == 0] = 1  # a constant channel stays zero instead of becoming infinite
    return tuple(mean.tolist()), tuple(std.tolist())


def split(labels: Tensor, fraction: float, seed: int, stream: str) -> tuple[Tensor, Tensor]:
    """Two ascending index tensors (int64, CPU); the first has `fraction` of each class, at least 1, at most all but 1.

    A pure function of its arguments. Raises InputError for a class with a single image.
    """
    labels = labels.cpu()
    sizes = torch.bincount(labels)
    if (sizes == 1).any():
        label = int((sizes == 1).nonzero()[0])
        raise InputError(f"class {label} has a single image, too few for two parts; add images or leave it out.")
    shuffled = permutation(seed, stream, 0, len(labels))
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    owner = labels[by_class]
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[owner]
    quota = (sizes.double() * fraction + 0.5).long().clamp(min=torch.ones_like(sizes), max=(sizes - 1).clamp(min=1))
    first = rank < quota[owner]
    return by_class[first].sort().values, by_class[~first].sort().values


# --- batches -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Batches:
    """An endless stream of shuffled, augmented batches; any step of any epoch can be had without those before it."""

    images: Images
    index: Tensor  # (n,) int64 CPU, the positions that belong to this stream
    batch: int  # images
    seed: int
    stream: str
    augment: Augment
    what: str = "batch"  # the key that a user would change

    def __post_init__(self) -> None:
        if self.batch > len(self.index):
            raise InputError(
                f"{self.what}={self.batch} is larger than the {len(self.index)} images of the half "
                "that it is drawn from; make it smaller."
            )

    @property
    def steps(self) -> int:
        """Batches an epoch. The last may be smaller, but not a single image: batch norm cannot take that."""
        whole, left = divmod(len(self.index), self.batch)
        return whole + (left > 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (b, c, h, w) float32, labels (b,) int64) from step `start` on.

        An image's crop depends on its position in the data set and the epoch only, not on batch size or start.
        """
        order = self.index[permutation(self.seed, f"{self.stream} order", epoch, len(self.index))]
        parts = torch.split(order, self.batch)[start : self.steps]
        for part, pixels in _fetch_each(self.images, parts):
            draws = uniform(self.seed, f"{self.stream} augment", epoch, part, DRAWS)
            yield self.augment(pixels, draws), self.images.labels[part]


def ordered(images: Images, index: Tensor | None, batch: int, augment: Augment) -> Iterator[tuple[Tensor, Tensor]]:
    """(images (b, c, h, w) float32, labels (b,) int64), normalised only, in the order of `index` (None: all)."""
    index = torch.arange(len(images)) if index is None else index
    for part, pixels in _fetch_each(images, torch.split(index, batch)):
        yield augment(pixels, None), images.labels[part]


def _fetch_each(images: Images, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """(positions on the device, pixels) of each part; a streaming source decodes the next part meanwhile."""
    if not parts:
        return
    device = images.labels.device
    on_device = torch.split(torch.cat(list(parts)).to(device), [len(part) for part in parts])  # one copy an epoch
    if not isinstance(images, Pictures):
        for part in on_device:
            yield part, images.fetch(part)
        return
    decoding = images.begin(parts[0])
    try:
        for step, part in enumerate(on_device):
            ready, decoding = decoding, images.begin(parts[step + 1]) if step + 1 < len(parts) else []
            yield part, images.collect(ready)
    finally:
        for picture in decoding:
            picture.cancel()


# --- readers -----------------------------------------------------------------------------------------------------


def _read_folder(config: DataConfig) -> tuple[Pictures, Pictures, list[str]]:
    root = _place(config)
    if not (root / "train").is_dir():
        inside = [folder for folder in sorted(root.iterdir()) if (folder / "train").is_dir()] if root.is_dir() else []
        if len(inside) != 1:
            raise InputError(f"{root} holds no folder train/ (with a folder for each class); change data.path.")
        root = inside[0]
    names = _folders(root / "train")
    test = next((root / half for half in ("test", "val") if _folders(root / half)), None)
    if test is None or not names:
        raise InputError(f"{root} must hold train/CLASS/ and test/CLASS/ (or val/CLASS/) with pictures in them.")
    halves = []
    for half in (root / "train", test):
        files: list[str] = []
        labels: list[int] = []
        for name in _folders(half):
            if name not in names:
                raise InputError(f"{half / name} is a class without training images; add some or remove it.")
            found = sorted((half / name).rglob("*"))
            found = [file for file in found if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()]
            if not found:
                raise InputError(f"{half / name} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}); add some.")
            files += [file.relative_to(half).as_posix() for file in found]
            labels += [names.index(name)] * len(found)
        halves.append(open_pictures(half, files, torch.tensor(labels), config.size))
    return halves[0], halves[1], names


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _decode_small(images: InMemory | Pictures) -> InMemory | Pictures:
    """A folder that fits is decoded once."""
    if isinstance(images, Pictures) and len(images) * int(np.prod(images.image)) <= IN_MEMORY_BYTES:
        return InMemory(images.fetch(torch.arange(len(images))), images.labels)
    return images


def _read_npz(config: DataConfig) -> tuple[InMemory, InMemory, list[str]]:
    """digits, or a user's file with x, y (and perhaps test), or with x_train, y_train, x_test, y_test."""
    file = Path(__file__).with_name("digits.npz") if config.name == "digits" else _place(config)
    if file.is_dir():
        inside = sorted(file.glob("*.npz"))
        if len(inside) != 1:
            raise InputError(f"{file} holds {len(inside)} .npz files; name one with data.path.")
        file = inside[0]
    if not zipfile.is_zipfile(file):
        raise DamagedError(f"{file} ({file.stat().st_size} bytes) is not an .npz file, or was cut; write it again.")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except ValueError as error:
        raise InputError(f"{file} cannot be read ({error}); save plain arrays with numpy.savez.") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedError(f"{file} is damaged: {error}.") from None
    if config.name == "digits":
        arrays["x"] = (arrays["x"].astype(np.int64) * 255 // 16).astype(np.uint8)  # stored as the original 0..16
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        pixels, test_pixels = (_pixels(arrays[key], f"{file}, {key}") for key in ("x_train", "x_test"))
        labels = _labels(arrays["y_train"], len(pixels), None, f"{file}, y_train")
        names = _numbers(int(labels.max()) + 1)
        test_labels = _labels(arrays["y_test"], len(test_pixels), len(names), f"{file}, y_test")
        return InMemory(pixels, labels), InMemory(test_pixels, test_labels), names
    if not {"x", "y"} <= arrays.keys():
        found = ", ".join(arrays) or "nothing"
        raise InputError(f"{file} must hold x and y, or x_train, y_train, x_test and y_test, not {found}.")
    pixels = _pixels(arrays["x"], f"{file}, x")
    labels = _labels(arrays["y"], len(pixels), None, f"{file}, y")
    names = _numbers(int(labels.max()) + 1)
    if "test" in arrays:
        mask = arrays["test"]
        if mask.shape != (len(labels),) or not np.isin(mask, (0, 1)).all() or mask.all() or not mask.any():
            raise InputError(f"{file}, test: must be 1 (test) or 0 (train) for each of the {len(labels)} images.")
        chosen = torch.from_numpy(mask.astype(bool))
        train, test = (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
    else:
        train, test = split(labels, 2 / 3, 0, "npz test")
    everything = InMemory(pixels, labels)
    return everything.take(train), everything.take(test), names


def _read_cifar(config: DataConfig) -> tuple[InMemory, InMemory, list[str]]:
    """The binary version: records of 1 (CIFAR-10) or 2 (CIFAR-100: coarse, fine) label bytes and 3,072 pixels."""
    formats = {"cifar10": (1, 10, "batches.meta.txt"), "cifar100": (2, 100, "fine_label_names.txt")}
    label_bytes, classes, meta = formats[config.name]
    sizes = {file: records * (label_bytes + 3072) for file, records in CIFAR_RECORDS[config.name].items()}
    archive = SOURCES[config.name][0][0].rsplit("/", 1)[1]
    place = _find(config, (next(iter(sizes)), archive))
    in_tar = not (place / next(iter(sizes))).is_file()
    contents = _read_tar(place / archive, sizes, meta) if in_tar else _read_files(place, sizes, meta)
    halves = []
    for files in (list(sizes)[:-1], list(sizes)[-1:]):
        pixels, labels = [], []
        for file in files:
            records = np.frombuffer(contents[file], np.uint8).reshape(-1, label_bytes + 3072)
            labels.append(_labels(records[:, label_bytes - 1], len(records), classes, str(place / file)))
            pixels.append(torch.from_numpy(records[:, label_bytes:].reshape(-1, 3, 32, 32).copy()))
        halves.append(InMemory(torch.cat(pixels), torch.cat(labels)))
    names = contents.get(meta, b"").decode("utf-8", "replace").split()
    return halves[0], halves[1], names if len(names) == classes else _numbers(classes)


def _read_files(folder: Path, sizes: dict[str, int], meta: str) -> dict[str, bytes]:
    for file, expected in sizes.items():
        if not (folder / file).is_file():
            raise InputError(f"{folder} holds no {file}; copy it there or change data.path.")
        _check_size(str(folder / file), expected, (folder / file).stat().st_size)
    wanted = [*sizes, meta] if (folder / meta).is_file() else [*sizes]
    return {file: (folder / file).read_bytes() for file in wanted}


def _read_tar(archive: Path, sizes: dict[str, int], meta: str) -> dict[str, bytes]:
    """The files by their plain names, straight from the archive: nothing is unpacked, no path in it is followed."""
    contents = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                path = PurePosixPath(member.name)
                if not member.isreg() or path.is_absolute() or ".." in path.parts:
                    continue
                if path.name in sizes:
                    _check_size(f"{archive}, {path.name}", sizes[path.name], member.size)
                elif path.name != meta or member.size > 100_000:
                    continue
                if content := members.extractfile(member):
                    contents[path.name] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DamagedError(f"{archive} is damaged ({error}); fetch it again.") from None
    missing = sizes.keys() - contents.keys()
    if missing:
        raise DamagedError(f"{archive} holds no file {min(missing)}; fetch it again.")
    return contents


def _read_idx(config: DataConfig) -> tuple[InMemory, InMemory, list[str]]:
    """MNIST's format (LeCun): a magic number, the sizes (all big-endian, 4 bytes), then the bytes; plain or gzip."""
    folder = _find(config, [IDX_FILES[0], IDX_FILES[0] + ".gz"])
    halves: list[InMemory] = []
    for images, labels in (IDX_FILES[:2], IDX_FILES[2:]):
        pixels = torch.from_numpy(_read_idx_file(folder, images, 3))[:, None]
        classes = int(halves[0].labels.max()) + 1 if halves else None
        raw = _read_idx_file(folder, labels, 1)
        halves.append(InMemory(pixels, _labels(raw, len(pixels), classes, str(folder / labels))))
    names = _numbers(int(halves[0].labels.max()) + 1)
    is_fashion = config.name == "fashion_mnist" and len(names) == len(FASHION_NAMES)
    return halves[0], halves[1], FASHION_NAMES if is_fashion else names


def _read_idx_file(folder: Path, name: str, dimensions: int) -> np.ndarray[Any, Any]:
    file = folder / name if (folder / name).is_file() else folder / f"{name}.gz"
    if not file.is_file():
        raise InputError(f"{folder} holds no {name}.gz; copy it there or change data.path.")
    head = 4 + 4 * dimensions
    content = bytearray()
    expected = head
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        try:
            while len(content) <= expected and (chunk := stream.read(head if not content else 1 << 20)):
                content += chunk
                if expected == head and len(content) >= head:
                    if content[:4] != bytes([0, 0, 8, dimensions]):
                        raise DamagedError(f"{file} starts with {content[:4].hex()}, not 000008{dimensions:02x}.")
                    shape = np.frombuffer(bytes(content[4:head]), ">u4").tolist()
                    expected += int(np.prod(shape, dtype=object))
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedError(
                f"{file} is damaged: expected {expected} bytes, found {len(content)} ({error}); fetch it again."
            ) from None
    _check_size(str(file), expected, len(content))
    if not expected - head:
        raise InputError(f"{file} holds nothing; change data.path.")
    return np.frombuffer(bytes(content[head:]), np.uint8).reshape(shape).copy()


def _check_size(file: str, expected: int, found: int) -> None:
    if found != expected:
        raise DamagedError(f"{file} is damaged: expected {expected} bytes, found {found}; fetch it again.")


def _pixels(raw: np.ndarray[Any, Any], source: str) -> Tensor:
    """(n, c, h, w) uint8 from (n, h, w), (n, h, w, c) or (n, c, h, w); a last side up to 4 after larger ones is c."""
    if raw.ndim not in (3, 4) or 0 in raw.shape:
        raise InputError(f"{source}: images must be (n, h, w), (n, h, w, c) or (n, c, h, w), not {raw.shape}.")
    if raw.dtype != np.uint8:
        if raw.dtype.kind not in "uif" or not (raw.min() >= 0 and raw.max() <= 255):
            raise InputError(f"{source}: pixels must be numbers from 0 to 255.")
        if raw.dtype.kind == "f" and raw.max() <= 1:
            raise InputError(f"{source}: pixels are fractions up to {raw.max():g}; multiply them by 255.")
        raw = np.rint(raw).astype(np.uint8)
    if raw.ndim == 3:
        raw = raw[:, None]
    elif raw.shape[3] <= 4 < raw.shape[1]:
        raw = raw.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(raw))


def _labels(raw: np.ndarray[Any, Any], count: int, classes: int | None, source: str) -> Tensor:
    """(n,) int64 in 0..classes - 1; without `classes`, as many as there are different labels. Raises InputError."""
    if raw.shape != (count,):
        raise InputError(f"{source}: {count} images need labels of the shape ({count},), not {raw.shape}.")
    if raw.dtype.kind not in "iu":
        bad = np.flatnonzero(raw != np.trunc(raw)) if raw.dtype.kind == "f" else np.zeros(0, int)
        first = int(bad[0]) if len(bad) else 0
        raise InputError(f"{source}: label {first} is {raw[first]} ({raw.dtype}); save labels as int64.")
    classes = classes or len(np.unique(raw))
    bad = np.flatnonzero((raw < 0) | (raw >= classes))
    if len(bad):
        value = raw[bad[0]]
        raise InputError(f"{source}: label {bad[0]} is {value}, but {classes} classes go from 0 to {classes - 1}.")
    return torch.from_numpy(raw.astype(np.int64))


def _numbers(classes: int) -> list[str]:
    return [str(label) for label in range(classes)]


# --- finding and fetching ----------------------------------------------------------------------------------------


def _place(config: DataConfig) -> Path:
    if not config.path:
        raise InputError(f"data.name={config.name} needs data.path=PATH, the {config.name} that holds the images.")
    if not Path(config.path).exists():
        raise InputError(f"data.path={config.path} does not exist.")
    return Path(config.path)


def _find(config: DataConfig, wanted: Sequence[str]) -> Path:
    """The folder that holds one of the files `wanted`: data.path, one known inside it, or the cache."""
    if not config.path:
        return _fetch(config)
    root = _place(config)
    root = root.parent if root.is_file() else root
    for folder in (root, *(root / inside for inside in FOLDERS[config.name])):
        if any((folder / file).is_file() for file in wanted):
            return folder
    raise InputError(f"{root} holds neither {' nor '.join(wanted)}; change data.path.")


def _fetch(config: DataConfig) -> Path:
    """The cache folder of a data set, complete and with its checksums checked.

    Raises InputError where a file cannot be had, DamagedError for a wrong checksum, StorageError for a full disk.
    """
    import pooch
    import requests

    folder = Path(pooch.os_cache("rapdarts")) / config.name
    pooch.get_logger().setLevel("WARNING")
    for url, md5 in SOURCES[config.name]:
        name = url.rsplit("/", 1)[1]
        remedy = f"give data.path=FOLDER or put {name} in {folder}"
        if not config.download:
            if not (folder / name).is_file():
                raise InputError(f"{name} is not there and data.download=false; {remedy}.")
            if pooch.file_hash(str(folder / name), "md5") != md5:
                raise DamagedError(f"{folder / name} has not the official MD5 {md5}; remove it and fetch it again.")
            continue
        try:
            pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, downloader=_download)
        except requests.RequestException as error:
            answer = error.response
            reason = type(error).__name__ if answer is None else f"it answered {answer.status_code}"
            host = urlsplit(url).netloc
            raise InputError(f"{name} cannot be fetched from {host} ({reason}); run again, {remedy}.") from None
        except ValueError:
            raise DamagedError(
                f"{folder / name} came with another MD5 than {md5} and was removed; run again, {remedy}."
            ) from None
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror or error}; {remedy}.") from None
    return folder


def _download(url: str, output: str, _: object) -> None:
    """Fetches into NAME.part beside `output`, from where an earlier attempt stopped; a whole file becomes `output`."""
    import requests

    name = url.rsplit("/", 1)[1]
    part = Path(output).with_name(f"{name}.part")
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if not (done and answer.status_code == 416):  # 416: nothing is left to fetch; the checksum has the last word
            answer.raise_for_status()
            done = done if answer.status_code == 206 else 0
            total = done + int(answer.headers.get("Content-Length", 0))
            with part.open("ab" if done else "wb") as file:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    done += file.write(chunk)
                    if sys.stderr.isatty():
                        progress = f"\r{name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB"
                        print(progress, end="", file=sys.stderr, flush=True)
            if sys.stderr.isatty():
                print(file=sys.stderr)
    os.replace(part, output)
