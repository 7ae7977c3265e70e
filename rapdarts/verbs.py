"""The commands: each takes its command line, does one thing, and answers. Heavy imports wait until a verb really runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rapdarts
from rapdarts import config as configuration
from rapdarts import knobs
from rapdarts.call import Call, answer, deliver, out, write
from rapdarts.config import Experiment, Launch, SearchConfig
from rapdarts.errors import InputError
from rapdarts.help import COMMANDS
from rapdarts.plain_yaml import shorten
from rapdarts.quantities import show

if TYPE_CHECKING:

    from rapdarts.blueprint import Blueprint
    from rapdarts.genotype import Genotype
    from rapdarts.space import SearchSpace
    from rapdarts.targets import Target
    from rapdarts.training.data import DataSet


HARDWARE_KEPT, LATENCY_KEPT = "hardware.yaml", "latency.json"
"""The tables that a search was priced by, as its run folder keeps them."""


def search(call: Call) -> None:
    call.expect(1)
    config, launch = _experiment(call, call.target("an experiment, such as digits"))
    if config is None:
        return
    from rapdarts import search as loop
    from rapdarts.training.data import load
    from rapdarts.training.device import training_device
    from rapdarts.training.run import open_run

    space = _space(config.search.space, call.space)
    if config.search.primitives:
        space = space.only(config.search.primitives)
    loop.check_stages(config.search, space)
    data = load(config.data, training_device(config.device, config.threads), config.seed)
    name = Path(call.words[0]).stem
    inputs = {"data set": data.fingerprint, "search space": _source(call.space)}
    inputs |= {"hardware table": _source(config.search.hardware), "latency table": _source(config.search.latency)}
    if config.search.strategy == "random":
        from rapdarts.baseline import random_baseline
        from rapdarts.genotype import validate
        from rapdarts.retrain import training_batches

        training_batches(config, data)  # refuses a batch that is too large before a folder is made
        like, where = _genotype(config.search.random.like) if config.search.random.like else (None, "")
        if like is not None:
            validate(like, space, f"search.random.like: {where}")
        inputs["random.like"] = like.to_json() if like is not None else ""
        with open_run("random", config, launch, name, inputs) as run:
            result = random_baseline(config, space, data, run, like)
            run.write_json("result.json", result)
        answer(call, result, result["summary"])
        return
    loop.Halves.of(data, config)  # likewise
    auto, table = config.skeleton.channels == 0, loop.priced(config, space, data)
    config.skeleton.channels = table.skeleton.channels
    with open_run("search", config, launch, name, inputs) as run:
        if auto:
            run.screen.say(
                f"skeleton.channels={table.skeleton.channels}: the widest whose average cell keeps the budgets"
            )
        for kept, text in ((HARDWARE_KEPT, inputs["hardware table"]), (LATENCY_KEPT, inputs["latency table"])):
            if text:
                run.write(kept, text)
        derivation = loop.search(config, space, data, run, table, _provenance(config, config.search))
        report = loop.cost_report(derivation, table, config.search, run)
        run.write_json("result.json", report)
    answer(call, report, f"{loop.describe(derivation, report)}\nwritten to {run.folder / 'genotype.json'}")


def derive(call: Call) -> None:
    call.expect(1)
    target = Path(call.target("the folder of a finished search, or its alphas.json"))
    options = knobs.load(configuration.DeriveConfig, call.pairs)
    from rapdarts.derive import derive as derive_genotype
    from rapdarts.derive import mixing_weights, read_alphas, space_of_alphas, where_infeasible
    from rapdarts.pricing import prices

    is_run = os.path.isdir(target)
    if not is_run and not os.path.isfile(target):
        what = shorten(str(target))
        raise InputError(f"there is no {what}; give the folder of a finished search, or its alphas.json.")
    file = target / "alphas.json" if is_run else target
    config = configuration.of_alphas(file, needed=is_run)
    full = _space(space_of_alphas(file), call.space)
    space, skeleton, architecture = read_alphas(file, full)
    skeleton = replace(
        skeleton, layers=options.layers or skeleton.layers, channels=options.channels or skeleton.channels
    )
    settings = _derived_from(config, options, file.parent)
    limits = configuration.bounds(settings.budget)
    if limits and options.rule not in ("", "exact"):
        lift = " ".join(f"budget.{name}=none" for name in limits)
        raise InputError(f"rule={options.rule} knows no budgets; leave it out, or lift the budgets with {lift}.")
    if (options.layers or options.channels) and not options.latency and "latency" not in limits:
        settings.latency = ""  # measured at the run's skeleton only
    table = prices(settings, full, skeleton)
    with where_infeasible(full, space, table, limits):
        derivation = derive_genotype(
            space,
            mixing_weights(architecture),
            table,
            options.rule or config.search.rule,
            config.search.max_skips if options.max_skips < 0 else options.max_skips,
            _provenance(config, settings),
            limits,
            options.count,
        )
    lines = [f"rule: {derivation.rule}", derivation.genotype.line, costs_line(derivation.genotype.costs)]
    if options.count > 1:
        lines[1] = f"1. score {derivation.candidates[0].score:.4f}: {lines[1]}"
    for number, other in enumerate(derivation.candidates[1 : options.count], 2):
        lines.append(f"{number}. score {other.score:.4f}: {other.genotype.line}\n   {costs_line(other.genotype.costs)}")
    if options.out:
        write(options.out, derivation.genotype.to_json())
        lines.append(f"written to {options.out}")
    answer(call, _best_first(derivation.candidates_json()), "\n".join(lines))


def retrain(call: Call) -> None:
    call.expect(2)
    target = call.target(
        "a genotype (a file, a run folder or a literature name such as PDARTS), or a reference network such as lenet"
    )
    if len(call.words) < 2:
        raise InputError("rapdarts retrain needs an experiment after the network, such as digits.")
    config, launch = _experiment(call, call.words[1])
    if config is None:
        return
    from rapdarts import retrain as loop
    from rapdarts.training.data import load
    from rapdarts.training.device import training_device
    from rapdarts.training.run import open_run

    blueprint_for = _blueprints(call, target)
    data = load(config.data, training_device(config.device, config.threads), config.seed)
    blueprint = blueprint_for(config, data)
    # Before a folder is made, these two refuse images that are too small and a batch that is too large.
    costs = blueprint.costs
    loop.training_batches(config, data)
    inputs = {"data set": data.fingerprint, **blueprint.origin, "search space": _source(call.space)}
    with open_run("retrain", config, launch, Path(call.words[1]).stem, inputs) as run:
        for remark in blueprint.remarks(config.retrain):
            run.screen.say(remark)
        trained = loop.retrain(config, blueprint, data, run)
        report = loop.result(trained, blueprint, config.retrain, run)
        run.write_json("result.json", report)
    words = f"test accuracy {trained.test}"
    if trained.best is not None:
        words += f"\nbest on validation: test accuracy {trained.best}"
    answer(call, report, f"{words}\n{costs_line(costs)}\nwritten to {run.folder / 'network.safetensors'}")


def evaluate(call: Call) -> None:
    call.expect(2)
    target = Path(call.target("a run folder of rapdarts retrain, or a network.safetensors"))
    options = knobs.load(configuration.EvaluateConfig, call.pairs)
    from rapdarts.evaluate import accuracy, experiment_of, load_network, read_trained
    from rapdarts.training.augment import Augment
    from rapdarts.training.data import load, ordered
    from rapdarts.training.device import device_named

    file = target / "network.safetensors" if target.is_dir() else target
    trained = read_trained(file, lambda name: _space(name, call.space))
    config = experiment_of(file, *call.words[1:])
    if options.path:
        config.data.path = options.path
    device = device_named(options.device, options.threads or config.threads)
    network = load_network(trained).to(device)
    data = load(config.data, device, config.seed)
    known, found = (trained.blueprint.input, trained.class_names), (data.image, data.class_names)
    if known != found:
        raise InputError(
            f"{trained.path} was trained on images {known[0]} of the classes {shorten(', '.join(known[1]))}, but these are"
            f" {found[0]} of {shorten(', '.join(found[1]))}; name other data with path=PATH, or another experiment."
        )
    result = accuracy(network, ordered(data.test, None, options.batch, Augment(trained.mean, trained.std)))
    values = {"test_accuracy": result.share, "standard_error": result.standard_error, "n": result.n}
    answer(call, {**values, "test_loss": result.loss}, f"test accuracy {result}")


def export(call: Call) -> None:
    call.expect(1)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    options = knobs.load(configuration.ExportConfig, call.pairs)
    from rapdarts.export import FORMATS

    genotype, _ = _genotype(target)
    deliver(FORMATS[options.to](genotype), options.out)


def cost(call: Call) -> None:
    options = knobs.load(configuration.CountConfig, call.pairs)
    given = [knobs.full_name(configuration.CountConfig, key) for key, _ in call.pairs]
    from rapdarts import bill, histograms, targets, tariff
    from rapdarts.pricing import read_hardware

    hardware = read_hardware(options.hardware)
    bits = options.precision or 32
    if not any(call.words) and (options.space or call.space):
        space = _space(options.space, call.space)
        targets.refuse(given, targets.OF_SPACE, f"space={space.name}")
        prices = tariff.tariff_of(space, targets.skeleton_for(space, options), bits, hardware)
        answer(call, prices, tariff.describe_tariff(prices))
        return
    if call.target("a network (see --help), or space=NAME") == "filters":
        call.expect(1)
        targets.refuse(given, targets.OF_FILTERS, "filters")
        image = configuration.image_shape(options.input or "384x13x13")
        designs = tariff.filter_designs(image, options.channels or 256, bits, hardware)
        answer(call, designs, tariff.describe_designs(designs))
        return
    if options.plot:
        histograms.check(options.plot)
    with redirect_stdout(sys.stderr):  # a user's own code may print
        found = [_network(word, call.space, options) for word in call.words]
        targets.refuse(given, frozenset().union(*(one.keys for one in found)), " ".join(call.words))
        bills = []
        for one in found:
            own_bits, own_hardware = one.deployment
            energies = hardware if options.hardware else own_hardware
            bills.append(bill.itemise(one, options.precision or own_bits, energies))
    words = bill.describe(bills, options.rows)
    if options.plot:
        picture = histograms.draw([bill.panels(one) for one in bills], Path(options.plot).suffix)
        write(options.plot, picture)
        words += f"\nwritten to {options.plot}"
    trees = [one.to_json() for one in bills]
    answer(call, trees if len(trees) > 1 else trees[0], words)


def measure(call: Call) -> None:
    call.expect(1)
    options = knobs.load(configuration.MeasureConfig, call.pairs)
    if not (Path(options.out).name and Path(options.out).parent.is_dir()):  # said before minutes are spent
        raise InputError(f"out={shorten(options.out)} cannot be written; name a file in a folder that is there.")
    from rapdarts.cost import latency, stopwatch
    from rapdarts.space import Skeleton, stem_for
    from rapdarts.training.data import load
    from rapdarts.training.device import device_named
    from rapdarts.training.log import Screen

    device = device_named(options.device, options.threads)
    config = configuration.experiment(call.words[0], []) if call.words else None
    space = _space(options.space or ("" if call.space else config.search.space if config else "darts"), call.space)
    layers, channels = (config.skeleton.layers, config.skeleton.channels) if config else space.deployment
    layers, channels = options.layers or layers, options.channels or channels
    if not channels:
        raise InputError("skeleton.channels=auto is found by a search within budgets; give a number: channels=16.")
    image, classes = configuration.image_shape(options.input) if options.input else (3, 32, 32), options.classes or 10
    if config and not (options.input and options.classes):
        data = load(config.data, device, config.seed)
        image, classes = image if options.input else data.image, options.classes or data.classes
    stem = stem_for(options.stem or (config.skeleton.stem if config else "auto"), image)
    skeleton = Skeleton(layers, channels, image, classes, stem)

    shape, cells = "x".join(map(str, image)), f"{layers} cells x {channels} channels"
    where = latency.device_name(device) + (f" with {options.threads} threads" if options.threads > 1 else "")
    head = f"{space.name}: {cells}, {shape}, {classes} classes, {stem} stem, batch {options.batch}, on {where}"
    screen = Screen()
    screen.say(f"measuring {head}")

    def rounds() -> Iterator[int]:
        screen.start("measuring", 0, options.rounds)
        for number in range(options.rounds):
            yield number
            screen.step()
            if (number + 1) % -(-options.rounds // 4) == 0:
                screen.epoch(f"round {number + 1}/{options.rounds}", number + 1)

    try:
        table = stopwatch.measure(space, skeleton, device, rounds(), options.networks, options.batch, options.seed)
    finally:
        screen.stop()
    write(options.out, table.to_json())
    check = table.check
    rank = "undefined" if check.spearman is None else f"{check.spearman:.2f}"
    lines = [
        head,
        f"fixed {show(table.fixed_s, 'latency')}, primitives x {table.scale:.3g}, at {len(table.places)} places",
        f"check: {check.networks} other networks take {show(check.fastest_s, 'latency')} to {show(check.slowest_s, 'latency')};"
        f" rank correlation {rank}, error {check.median_error:.1%} in the median, {check.max_error:.1%} at most"
        f" (the same network, measured again: {check.noise:.1%})",
        f"written to {options.out}",
    ]
    if not check.reliable:
        screen.say("this table prices networks poorly: measure again with more rounds=, or on a quieter machine")
    answer(call, table.head(), "\n".join(lines))


def report(call: Call) -> None:
    call.target("run folders")
    options = knobs.load(configuration.ReportConfig, call.pairs)
    from rapdarts.report import table

    deliver(table([Path(word) for word in call.words]), options.out)


VERBS: dict[str, Callable[[Call], None]] = {
    "search": search,
    "derive": derive,
    "retrain": retrain,
    "evaluate": evaluate,
    "export": export,
    "cost": cost,
    "measure": measure,
    "report": report,
}
"""Every command; what there is to say about it stands in rapdarts.help."""


# --- what they share ----------------------------------------------------------------------------------------------


def _experiment(call: Call, name: str) -> tuple[Experiment | None, Launch]:
    """The experiment and where it is to run; None where only the configuration was asked for, and has been printed."""
    config = configuration.experiment(name, call.pairs, COMMANDS[call.verb].section)
    launch = configuration.launch(call.pairs)
    if call.space:
        config.search.space = _space("", call.space).name
    if not call.print_config:
        return config, launch
    out(json.dumps(asdict(config), indent=2) + "\n" if call.json else knobs.save_yaml(config), end="")
    return None, launch


def _space(name: str, file: str) -> SearchSpace:
    """The space in the user's own file if one was named, or the one that ships under that name."""
    from rapdarts.space import named_space, space_from_file

    space = space_from_file(Path(file)) if file else named_space(name)
    if file:
        from rapdarts.networks.primitives import check_primitives

        check_primitives(space, file)
    if name and space.name != name:
        raise InputError(f"--space {file} holds the space {space.name}, but {name} is asked for.")
    return space


def _source(file: str) -> str:
    """What a file of the user's says: the run remembers it, and notices a change."""
    return Path(file).read_text(encoding="utf-8", errors="replace") if os.path.isfile(file) else ""


def _blueprints(call: Call, target: str) -> Callable[[Experiment, DataSet], Blueprint]:
    """The network a user names, as it is to be built on a data set: a reference network, or that of a genotype.

    Of a genotype, the skeleton that is built is noted in the experiment. Raises InputError, before any data are read,
    for what cannot be built or keys that mean nothing for it.
    """
    from rapdarts.blueprint import DerivedBlueprint, ReferenceBlueprint
    from rapdarts.genotype import validate
    from rapdarts.networks.reference import REFERENCE, find
    from rapdarts.search import deployment_skeleton, skeleton_to_build

    asked = [key for key, value in call.pairs if configuration.touches("skeleton", [(key, value)], call.verb)]
    name = find(target)
    if name is not None:
        if asked or call.space:
            useless = f"{asked[0]}=" if asked else "--space"
            raise InputError(f"{name} is a reference network, which has no use for {useless}; leave it out.")
        return lambda config, data: ReferenceBlueprint(name, data.image, data.classes)

    genotype, where = _genotype(target, REFERENCE)
    space = _space(genotype.space, call.space)
    validate(genotype, space, where)

    def derived(config: Experiment, data: DataSet) -> Blueprint:
        wanted = config.skeleton
        skeleton = deployment_skeleton(wanted, data) if asked else skeleton_to_build(genotype, wanted, data)
        config.skeleton = replace(wanted, layers=skeleton.layers, channels=skeleton.channels, stem=skeleton.stem)
        return DerivedBlueprint(genotype, space, skeleton)

    return derived


def _genotype(target: str, others: Iterable[str] = ()) -> tuple[Genotype, str]:
    """The genotype a user names, and how to call it in a message: a literature name, a file, or a run folder's.

    `others` are names of networks that would have done as well.
    """
    from rapdarts.genotype import read
    from rapdarts.literature import LITERATURE, find

    known = find(target)
    if known is not None:
        return known, target
    path = Path(target)
    if os.path.isdir(path):
        path = path / "genotype.json"
        if not path.exists():
            raise InputError(
                f"{target} holds no genotype.json; the search has not finished, or it is not a run folder."
            )
    elif not os.path.exists(path):
        raise InputError(
            f"there is no genotype {shorten(repr(target))}: neither a file nor one of {', '.join([*LITERATURE, *others])}."
        )
    return read(path), str(path)


def _network(name: str, file: str, options: configuration.CountConfig) -> Target:
    """The network of this name: the user's own, a reference network, or a genotype's, whose space may stand in a file."""
    from rapdarts import targets
    from rapdarts.genotype import validate
    from rapdarts.literature import find

    target = targets.of_name(name, options)
    if target is not None:
        return target
    if find(name) is None and not os.path.exists(name):
        raise targets.unknown(name)
    genotype, where = _genotype(name)
    space = _space(genotype.space, file)
    validate(genotype, space, where)
    return targets.of_genotype(name, genotype, space, options)


def _derived_from(config: Experiment, options: configuration.DeriveConfig, folder: Path) -> SearchConfig:
    """The settings of a search with what a derivation changes: budgets one by one; tables as the run folder keeps them."""
    own = config.search
    tables = {"hardware": folder / HARDWARE_KEPT, "latency": folder / LATENCY_KEPT}
    kept = {name: str(path) if os.path.isfile(path) else getattr(own, name) for name, path in tables.items()}
    given = {name: getattr(options, name) or kept[name] for name in tables}
    budget = {name: text or getattr(own.budget, name) for name, text in vars(options.budget).items()}
    return replace(
        own,
        precision=options.precision or own.precision,
        hardware=given["hardware"],
        latency="" if given["latency"] == "none" else given["latency"],
        budget=configuration.BudgetConfig(**budget),
    )


def _provenance(config: Experiment, settings: SearchConfig) -> dict[str, Any]:
    """Where a genotype comes from, and how its costs are counted."""
    import torch

    from rapdarts.cost.count import deployment_facts
    from rapdarts.pricing import read_hardware

    return {
        **deployment_facts(settings.precision, read_hardware(settings.hardware)),
        "config_sha256": configuration.digest(config),
        "strategy": config.search.strategy,
        "seed": config.seed,
        "rapdarts": rapdarts.__version__,
        "torch": torch.__version__,
    }


def _best_first(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The derived candidate, then the others by their scores; without one (a weight of 0), last."""
    return sorted(candidates, key=lambda one: (not one["chosen"], one["score"] is None, -(one["score"] or 0)))


def costs_line(costs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {show(value, name)}" for name, value in costs.items())
