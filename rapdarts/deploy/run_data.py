"""On which data is a trained network tested: those of its run, or others that the user confirms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rapdarts.config import resolve
from rapdarts.config.command_options import OtherDataConfig
from rapdarts.config.experiment import DataConfig, Experiment
from rapdarts.config.given import check_same_data
from rapdarts.data.dataset import DataSet
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import run_of


def data_asked(own: DataConfig, asked: OtherDataConfig, image: tuple[int, int, int]) -> DataConfig:
    """Return the data that are asked for, over those of a run or an experiment, for a network that takes `image`."""
    if asked.name:
        own = DataConfig(asked.name, size=image[1] if asked.name == "folder" else 0)
    return replace(own, path=asked.path or own.path, size=asked.size or own.size)


def check_data(what: Path, image: tuple[int, int, int], class_names: tuple[str, ...], data: DataSet) -> None:
    """Raises InputError for data of other images or classes than the network `what` was trained on."""
    known, found = (image, class_names), (data.image, data.class_names)
    if known != found:
        raise InputError(
            f"{what} was trained on images {known[0]} of the classes {shorten(', '.join(known[1]))}, but these are"
            f" {found[0]} of {shorten(', '.join(found[1]))}; name other data with data.path=PATH, or another experiment."
        )


def experiment_of(path: Path, name: str = "", *, needed: bool = True, confirmed: bool = False) -> Experiment:
    """Return the experiment on whose data a trained network is tested: the one of that name, or that of the run it lies in.

    Where nothing says which data, and it is not `needed`, the defaults. Raises InputError where it is, and for an
    experiment on other data than the run's unless that is `confirmed` by a data.name of its own.
    """
    folder = run_of(path)
    if name:
        asked = resolve.resolve_experiment(name, [])
        if folder is not None and not confirmed:
            check_same_data(folder, asked.data, name)
        return asked
    if folder is not None:
        return resolve.experiment_of_run(folder)
    if not needed:
        return Experiment()
    raise InputError(
        f"there is no config.yaml beside {path} that says on which data to test; name an experiment behind it, such as digits."
    )
