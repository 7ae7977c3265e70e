"""A folder of 600 photographs of mixed kinds, as they lie on somebody's disk, made of the real data in RAPDARTS_DATA."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(os.environ.get("RAPDARTS_DATA", "/nowhere"))
LARGE, SMALL = DATA / "imagenette224", DATA / "cifar-10-batches-bin" / "data_batch_1.bin"
MISSING = "" if LARGE.is_dir() and SMALL.is_file() else "RAPDARTS_DATA is not a folder with imagenette224 and CIFAR-10"
"""Why the photographs cannot be made; empty if they can."""

FOLDERS = {"church": "n03028079", "garbage truck": "n03417042", "golf ball": "n03445777", "parachute": "n03888257"}
"""Classes of 30 photographs of 224 x 224 pixels each, with their folders in imagenette224."""
LABELS = {"airplane": 0, "cat": 3, "deer": 4, "frog": 6, "horse": 7, "ship": 8}
"""Classes of 80 photographs of 32 x 32 pixels each, with their labels in CIFAR-10."""
COUNT = 30 * len(FOLDERS) + 80 * len(LABELS)
ORIENTATION, ROTATED = 0x0112, 6
"""EXIF tag of the orientation, and its value for a camera held upright: the stored pixels must be turned by 90 degrees."""


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """Yield COUNT photographs with the names of their classes."""
    for name, folder in FOLDERS.items():
        files = sorted(LARGE.glob(f"*/{folder}/*"), key=lambda file: file.name)
        yield from ((name, Image.open(file).convert("RGB")) for file in files)
    records = np.fromfile(SMALL, np.uint8).reshape(-1, 3073)
    for name, label in LABELS.items():
        chosen = records[records[:, 0] == label][:80, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        yield from ((name, Image.fromarray(pixels)) for pixels in chosen)


def write_photographs(folder: Path) -> Path:
    """Write the photographs as CLASS/* below a folder, with other files beside them, and return the folder.

    In turn, every ten are six JPEG files, one of them grey, one lying on its side and one of another shape; and four PNG files in
    RGB, with a palette, grey with transparency, and in RGB with transparency.
    """
    turns = itertools.count()
    for name, picture in photographs():
        number = next(turns)
        file = folder / name / f"IMG_{number:04}"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(picture, file, number % 10)
    (folder / "church" / "notes.txt").write_text("taken in May", encoding="utf-8")
    (folder / "church" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    picture.convert("RGB").save(folder / "cover.jpg")
    return folder


def _write(picture: Image.Image, file: Path, kind: int) -> None:
    """Write a photograph as the kind of file with this number, 0 to 9."""
    width, height = picture.size
    jpeg, png = file.with_suffix(".JPG"), file.with_suffix(".png")
    half = Image.linear_gradient("L").resize(picture.size).point(lambda value: 255 if value > 25 else 0)
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    if kind == 0:
        picture.convert("L").save(jpeg)
    elif kind == 1:
        picture.transpose(Image.Transpose.ROTATE_90).resize((height * 3, width * 2)).save(jpeg, exif=exif)
    elif kind == 2:
        picture.resize((width * 4, height * 3)).save(jpeg, quality=90)
    elif kind == 6:
        picture.save(png)
    elif kind == 7:
        picture.quantize(64).save(png)
    elif kind == 8:
        picture.putalpha(half)
        picture.convert("LA").save(png)
    elif kind == 9:
        picture.putalpha(half)
        picture.save(png)
    else:
        picture.save(jpeg, quality=95)
