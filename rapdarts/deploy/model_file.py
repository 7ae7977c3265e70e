"""Files of trained networks: the weights, and the metadata that are needed to build and use the network."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rapdarts.cost.count import not_counted
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.blueprint import Blueprint, of_card
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import DamagedError, InputError, ran_out_of_memory
from rapdarts.files import seal
from rapdarts.files.json import strict_loads
from rapdarts.files.regular import open_regular, read_bytes
from rapdarts.networks.layers import Normalise
from rapdarts.training.optimizer import to_device

CARD = "rapdarts"
"""Key of the only metadata entry of our .safetensors files: with several entries, their order in the file would vary between calls."""

MOST_BYTES = 10**10
"""Maximum size of a file of weights."""


@dataclass(frozen=True)
class TrainedFile:
    """The metadata of one of our .safetensors files. `mean` and `std` normalise each channel of pixels in 0..1.

    `seal` is the hash of the file, or empty in a file of an older version.
    """

    path: Path
    blueprint: Blueprint
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    seal: str = ""

    @property
    def image(self) -> tuple[int, int, int]:
        """Shape of the input image (channels, height, width)."""
        return self.blueprint.image

    @property
    def costs(self) -> Mapping[str, float]:
        """Cost of the network in every resource."""
        return self.blueprint.costs

    @property
    def not_counted(self) -> Mapping[str, Sequence[str]]:
        """Operations not counted in the MACs, each with its layers."""
        with torch.device("meta"):
            return not_counted(self.blueprint.build(), self.image)

    def open(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return the network on a device, as a function from pixels (n, c, h, w) in 0..1 to logits (n, classes)."""
        return to_device(deployed(self), device)


def read_trained(path: Path, space: Space = None) -> TrainedFile:
    """Read the metadata of a trained network; `space` is its search space if that space is not shipped with rapdarts.

    Raises InputError if there is no such file, and DamagedError if it cannot be read.
    """
    if not path.is_file():
        raise InputError(
            f"there is no trained network at {path}; pass a run folder created by rapdarts retrain, or its network.safetensors."
        )
    try:
        with _open(path) as (tensors, file):
            metadata = tensors.metadata() or {}
            if CARD not in metadata:
                raise ValueError("it has no rapdarts metadata")
            card = strict_loads(metadata[CARD])
            if seal.KEY in card:
                seal.check_stream(file, card[seal.KEY], path)
        blueprint, data = of_card(card, str(path), space), card["data"]
        mean, std = (_by_channel(data[name], name, blueprint.image[0]) for name in ("mean", "std"))
        if not all(deviation > 0 for deviation in std):
            raise ValueError("its std has values that are not positive")
        names = data["classes"]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("its classes are not a list of names")
        if len(names) != blueprint.classes:
            raise ValueError(f"it names {len(names)} classes, but its network has {blueprint.classes}")
        if seal.KEY not in card:
            seal.report_unsealed(path)
        return TrainedFile(path, blueprint, mean, std, tuple(names), card.get(seal.KEY, ""))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path} is not a network written by rapdarts retrain, or is damaged ({error}).") from None


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, BinaryIO]]:
    """Open a .safetensors file, for its tensors and for its bytes. Raises the errors of `open_regular` and `safe_open`."""
    with open_regular(path, most=MOST_BYTES) as file:
        # Not by its name: another file may have it by now, and the library accepts only names in UTF-8.
        with safe_open(f"/dev/fd/{file.fileno()}", "pt") as tensors:
            yield tensors, file


def _by_channel(values: Any, name: str, channels: int) -> tuple[float, ...]:
    """Return one finite number for each channel. Raises ValueError for anything else."""
    if not (isinstance(values, list) and len(values) == channels):
        raise ValueError(f"its {name} is not a list of {channels} numbers, one per channel")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise ValueError(f"its {name} has values that are not finite numbers")
    return tuple(values)


def load_network(trained: TrainedFile) -> nn.Module:
    """Load the trained network, in eval mode on the CPU. Raises DamagedError if the weights do not fit the network."""
    with torch.device("meta"):  # so that a damaged file cannot claim more memory than its weights take
        network = trained.blueprint.build()
    try:
        places = network.state_dict()
        with _open(trained.path) as (file, content):
            if trained.seal:  # again, because the file may have been replaced since its metadata were read
                seal.check_stream(content, trained.seal, str(trained.path))
            kept = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            for name, place in places.items():
                if kept.get(name, place.shape) != place.shape:
                    raise RuntimeError(f"{name} is {kept[name]}, not {tuple(place.shape)}")
            # Clone: the tensors are mapped from the file, which may change. Other tensors may have any size and are not read.
            weights = {name: file.get_tensor(name).clone() if name in places else torch.empty(0) for name in kept}
        for name, place in places.items():
            weight = weights.get(name, place)  # load_state_dict reports missing weights
            fits = weight.is_floating_point() or weight.dtype == place.dtype
            if weight.shape != place.shape or not fits:
                kinds = [f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in (weight, place)]
                raise RuntimeError(f"{name} is {kinds[0]}, not {kinds[1]}")
        network.load_state_dict(weights, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        if ran_out_of_memory(error):
            raise
        raise DamagedError(
            f"{trained.path}: the weights do not match the network ({' '.join(str(error).split())[:300]})."
        ) from None
    return network.eval().float()


def content_of(trained: TrainedFile) -> bytes:
    """Return the content of the file of a trained network. Raises DamagedError if it is not the file whose metadata were read."""
    content = read_bytes(trained.path, most=MOST_BYTES)
    if trained.seal:
        seal.check_bytes(content, trained.seal, str(trained.path))
    return content


def deployed(trained: TrainedFile) -> nn.Sequential:
    """Return the trained network, including its normalisation, from pixels (n, c, h, w) in 0..1 to logits (n, classes).

    `.network` is the network without the normalisation. Raises DamagedError as `load_network` does.
    """
    parts = OrderedDict(normalise=Normalise(trained.mean, trained.std), network=load_network(trained))
    return nn.Sequential(parts).eval()


def to_safetensors(weights: Mapping[str, Tensor], blueprint: Blueprint, data: DataSet) -> bytes:
    """Return the content of a file with the weights of a network (tensors of any shape) and everything needed to use them.

    The weights of the auxiliary head are left out: only training uses them.
    """
    kept = {name: value.cpu().contiguous() for name, value in weights.items() if not name.startswith("auxiliary.")}
    card = {
        seal.KEY: seal.BLANK,
        **blueprint.card,
        "data": {"mean": data.mean, "std": data.std, "classes": data.class_names},
    }
    return seal.seal_bytes(safetensors.torch.save(kept, {CARD: json.dumps(card)}))


def with_new_head(trained: TrainedFile, classes: int) -> nn.Module:
    """Return the trained network with fresh weights wherever their shape depends on the number of classes. Raises InputError."""
    if not classes:
        raise InputError("classes=0: a classifier needs at least one class.")
    network = trained.blueprint.with_classes(classes).build()
    head = head_of(trained.blueprint)
    kept = {name: weight for name, weight in load_network(trained).state_dict().items() if name not in head}
    network.load_state_dict({**network.state_dict(), **kept})
    return network.eval()


def head_of(blueprint: Blueprint) -> frozenset[str]:
    """Return the names of the weights whose shape changes with the number of classes."""
    with torch.device("meta"):
        one, other = (blueprint.with_classes(classes).build().state_dict() for classes in (2, 3))
    return frozenset(name for name in one if one[name].shape != other[name].shape)
