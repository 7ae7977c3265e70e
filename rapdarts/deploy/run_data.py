"""Test data of a trained network: the data of its run, or other data that the user confirms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from rapdarts.config import resolve
from rapdarts.config.command_options import OtherDataConfig
from rapdarts.config.experiment import DataConfig, Experiment
from rapdarts.config.given import check_same_data, place_of
from rapdarts.data.dataset import DataSet, build_dataset, build_test_set
from rapdarts.data.images import ReadImages
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile, run_of
from rapdarts.training.checkpoint import origin_of

ALL_TESTED = "no test images are marked, and these are not the images of the network's run, so all of them are tested"
"""Remark on data without test images."""


def data_asked(own: DataConfig, asked: OtherDataConfig, image: tuple[int, int, int]) -> DataConfig:
    """Return the data settings of a run or an experiment, overridden by `asked`, for a network that takes `image`."""
    if asked.name:
        own = DataConfig(asked.name, size=image[1] if asked.name == "folder" else 0)
    found = replace(
        own,
        path=asked.path or own.path,
        size=asked.size or own.size,
        range=asked.range or own.range,
        layout=asked.layout or own.layout,
    )
    resolve.check_data_settings(found)
    return found


def check_data(what: Path, image: tuple[int, int, int], class_names: tuple[str, ...], data: DataSet) -> None:
    """Raise InputError if the images or classes of the data differ from those that the network `what` was trained on."""
    known, found = (image, class_names), (data.image, data.class_names)
    if known != found:
        raise InputError(
            f"{what} was trained on images of shape {known[0]} with the classes {shorten(', '.join(known[1]))}, but these data have"
            f" images of shape {found[0]} with the classes {shorten(', '.join(found[1]))}; set data.path=PATH, or use another"
            " experiment."
        )


def data_to_test(file: Path, asked: DataConfig, read: ReadImages, device: torch.device, seed: int) -> DataSet:
    """Build the data set on which the trained network in `file` is tested.

    If the images mark no test images, those of the network's own run are divided as in the run, and all others are tested. Images
    are those of the run if they are in the same place or have the same fingerprint, or if the run is not known.
    """
    folder = run_of(file)
    if read.test is not None or folder is None:
        return build_dataset(asked, read, device, seed)
    run, known = resolve.experiment_of_run(folder), origin_of(folder / RunFile.CHECKPOINT).get("data set", "")
    asked = replace(asked, fraction=run.data.fraction)  # the fingerprint depends on it and on the seed
    if not known or (asked.name != "memory" and place_of(asked) == place_of(run.data)):
        return build_dataset(asked, read, device, run.seed)
    if int(torch.bincount(read.train.labels, minlength=1).min()) > 1:  # otherwise the run could not have divided them
        data = build_dataset(asked, read, device, run.seed)
        if data.fingerprint == known:
            return data
    return build_test_set(asked, replace(read, remarks=(*read.remarks, ALL_TESTED)), device)


def experiment_of(path: Path, name: str = "", *, needed: bool = True, confirmed: bool = False) -> Experiment:
    """Return the experiment that provides the test data of a trained network: `name` if given, else that of its run folder.

    If there is neither, returns the defaults, or raises InputError if the data are `needed`. Also raises InputError for an
    experiment with data other than the run's, unless they are `confirmed` by an explicit data.name.
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
        f"{path} is not in a run folder, so its test data are unknown; add an experiment after it, such as digits."
    )
