"""Archives: nothing is unpickled or written, and what a file states about its size is checked before memory is reserved for it."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rapdarts.config.experiment import DataConfig
from rapdarts.data import archives, readers
from rapdarts.data.archives import read_npz, read_tar
from rapdarts.errors import DamagedError, InputError, RapdartsError
from tests.hung import in_time


class Payload:
    """Creates the file `marker` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch marker",)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(path: Path, compress: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def stating(shape: str) -> bytes:
    """Return an array of ten values whose header states another shape of the same length."""
    return npy(np.zeros(10, np.uint8)).replace(b"(10,), ", shape.encode())


def many(path: Path, members: int) -> Path:
    """Write a file with many members, of which its last record states only one."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(members):
            archive.writestr(str(number), b"")
    content = bytearray(path.read_bytes())
    content[-14:-10] = b"\1\0\1\0"
    path.write_bytes(content)
    return path


def twice(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", npy(np.zeros(3)))
        archive.writestr("x.npy", npy(np.ones(3)))
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "objects": (lambda path: npz(path, x=npy(np.array([Payload()], object))), "cannot be read (Object arrays cannot be loaded"),
    "a bomb": (lambda path: npz(path, x=bytes(2 * 10**7)), "unpacks to more than 10,000,000 bytes, too many for its size"),
    "a wrong shape": (lambda path: npz(path, x=stating("(9**9,)")), "cannot be read ("),
    "an enormous shape": (lambda path: npz(path, x=stating("(9999,)")), "has only 138 bytes for the shape (9999,)"),
    "no array": (lambda path: npz(path, x=b"hello there"), "the magic string is not correct"),
    "two of a name": (twice, "two arrays have the same name"),
    "many members": (lambda path: many(path, archives.MOST_MEMBERS + 1), "it has more than 1,000 members"),
    "very many members": (lambda path: many(path, 20_000), "its list of members is too long"),
    "half": (lambda path: _cut(npz(path, x=npy(np.arange(999)))), "is not an .npz file or is truncated"),
    "another method": (lambda path: _altered(npz(path, x=npy(np.arange(999))), b"\x08\0", b"\x63\0"), "compression"),
    "a secret": (lambda path: _altered(npz(path, x=npy(np.arange(999))), b"\x14\0\0\0", b"\x14\0\1\0"), "is encrypted"),
}  # fmt: skip


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _altered(path: Path, old: bytes, new: bytes) -> Path:
    """Replace the first match in each of the two headers of the only member."""
    content = path.read_bytes()
    for start in (b"PK\3\4", b"PK\1\2"):
        at = content.index(old, content.index(start) + 4)
        content = content[:at] + new + content[at + len(new) :]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 10**7)
    write, words = HOSTILE[name]
    path = write(tmp_path / "a.npz")
    with in_time(30), pytest.raises(RapdartsError) as refusal:
        readers.read_images(DataConfig(name="npz", path=str(path)))
    assert words in str(refusal.value) and str(path) in str(refusal.value)
    assert refusal.value.exit_code in (2, 4)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_plain_arrays_are_read_as_numpy_does(save: Callable[..., None], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.normal(size=(3, 4)),
        "y": np.asfortranarray(rng.integers(9, size=(2, 5))),
        "big": np.arange(4, dtype=">i2"),
    }
    save(tmp_path / "a.npz", **arrays, one=np.float32(2), none=np.zeros((0, 3)))
    found = read_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as expected:
        assert list(found) == expected.files
        for name in expected.files:
            assert found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name])


def test_no_more_members_are_read_than_are_allowed(tmp_path: Path) -> None:
    """Only the part of the directory that members of this number can fill is read."""
    read: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            read.append(len(found))
            return found

    content = many(tmp_path / "a.zip", 20_000).read_bytes()
    with pytest.raises(ValueError, match="its list of members is too long"):
        archives.open_zip(Counted(content), 100)
    assert sum(read) <= 100 * archives.ENTRY_BYTES + archives.TAIL_BYTES + 1 < len(content) / 5


# --- .tar.gz -----------------------------------------------------------------------------------------------------

WANTED = {"data_batch_1.bin": 3073}


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, mode
    return info, io.BytesIO(content)


def tar(path: Path, *members: tuple, comment: str = "") -> Path:
    with tarfile.open(
        path, "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": comment} if comment else {}
    ) as archive:
        for info, content in members:
            archive.addfile(info, content)
    return path


OUTSIDE = bytes(3073)
UNSAFE = {
    "above": member("../data_batch_1.bin", OUTSIDE),
    "absolute": member("/data_batch_1.bin", OUTSIDE),
    "symbolic link": member("data_batch_1.bin", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard link": member("data_batch_1.bin", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "device": member("data_batch_1.bin", kind=tarfile.CHRTYPE),
    "FIFO": member("data_batch_1.bin", kind=tarfile.FIFOTYPE),
    "folder": member("data_batch_1.bin", kind=tarfile.DIRTYPE),
    "short": member("data_batch_1.bin", bytes(30)),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_members_are_not_read(name: str, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", UNSAFE[name])
    with pytest.raises(DamagedError, match=r"contains no file data_batch_1\.bin|expected 3073 bytes, found 30"):
        read_tar(path, WANTED, "names.txt", 100)
    assert os.listdir(tmp_path) == ["a.tar.gz"]


def test_an_archive_is_read_but_nothing_is_written(tmp_path: Path) -> None:
    setuid = member("some/data_batch_1.bin", OUTSIDE, mode=0o4755)
    path = tar(tmp_path / "a.tar.gz", setuid, member("some/names.txt", b"cat dog"), member("some/readme.txt", b"hello"))
    assert read_tar(path, WANTED, "names.txt", 100) == {"data_batch_1.bin": OUTSIDE, "names.txt": b"cat dog"}
    assert os.listdir(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: tar(path, member("data_batch_1.bin", OUTSIDE), member("zeros", bytes(10**7))),
        lambda path: tar(path, member("data_batch_1.bin", OUTSIDE), comment="x" * 10**7),
        lambda path: tar(path, member("data_batch_1.bin", OUTSIDE), member("x/data_batch_1.bin", OUTSIDE)),
        lambda path: path.write_bytes(gzip.compress(bytes(10**7))) and path,
        lambda path: path.write_bytes(gzip.compress(OUTSIDE)) and path,
    ],
    ids=["a large member", "a large header", "a member twice", "zeros", "no tar"],
)
def test_archives_that_unpack_to_more_are_refused(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar.gz")
    with in_time(20), pytest.raises(DamagedError, match=r"a\.tar\.gz (is damaged|contains no file)"):
        read_tar(path, WANTED, "names.txt", 100)


# --- IDX ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_the_stated_size_of_idx_is_not_believed(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header states 64 GB, and the file holds as much: packed, it would take a small file."""
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 10**6)
    header = struct.pack(">IIII", 0x803, 2**16, 2**10, 2**10)
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    if packed:
        path.write_bytes(gzip.compress(header + bytes(10**7)))
    else:
        path.write_bytes(header)
        os.truncate(path, 2**35)
    with in_time(20), pytest.raises((DamagedError, InputError), match="train-images"):
        readers.read_images(DataConfig(name="mnist", path=str(tmp_path)))
