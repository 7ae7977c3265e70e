"""Advice on files in formats that are not supported, with the code that converts them."""

from __future__ import annotations

from pathlib import Path

BY_SUFFIX = {
    ".npy": "contains a single array; convert it for data.name=npz with numpy.savez('data.npz', x=numpy.load('{name}'), y=labels)",
    ".mat": "is a MATLAB file; convert it for data.name=npz, for example SVHN with m = scipy.io.loadmat('{name}'); "
    "numpy.savez('data.npz', x=numpy.moveaxis(m['X'], -1, 0), y=m['y'].ravel() % 10)",
    ".parquet": "is a Parquet file; pass its rows from Python: "
    "rapdarts.search(..., data=datasets.load_dataset('parquet', data_files='{name}')['train'])",
    ".csv": "is a table; convert it for data.name=npz with t = numpy.loadtxt('{name}', delimiter=',', skiprows=1); "
    "numpy.savez('data.npz', x=t[:, 1:].reshape(-1, HEIGHT, WIDTH), y=t[:, 0].astype(int))",
    ".pkl": "is a pickle file, which can run code and is never loaded; save its arrays with numpy.savez('data.npz', x=images,"
    " y=labels) and use data.name=npz",
    ".pt": "can run code when it is loaded; save its arrays with numpy.savez('data.npz', x=images, y=labels) and use"
    " data.name=npz",
}
HDF5 = (
    "is an HDF5 file; convert it for data.name=npz with f = h5py.File('{name}'); "
    "numpy.savez('data.npz', x=f['x'][:], y=f['y'][:])"
)
CIFAR_PICKLES = (
    "belongs to the Python version of CIFAR, which contains pickle files that can run code and are never loaded; use the"
    " binary version, which is downloaded if you leave out data.path"
)
BY_SUFFIX |= dict.fromkeys((".h5", ".hdf5"), HDF5) | dict.fromkeys((".pickle", ".pth"), BY_SUFFIX[".pkl"])

DOTTED_IDX = "has a dot instead of a hyphen in its name; rename it: mv {name} {fixed}"  # as some mirrors unpack MNIST


def advice(path: Path) -> str:
    """Return advice on how to convert an unsupported file, or the first such file in a folder; "" if there is no advice."""
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
