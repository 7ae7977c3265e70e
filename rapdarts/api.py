"""The library: what a program does with rapdarts, one function each, and what every command calls. `import rapdarts` offers them.

A mistake is an InputError with the sentence that the command would print; every other failure of a run is a RapdartsError too.
Whatever can be checked without torch is checked before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.architecture.genotype import Genotype, validate
from rapdarts.config import resolve
from rapdarts.config.commands import CountConfig, DeriveConfig, EvaluateConfig, ExportConfig, MeasureConfig
from rapdarts.config.experiment import Experiment, HardwareConfig
from rapdarts.config.settings import (
    Settings,
    command_options,
    continued,
    launch_of,
    names_in,
    pairs_of,
    read_experiment,
)
from rapdarts.deploy import lookup
from rapdarts.deploy.space_lookup import Space, find_space, source_of
from rapdarts.errors import InputError, shorten

if TYPE_CHECKING:
    from torch import nn

    from rapdarts.architecture.space import SearchSpace
    from rapdarts.cost.layers import NetworkCosts
    from rapdarts.loops.results import Evaluated, Exported, Measured, RandomBaseline, Ranked, Retrained, Searched
    from rapdarts.networks.derived import DerivedNetwork
    from rapdarts.reports.run_table import Report
    from rapdarts.strategy.derive import Derivation

AnyPath = str | os.PathLike[str]
Network = Any
"""A genotype in any form that `read` takes, a reference network's name, a run folder, or the result of a run."""


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
    """Search for a cell, as `rapdarts search` does; return its genotype, the other candidates, and what they cost.

    `experiment` is the name of one that ships, a YAML file, a value, or a mapping of keys (over the defaults: P-DARTS
    on CIFAR). `settings` and `keys` set others on top: `{"cost.macs": 0.2}`, `{"search": {"epochs": 5}}` or `epochs=5`.

    `data` and `test` are (images, labels) or map-style data sets (rapdarts.data.in_memory says what they may hold);
    without them the experiment's own are read. Where `data` come without `test`, a third of them is put aside, the
    same third by every search and retraining, and never looked at by a search. `space` is a name, a file or a value.

    `run` is the run's folder (empty: a new one under runs/); with `resume` the run there continues, and needs no
    experiment. Progress goes to stderr. In the main thread a signal, Ctrl-C too, saves the run and raises Preempted.
    Torch's generators and its number of threads are left as they were. Raises RapdartsError.
    """
    experiment = continued(experiment, settings, keys, run, resume)
    config, name, pairs = read_experiment("search", experiment, settings, keys, in_memory=data is not None)
    if config.search.strategy == "random":
        raise InputError("search.strategy=random finds no genotype but trains many; call rapdarts.random_baseline.")
    own, config = _searched(config, space)
    place = launch_of(pairs, run, resume)
    from rapdarts.loops import launch
    from rapdarts.loops.surroundings import as_it_was, reader_of

    read = reader_of(config, data, test)
    with as_it_was():
        return launch.search(config, own, place, name, source_of(space), read, progress)


def random_baseline(
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
) -> RandomBaseline:
    """Draw random genotypes of a given cost and train each, as `rapdarts search strategy=random` does; return what they reach.

    The arguments are those of `search`; `random.count`, `random.macs` and `random.like` among the keys say how many are
    drawn and at which cost. Raises RapdartsError.
    """
    experiment = continued(experiment, settings, keys, run, resume)
    keys = {**keys, "search.strategy": "random"}
    config, name, pairs = read_experiment("search", experiment, settings, keys, in_memory=data is not None)
    own, config = _searched(config, space)
    place = launch_of(pairs, run, resume)
    from rapdarts.loops import launch
    from rapdarts.loops.surroundings import as_it_was, reader_of

    read = reader_of(config, data, test)
    with as_it_was():
        return launch.random_baseline(config, own, place, name, source_of(space), read, progress)


def rank(
    targets: Network | Sequence[Network],
    settings: Settings | None = None,
    *,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Ranked:
    """Train the best candidates of finished searches briefly and rank them on training images kept aside, as `rapdarts rank` does.

    `targets` is one or several of: a search's folder or result, a genotype in any form that `read` takes. At least one is
    a search, and the experiment is the first one's. The other arguments are those of `search`. Raises RapdartsError.
    """
    several = targets if isinstance(targets, list | tuple) else [targets]
    words, space = [_word(one) for one in several], _own_space(space, *several)
    pairs = [*pairs_of(settings or {}), *pairs_of(keys)]
    from rapdarts.loops.ranking_settings import experiment_of_ranking, searches

    runs = searches(words)
    config, names_hardware = experiment_of_ranking(runs[0], pairs)
    place = launch_of(pairs, run, resume)
    from rapdarts.loops import launch, ranking_entries
    from rapdarts.loops.surroundings import as_it_was

    with as_it_was():
        data = launch.data_of(config)
        entries = ranking_entries.entries_of(words, config, data, space, names_hardware)
        name = runs[0].absolute().name
        return launch.rank(config, entries, data, place, name, source_of(space), progress)


def retrain(
    network: Network,
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
    """Train a network from scratch, as `rapdarts retrain` does; return the network, and its accuracy on the test images.

    `network` is a genotype in any form that `read` takes, the name of a reference network, or the result or folder of a
    run, whose experiment is the default. The other arguments are those of `search`; `space` is the genotype's own where
    none is given. Raises RapdartsError, and for an experiment on other data than the run's until `data.name` confirms them.
    """
    space, found = _own_space(space, network), lookup.find_network(_word(network))
    own = _own_experiment(found.folder)
    given = experiment
    if own is not None and experiment == "":
        experiment = own
    else:
        experiment = continued(experiment, settings, keys, run, resume)
    config, name, pairs = read_experiment("retrain", experiment, settings, keys, in_memory=data is not None)
    confirmed = data is not None or "data.name" in names_in("data", pairs, "retrain").values()
    asked = names_in("skeleton", pairs, "retrain")
    found, own_space = _to_train(found, space, asked)
    if own_space is not None and space is not None:
        config = replace(config, search=replace(config.search, space=own_space.name))
    place = launch_of(pairs, run, resume)
    from rapdarts.deploy.run_data import check_same_data
    from rapdarts.loops import launch
    from rapdarts.loops.surroundings import as_it_was, reader_of

    if own is not None and found.folder is not None and not confirmed:
        check_same_data(found.folder, own.data, config.data, f"{given}")
    read = reader_of(config, data, test)
    with as_it_was():
        return launch.retrain(config, found, own_space, not asked, place, name, source_of(space), read, progress)


# --- genotypes ---------------------------------------------------------------------------------------------------


def derive(
    search: Network, settings: Settings | None = None, *, space: Space = None, progress: bool = True, **keys: Any
) -> Derivation:
    """Derive another genotype from a finished search, as `rapdarts derive` does: with other budgets, another rule or skeleton.

    `search` is the folder or the result of a search, or its alphas.json. The keys are those of the command, such as
    `{"budget.params": "2.5M"}`, `max_skips=1` or `out=FILE`. Raises InputError.
    """
    options, _ = command_options(DeriveConfig, settings, keys)
    target, space = Path(_word(search)), _own_space(space, search)
    is_run = os.path.isdir(target)
    if not is_run and not os.path.isfile(target):
        raise InputError(
            f"there is no {shorten(str(target))}; give the folder of a finished search, or its alphas.json."
        )
    from rapdarts.files import atomic
    from rapdarts.loops.derivation import derive_again
    from rapdarts.training.log import Screen

    file = target / "alphas.json" if is_run else target
    found = derive_again(file, is_run, options, space, Screen(silent=not progress).say)
    if options.out:
        atomic.write(_file(options.out), found.genotype.to_json())
    return found


def read(genotype: Genotype | AnyPath, space: str = "darts") -> Genotype:
    """Return a genotype: a value, a literature name such as PDARTS, a file or run folder, or a text in a form that export writes.

    `space` is the space of a text in the DARTS dialect, which leaves it open. Raises InputError.
    """
    return lookup.find_network(_word(genotype), space, networks=False).the_genotype()


# --- networks ----------------------------------------------------------------------------------------------------


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
    """Return the network of a genotype in any form that `read` takes, with fresh weights: images (n, c, h, w) to logits (n, classes).

    What is None is as the genotype was priced, else as its space deploys it (darts: 36 channels, 20 layers), on images
    (3, 32, 32) of 10 classes. `stem` is cifar, imagenet or auto. With `auxiliary` it has a second head in training, and
    returns a pair of logits then. Raises InputError.
    """
    from rapdarts.deploy.counted import genotype_at, options_of

    options = options_of(channels=channels, layers=layers, image=image, classes=classes, stem=stem)
    return genotype_at(read(genotype), _own_space(space, genotype), options).build(auxiliary)


def load(path: Network, *, normalise: bool = True, classes: int | None = None, space: Space = None) -> nn.Module:
    """Return a trained network, in eval mode on the CPU: an ordinary module from pixels (n, c, h, w) in 0..1 to logits (n, classes).

    `path` is the folder or the result of a retraining, or a .safetensors file that one wrote. The module is `nn.Sequential`
    of `normalise`, by the statistics that it was trained with, and `network`; without `normalise` it is the network alone.

    With `classes` its last layer (what is as wide as there are classes) is a fresh one for so many, whatever it had; all
    other weights stay: a start for other data (torch's generator draws the new ones; call `.train()`). `space` is that
    of its genotype, if it is one of yours. Raises InputError where there is no such network, DamagedError if the file is broken.
    """
    file = lookup.find_trained(_word(path))
    from rapdarts.deploy.counted import options_of
    from rapdarts.deploy.model_file import deployed, read_trained, with_new_head

    trained = read_trained(file, _own_space(space, path))
    module = deployed(trained)
    if classes is not None:
        module.network = with_new_head(trained, options_of(classes=classes).classes)
    return module if normalise else module.get_submodule("network")


def costs(
    network: Network,
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
    """Return what a network takes, counted: macs, params, bytes, activations, traffic, energy (J) and peak_memory (bytes) of one image.

    `network` is any module, a genotype in any form that `read` takes, a run's result, the name of a reference network, or
    `package.module:callable`; the skeleton of a genotype is found as by `derived`. `precision` is in bits (32, 16, 8),
    `hardware` a file or a value with energies. Raises InputError.
    """
    word = _word(network)
    found = lookup.find_network(word, code=True) if isinstance(word, str | Genotype) else None
    from rapdarts.deploy.counted import cost_of, options_of

    file = hardware if isinstance(hardware, HardwareConfig) else os.fspath(hardware or "")
    asked = {"channels": channels, "layers": layers, "image": image, "classes": classes, "stem": stem}
    options = options_of(**asked, precision=precision)
    given = [name for name, value in asked.items() if value is not None]
    return cost_of(word if found is None else found, options, given, file, _own_space(space, network))


def layer_costs(
    networks: Network | Sequence[Network], settings: Settings | None = None, *, space: Space = None, **keys: Any
) -> list[NetworkCosts]:
    """Count networks layer by layer, as `rapdarts cost` does; the keys are those of the command. `plot` writes bar charts.

    `networks` is one or several of what `costs` takes. Raises InputError.
    """
    options, given = command_options(CountConfig, settings, keys)
    words = [_word(one) for one in (networks if isinstance(networks, list | tuple) else [networks])]
    found = [lookup.find_network(one, code=True) if isinstance(one, str | Genotype) else one for one in words]
    from rapdarts.deploy.counted import layers_of
    from rapdarts.reports import costs as pictures
    from rapdarts.reports.plots import check

    if options.plot:
        check(options.plot)
    counted = layers_of(found, options, given, space, " ".join(str(word) for word in words))
    if options.plot:
        pictures.draw_layers(counted, _file(options.plot))
    return counted


def space_prices(settings: Settings | None = None, *, space: Space = None, **keys: Any) -> dict[str, Any]:
    """Count all networks of a search space, as `rapdarts cost space=NAME` does; return plain values. Raises InputError."""
    options, given = command_options(CountConfig, settings, keys)
    own = find_space(space, options.space)
    from rapdarts.deploy.counted import prices_of_space

    return prices_of_space(own, options, given)


def filter_designs(settings: Settings | None = None, **keys: Any) -> dict[str, Any]:
    """Count five designs of one layer's filter, as `rapdarts cost filters` does; return plain values. Raises InputError."""
    options, given = command_options(CountConfig, settings, keys)
    from rapdarts.deploy.counted import designs

    return designs(options, given)


def evaluate(
    network: Network,
    experiment: str = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    **keys: Any,
) -> Evaluated:
    """Test a trained network, as `rapdarts evaluate` does: accuracy, confusions, calibration, costs and time.

    `network` is the folder or the result of a retraining, its network.safetensors, or an ONNX file that `export` wrote.
    The data are those of its run, of an experiment, of the key `data.name`, or `data` and `test` as in `search`. The other
    keys are those of the command. Raises InputError.
    """
    options, _ = command_options(EvaluateConfig, settings, keys)
    if options.plot:
        from rapdarts.reports.plots import check

        check(options.plot)
    file, space = lookup.find_trained(_word(network)), _own_space(space, network)
    from rapdarts.deploy.evaluation import evaluate_file
    from rapdarts.deploy.run_data import experiment_of
    from rapdarts.loops.results import Evaluated
    from rapdarts.loops.surroundings import reader_of
    from rapdarts.reports import evaluation

    elsewhere = bool(options.data.name) or data is not None
    config = experiment_of(file, experiment, needed=not elsewhere, confirmed=elsewhere)
    values = evaluate_file(file, config, options, space, reader_of(config, data, test))
    words = evaluation.describe_evaluation(values)
    if options.plot:
        evaluation.draw_confusion(values, f"{_word(network)}", _file(options.plot))
        words += f"\nwritten to {options.plot}"
    return Evaluated(values, words)


def export(
    network: Network,
    to: str = "json",
    out: AnyPath = "",
    experiment: str = "",
    settings: Settings | None = None,
    *,
    space: Space = None,
    **keys: Any,
) -> Exported:
    """Write a genotype or a trained network for other programs, as `rapdarts export` does.

    `network` is what `read` takes for the formats of a genotype (json, darts, nasbench201, dot, svg), whose text is also
    returned, and what `load` takes for those of a trained network (safetensors, onnx, pt2, executorch). `out` is the file;
    the result of a run has a place for it in its folder. A network's file is compared with PyTorch on test images of its run,
    or of `experiment`, before it is written. The other keys are those of the command. Raises InputError.
    """
    pairs = {"to": to, **({"out": os.fspath(out)} if os.fspath(out) else {}), **(settings or {})}
    options, given = command_options(ExportConfig, pairs, keys)
    from rapdarts.architecture.formats import FORMATS
    from rapdarts.config.formats import check_keys

    check_keys(options, given, experiment)
    word, space = _word(network), _own_space(space, network)
    if options.to in FORMATS:
        return _export_genotype(word, options, space)
    if not options.out and hasattr(network, "folder"):
        options = replace(options, out=str(network.folder / f"network.{options.to}"))
    if not options.out:
        raise InputError(f"to={options.to} writes a file; name it with out=FILE.")
    if os.path.isdir(options.out) or not os.path.isdir(Path(options.out).parent):
        raise InputError(f"out={options.out} is a folder, or lies in none that there is; write the path of a file.")
    file = lookup.find_trained(word, f"to={options.to}")
    from rapdarts.deploy.exporting import export_file
    from rapdarts.loops.results import Exported
    from rapdarts.reports.evaluation import describe_export

    values = export_file(file, options, experiment, space)
    return Exported(Path(options.out), "", values, describe_export(values))


def _export_genotype(word: str | Genotype, options: ExportConfig, space: Space) -> Exported:
    """A genotype as a text, written where a file is named."""
    from rapdarts.architecture.formats import FORMATS

    content = FORMATS[options.to](lookup.find_network(word, networks=False).the_genotype(space))
    from rapdarts.loops.results import Exported

    if not options.out:
        return Exported(None, content, {}, content)
    from rapdarts.files import atomic

    atomic.write(_file(options.out), content)
    return Exported(Path(options.out), content, {}, f"written to {options.out}")


def measure(
    experiment: str = "",
    settings: Settings | None = None,
    *,
    space: Space = None,
    progress: bool = True,
    **keys: Any,
) -> Measured:
    """Measure what every primitive takes on this device, as `rapdarts measure` does; return the latency table and its file.

    The skeleton and the images are the experiment's, or those that the keys of the command name. Raises InputError.
    """
    options, _ = command_options(MeasureConfig, settings, keys)
    if not (Path(options.out).name and Path(options.out).parent.is_dir()):  # said before minutes are spent
        raise InputError(f"out={shorten(options.out)} cannot be written; name a file in a folder that is there.")
    config = resolve.resolve_experiment(experiment, []) if experiment else None
    own = find_space(space, options.space or ("" if space else config.search.space if config else "darts"))
    from rapdarts.deploy.measuring import measure_space
    from rapdarts.loops.results import Measured
    from rapdarts.training.log import Screen

    table, words = measure_space(own, config, options, Screen(silent=not progress))
    return Measured(table, Path(options.out), words)


def report(runs: Network | Sequence[Network], out: AnyPath = "") -> Report:
    """Tabulate finished runs in Markdown, as `rapdarts report` does; `out` is a file to write the table to. Raises InputError."""
    from rapdarts.reports.run_table import Report, table

    several = runs if isinstance(runs, list | tuple) else [runs]
    text, left_out = table([Path(_word(one)) for one in several])
    if os.fspath(out):
        from rapdarts.files import atomic

        atomic.write(_file(os.fspath(out)), text)
    return Report(text, left_out)


# --- what a program gives, made into the things themselves --------------------------------------------------------


def _word(given: Any) -> Any:
    """A path or a name as text, the result of a run as its folder; everything else as it is."""
    folder = getattr(given, "folder", None)
    if folder is not None:
        return os.fspath(folder)
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _own_space(space: Space, *given: Any) -> Space:
    """The space that was given, else that of the first result among the other arguments."""
    spaces = [getattr(one, "space", None) for one in given if not isinstance(one, Genotype)]
    own = next((one for one in spaces if one is not None), None)
    return own if space is None else space


def _own_experiment(folder: Path | None) -> Experiment | None:
    """The experiment that a run folder keeps; None for another folder."""
    return resolve.experiment_of_run(folder) if folder is not None and os.path.isfile(folder / "config.yaml") else None


def _searched(config: Experiment, space: Space) -> tuple[SearchSpace, Experiment]:
    """The space to search, and the experiment that names it."""
    own = find_space(config.search.space if space is None else space)
    return own, replace(config, search=replace(config.search, space=own.name))


def _to_train(found: lookup.Found, space: Space, asked: Mapping[str, str]) -> tuple[lookup.Found, SearchSpace | None]:
    """The network that was found, and its genotype's space; None for a reference network.

    Raises InputError for keys that mean nothing for a reference network, and for a genotype that is none of the space.
    """
    reference = found.the_reference(space)
    if reference:
        useless = f"{next(iter(asked))}=" if asked else "" if space is None else "space="
        if useless:
            raise InputError(f"{reference} is a reference network, which has no use for {useless}; leave it out.")
        return replace(found, reference=reference, file=None), None
    genotype = found.the_genotype(space)
    own = find_space(space, genotype.space)
    validate(genotype, own, found.where)
    return replace(found, genotype=genotype, file=None), own


def _file(path: str) -> Path:
    """The path of a file to write. Raises InputError where it names none."""
    if not Path(path).name:
        raise InputError(f"out={path} names no file; write the path of one.")
    return Path(path)
