"""Files of a data set: located in data.path or the cache, downloaded once into the cache, and read into memory."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rapdarts.config.experiment import DataConfig
from rapdarts.data import foreign
from rapdarts.data.archives import check_size
from rapdarts.errors import DamagedError, InputError, StorageError, printable
from rapdarts.files.regular import read_bytes

MOST_META_BYTES = 100_000  # names of classes
CHUNK_BYTES = 1 << 16  # per write of a download; at most this much is lost if the connection breaks

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
"""Official (URL, MD5) of every file that can be downloaded."""

FOLDERS = {
    "cifar10": ("cifar-10-batches-bin",),
    "cifar100": ("cifar-100-binary",),
    "mnist": ("mnist", "MNIST", "MNIST/raw"),
    "fashion_mnist": ("fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"),
}
"""Subfolders of data.path that are searched for the files of a data set."""


# --- finding and fetching ----------------------------------------------------------------------------------------


def place(config: DataConfig) -> Path:
    """Return data.path. Raises InputError if it is not set or does not exist."""
    if not config.path:
        raise InputError(f"data.name={config.name} needs data.path; set it to the path of the images.")
    if not Path(config.path).exists():
        raise InputError(f"data.path={config.path} does not exist.")
    return Path(config.path)


def find(config: DataConfig, wanted: Sequence[str]) -> Path:
    """Return the folder that contains one of the files `wanted`: data.path, a known subfolder of it, or the cache."""
    if not config.path:
        return _fetch(config)
    root = place(config)
    root = root.parent if root.is_file() else root
    for folder in (root, *(root / inside for inside in FOLDERS[config.name])):
        if any((folder / file).is_file() for file in wanted):
            return folder
    there = foreign.advice(Path(config.path))
    raise InputError(f"{root} contains neither {' nor '.join(wanted)}; {there or 'change data.path'}.")


def _fetch(config: DataConfig) -> Path:
    """Return the cache folder of a data set, after downloading missing files and checking all checksums.

    Raises InputError if a file cannot be downloaded, DamagedError for a wrong checksum, StorageError for a full disk.
    """
    import pooch
    import requests

    folder = Path(pooch.os_cache("rapdarts")) / config.name
    for url, md5 in SOURCES[config.name]:
        name = url.rsplit("/", 1)[1]
        remedy = f"set data.path=FOLDER, or put {name} in {folder}"
        if not config.download:
            if not (folder / name).is_file():
                raise InputError(f"{name} is not in the cache and data.download=false; {remedy}.")
            if pooch.file_hash(str(folder / name), "md5") != md5:
                raise DamagedError(
                    f"{folder / name} does not have the official MD5 {md5}; remove it and download it again."
                )
            continue
        try:
            with _alone(folder), _quiet():
                pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, downloader=_download)
        except requests.RequestException as error:
            answer = error.response
            reason = type(error).__name__ if answer is None else f"HTTP status {answer.status_code}"
            host = urlsplit(url).netloc
            raise InputError(f"{name} cannot be downloaded from {host} ({reason}); run again, {remedy}.") from None
        except ValueError:
            raise DamagedError(
                f"{folder / name} was removed because its MD5 is not {md5}; run again, {remedy}."
            ) from None
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror or error}; {remedy}.") from None
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock, so that other processes wait here and then find the downloaded files."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pooch from reporting its downloads; the program may use pooch, too."""
    import pooch

    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(before)


def _download(url: str, output: str, _: object) -> None:
    """Download to NAME.part next to `output`, continuing an earlier attempt; rename it to `output` when it is complete."""
    import requests

    name = url.rsplit("/", 1)[1]
    part = Path(output).with_name(f"{name}.part")
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if not (done and answer.status_code == 416):  # 416: nothing is left to download; the checksum decides
            answer.raise_for_status()
            done = done if answer.status_code == 206 else 0
            total = done + int(answer.headers.get("Content-Length", 0))
            with part.open("ab" if done else "wb") as file:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    done += file.write(chunk)
                    if sys.stderr.isatty():
                        progress = f"\r{printable(name)}: {done / 1e6:.1f} of {total / 1e6:.1f} MB"
                        print(progress, end="", file=sys.stderr, flush=True)
            if sys.stderr.isatty():
                print(file=sys.stderr)
    os.replace(part, output)


# --- reading whole files -----------------------------------------------------------------------------------------


def read_files(folder: Path, sizes: dict[str, int], meta: str) -> dict[str, bytes]:
    """Read the files in `sizes` (name: expected bytes) from a folder, and `meta` if it exists."""
    for file, expected in sizes.items():
        if not (folder / file).is_file():
            raise InputError(f"{folder} contains no {file}; copy it there or change data.path.")
        check_size(str(folder / file), expected, (folder / file).stat().st_size)
    limits = {**sizes, **({meta: MOST_META_BYTES} if (folder / meta).is_file() else {})}
    return {file: read_bytes(folder / file, most=most) for file, most in limits.items()}
