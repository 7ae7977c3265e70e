"""The command line: `rapdarts VERB [TARGET] [EXPERIMENT] key=value ...`. Heavy imports wait until a verb really runs."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rapdarts
from rapdarts import config as configuration
from rapdarts import knobs
from rapdarts.config import Experiment, Launch
from rapdarts.errors import DeviceError, InputError, Preempted, RapdartsError, StorageError, exit_code
from rapdarts.help import COMMANDS, help_of, overview
from rapdarts.plain_yaml import shorten

if TYPE_CHECKING:
    import torch

    from rapdarts.genotype import Genotype
    from rapdarts.space import SearchSpace


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

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The settings as (key, value)."""
        return [knobs.split_override(text) for text in self.settings]

    def target(self, what: str) -> str:
        """The first word. Raises InputError, saying what it should be, if there is none."""
        if not any(self.words[:1]):
            raise InputError(f"rapdarts {self.verb} needs {what}; see rapdarts {self.verb} --help.")
        return self.words[0]

    def expect(self, most: int) -> None:
        """Raises InputError for words that the verb has no use for."""
        if len(self.words) > most:
            extra = shorten(repr(self.words[most]))
            raise InputError(
                f"rapdarts {self.verb} does not know what to do with {extra}; write settings as key=value."
            )


# --- the verbs ---------------------------------------------------------------------------------------------------


def search(call: Call) -> None:
    call.expect(1)
    config, launch = _experiment(call, call.target("an experiment, such as digits"))
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
    inputs = {"data set": data.fingerprint, "search space": _source(call.space)}
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
        _print(call, result, result["summary"])
        return
    loop.Halves.of(data, config)  # likewise
    with open_run("search", config, launch, name, inputs) as run:
        derivation = loop.search(config, space, data, run, _provenance(config))
        report = loop.cost_report(derivation, space, run)
        run.write_json("result.json", report)
    _print(call, report, f"{loop.describe(derivation, report)}\nwritten to {run.folder / 'genotype.json'}")


def derive(call: Call) -> None:
    call.expect(1)
    folder = Path(call.target("the folder of a finished search"))
    options = knobs.load(configuration.DeriveConfig, call.pairs)
    from rapdarts.cost.expected import price_table
    from rapdarts.derive import derive as derive_genotype
    from rapdarts.derive import mixing_weights, read_alphas

    config = configuration.of_run(folder)
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
    lines = [f"rule: {derivation.rule}", derivation.genotype.to_darts(), _costs_line(derivation.genotype.costs)]
    if options.out:
        _write(options.out, derivation.genotype.to_json())
        lines.append(f"written to {options.out}")
    _print(call, _best_first(derivation.candidates_json()), "\n".join(lines))


def retrain(call: Call) -> None:
    call.expect(2)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    if len(call.words) < 2:
        raise InputError("rapdarts retrain needs an experiment after the genotype, such as digits.")
    config, launch = _experiment(call, call.words[1])
    if config is None:
        return
    from rapdarts import retrain as loop
    from rapdarts.genotype import validate
    from rapdarts.search import deployment_skeleton, skeleton_to_build
    from rapdarts.training.data import load
    from rapdarts.training.run import open_run

    genotype, where = _genotype(target)
    space = _space(genotype.space, call.space)
    validate(genotype, space, where)
    data = load(config.data, _device(config.device, config.threads), config.seed)
    if configuration.touches("skeleton", call.pairs, "retrain"):
        skeleton = deployment_skeleton(config.skeleton, data)
    else:
        skeleton = skeleton_to_build(genotype, config.skeleton, data)
    config.skeleton = replace(config.skeleton, layers=skeleton.layers, channels=skeleton.channels, stem=skeleton.stem)
    loop.training_batches(config, data)  # refuses a batch that is too large before a folder is made
    inputs = {
        "data set": data.fingerprint,
        "genotype": genotype.to_darts(),
        "search space": _source(call.space),
    }
    with open_run("retrain", config, launch, Path(call.words[1]).stem, inputs) as run:
        cells = f"{skeleton.layers} cells x {skeleton.channels} channels with the {skeleton.stem} stem"
        run.screen.say(f"building {cells}; skeleton.KEY=... sets another")
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
    options = knobs.load(configuration.EvaluateConfig, call.pairs)
    from rapdarts.evaluate import accuracy, load_network, read_trained
    from rapdarts.training.augment import Augment
    from rapdarts.training.data import load, ordered

    trained = read_trained(target / "network.safetensors" if target.is_dir() else target)
    config = configuration.of_run(trained.path.parent)
    if options.path:
        config.data.path = options.path
    device = _device(options.device, options.threads or config.threads)
    network, skeleton = load_network(trained, _space(trained.genotype.space, call.space))
    network = network.to(device)
    data = load(config.data, device, config.seed)
    known, found = (skeleton.image, trained.class_names), (data.image, data.class_names)
    if known != found:
        raise InputError(
            f"{trained.path} was trained on images {known[0]} of the classes {shorten(', '.join(known[1]))}, but these are"
            f" {found[0]} of {shorten(', '.join(found[1]))}; name other data with path=PATH."
        )
    result = accuracy(network, ordered(data.test, None, options.batch, Augment(trained.mean, trained.std)))
    values = {"test_accuracy": result.share, "standard_error": result.standard_error, "n": result.n}
    _print(call, {**values, "test_loss": result.loss}, f"test accuracy {result}")


def export(call: Call) -> None:
    call.expect(1)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    options = knobs.load(configuration.ExportConfig, call.pairs)
    from rapdarts.export import FORMATS

    genotype, _ = _genotype(target)
    _deliver(FORMATS[options.to](genotype), options.out)


def cost(call: Call) -> None:
    call.expect(1)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    options = knobs.load(configuration.CountConfig, call.pairs)
    from rapdarts.cost.count import count_derived
    from rapdarts.genotype import validate
    from rapdarts.space import Skeleton, stem_for

    genotype, where = _genotype(target)
    space = _space(genotype.space, call.space)
    validate(genotype, space, where)
    own = genotype.skeleton or Skeleton(20, 36, (3, 32, 32), 10)
    image = configuration.image_shape(options.input) if options.input else own.image
    stem = stem_for(options.stem, image) if options.stem or options.input or not genotype.skeleton else own.stem
    skeleton = Skeleton(
        options.layers or own.layers, options.channels or own.channels, image, options.classes or own.classes, stem
    )
    costs = count_derived(genotype, space, skeleton)
    shape, cells = "x".join(map(str, image)), f"{skeleton.layers} cells x {skeleton.channels} channels"
    head = f"{target}: {cells}, {shape}, {skeleton.classes} classes, {skeleton.stem} stem"
    _print(call, {**costs, "skeleton": vars(skeleton)}, f"{head}\n{_costs_line(costs)}")


def report(call: Call) -> None:
    call.target("run folders")
    options = knobs.load(configuration.ReportConfig, call.pairs)
    from rapdarts.report import table

    _deliver(table([Path(word) for word in call.words]), options.out)


VERBS: dict[str, Callable[[Call], None]] = {
    "search": search,
    "derive": derive,
    "retrain": retrain,
    "evaluate": evaluate,
    "export": export,
    "cost": cost,
    "report": report,
}
"""Every command; what there is to say about it stands in rapdarts.help."""


# --- the frame around them ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code (rapdarts.errors). Results go to stdout, everything else to stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without some letter still gets the rest
    try:
        _run(arguments)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        words = f"rapdarts: {_sentence(error)}"
        _say("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words))
        return exit_code(error)


def _sentence(error: BaseException) -> str:
    """What to say of whatever stopped a command."""
    if isinstance(error, RapdartsError):
        return str(error) if isinstance(error, Preempted) else f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once; what was saved before stands."
    if isinstance(error, OSError) and error.strerror:
        return f"error: {shorten(str(error.filename or 'a file'))} cannot be used: {error.strerror}."
    first = (str(error).splitlines() or [""])[0]
    if type(error).__name__ == "OutOfMemoryError":
        return f"error: out of memory on the device ({first}); lower the batch or the channels."
    return f"internal error: {type(error).__name__}: {first}. Report it with what --debug shows."


def _run(arguments: list[str]) -> None:
    verb = arguments[0] if arguments else "help"
    if verb in ("--help", "-h", "help"):
        _out(overview())
    elif verb == "--version":
        _out(rapdarts.__version__)
    elif verb in VERBS:
        call = _parse(verb, arguments[1:])
        if call.help:
            _out(help_of(COMMANDS[verb]))
        else:
            VERBS[verb](call)
    elif verb.startswith("-"):
        raise InputError(f"{shorten(repr(verb))} stands before the command; write rapdarts VERB ... {verb[:80]}.")
    else:
        near = difflib.get_close_matches(verb[:80], VERBS, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no command {shorten(repr(verb))}; the nearest is {near}, of {', '.join(VERBS)}.")


def _parse(verb: str, arguments: list[str]) -> Call:
    call, switches = Call(verb), COMMANDS[verb].all_switches
    words = iter(arguments)
    for word in words:
        switch, equals, value = word.partition("=")
        if not word.startswith("-"):
            # A path may hold an equals sign: runs/lr=0.1
            (call.settings if re.match("[^/=]*=", word) else call.words).append(word)
        elif word == "-h":
            call.help = True
        elif switch not in switches:
            known, hint = ", ".join(switches), "Settings take no dashes: seed=1."
            if near := difflib.get_close_matches(switch[2:80], [name[2:] for name in switches], n=1):
                hint = f"The nearest is --{near[0]}."
            raise InputError(f"rapdarts {verb} has no switch {shorten(repr(switch))}, only {known}. {hint}")
        elif switch == "--space":
            call.space = value or next(words, "")
            if not call.space:
                raise InputError("--space needs the path of a Python file.")
        elif equals:
            raise InputError(f"{switch} takes no value; write it alone.")
        else:
            setattr(call, switch[2:].replace("-", "_"), True)
    return call


def _experiment(call: Call, name: str) -> tuple[Experiment | None, Launch]:
    """The experiment and where it is to run; None where only the configuration was asked for, and has been printed."""
    config = configuration.experiment(name, call.pairs, COMMANDS[call.verb].section)
    launch = configuration.launch(call.pairs)
    if call.space:
        config.search.space = _space("", call.space).name
    if not call.print_config:
        return config, launch
    _out(json.dumps(asdict(config), indent=2) + "\n" if call.json else knobs.save_yaml(config), end="")
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
    """What the user's own space file says: the run remembers it, and notices a change."""
    return Path(file).read_text(encoding="utf-8", errors="replace") if file else ""


def _genotype(target: str) -> tuple[Genotype, str]:
    """The genotype a user names, and how to call it in a message: a literature name, a file, or a run folder's."""
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
            f"there is no genotype {shorten(repr(target))}: neither a file nor one of {', '.join(LITERATURE)}."
        )
    return read(path), str(path)


def _device(name: str, threads: int) -> torch.device:
    """The device asked for. Raises DeviceError if it is not there."""
    configuration.check_device(name)
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
    import torch

    return {
        "config_sha256": configuration.digest(config),
        "strategy": config.search.strategy,
        "seed": config.seed,
        "rapdarts": rapdarts.__version__,
        "torch": torch.__version__,
    }


def _best_first(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The derived candidate, then the others by their scores; without one (a weight of 0), last."""
    return sorted(candidates, key=lambda one: (not one["chosen"], one["score"] is None, -(one["score"] or 0)))


def _costs_line(costs: Any) -> str:
    return "  ".join(f"{name} {value:,}" for name, value in costs.items())


# --- speaking ----------------------------------------------------------------------------------------------------


def _print(call: Call, value: Any, words: str) -> None:
    _out(json.dumps(value, indent=2, allow_nan=False) if call.json else words)


def _out(text: str, end: str = "\n") -> None:
    """Writes a result. Raises StorageError, unless it is only that whoever read our output has left."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes once more at its end, and would complain then
        if not isinstance(error, BrokenPipeError):
            raise StorageError(f"standard output cannot be written: {error.strerror}.") from None


def _deliver(text: str, out: str) -> None:
    """A text that is itself the result: to a file if one is named, else to stdout."""
    if out:
        _write(out, text)
        _say(f"written to {out}")
    else:
        _out(text, end="")


def _write(out: str, text: str) -> None:
    from rapdarts.training import files

    if not Path(out).name:
        raise InputError(f"out={out} names no file; write the path of one.")
    files.write(Path(out), text)


def _say(words: str) -> None:
    if sys.stderr is not None:  # print(file=None) would go to stdout
        with suppress(OSError):
            print(words, file=sys.stderr)
