"""Image folders: selection of the training images, the test images and the files that are not used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch

from rapdarts.config.experiment import DataConfig
from rapdarts.data import download, foreign
from rapdarts.data.images import ReadImages
from rapdarts.data.pictures import SUFFIXES, Pictures, open_pictures
from rapdarts.errors import InputError, plural

TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "holdout")
"""Names of folders with training and test images, in upper or lower case, in order of preference."""

FEW = 3
"""Maximum number of names that a remark lists."""


@dataclass(frozen=True)
class Half:
    """Folder with one subfolder of images per class; `files` are the files of each class, relative to `root`."""

    root: Path
    files: dict[str, list[str]]
    unused: Counter[str]
    """Number of files that are not images, by suffix."""

    @property
    def merged(self) -> dict[str, list[str]]:
        """Folders with the images of a class, for each class with several such folders; "." is the class folder itself."""
        places = {
            name: sorted({Path(file).relative_to(name).parent.as_posix() for file in files})
            for name, files in self.files.items()
        }
        return {name: inside for name, inside in places.items() if len(inside) > 1}


def read_folder(config: DataConfig) -> ReadImages:
    """Read the images below data.path: from train/ and a folder next to it that HELD_OUT names, or from CLASS/ without a split.

    The split may be one folder deeper. Raises InputError if neither exists, if folders could be either classes or halves, or
    if an image is broken.
    """
    root = download.place(config)
    if not root.is_dir():
        raise InputError(
            f"{root} is not a folder; {foreign.advice(root) or 'set data.path to the folder that contains the images'}."
        )
    train, test, spare = _halves(root)
    halves, names = [half for half in (train, test) if half], sorted(train.files)
    for half in halves:
        for name in sorted(half.files.keys() - train.files.keys()):
            raise InputError(f"{half.root / name} is a class without training images; add some, or remove the class.")
        for name, files in half.files.items():
            if not files:
                raise InputError(f"{half.root / name} contains no images ({', '.join(sorted(SUFFIXES))}); add some.")
    remarks = _unused(root, halves, spare)
    opened: list[Pictures] = []
    for half in halves:
        files = [file for name in names for file in half.files.get(name, [])]
        labels = [label for label, name in enumerate(names) for _ in half.files.get(name, [])]
        training = opened[0] if opened else None
        opened.append(open_pictures(half.root, files, torch.tensor(labels), config, training))
        remarks += [f"{half.root.name}: {remark}" for remark in (*_merged(half), *opened[-1].remarks)]
    return ReadImages(opened[0], opened[1] if test else None, names, tuple(remarks))


def _halves(root: Path) -> tuple[Half, Half | None, list[Half]]:
    """Return the training images, the test images (None if none are marked), and the folders that are not used."""
    inside = _folders(root)
    if len(inside) == 1 and not _named((*TRAIN, *HELD_OUT), inside):  # the folder that an archive was unpacked into
        deeper = _folders(root / inside[0])
        has_images = any(map(_is_picture, (root / inside[0]).iterdir()))
        if _named(TRAIN, deeper) or (len(deeper) > 1 and not has_images):
            root, inside = root / inside[0], deeper
    for_training, held_out = _named(TRAIN, inside), _named(HELD_OUT, inside)
    if not for_training:
        whole = _half(root, inside)
        if held_out or not whole.files:
            there = (
                foreign.advice(root) or "it must contain train/CLASS/ and test/CLASS/, or CLASS/, with images in them"
            )
            found = f"{held_out[0]}/ but no train/" if held_out else "no folders of images"
            raise InputError(f"{root} contains {found}; {there}.")
        _check_classes(whole)
        return whole, None, []
    train, *others = (_half(root / name, _folders(root / name)) for name in (*for_training, *held_out))
    if not train.files:
        raise InputError(f"{train.root} contains no folders of images; it needs one folder per class.")
    test = next((half for half in others[len(for_training) - 1 :] if half.files), None)
    return train, test, [half for half in others if half is not test]


def _named(names: Sequence[str], inside: Sequence[str]) -> list[str]:
    """Return the folders in `inside` that have one of the names in upper or lower case, in the order of the names."""
    return [folder for name in names for folder in inside if folder.lower() == name]


def _check_classes(whole: Half) -> None:
    """Raise InputError if a class folder of a data set without a split contains several folders of images, but no images itself."""
    for name, inside in whole.merged.items():
        if "." not in inside:
            raise InputError(
                f"{whole.root / name} contains no images, only folders of images ({_listed(inside)}), so it may be a class or a"
                " half of the data; name the halves train and test, or put all images of a class directly into its folder."
            )


def _half(root: Path, names: Sequence[str]) -> Half:
    """Return the images in the class folders `names`; a folder that contains only folders without files is not a class."""
    found: dict[str, list[str]] = {}
    unused: Counter[str] = Counter()
    for name in names:
        files = sorted(_files(root / name))
        images = [file.relative_to(root).as_posix() for file in files if _is_picture(file)]
        unused.update(file.suffix.lower() or "without a suffix" for file in files if not _is_picture(file))
        if files or not any((root / name).iterdir()):
            found[name] = images
    return Half(root, found if any(found.values()) else {}, unused)


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files below a folder, except hidden files and those that macOS adds to archives.

    Raises InputError for a link that leads back to one of the folders `above`: the same images would be found again and again.
    """
    if any(map(folder.samefile, above)):
        raise InputError(f"{folder} leads back to a folder that contains it; remove the link.")
    for entry in folder.iterdir():
        if _hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _files(entry, (*above, folder))
        elif entry.is_file():
            yield entry


def _pictures_outside(top: Path, known: Set[Path]) -> Iterator[Path]:
    """Yield the images below a folder but outside the `known` folders; links and unreadable folders are skipped."""
    for folder, inner, names in os.walk(top):
        inner[:] = [name for name in inner if not _hidden(name) and Path(folder, name) not in known]
        yield from (Path(folder, name) for name in names if not _hidden(name) and _is_picture(Path(name)))


def _folders(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not _hidden(inner.name))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _merged(half: Half) -> list[str]:
    """Return a remark on classes with images in several folders, or [] if there are none."""
    found = [
        f"{name} ({_listed([folder for folder in inside if folder != '.'])})" for name, inside in half.merged.items()
    ]
    return [f"subfolders of a class folder are read as part of the class: {_listed(found)}"] if found else []


def _listed(names: Sequence[str]) -> str:
    """Return a comma-separated list of the first FEW names, and the number of any others."""
    others = len(names) - FEW
    return ", ".join(names if others <= 0 else (*names[:FEW], f"and {plural(others, 'other')}"))


def _unused(root: Path, halves: Sequence[Half], spare: Sequence[Half]) -> list[str]:
    """Return remarks on unused files below `root`: the `spare` folders, files that are not images, and images outside class folders."""
    remarks = []
    for half in spare:
        count = plural(sum(map(_is_picture, _files(half.root))), "image")
        remarks.append(f"{half.root.name}/ ({count}) {'' if half.files else 'has no class folders and '}is not used")
    unused = sum((half.unused for half in halves), Counter())
    if unused:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unused.items()))
        remarks.append(f"files that are not images are ignored: {kinds}")
    known = {half.root / name for half in halves for name in half.files} | {half.root for half in spare}
    tops = (root, *(half.root for half in halves))  # a half may be a link, which os.walk does not follow
    outside = {file.relative_to(root).as_posix() for top in tops for file in _pictures_outside(top, known)}
    if outside:
        remarks.append(f"not used: {plural(len(outside), 'image')} outside the class folders, such as {min(outside)}")
    return remarks
