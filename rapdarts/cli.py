"""The command line: `rapdarts VERB [TARGET] [EXPERIMENT] key=value ...`. Heavy imports wait until a verb really runs."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rapdarts
from rapdarts import config as configuration
from rapdarts import knobs
from rapdarts.config import Experiment, Launch
from rapdarts.errors import DeviceError, InputError, RapdartsError
from rapdarts.plain_yaml import read_yaml

if TYPE_CHECKING:
    import torch

    from rapdarts.genotype import Genotype
    from rapdarts.space import SearchSpace

SWITCHES = {
    "--help": "print this help",
    "--json": "print the result as JSON",
    "--print-config": "print the resolved configuration and stop",
    "--debug": "show the traceback of an error",
    "--space": "FILE: take the search space from your own Python file, which is run",
}


@dataclass
class Call:
    """One command line, taken apart: plain words, key=value settings, and switches."""

    verb: str
    words: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    json: bool = False
    print_config: bool = False
    debug: bool = False
    help: bool = False
    space: str = ""

    def options(self, schema: type[Any], also: type[Any] | None = None) -> tuple[Any, list[str]]:
        """The settings that belong to `schema`, as a checked value, and the others where `also` is a schema for those."""
        own, rest = [], []
        names = [key.name for key in knobs.keys(schema)]
        for text in self.settings:
            key, value = knobs.split_override(text)
            if also is not None and key not in names:
                rest.append(text)
            else:
                own.append((key, value))
        return knobs.load(schema, own), rest

    def target(self, what: str) -> str:
        """The first word. Raises InputError, saying what it should be, if there is none."""
        if not self.words:
            raise InputError(f"rapdarts {self.verb} needs {what}; see rapdarts {self.verb} --help.")
        return self.words[0]

    def expect(self, most: int) -> None:
        if len(self.words) > most:
            raise InputError(
                f"rapdarts {self.verb} does not know what to do with {self.words[most]!r}; settings are written key=value."
            )


@dataclass(frozen=True)
class Verb:
    """A subcommand: its usage, what it does, the schemas of its keys, and the function that runs it."""

    usage: str
    sentence: str
    schemas: tuple[type[Any], ...]
    function: Callable[[Call], None]


# --- the verbs ---------------------------------------------------------------------------------------------------


def search(call: Call) -> None:
    call.expect(1)
    config, launch = _experiment(call, call.target("an experiment, such as digits"), "search")
    if config is None:
        return
    from rapdarts import search as loop
    from rapdarts.training.data import load
    from rapdarts.training.run import open_run

    space = _space(config.search.space, call.space)
    if config.search.primitives:
        space = space.only(config.search.primitives)
    loop.check_stages(config.search, space)
    data = load(config.data, _device(config.device, config.threads), config.seed)
    name = Path(call.words[0]).stem
    inputs = {"data set": data.fingerprint, "search space": _space_source(call.space)}
    if config.search.strategy == "random":
        from rapdarts.baseline import random_baseline

        with open_run("random", config, launch, name, inputs) as run:
            like = _genotype(config.search.random.like)[0] if config.search.random.like else None
            result = random_baseline(config, space, data, run, like)
            run.write_json("result.json", result)
        _print(call, result, result["summary"])
        return
    with open_run("search", config, launch, name, inputs) as run:
        derivation = loop.search(config, space, data, run, _provenance(config))
        report = loop.cost_report(derivation, space, run)
        run.write_json("result.json", report)
    _print(call, report, f"{loop.describe(derivation, report)}\nwritten to {run.folder / 'genotype.json'}")


def derive(call: Call) -> None:
    call.expect(1)
    folder = Path(call.target("the folder of a finished search"))
    options, _ = call.options(configuration.DeriveConfig)
    from rapdarts.cost.expected import price_table
    from rapdarts.derive import derive as derive_genotype
    from rapdarts.derive import mixing_weights, read_alphas
    from rapdarts.training import files

    config = _config_of(folder)
    space, skeleton, architecture = read_alphas(folder / "alphas.json", _space(config.search.space, call.space))
    skeleton = replace(
        skeleton, layers=options.layers or skeleton.layers, channels=options.channels or skeleton.channels
    )
    derivation = derive_genotype(
        space,
        mixing_weights(architecture),
        price_table(space, skeleton),
        options.rule or config.search.rule,
        config.search.max_skips if options.max_skips < 0 else options.max_skips,
        _provenance(config),
    )
    files.write(Path(options.out), derivation.genotype.to_json())
    chosen_first = sorted(derivation.candidates_json(), key=lambda candidate: not candidate["chosen"])
    lines = [f"rule: {derivation.rule}", derivation.genotype.to_darts(), _costs_line(derivation.genotype.costs)]
    _print(call, chosen_first, "\n".join([*lines, f"written to {options.out}"]))


def retrain(call: Call) -> None:
    call.expect(2)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    if len(call.words) < 2:
        raise InputError("rapdarts retrain needs an experiment after the genotype, such as digits.")
    config, launch = _experiment(call, call.words[1], "retrain")
    if config is None:
        return
    from rapdarts import retrain as loop
    from rapdarts.genotype import validate
    from rapdarts.search import deployment_skeleton
    from rapdarts.training.data import load
    from rapdarts.training.run import open_run

    genotype, where = _genotype(target)
    space = _space(genotype.space, call.space)
    validate(genotype, space, where)
    data = load(config.data, _device(config.device, config.threads), config.seed)
    skeleton = deployment_skeleton(config.skeleton, data)
    priced = genotype.skeleton
    own = any(text.partition("=")[0].rpartition(".")[2] in ("layers", "channels", "stem") for text in call.settings)
    if priced is not None and (priced.image, priced.classes) == (skeleton.image, skeleton.classes) and not own:
        # What the search priced is what is built; the experiment's skeleton serves genotypes from elsewhere.
        skeleton = priced
    inputs = {"data set": data.fingerprint, "genotype": genotype.to_darts(), "skeleton": str(skeleton)}
    with open_run("retrain", config, launch, Path(call.words[1]).stem, inputs) as run:
        trained = loop.retrain(config, genotype, space, skeleton, data, run)
        report = loop.result(trained, genotype, space, skeleton, run)
        run.write_json("result.json", report)
    words = f"test accuracy {trained.test}"
    if trained.best is not None:
        words += f"\nbest on validation: test accuracy {trained.best}"
    _print(call, report, f"{words}\n{_costs_line(report['costs'])}\nwritten to {run.folder / 'network.safetensors'}")


def evaluate(call: Call) -> None:
    call.expect(1)
    target = Path(call.target("a run folder of rapdarts retrain, or a network.safetensors"))
    options, _ = call.options(configuration.EvaluateConfig)
    from rapdarts.evaluate import accuracy, load_network, read_trained
    from rapdarts.training.augment import Augment
    from rapdarts.training.data import load, ordered

    trained = read_trained(target / "network.safetensors" if target.is_dir() else target)
    config = _config_of(trained.path.parent)
    if options.path:
        config.data.path = options.path
    device = _device(options.device, options.threads or config.threads)
    network = load_network(trained, _space(trained.genotype.space, call.space)).to(device)
    data = load(config.data, device, config.seed)
    skeleton = trained.genotype.skeleton
    if skeleton is None or (data.image, data.classes) != (skeleton.image, skeleton.classes):
        raise InputError(
            f"{trained.path} was trained on other images than {config.data.name} at {config.data.path or 'the cache'}."
        )
    result = accuracy(network, ordered(data.test, None, options.batch, Augment(trained.mean, trained.std)))
    values = {
        "test_accuracy": result.share,
        "standard_error": result.standard_error,
        "n": result.n,
        "test_loss": result.loss,
    }
    _print(call, values, f"test accuracy {result}")


def export(call: Call) -> None:
    call.expect(1)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    options, _ = call.options(configuration.ExportConfig)
    from rapdarts.export import FORMATS
    from rapdarts.training import files

    genotype, _ = _genotype(target)
    text = FORMATS[options.to](genotype)
    if options.out:
        files.write(Path(options.out), text)
        _say(f"written to {options.out}")
    else:
        print(text, end="")


def cost(call: Call) -> None:
    call.expect(1)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    options, _ = call.options(configuration.CountConfig)
    from rapdarts.cost.count import count_derived
    from rapdarts.genotype import validate
    from rapdarts.space import Skeleton

    genotype, where = _genotype(target)
    space = _space(genotype.space, call.space)
    validate(genotype, space, where)
    own = genotype.skeleton or Skeleton(20, 36, (3, 32, 32), 10)
    image = _image(options.input) if options.input else own.image
    stem = options.stem or own.stem
    if stem == "auto":
        stem = "imagenet" if min(image[1:]) >= 96 else "cifar"
    skeleton = Skeleton(
        options.layers or own.layers, options.channels or own.channels, image, options.classes or own.classes, stem
    )
    costs = count_derived(genotype, space, skeleton)
    shape, cells = "x".join(map(str, image)), f"{skeleton.layers} cells x {skeleton.channels} channels"
    head = f"{target}: {cells}, {shape}, {skeleton.classes} classes, {skeleton.stem} stem"
    _print(call, {**costs, "skeleton": vars(skeleton)}, f"{head}\n{_costs_line(costs)}")


def report(call: Call) -> None:
    call.target("run folders")
    options, _ = call.options(configuration.ReportConfig)
    from rapdarts.report import table
    from rapdarts.training import files

    text = table([Path(word) for word in call.words])
    if options.out:
        files.write(Path(options.out), text)
        _say(f"written to {options.out}")
    else:
        print(text, end="")


VERBS = {
    "search": Verb("search EXPERIMENT", "Search for a cell under a price.", (Launch, Experiment), search),
    "derive": Verb(
        "derive RUN", "Read a genotype off a finished search once more.", (configuration.DeriveConfig,), derive
    ),
    "retrain": Verb(
        "retrain GENOTYPE EXPERIMENT",
        "Train the network of a genotype from scratch. GENOTYPE: a file, a run folder, or a name such as PDARTS.",
        (Launch, Experiment),
        retrain,
    ),
    "evaluate": Verb("evaluate RUN", "Test a trained network.", (configuration.EvaluateConfig,), evaluate),
    "export": Verb("export GENOTYPE", "Write a genotype in another form.", (configuration.ExportConfig,), export),
    "cost": Verb("cost GENOTYPE", "Count what the network of a genotype costs.", (configuration.CountConfig,), cost),
    "report": Verb("report RUN ...", "Table of finished runs in Markdown.", (configuration.ReportConfig,), report),
}


# --- the frame around them ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code (rapdarts.errors). Results go to stdout, everything else to stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        return _run(arguments)
    except RapdartsError as error:
        if debug:
            raise
        _say(f"rapdarts: error: {error}" if error.exit_code != 75 else f"rapdarts: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("rapdarts: stopped at once; the last checkpoint stands.")
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; what is written to disk is written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if debug:
            raise
        if type(error).__name__ == "OutOfMemoryError":
            _say(
                f"rapdarts: error: the device is out of memory ({str(error).splitlines()[0]}). Make the batch or the channels smaller."
            )
            return DeviceError.exit_code
        _say(
            f"rapdarts: internal error: {type(error).__name__}: {error}. Run again with --debug for the traceback, and report it."
        )
        return 1


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(rapdarts.__version__)
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no command {verb!r}; the nearest is {near}, of {', '.join(VERBS)}.")
    call = _parse(verb, arguments[1:])
    if call.help:
        print(_help(VERBS[verb]))
        return 0
    VERBS[verb].function(call)
    return 0


def _parse(verb: str, arguments: list[str]) -> Call:
    call = Call(verb)
    words = iter(arguments)
    for word in words:
        if word in ("--help", "-h"):
            call.help = True
        elif word in ("--json", "--debug", "--print-config"):
            setattr(call, word[2:].replace("-", "_"), True)
        elif word == "--space" or word.startswith("--space="):
            call.space = word.partition("=")[2] or next(words, "")
            if not call.space:
                raise InputError("--space needs the path of a Python file.")
        elif word.startswith("-"):
            near = difflib.get_close_matches(word, SWITCHES, n=1, cutoff=0.0)[0]
            raise InputError(f"there is no switch {word!r}; the nearest is {near}. Settings are written key=value.")
        elif re.match(r"[A-Za-z_][\w.]*=", word):
            call.settings.append(word)
        else:
            call.words.append(word)
    return call


def _overview() -> str:
    lines = [f"rapdarts {rapdarts.__version__}: give it a data set and a price, and it finds and trains a network.", ""]
    width = max(len(verb.usage) for verb in VERBS.values())
    lines += [f"  rapdarts {verb.usage:{width}}  {verb.sentence}" for verb in VERBS.values()]
    lines += ["", "rapdarts VERB --help lists a command's keys with defaults and units."]
    return "\n".join(lines)


def _help(verb: Verb) -> str:
    lines = [f"usage: rapdarts {verb.usage} [key=value ...] [switches]", "", verb.sentence, ""]
    for schema in verb.schemas:
        section = None
        for key in knobs.keys(schema):
            here = key.name.rpartition(".")[0]
            if here != section:
                section = here
                lines += ([""] if lines[-1] else []) + ([f"{section}:"] if section else ["keys:"])
            default = (
                json.dumps(key.default) if isinstance(key.default, (list, bool)) else str(key.default) or "(empty)"
            )
            choices = [str(choice) for choice in key.facts["choices"] or () if choice != ""]
            facts = [f"default {default}", key.facts["unit"], f"one of {', '.join(choices)}" if choices else ""]
            if not choices and any(key.facts[bound] is not None for bound in ("low", "high", "above", "below")):
                facts.append(knobs.range_text(key.facts))
            lines.append(f"  {key.name:28} {key.facts['help']} ({'; '.join(filter(None, facts))})")
    if Experiment in verb.schemas:
        known = sorted(path.stem for path in configuration.experiment_folder().glob("*.yaml"))
        lines += [
            "",
            f"experiments: {', '.join(known)}, or a YAML file of yours.",
            "A section's name may be left out where the rest is unambiguous: cost.macs=0.2",
        ]
    lines += ["", "switches:"] + [f"  {name:28} {sentence}" for name, sentence in SWITCHES.items()]
    return "\n".join(lines)


def _experiment(call: Call, name: str, section: str) -> tuple[Experiment | None, Launch]:
    """The experiment and where it is to run; None where only the configuration was asked for, and has been printed."""
    launch, settings = call.options(Launch, also=Experiment)
    config = configuration.experiment(name, settings, section)
    if call.space:
        config.search.space = _space("", call.space).name
    if call.print_config:
        print(
            json.dumps(_plain(config), indent=2) if call.json else knobs.save_yaml(config),
            end="\n" if call.json else "",
        )
        return None, launch
    return config, launch


def _plain(config: Any) -> Any:
    return {
        name: _plain(value) if hasattr(value, "__dataclass_fields__") else value for name, value in vars(config).items()
    }


def _space(name: str, file: str) -> SearchSpace:
    """The space in the user's own file if one was named, or the one that ships under that name."""
    from rapdarts.space import named_space, space_from_file

    space = space_from_file(Path(file)) if file else named_space(name)
    if name and space.name != name:
        raise InputError(f"--space {file} holds the space {space.name}, but {name} is asked for.")
    return space


def _space_source(file: str) -> str:
    """What the user's own space file says, so that a run remembers it and notices a change."""
    return Path(file).read_text(encoding="utf-8") if file else ""


def _genotype(target: str) -> tuple[Genotype, str]:
    """The genotype a user names, and how to call it in a message: a literature name, a file, or a run folder's."""
    from rapdarts.genotype import read
    from rapdarts.literature import LITERATURE, find

    known = find(target)
    if known is not None:
        return known, target
    path = Path(target)
    if path.is_dir():
        path = path / "genotype.json"
        if not path.exists():
            raise InputError(
                f"{target} holds no genotype.json; the search has not finished, or it is not a run folder."
            )
    elif not path.exists():
        raise InputError(f"there is no genotype {target!r}: neither a file nor one of {', '.join(LITERATURE)}.")
    return read(path), str(path)


def _config_of(folder: Path) -> Experiment:
    """The configuration of a run."""
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is not a run folder: it has no config.yaml.")
    return knobs.load(Experiment, list(read_yaml(folder / "config.yaml")))


def _device(name: str, threads: int) -> torch.device:
    """The device asked for. Raises DeviceError if it is not there."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise DeviceError(f"device={name} is not there; take device=cpu or device=auto.") from None
    return device


def _provenance(config: Experiment) -> dict[str, Any]:
    """Where a genotype comes from."""
    import hashlib

    import torch

    text = knobs.save_yaml(config)
    return {
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "strategy": config.search.strategy,
        "seed": config.seed,
        "rapdarts": rapdarts.__version__,
        "torch": torch.__version__,
    }


def _image(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", text)
    if not match or "0" in match.groups():
        raise InputError(f"input={text} is not an image; write CxHxW such as 3x32x32.")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def _costs_line(costs: Any) -> str:
    return "  ".join(f"{name} {value:,}" for name, value in costs.items())


def _print(call: Call, value: Any, words: str) -> None:
    print(json.dumps(value, indent=2, allow_nan=False) if call.json else words)


def _say(words: str) -> None:
    print(words, file=sys.stderr)
