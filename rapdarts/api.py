"""The library: what a program does with rapdarts, each one function. `import rapdarts` offers all of them.

A mistake is an InputError with the sentence that the command would say; what else can stop a run is a RapdartsError too.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rapdarts.architecture.genotype import Genotype, validate
from rapdarts.architecture.reading import parse
from rapdarts.architecture.space import Factory, SearchSpace
from rapdarts.config import knobs, resolve
from rapdarts.config.commands import CountConfig
from rapdarts.config.experiment import Experiment, HardwareConfig, Launch, image_shape
from rapdarts.cost.count import count, resources
from rapdarts.cost.prices import read_hardware
from rapdarts.data.dataset import DataSet, build_dataset
from rapdarts.data.in_memory import read_in_memory
from rapdarts.deploy import lookup, skeletons
from rapdarts.deploy.blueprint import Blueprint
from rapdarts.deploy.lookup import named_space
from rapdarts.deploy.model_file import TrainedFile, deployed, load_network, read_trained
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops import launch as launches
from rapdarts.loops.launch import Retrained, Searched
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.networks.primitives import check_primitives
from rapdarts.networks.reference import REFERENCE, find

Space = str | SearchSpace | None
Settings = Mapping[str, Any]
AnyPath = str | os.PathLike[str]


# --- runs --------------------------------------------------------------------------------------------------------


def search(
    experiment: AnyPath | Experiment | Settings = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Searched:
    """Searches for a cell, as `rapdarts search` does; gives its genotype, the other candidates, and what they cost.

    `experiment` is the name of one that ships, a YAML file, a value, or a mapping of keys (over the defaults: P-DARTS
    on CIFAR). `settings` and `keys` set others on top: `{"cost.macs": 0.2}`, `{"search": {"epochs": 5}}` or `epochs=5`.

    `data` and `test` are (images, labels) or map-style data sets (rapdarts.training.given says what they may hold);
    without them the experiment's own are read. Where `data` come without `test`, a third of them is put aside, the
    same third by every search and retraining, and never looked at by a search. `space` is a name or a value.

    `run` is the run's folder (empty: a new one under runs/); the same call with `resume` continues it. Progress goes to
    stderr. In the main thread a signal, Ctrl-C too, saves the run and raises Preempted. Torch's generators and its
    number of threads are left as they were. Raises RapdartsError.
    """
    config, name, pairs = _experiment("search", experiment, settings, keys, data)
    found = _space(config.search.space if space is None else space)
    config = replace(config, search=replace(config.search, space=found.name))
    if config.search.strategy == "random":
        raise InputError("search.strategy=random finds no genotype but trains many; run it as rapdarts search.")
    launch, read = _launch(pairs, run, resume), _reader(config, data, test)
    with _as_it_was():
        return launches.search(config, found, launch, name, _code(space), read, progress)


def retrain(
    network: Genotype | AnyPath,
    experiment: AnyPath | Experiment | Settings = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Retrained:
    """Trains a network from scratch, as `rapdarts retrain` does; gives the network, and its accuracy on the test images.

    `network` is a genotype in any form that `read` takes, or the name of a reference network. The other arguments are
    those of `search`; `space` is the genotype's own where none is given. Raises RapdartsError.
    """
    config, name, pairs = _experiment("retrain", experiment, settings, keys, data)
    asked = resolve.keys_given_in("skeleton", pairs, "retrain")
    if isinstance(network, Genotype) or find(os.fspath(network)) is None:
        genotype, own = _placed(_genotype(network, lambda name: lookup.named(name, REFERENCE)), space)
        if space is not None:
            config = replace(config, search=replace(config.search, space=own.name))
        plan = launches.plan_for(genotype, lambda name: own, asked)
    else:
        plan = launches.plan_for(os.fspath(network), named_space, asked, "" if space is None else "space=")
    launch, reader = _launch(pairs, run, resume), _reader(config, data, test)
    with _as_it_was():
        return launches.retrain(config, plan, launch, name, _code(space), reader, progress)


# --- networks ----------------------------------------------------------------------------------------------------


def load(path: AnyPath, *, normalise: bool = True, classes: int | None = None, space: Space = None) -> nn.Module:
    """A trained network, in eval mode on the CPU: an ordinary module from pixels (n, c, h, w) in 0..1 to logits (n, classes).

    `path` is the folder of a retraining, or a .safetensors file that one wrote. The module is `nn.Sequential` of
    `normalise`, by the statistics that it was trained with, and `network`; without `normalise` it is the network alone.

    With `classes` its last layer (what is as wide as there are classes) is a fresh one for so many, whatever it had; all
    other weights stay: a start for other data (torch's generator draws the new ones; call `.train()`). `space` is that
    of its genotype, if it is one of yours. Raises InputError where there is no such network, DamagedError if the file is broken.
    """
    file = Path(path)
    trained = read_trained(file / RunFile.NETWORK if file.is_dir() else file, lambda name: _space(space or name))
    module = deployed(trained)
    if classes is not None:
        module.network = _with_new_head(trained, classes)
    return module if normalise else module.get_submodule("network")


def derived(
    genotype: Genotype | AnyPath,
    channels: int | None = None,
    layers: int | None = None,
    image: tuple[int, int, int] | None = None,
    classes: int | None = None,
    stem: str | None = None,
    *,
    auxiliary: bool = False,
    space: Space = None,
) -> DerivedNetwork:
    """The network of a genotype in any form that `read` takes, with fresh weights: images (n, c, h, w) to logits (n, classes).

    What is None is as the genotype was priced, else as its space deploys it (darts: 36 channels, 20 layers), on images
    (3, 32, 32) of 10 classes. `stem` is cifar, imagenet or auto. With `auxiliary` it has a second head in training, and
    gives a pair of logits then. Raises InputError.
    """
    genotype, own = _placed(read(genotype), space)
    options = _options(channels=channels, layers=layers, image=image, classes=classes, stem=stem)
    return DerivedNetwork(genotype, own, skeletons.skeleton_for(own, options, genotype.skeleton), auxiliary)


def costs(
    network: nn.Module | Genotype | AnyPath,
    image: tuple[int, int, int] | None = None,
    classes: int | None = None,
    *,
    channels: int | None = None,
    layers: int | None = None,
    stem: str | None = None,
    precision: int | None = None,
    hardware: AnyPath | HardwareConfig | None = None,
    space: Space = None,
) -> dict[str, float]:
    """What a network takes, counted: macs, params, bytes, activations, traffic, energy (J) and peak_memory (bytes) of one image.

    `network` is any module, a genotype in any form that `read` takes, or the name of a reference network; the skeleton
    of a genotype is found as by `derived`. `precision` is in bits (32, 16, 8), `hardware` a file or a value with
    energies. Raises InputError.
    """
    asked = {"channels": channels, "layers": layers, "image": image, "classes": classes, "stem": stem}
    options = _options(**asked, precision=precision)
    given = ["input" if name == "image" else name for name, value in asked.items() if value is not None]
    energies = (
        hardware if hardware is None or isinstance(hardware, HardwareConfig) else read_hardware(os.fspath(hardware))
    )
    if isinstance(network, nn.Module):
        name = f"a {type(network).__name__}"
        lookup.refuse(given, lookup.OF_ALL, name)
        lookup.refuse_lazy(network, name)
        size = image_shape(options.input) if options.input else skeletons.IMAGE
        return count(network, size, resources(options.precision or 32, energies or HardwareConfig()))
    target = None if isinstance(network, Genotype) else lookup.of_name(os.fspath(network), options)
    if target is None:
        genotype, own = _placed(_genotype(network, lookup.genotype_named), space)
        target = lookup.of_genotype("the genotype", genotype, own, options)
    lookup.refuse(given, target.keys, target.name)
    bits, usual = target.deployment
    return count(target.network, target.image, resources(options.precision or bits, energies or usual))


def read(genotype: Genotype | AnyPath, space: str = "darts") -> Genotype:
    """A genotype: a value, a literature name such as PDARTS, a file or run folder, or a text in a form that export writes.

    `space` is the space of a text in the DARTS dialect, which leaves it open. Raises InputError.
    """
    return _genotype(genotype, lookup.named, space)


# --- what a program gives, made into the things themselves -------------------------------------------------------


Pairs = list[tuple[str, Any]]


def _experiment(
    verb: str, given: AnyPath | Experiment | Settings, settings: Settings | None, keys: Settings, data: Any
) -> tuple[Experiment, str, Pairs]:
    """The experiment, what its runs are called, and the (key, value) pairs that were given beside a file or a value."""
    pairs, name = [*_pairs(settings or {}), *_pairs(keys)], ""
    if isinstance(given, Experiment):
        config = resolve.changed_experiment(given, pairs, verb)
    elif isinstance(given, Mapping):
        pairs = [*_pairs(given), *pairs]
        config = resolve.resolve_experiment("", pairs, verb)
    else:
        config, name = resolve.resolve_experiment(os.fspath(given), pairs, verb), Path(given).stem
    if data is not None:
        config = replace(config, data=replace(config.data, name="memory", path=""))
    return config, name or config.data.name, pairs


def _pairs(settings: Settings, prefix: str = "") -> Pairs:
    """(dotted key, value) of a mapping, and of the mappings in it."""
    found: Pairs = []
    for key, value in knobs.plain(settings).items():
        if isinstance(value, Mapping):
            found += _pairs(value, f"{prefix}{key}.")
        else:
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            found.append((f"{prefix}{key}", list(plain) if isinstance(plain, tuple) else plain))
    return found


def _launch(pairs: Pairs, run: AnyPath, resume: bool) -> Launch:
    """Where the run lives, which may stand among the keys too. Raises InputError."""
    folder = [("run", os.fspath(run))] if os.fspath(run) else []
    return resolve.resolve_launch([*pairs, *folder, *([("resume", True)] if resume else [])])


def _reader(config: Experiment, data: Any, test: Any) -> launches.Read | None:
    """How the data that were given come to a device; None where there are none."""
    if data is None:
        if test is not None:
            raise InputError("test= is given without data=; give both, or neither.")
        return None
    read = read_in_memory(data, test)

    def on_device(device: torch.device) -> DataSet:
        return build_dataset(config.data, *read, device, config.seed)

    return on_device


def _space(given: str | SearchSpace) -> SearchSpace:
    """The space of that name, or the one that is given. Raises InputError."""
    if isinstance(given, str):
        return named_space(given)
    check_primitives(given, f"the space {given.name}")
    return given


def _code(space: Space) -> str:
    """What a run remembers of a space that does not ship, so that a resume notices another."""
    if space is None or isinstance(space, str):
        return ""
    facts = [f"{part.name}={getattr(space, part.name)!r}" for part in fields(space) if part.name != "primitives"]
    return "\n".join([*facts, *(_described(name, factory) for name, factory in space.primitives.items())])


def _described(name: str, factory: Factory) -> str:
    """What a primitive is, the same in every process: the modules that it builds, their weights, its source and that of their classes."""
    lines, sources = [name], {_source(factory): None}
    for stride in (1, 2):
        with torch.device("meta"):
            module = factory(4, stride, True)
        lines.append(re.sub(r"0x[0-9a-fA-F]+", "", repr(module)))  # addresses
        lines += [f"{key} {tuple(value.shape)} {value.dtype}" for key, value in module.state_dict().items()]
        sources |= dict.fromkeys(_source(type(part)) for part in module.modules())
    return "\n".join([*lines, *sources])


def _source(thing: Any) -> str:
    """The source of a function or a class; the name alone of torch's own, and where there is no source."""
    thing = inspect.unwrap(thing.func if isinstance(thing, partial) else thing)
    named = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    try:
        return named if named.startswith("torch.") else inspect.getsource(thing)
    except (OSError, TypeError):
        return named


def _genotype(
    given: Genotype | AnyPath, named: Callable[[str], tuple[Genotype, str]], space: str = "darts"
) -> Genotype:
    """A genotype as `read` takes it; `named` gives that of a name, a file or a run folder."""
    if isinstance(given, Genotype):
        return given
    text = os.fspath(given)
    is_text = any(mark in text for mark in "({|") and lookup.find_genotype(text) is None and not os.path.exists(text)
    return parse(text, "the genotype", space) if is_text else named(text)[0]


def _placed(genotype: Genotype, space: Space) -> tuple[Genotype, SearchSpace]:
    """A genotype in a space, its own where none is given. Raises InputError where it is none of that space."""
    own = _space(genotype.space if space is None else space)
    validate(genotype, own, "the genotype")
    return replace(genotype, space=own.name), own


def _options(**given: Any) -> CountConfig:
    """What is asked of a network, checked; None asks for nothing. Raises InputError."""
    image = given.pop("image")
    if image is not None:
        if not (
            isinstance(image, tuple | list | torch.Size) and len(image) == 3 and all(type(n) is int for n in image)
        ):
            raise InputError(f"image={image!r} must be (channels, height, width), such as (3, 32, 32).")
        given["input"] = "x".join(map(str, image))
    return knobs.parse_settings(CountConfig, [(key, value) for key, value in given.items() if value is not None])


def _with_new_head(trained: TrainedFile, classes: int) -> nn.Module:
    """The trained network with fresh weights where the number of classes shows in their shape. Raises InputError."""
    classes = _options(image=None, classes=classes).classes
    if not classes:
        raise InputError("classes=0: a classifier needs at least one; give a number.")
    network = trained.blueprint.with_classes(classes).build()
    head = head_of(trained.blueprint)
    kept = {name: weight for name, weight in load_network(trained).state_dict().items() if name not in head}
    network.load_state_dict({**network.state_dict(), **kept})
    return network.eval()


def head_of(blueprint: Blueprint) -> frozenset[str]:
    """The names of the weights whose shape changes with the number of classes."""
    with torch.device("meta"):
        one, other = (blueprint.with_classes(classes).build().state_dict() for classes in (2, 3))
    return frozenset(name for name in one if one[name].shape != other[name].shape)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Leaves torch's generators and its number of threads as they were: a run sets both."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        torch.cuda.set_rng_state_all(devices)
