"""Files of other programs that are not read: what to tell a user who names one, with the line that converts it."""

from __future__ import annotations

from pathlib import Path

BY_SUFFIX = {
    ".npy": "is one array; data.name=npz reads an .npz file with x and y: numpy.savez('data.npz', x=numpy.load('{name}'), y=labels)",
    ".mat": "is a MATLAB file; data.name=npz reads an .npz file with x and y, as from SVHN's: m = scipy.io.loadmat('{name}'); "
    "numpy.savez('data.npz', x=numpy.moveaxis(m['X'], -1, 0), y=m['y'].ravel() % 10)",
    ".parquet": "is a Parquet file; pass its rows from Python: "
    "rapdarts.search(..., data=datasets.load_dataset('parquet', data_files='{name}')['train'])",
    ".csv": "is a table; data.name=npz reads an .npz file with x and y: t = numpy.loadtxt('{name}', delimiter=',', skiprows=1); "
    "numpy.savez('data.npz', x=t[:, 1:].reshape(-1, HEIGHT, WIDTH), y=t[:, 0].astype(int))",
    ".pkl": "is a pickle, which can run code and is never loaded; save its arrays with numpy.savez('data.npz', x=images, y=labels)"
    " and read that with data.name=npz",
    ".pt": "may run code when it is loaded; save its arrays with numpy.savez('data.npz', x=images, y=labels) and read that with"
    " data.name=npz",
}
HDF5 = (
    "is an HDF5 file; data.name=npz reads an .npz file with x and y: f = h5py.File('{name}'); "
    "numpy.savez('data.npz', x=f['x'][:], y=f['y'][:])"
)
CIFAR_PICKLES = (
    "is the Python version of CIFAR, whose pickles can run code and are never loaded; use the binary version, which is"
    " downloaded if data.path is left out"
)
BY_SUFFIX |= dict.fromkeys((".h5", ".hdf5"), HDF5) | dict.fromkeys((".pickle", ".pth"), BY_SUFFIX[".pkl"])

DOTTED_IDX = (
    "has a dot where the name that is read has a hyphen; rename it: mv {name} {fixed}"  # as some mirrors unpack MNIST
)


def advice(path: Path) -> str:
    """Return what a file is that is not read, or the first such file of a folder, and how to convert it; "" if it is unknown."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        name = file.name
        if (name.startswith("cifar-10") and ("python" in name or name.endswith("-py"))) or name in PICKLED_CIFAR:
            return f"{name} {CIFAR_PICKLES}"
        if ".idx" in name and "ubyte" in name:
            return f"{name} {DOTTED_IDX.format(name=name, fixed=name.replace('.idx', '-idx'))}"
        if file.suffix.lower() in BY_SUFFIX:
            return f"{name} {BY_SUFFIX[file.suffix.lower()].format(name=name)}"
    return ""


PICKLED_CIFAR = {*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"}
"""Files of CIFAR-10's Python version; those of the binary version end in .bin."""
