"""Every knob of the product with its unit, default and range, and the reader that fills them from a YAML file and `key=value`.

No torch here: `rapdarts VERB --help` prints these tables before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rapdarts.errors import InputError

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 20


def knob(
    default: Any,
    help: str,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field with its sentence, unit and range; `low`/`high` are included in the range, `above`/`below` are not."""
    facts = {"help": help, "unit": unit, "low": low, "high": high, "above": above, "below": below, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)


# --- what an experiment says -------------------------------------------------------------------------------------


@dataclass
class DataConfig:
    """Which images, and how they are read and shaken up."""

    name: str = knob(
        "digits", "data set", choices=("digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "npz", "folder")
    )
    path: str = knob("", "folder or file that holds the data; empty: the download cache", "path")
    download: bool = knob(True, "fetch a missing data set (with a checksum) into the cache")
    fraction: float = knob(1.0, "share of the training images to use, drawn with equal classes", above=0, high=1)
    size: int = knob(0, "side to which pictures in a folder are scaled and cropped; 0: as they are", "pixels", low=0)
    crop: int = knob(4, "random crops out of an image padded by this much", "pixels", low=0)
    flip: bool = knob(True, "random horizontal flips")
    mean: list[float] = knob([], "mean subtracted from each channel (of 0..1); empty: the training set's")
    std: list[float] = knob([], "deviation that divides each channel (of 0..1); empty: the training set's", above=0)


@dataclass
class SkeletonConfig:
    """The deployment skeleton: the network that is priced by the search and built by the retraining."""

    layers: int = knob(20, "depth", "cells", low=1, high=1000)
    channels: int = knob(36, "width of the first cells", "channels", low=1, high=65536)
    stem: str = knob("auto", "first layers; auto: imagenet from 96 pixels on", choices=("auto", "cifar", "imagenet"))


@dataclass
class CostCoefficients:
    """How dear a resource is: 1 weighs the uniform mixture's whole cost like one nat of cross-entropy (thesis Eq. 3.24)."""

    macs: float = knob(0.0, "price on multiply-accumulates", "nats per reference cost", low=0, high=1e6)
    bytes: float = knob(0.0, "price on the bytes of the weights", "nats per reference cost", low=0, high=1e6)


@dataclass
class RandomConfig:
    """The random baseline: genotypes drawn at a given cost and trained by the retraining recipe."""

    count: int = knob(5, "genotypes to draw and train", low=1)
    macs: float = knob(0.0, "the cost they must meet; 0: that of `random.like`, or any", "MACs", low=0)
    like: str = knob("", "genotype file or search run whose MACs they must meet", "path")
    tolerance: float = knob(0.05, "how far their MACs may lie from that", "share", above=0, high=1)


@dataclass
class SearchConfig:
    """The search: stages, the two optimisers, the price, and how the genotype is read off."""

    strategy: str = knob(
        "pdarts", "how to search; sets the defaults of other keys", choices=("pdarts", "darts", "random")
    )
    space: str = knob("darts", "search space: a module of search_spaces")
    primitives: list[str] = knob([], "candidates to search over, out of the space's; empty: all of them")
    layers: list[int] = knob([5, 11, 17], "depth of the supernet, one number a stage", "cells", low=1, high=1000)
    candidates: list[int] = knob([0, 5, 3], "candidates on every edge, one number a stage; 0: all", low=0)
    skip_dropout: list[float] = knob(
        [0.1, 0.4, 0.7], "first dropout rate after skips, one number a stage", low=0, below=1
    )
    channels: int = knob(16, "width of the supernet's first cells", "channels", low=1, high=65536)
    epochs: int = knob(25, "length of a stage", "epochs", low=1)
    warmup_epochs: int = knob(10, "epochs at the start of a stage that train weights only", "epochs", low=0)
    batch: int = knob(96, "batch of both halves", "images", low=2)
    weight_fraction: float = knob(
        0.5, "share of the training set that trains weights; the rest trains alpha", above=0, below=1
    )
    lr: float = knob(0.025, "learning rate of the weights at the start of a stage", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate of the weights that the cosine falls to", low=0, high=1e3)
    momentum: float = knob(0.9, "momentum of the weights", low=0, below=1)
    weight_decay: float = knob(3e-4, "weight decay of the weights", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm of the weights; 0: no limit", low=0)
    alpha_lr: float = knob(6e-4, "learning rate of the architecture parameters (Adam)", above=0, high=1e3)
    alpha_beta1: float = knob(0.5, "Adam's first decay", low=0, below=1)
    alpha_beta2: float = knob(0.999, "Adam's second decay", low=0, below=1)
    alpha_weight_decay: float = knob(1e-3, "weight decay of the architecture parameters", low=0, high=1)
    alpha_clip: float = knob(5.0, "largest gradient norm of the architecture parameters; 0: no limit", low=0)
    alpha_init: float = knob(1e-3, "standard deviation of the first architecture parameters", low=0)
    unrolled: bool = knob(False, "second-order architecture gradient (Liu et al. 2019, Eq. 7)")
    rule: str = knob("pdarts", "how the genotype is read off alpha", choices=("pdarts", "darts"))
    max_skips: int = knob(2, "most skips in the normal cell (rule pdarts)", "edges", low=0)
    cost: CostCoefficients = field(default_factory=CostCoefficients)
    random: RandomConfig = field(default_factory=RandomConfig)


@dataclass
class RetrainConfig:
    """The recipe that trains the derived network; the defaults are P-DARTS' for CIFAR-10."""

    epochs: int = knob(600, "length", "epochs", low=1)
    batch: int = knob(128, "batch", "images", low=2)
    lr: float = knob(0.025, "learning rate at the start", above=0, high=1e3)
    lr_min: float = knob(0.0, "learning rate that the cosine falls to", low=0, high=1e3)
    momentum: float = knob(0.9, "momentum", low=0, below=1)
    weight_decay: float = knob(3e-4, "weight decay", low=0, high=1)
    clip: float = knob(5.0, "largest gradient norm; 0: no limit", low=0)
    drop_path: float = knob(0.3, "drop path rate at the end; it rises linearly from 0", low=0, below=1)
    auxiliary: float = knob(0.4, "weight of the auxiliary head's loss; 0: no such head", low=0)
    cutout: int = knob(16, "side of the square cut out of every image; 0: none", "pixels", low=0)
    label_smoothing: float = knob(0.0, "probability spread over the other classes", low=0, below=1)
    validation_fraction: float = knob(
        0.0, "share of the training set held out to choose `best`; 0: none", low=0, below=1
    )


@dataclass
class Experiment:
    """All that a launch depends on; the run folder keeps it as config.yaml."""

    seed: int = knob(0, "seed of everything random", low=0, high=2**32 - 1)
    device: str = knob("auto", "cpu, cuda, cuda:N, mps; auto: a GPU if there is one")
    threads: int = knob(0, "CPU threads; 0: torch's own choice", low=0)
    save_seconds: float = knob(60.0, "time between two checkpoints", "seconds", low=0)
    data: DataConfig = field(default_factory=DataConfig)
    skeleton: SkeletonConfig = field(default_factory=SkeletonConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)


STRATEGIES: dict[str, dict[str, Any]] = {
    "pdarts": {},
    "darts": {
        "search.layers": [8],
        "search.candidates": [0],
        "search.skip_dropout": [0.0],
        "search.epochs": 50,
        "search.warmup_epochs": 0,
        "search.batch": 64,
        "search.lr_min": 0.001,
        "search.alpha_lr": 3e-4,
        "search.alpha_clip": 0.0,
        "search.rule": "darts",
    },
    "random": {},
}
"""What `search.strategy` presets; keys given beside it win. pdarts: Chen et al. 2019, section 4.2; darts: Liu et al. 2019, appendix A.1."""


# --- what the other verbs take -----------------------------------------------------------------------------------


@dataclass
class Launch:
    """Where a run lives."""

    run: str = knob("", "run folder; empty: a new one under runs/", "path")
    resume: bool = knob(False, "continue the run in that folder")


@dataclass
class DeriveConfig:
    """Reads a genotype off a finished search once more."""

    rule: str = knob("", "how the genotype is read off alpha; empty: the run's", choices=("", "pdarts", "darts"))
    max_skips: int = knob(-1, "most skips in the normal cell (rule pdarts); -1: the run's", "edges", low=-1)
    layers: int = knob(0, "depth of the deployment skeleton; 0: the run's", "cells", low=0, high=1000)
    channels: int = knob(0, "width of the deployment skeleton; 0: the run's", "channels", low=0, high=65536)
    out: str = knob("genotype.json", "file to write", "path")


@dataclass
class EvaluateConfig:
    """Tests a trained network."""

    path: str = knob("", "folder or file that holds the data; empty: where the run found it", "path")
    batch: int = knob(256, "batch", "images", low=1)
    device: str = knob("auto", "cpu, cuda, cuda:N, mps; auto: a GPU if there is one")
    threads: int = knob(0, "CPU threads; 0: torch's own choice", low=0)


@dataclass
class ExportConfig:
    """Writes a genotype in the form that another program reads."""

    to: str = knob("json", "format", choices=("json", "darts"))
    out: str = knob("", "file to write; empty: standard output", "path")


@dataclass
class ReportConfig:
    """Tabulates finished runs."""

    out: str = knob("", "file to write; empty: standard output", "path")


@dataclass
class CountConfig:
    """Counts what a network costs."""

    input: str = knob("", "image as CxHxW; empty: the genotype's own, else 3x32x32")
    classes: int = knob(0, "classes; 0: the genotype's own, else 10", low=0)
    layers: int = knob(0, "depth; 0: the genotype's own, else 20", "cells", low=0, high=1000)
    channels: int = knob(0, "width of the first cells; 0: the genotype's own, else 36", "channels", low=0, high=65536)
    stem: str = knob("", "first layers; empty: the genotype's own", choices=("", "auto", "cifar", "imagenet"))


# --- reading and checking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One knob as a user sees it: its dotted name, type, default and facts."""

    name: str
    type: Any
    default: Any
    facts: Mapping[str, Any]


def keys(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every knob of a dataclass and of the dataclasses within it, in order."""
    types = typing.get_type_hints(schema)
    for entry in dataclasses.fields(schema):
        name, kind = prefix + entry.name, types[entry.name]
        if dataclasses.is_dataclass(kind):
            yield from keys(typing.cast(type, kind), name + ".")
        else:
            factory = entry.default_factory
            default = entry.default if factory is dataclasses.MISSING else factory()
            yield Key(name, kind, default, entry.metadata)


def full_name(schema: type, given: str, section: str = "") -> str:
    """The knob that `given` means: its full name, or an ending that fits one knob only (the verb's own section first).

    Raises InputError, naming the nearest right key, where none or several fit.
    """
    names = [key.name for key in keys(schema)]
    if given in names:
        return given
    fits = [name for name in names if name.endswith("." + given)]
    own = [name for name in fits if name == f"{section}.{given}"]
    if len(own) == 1 or len(fits) == 1:
        return (own or fits)[0]
    if fits:
        raise InputError(f"the key {given!r} could mean {' or '.join(fits)}; write one of them.")
    # A wrong name in a right section is most likely misspelt in its last part.
    head, _, _ = given.rpartition(".")
    near = [name for name in names if head and name.rpartition(".")[0].endswith(head)]
    tails = {
        name[i + 1 :]: name for name in near or names for i in [-1, *(m.start() for m in re.finditer(r"\.", name))]
    }
    close = difflib.get_close_matches(given, tails, n=1, cutoff=0.5) or difflib.get_close_matches(
        given.rpartition(".")[2], tails, n=1, cutoff=0.0
    )
    raise InputError(
        f"there is no key {given!r}; the nearest is {tails[close[0]]}." if close else f"there is no key {given!r}."
    )


Schema = TypeVar("Schema")


def load(schema: type[Schema], settings: Sequence[tuple[str, Any]], section: str = "", where: str = "") -> Schema:
    """A checked `schema` value from (key, value) pairs, the later of which win.

    Raises InputError for an unknown key, a value of the wrong type, or one out of its range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.structured(schema)
    facts = {key.name: key for key in keys(schema)}
    for given, value in settings:
        key = facts[full_name(schema, given, section)]
        if isinstance(value, str) and key.type is not str:
            value = parse_value(value, key.name)
        if key.type is str and not isinstance(value, str):
            raise InputError(f"{key.name} takes a text, not {value!r}; put it in quotes.")
        if typing.get_origin(key.type) is list and not isinstance(value, list):
            raise InputError(f"{key.name} takes a list such as {list(key.default) or '[a, b]'}, not {value!r}.")
        try:
            OmegaConf.update(config, key.name, value)
        except OmegaConfBaseException:
            raise InputError(f"{key.name} takes {_type_name(key.type)}, not {value!r}.") from None
    result = typing.cast(Schema, OmegaConf.to_object(config))
    for key in facts.values():
        check_range(key, _get(result, key.name))
    return result


def experiment(name_or_path: str, overrides: Sequence[str], section: str) -> Experiment:
    """The experiment a user names (one that ships, or a YAML file), with `key=value` on top.

    Raises InputError for an unknown name, an unreadable file, or a wrong key, type or range.
    """
    from_file = list(read_yaml(experiment_file(name_or_path))) if name_or_path else []
    from_user = [split_override(text) for text in overrides]
    settings: list[tuple[str, Any]] = []
    for group in (from_file, from_user):
        named = [(full_name(Experiment, key, section), value) for key, value in group]
        strategy = dict(named).get("search.strategy")
        # A strategy's presets lie under the keys given beside it, and over everything given before.
        settings += list(STRATEGIES.get(strategy, {}).items()) if isinstance(strategy, str) else []
        settings += named
    config = load(Experiment, settings, section)
    check_experiment(config)
    return config


def check_experiment(config: Experiment) -> None:
    """What no single range can say. Raises InputError."""
    search = config.search
    stages = len(search.layers)
    if not stages:
        raise InputError("search.layers is empty; give one depth a stage.")
    for name in ("candidates", "skip_dropout"):
        if len(getattr(search, name)) != stages:
            raise InputError(
                f"search.{name} has {len(getattr(search, name))} entries but search.layers has {stages}; give one a stage."
            )
    if any(later == 0 for later in search.candidates[1:]):
        raise InputError("search.candidates: only the first stage keeps all (0); later ones give a number.")
    if search.warmup_epochs >= search.epochs:
        raise InputError(
            f"search.warmup_epochs={search.warmup_epochs} leaves no epoch of {search.epochs} to train alpha; make it smaller."
        )
    for section_name, section in (("search", search), ("retrain", config.retrain)):
        if section.lr_min > section.lr:
            raise InputError(
                f"{section_name}.lr_min={section.lr_min} is above {section_name}.lr={section.lr}; make it smaller."
            )
    if len(config.data.mean) != len(config.data.std):
        raise InputError("data.mean and data.std must have the same length; give both, or neither.")


def check_range(key: Key, value: Any) -> None:
    """Raises InputError, naming the key and its range, for a value (or an element of a list) outside it."""
    facts = key.facts
    for item in value if isinstance(value, list) else [value]:
        if facts["choices"] and item not in facts["choices"]:
            choices = [str(choice) for choice in facts["choices"] if choice != ""]
            near = difflib.get_close_matches(str(item), choices, n=1, cutoff=0.0)
            raise InputError(f"{key.name} has no choice {item!r}; the nearest is {near[0]}, of {', '.join(choices)}.")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            inside = (
                math.isfinite(item)
                and (facts["low"] is None or item >= facts["low"])
                and (facts["high"] is None or item <= facts["high"])
                and (facts["above"] is None or item > facts["above"])
                and (facts["below"] is None or item < facts["below"])
            )
            if not inside:
                raise InputError(f"{key.name}={item} is out of range; it must be {range_text(facts)}.")


def range_text(facts: Mapping[str, Any]) -> str:
    """A range in words, `at least 0, below 1`."""
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    parts = [f"{word} {_plain_number(facts[name])}" for name, word in words.items() if facts[name] is not None]
    return ", ".join(parts) or "a finite number"


def _plain_number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"


def split_override(text: str) -> tuple[str, str]:
    """`key=value` as a pair. Raises InputError where there is no `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{text!r} is not key=value.")
    return key.strip(), value


def parse_value(text: str, key: str) -> Any:
    """The number, truth value or list that a command-line text means. Raises InputError."""
    import yaml

    try:
        return _parse_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"{key}={text} cannot be read as a number, a truth value or a [list].") from None


def experiment_folder() -> Path:
    """Where the experiments lie: beside the package in a checkout, inside it once installed."""
    packaged = Path(__file__).parent / "experiments"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "experiments"


def experiment_file(name_or_path: str) -> Path:
    """The YAML file of an experiment. Raises InputError, naming the nearest, for one that is not there."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise InputError(f"there is no experiment file {name_or_path}.")
        return path
    known = sorted(file.stem for file in experiment_folder().glob("*.yaml"))
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.0)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise InputError(
            f"there is no experiment {name_or_path!r}{hint} (of {', '.join(known)}); a file of yours ends in .yaml."
        )
    return experiment_folder() / f"{name_or_path}.yaml"


def read_yaml(path: Path) -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a YAML file.

    Raises InputError for what a configuration has no use for: interpolation, tags, aliases, repeated keys, and
    plain words that YAML takes for something else than they look like (010, 1:30, no).
    """
    import yaml

    try:
        raw = path.read_bytes()
        if len(raw) > MAX_FILE_BYTES:
            raise InputError(f"{path} has {len(raw)} bytes; a configuration has at most {MAX_FILE_BYTES}.")
        text = raw.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.") from None
    try:
        tree = _parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise InputError(f"{path} must hold sections such as data: and search:.")
    yield from _leaves(tree, "", path)


def save_yaml(config: Any) -> str:
    """A configuration value as YAML text that `read_yaml` reads back to the same."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def differences(old: Any, new: Any) -> list[str]:
    """The knobs in which two configurations of one schema differ, as `key: old -> new`."""
    return [
        f"{key.name}: {_get(old, key.name)} -> {_get(new, key.name)}"
        for key in keys(type(new))
        if _get(old, key.name) != _get(new, key.name)
    ]


def _get(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind) or f"a list of {names[typing.get_args(kind)[0]].split(' ', 1)[1]}s"


def _leaves(tree: Mapping[Any, Any], prefix: str, path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if not isinstance(key, str):
            raise InputError(f"{path}: the key {key!r} is not a name.")
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.", path)
        else:
            yield f"{prefix}{key}", value


def _parse_yaml(text: str) -> Any:
    """YAML's numbers, words, lists and maps, and nothing else of it. Raises yaml.YAMLError."""
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.MarkedYAMLError(
                    problem="anchors and aliases are not used here", problem_mark=event.start_mark
                )
            if getattr(event, "tag", None) not in (None, "!"):
                raise yaml.MarkedYAMLError(
                    problem=f"the tag {event.tag} is not used here", problem_mark=event.start_mark
                )
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=event.start_mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            if isinstance(node, yaml.ScalarNode):
                if "${" in node.value:
                    raise yaml.MarkedYAMLError(
                        problem="'${' is not used here; write the value", problem_mark=node.start_mark
                    )
                if node.style is None and MISLEADING.fullmatch(node.value):
                    raise yaml.MarkedYAMLError(
                        problem=f"{node.value} does not mean what it looks like; write true, false, a plain number, or quotes",
                        problem_mark=node.start_mark,
                    )
                if node.style is None and NUMBER.fullmatch(node.value) and not node.tag.endswith(":int"):
                    node.tag = "tag:yaml.org,2002:float"  # YAML 1.1 takes 1e-3 for a text
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} stands here twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506 (a SafeLoader, narrowed)


MISLEADING = re.compile(
    r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9]*)?|0[xob].*|[0-9]+_[0-9_]*|(?i:yes|no|on|off|y|n)|\d{4}-\d\d?-\d\d?.*"
)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
