"""Resolution of experiments: files, presets, overrides from the command line, and checks across knobs."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from dataclasses import FrozenInstanceError, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from rapdarts.cli.commands import COMMANDS
from rapdarts.cli.main import main
from rapdarts.config import experiment as config
from rapdarts.config import key_values, resolve
from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.hardware import HardwareConfig
from rapdarts.config.presets import PRESETS
from rapdarts.config.resolve import experiment_file, experiment_folder, experiment_names, resolve_experiment
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError

SHIPPED = pytest.mark.parametrize("name", experiment_names())


def of(text: str, tmp_path: Path, *pairs: tuple[str, Any], section: str = "search") -> Experiment:
    """Return the experiment in a YAML text, overridden by pairs of the command line."""
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return resolve_experiment(str(path), pairs, section)


def refused(text: str, tmp_path: Path, *pairs: tuple[str, Any]) -> str:
    with pytest.raises(InputError) as refusal:
        of(text, tmp_path, *pairs)
    return str(refusal.value)


# --- shipped experiments -----------------------------------------------------------------------------------------


def test_shipped_experiments_are_the_files_of_the_folder() -> None:
    assert set(experiment_names()) == {path.stem for path in experiment_folder().iterdir() if path.suffix == ".yaml"}
    assert "digits" in experiment_names()


@SHIPPED
@pytest.mark.parametrize("verb", ["search", "retrain"])
def test_a_shipped_experiment_loads_and_fits_its_space(name: str, verb: str) -> None:
    from rapdarts.loops.search import check_stages

    found = resolve_experiment(name, [], verb)
    space = named_space(found.search.space)
    check_stages(found.search, space.only(found.search.primitives) if found.search.primitives else space)
    for key in key_values.keys(Experiment):
        key_values.check_range(key, key_values.get(found, key.name))


@SHIPPED
def test_a_shipped_experiment_is_a_structured_config_of_omegaconf(name: str) -> None:
    """It is typed, read-only, and saved as OmegaConf would save it."""
    found = resolve_experiment(name, [("budget.params", "3.0M"), ("hardware", "1e3"), ("latency_of", "")], "search")
    structured = OmegaConf.structured(found)
    assert key_values.save_yaml(found) == OmegaConf.to_yaml(structured)
    assert OmegaConf.to_object(structured) == found
    with pytest.raises(ReadonlyConfigError):
        structured.search.epochs = 3
    assert OmegaConf.merge(OmegaConf.structured(Experiment), key_values.plain(structured)) == structured


def test_omegaconf_settings_are_accepted() -> None:
    settings = OmegaConf.create({"seed": 3, "search": {"epochs": "${seed}", "layers": [1, 2]}})
    assert key_values.plain(settings) == {"seed": 3, "search": {"epochs": 3, "layers": [1, 2]}}
    assert key_values.plain({"seed": 3}) == {"seed": 3}
    for wrong in ({"seed": "${search.sed}"}, {"seed": "???"}):
        with pytest.raises(InputError, match=r"^the settings cannot be resolved: .*(sed|seed).*\.$"):
            key_values.plain(OmegaConf.create(wrong))


def test_configurations_are_immutable() -> None:
    schemas = [Experiment, Launch, *(schema for command in COMMANDS.values() for schema in command.schemas)]
    values = [schema() for schema in schemas]
    values += [getattr(value, name) for value in values for name in vars(value) if is_dataclass(getattr(value, name))]
    values += [
        Experiment().search.cost,
        Experiment().search.budget,
        Experiment().search.random,
        HardwareConfig(),
    ]
    for value in values:
        with pytest.raises(FrozenInstanceError):
            setattr(value, next(iter(vars(value))), 0)


@SHIPPED
def test_a_shipped_experiment_begins_with_a_comment(name: str) -> None:
    assert experiment_file(name).read_text(encoding="utf-8").startswith("# ")


@SHIPPED
def test_printed_configurations_read_back_to_the_same_experiment(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["search", name, "--print-config", "seed=3"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    expected = resolve_experiment(name, [("seed", "3")], "search")
    assert of(printed.out, tmp_path) == of(printed.out, tmp_path, section="retrain") == expected
    assert main(["retrain", "PDARTS", name, "--print-config", "--json", "seed=3"]) == 0
    assert json.loads(capsys.readouterr().out) == dataclasses.asdict(expected)


def test_defaults_match_the_paper() -> None:
    """Chen et al. 2019, sections 4.2 and 4.3, and their code."""
    found = Experiment()
    search, retrain = found.search, found.retrain
    assert (search.layers, search.candidates, search.skip_dropout) == ([5, 11, 17], [0, 5, 3], [0.1, 0.4, 0.7])
    assert (search.epochs, search.warmup_epochs, search.batch, search.channels) == (25, 10, 96, 16)
    assert (search.lr, search.lr_min, search.momentum, search.weight_decay, search.clip) == (0.025, 0.0, 0.9, 3e-4, 5.0)
    assert (search.alpha_lr, search.alpha_beta1, search.alpha_beta2) == (6e-4, 0.5, 0.999)
    assert (search.alpha_weight_decay, search.alpha_clip, search.alpha_init) == (1e-3, 5.0, 1e-3)
    assert (search.rule, search.max_skips, search.weight_fraction, search.unrolled) == ("auto", -1, 0.5, False)
    assert (retrain.epochs, retrain.batch, retrain.lr, retrain.lr_min) == (600, 128, 0.025, 0.0)
    assert (retrain.drop_path, retrain.auxiliary, retrain.cutout, retrain.clip) == (0.3, 0.4, 16, 5.0)
    assert (found.skeleton.layers, found.skeleton.channels) == (20, 36)


# --- strategies --------------------------------------------------------------------------------------------------

DARTS = "search:\n  strategy: darts\n"


def test_the_strategy_darts_matches_its_paper(tmp_path: Path) -> None:
    """Liu et al. 2019, appendix A.1."""
    search = of(DARTS, tmp_path).search
    assert (search.layers, search.candidates, search.skip_dropout) == ([8], [0], [0.0])
    assert (search.epochs, search.warmup_epochs, search.batch, search.channels) == (50, 0, 64, 16)
    assert (search.lr, search.lr_min, search.alpha_lr, search.alpha_clip) == (0.025, 0.001, 3e-4, 0.0)
    assert search.rule == "auto"  # which means DARTS' own rule without a budget; see tests/strategy/test_rule.py


def test_keys_of_a_file_override_presets(tmp_path: Path) -> None:
    search = of("search: {epochs: 7, strategy: darts, layers: [4]}", tmp_path).search
    assert (search.epochs, search.layers, search.batch) == (7, [4], 64)


def test_a_strategy_on_the_command_line_overrides_the_file_but_not_other_keys(tmp_path: Path) -> None:
    text = (
        "search: {layers: [3, 3], candidates: [0, 4], skip_dropout: [0.1, 0.2], warmup_epochs: 1, channels: 8, lr: 0.1}"
    )
    search = of(text, tmp_path, ("layers", "[2]"), ("strategy", "darts"), ("epochs", "9")).search
    assert (search.strategy, search.layers, search.candidates, search.epochs) == ("darts", [2], [0], 9)
    assert (search.warmup_epochs, search.rule) == (0, "auto")
    assert (search.channels, search.lr) == (16, 0.025)  # from DARTS, not from the file


def test_pdarts_on_the_command_line_resets_the_presets_of_darts(tmp_path: Path) -> None:
    text = DARTS + "  momentum: 0.5\n  max_skips: 1\n"
    assert of(text, tmp_path, ("strategy", "pdarts")) == of("search: {max_skips: 1}", tmp_path)


@pytest.mark.parametrize("chooser", PRESETS)
def test_a_choice_on_the_command_line_applies_all_its_presets(chooser: str, tmp_path: Path) -> None:
    """The file's own choice, and its values for the same keys, are ignored."""
    section, _, name = chooser.partition(".")
    for choice, presets in PRESETS[chooser].items():
        for in_file in PRESETS[chooser]:
            others = (
                "layers: [3, 4], candidates: [0, 2], skip_dropout: [0, 0]" if section == "search" else "nesterov: true"
            )
            text = f"{section}: {{{name}: {in_file}, momentum: 0.5, weight_decay: 0.1, batch: 7, {others}}}"
            config = of(text, tmp_path, (chooser, choice))
            assert {key: key_values.get(config, key) for key in presets} == presets


def test_defaults_match_the_presets_of_pdarts() -> None:
    config = Experiment()
    for presets in PRESETS.values():
        assert {key: key_values.get(config, key) for key in presets["pdarts"]} == presets["pdarts"]


def test_the_strategy_random_has_no_presets(tmp_path: Path) -> None:
    plain, drawn = of(DARTS, tmp_path), of(DARTS, tmp_path, ("strategy", "random"))
    assert key_values.differences(plain, drawn) == ["search.strategy: darts -> random"]


def test_the_last_strategy_wins(tmp_path: Path) -> None:
    assert of("", tmp_path, ("strategy", "darts"), ("strategy", "pdarts")) == Experiment()


@pytest.mark.parametrize("value", ["drats", "[darts]", "3", "true"])
def test_an_unknown_strategy_is_rejected(value: str, tmp_path: Path) -> None:
    assert "search.strategy cannot be " in refused("", tmp_path, ("strategy", value))
    text = refused(f"search: {{strategy: {value}}}", tmp_path)
    assert "mine.yaml: search.strategy " in text


# --- recipes -----------------------------------------------------------------------------------------------------

CIFAR = {"epochs": 600, "warmup_epochs": 0, "lr": 0.025, "lr_min": 0.0, "schedule": "cosine", "momentum": 0.9}
CIFAR |= {"weight_decay": 3e-4, "clip": 5.0, "auxiliary": 0.4, "cutout": 16, "jitter": 0.0, "smallest_crop": 1.0}
CIFAR |= {"nesterov": False, "ema": 0.0, "label_smoothing": 0.0, "accumulate": 1, "amp": "none", "compile": False}
IMAGENET = {**CIFAR, "epochs": 250, "warmup_epochs": 5, "batch": 1024, "lr": 0.5, "schedule": "linear"}
IMAGENET |= {"weight_decay": 3e-5, "drop_path": 0.0, "cutout": 0, "label_smoothing": 0.1, "jitter": 0.4}


@pytest.mark.parametrize(
    ("recipe", "values", "skeleton"),
    [
        ("pdarts", {**CIFAR, "batch": 128, "drop_path": 0.3}, (20, 36, "auto")),
        ("darts", {**CIFAR, "batch": 96, "drop_path": 0.2}, (20, 36, "auto")),
        ("imagenet_mobile", {**IMAGENET, "smallest_crop": 0.08}, (14, 48, "imagenet")),
    ],
)
def test_recipes_match_their_papers(
    recipe: str, values: dict[str, Any], skeleton: tuple[int, int, str], tmp_path: Path
) -> None:
    """Chen et al. 2019, section 4.3; Liu et al. 2019, appendix A.2."""
    found = of(f"retrain: {{recipe: {recipe}}}", tmp_path)
    got = vars(found.retrain)
    assert {name: got[name] for name in values} == values
    assert (found.skeleton.layers, found.skeleton.channels, found.skeleton.stem) == skeleton
    assert found.data.crop == (0 if recipe == "imagenet_mobile" else 4)
    assert of("", tmp_path, ("recipe", recipe), section="retrain") == found


def test_a_recipe_on_the_command_line_overrides_the_file_but_not_other_keys(tmp_path: Path) -> None:
    text = "retrain: {epochs: 9, lr: 0.3, validation_fraction: 0.1}\nskeleton: {layers: 6, channels: 16}"
    found = of(text, tmp_path, ("recipe", "darts"), ("lr", "0.2"), section="retrain")
    assert (found.retrain.epochs, found.retrain.lr, found.retrain.batch) == (600, 0.2, 96)
    assert found.retrain.validation_fraction == 0.1  # no recipe sets it
    assert (found.skeleton.layers, found.skeleton.channels) == (6, 16)  # the recipe darts does not set these
    wide = of(text, tmp_path, ("recipe", "imagenet_mobile"), ("layers", "7"), section="skeleton")
    assert (wide.skeleton.layers, wide.skeleton.channels, wide.skeleton.stem) == (7, 48, "imagenet")


def test_another_recipe_resets_the_presets_of_the_first(tmp_path: Path) -> None:
    text = "retrain: {recipe: imagenet_mobile, momentum: 0.8, amp: bf16}"
    found = of(text, tmp_path, ("recipe", "pdarts"), section="retrain")
    assert found == of("retrain: {amp: bf16}", tmp_path)


def test_strategy_and_recipe_are_independent(tmp_path: Path) -> None:
    both = of("search: {strategy: darts}\nretrain: {recipe: fast}", tmp_path)
    assert both.search == of("search: {strategy: darts}", tmp_path).search
    assert both.retrain == of("retrain: {recipe: fast}", tmp_path).retrain


# --- files -------------------------------------------------------------------------------------------------------


def test_a_file_means_the_same_for_every_verb(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"mine.yaml: the key 'epochs' is ambiguous: it could be search.epochs, retrain.epochs or rank.epochs",
    ):
        of("epochs: 3", tmp_path, section="retrain")
    assert of("alpha_lr: 0.1", tmp_path, section="retrain").search.alpha_lr == 0.1


def test_an_empty_section_changes_nothing(tmp_path: Path) -> None:
    assert of("data:\nsearch:\n  cost:\n", tmp_path) == of("", tmp_path) == of("# nothing", tmp_path) == Experiment()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search: {epochss: 3}", "there is no key 'search.epochss'; the nearest is search.epochs."),
        ("retrian: {lr: 3}", "there is no key 'retrian.lr'; the nearest is retrain.lr."),
        ("search: {cost: {mac: 3}}", "there is no key 'search.cost.mac'; the nearest is search.cost.macs."),
        ("search: 3", "search is a section, not a key; use one of its keys, such as search.strategy or search."),
        ("search: {epochs: 3}\nsearch.epochs: 4", "the key search.epochs appears twice; keep one."),
        ("search: {cost: {macs: 3}}\ncost: {macs: 4}", "the key search.cost.macs appears twice; keep one."),
        ("search: {epochs: 0}", "search.epochs=0 is out of range; it must be 1 to 1e6."),
        ("search: {lr: fast}", "search.lr takes a number, not 'fast'."),
        ("seed:", "seed takes a whole number, not nothing."),
        ("data: {path: 3}", "data.path takes a string, not 3; put it in quotes."),
        ("data: {name: cifar11}", "data.name cannot be 'cifar11'; the nearest is cifar10 (choose from "),
        ("_target_: os.system", "there is no key '_target_'; rapdarts VERB --help lists all keys."),
        ("run: here", "there is no key 'run'; rapdarts VERB --help lists all keys."),
    ],
)
def test_errors_name_the_file_and_the_key(text: str, words: str, tmp_path: Path) -> None:
    assert refused(text, tmp_path).startswith(f"{tmp_path / 'mine.yaml'}: {words}")


def test_unknown_experiments_are_rejected(tmp_path: Path) -> None:
    for name in ("dgits", "digits/", "../digits", "experiments/digits", "x" * 10_000, "di\0gits"):
        with pytest.raises(
            InputError,
            match=r"there is no experiment .*; (the nearest is|choose from) .*\. The name of your own file must end in .yaml",
        ):
            resolve_experiment(name, [], "search")
    for path in ("none.yaml", str(tmp_path), "a\0b.yaml"):
        with pytest.raises(InputError, match="there is no experiment"):
            resolve_experiment(path, [], "search")


# --- keys that must fit together ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search: {layers: [], candidates: [], skip_dropout: []}", "search.layers is empty; set one depth per stage."),
        (
            "search: {layers: [5, 8]}",
            "search.candidates needs 2 values, one for each stage in search.layers; it has 3.",
        ),
        (
            "search: {skip_dropout: [0]}",
            "search.skip_dropout needs 3 values, one for each stage in search.layers; it has 1.",
        ),
        (
            "search: {candidates: [0, 0, 3]}",
            "search.candidates: only the first stage may keep all candidates (0); use a positive number for every later stage.",
        ),
        (
            "search: {warmup_epochs: 25}",
            "search.warmup_epochs=25 leaves no epoch of search.epochs=25 to train alpha; reduce search.warmup_epochs.",
        ),
        (
            "search: {partial_channels: 4, channels: 6}",
            "search.partial_channels=4 does not divide search.channels=6; use a divisor of 6, such as 1.",
        ),
        ("search: {lr_min: 0.1}", "search.lr_min=0.1 is above search.lr=0.025; reduce search.lr_min."),
        ("retrain: {lr_min: 0.1}", "retrain.lr_min=0.1 is above retrain.lr=0.025; reduce retrain.lr_min."),
        (
            "retrain: {warmup_epochs: 600}",
            "retrain.warmup_epochs=600 (set by you or by the recipe) leaves no epoch of retrain.epochs=600 at the full learning rate;"
            " set a smaller value, such as retrain.warmup_epochs=0.",
        ),
        (
            "retrain: {nesterov: true, momentum: 0}",
            "retrain.nesterov=true needs momentum; add retrain.momentum=0.9, or set retrain.nesterov=false.",
        ),
        (
            "data: {mean: [0.5]}",
            "data.mean and data.std must have the same length; set one number per channel in each, or leave both out.",
        ),
        ("device: quantum", "device=quantum is not a device; write auto, cpu, cuda or cuda:N."),
        ("device: mps", "device=mps is not a device; write auto, cpu, cuda or cuda:N."),
        ("device: meta", "device=meta is not a device; write auto, cpu, cuda or cuda:N."),
        ("device: ''", "device= is not a device; write auto, cpu, cuda or cuda:N."),
    ],
)
def test_conflicting_knobs_are_rejected(text: str, words: str, tmp_path: Path) -> None:
    assert refused(text, tmp_path) == words


def test_the_command_line_can_fix_conflicts_in_a_file(tmp_path: Path) -> None:
    assert of(
        "search: {layers: [5, 8]}", tmp_path, ("candidates", "[0, 4]"), ("skip_dropout", "[0, 0]")
    ).search.layers == [5, 8]


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_device_names_are_accepted(name: str, tmp_path: Path) -> None:
    assert of("", tmp_path, ("device", name)).device == name


def test_the_launch_is_resolved_from_pairs() -> None:
    with pytest.raises(InputError, match=r"^resume=true needs run=PATH, the folder of the run to continue\.$"):
        resolve.resolve_launch([("resume", "true"), ("seed", "x")])
    assert resolve.resolve_launch([("resume", "true"), ("seed", "x"), ("run", "runs/a=b")]) == config.Launch(
        "runs/a=b", True
    )
    assert resolve.resolve_launch([]) == config.Launch("", False)
    assert resolve_experiment("", [("resume", "true"), ("run", "x")]) == Experiment()


def test_keys_given_in_a_section_are_found() -> None:
    pairs = [("run", "x"), ("stem", "cifar"), ("lr", "0.1"), ("search.lr", "0.2"), ("cost.macs", "1")]
    assert resolve.keys_given_in("skeleton", pairs, "retrain") == {"stem": "skeleton.stem"}
    assert resolve.keys_given_in("retrain", pairs, "retrain") == {"lr": "retrain.lr"}
    assert resolve.keys_given_in("search", pairs, "retrain") == {
        "search.lr": "search.lr",
        "cost.macs": "search.cost.macs",
    }
    assert resolve.keys_given_in("search.cost", pairs, "retrain") == {"cost.macs": "search.cost.macs"}
    assert resolve.keys_given_in("data", pairs, "retrain") == {}


def test_the_cost_of_random_genotypes_is_an_amount() -> None:
    def macs(*pairs: tuple[str, str]) -> float:
        return resolve_experiment("digits", pairs, "search").search.random.macs

    assert macs() == macs(("random.macs", "0")) == 0
    assert macs(("random.macs", "1.2M")) == macs(("random.macs", "1200000")) == 1.2e6
    for text, words in (("-5", "must be above 0"), ("1.2MB", "is not a unit of macs"), ("much", "is not an amount")):
        with pytest.raises(InputError, match=rf"^search\.random\.macs={text}.*{words}"):
            macs(("random.macs", text))


def test_budgets_are_read_as_numbers(tmp_path: Path) -> None:
    """Budgets stored as text in older run folders are read too; the word none removes the budget of a file."""
    old = "search: {budget: {macs: 500M, params: '', bytes: none, energy: '0.002', latency: ''}}"
    budget = of(old, tmp_path).search.budget
    assert (budget.macs, budget.params, budget.bytes, budget.energy, budget.latency) == (5e8, None, None, 0.002, None)
    assert config.budget_limits(budget) == {"macs": 5e8, "energy": 0.002}
    assert of(key_values.save_yaml(of(old, tmp_path)), tmp_path) == of(old, tmp_path)
    given = (("budget.macs", "none"), ("budget.energy", 0.003), ("budget.params", 3_000_000))
    assert config.budget_limits(of(old, tmp_path, *given).search.budget) == {"params": 3e6, "energy": 0.003}
    for text, words in (("-5", "must be above 0"), ("0", "must be above 0"), ("3 apples", "is not a unit of params")):
        assert f"search.budget.params={text}" in refused("", tmp_path, ("budget.params", text))
        assert words in refused(f"search: {{budget: {{params: '{text}'}}}}", tmp_path)


def test_budgets_of_a_derivation_override_those_of_its_run() -> None:
    own = config.BudgetConfig(macs=5e8, params=3e6)
    pairs = [("budget.params", "none"), ("budget.bytes", "12MB"), ("budget.energy", "")]
    asked = key_values.parse_settings(DeriveConfig, pairs).budget
    assert config.budget_limits(asked.over(own)) == {"macs": 5e8, "bytes": 12e6}
    assert asked.over(config.BudgetConfig()) == config.BudgetConfig(bytes=12e6)


def test_digests_of_amounts_match_older_versions() -> None:
    """A number has the same digest as the text that older versions stored."""
    lines = [f"{key.name}={key_values.get(Experiment(), key.name)!r}" for key in key_values.keys(Experiment)]
    lines = [line for line in lines if line.partition("=")[0] not in resolve.HARMLESS and not line.startswith("find.")]
    lines = [re.sub(r"^(search\.budget\.\w+)=None$", r"\1=''", line) for line in lines]
    lines = [re.sub(r"^search\.random\.macs=0\.0$", "search.random.macs='0'", line) for line in lines]
    text = "\n".join(lines)
    assert resolve.config_digest(Experiment()) == sha256(text.encode()).hexdigest()
    bounded = resolve_experiment("", [("budget.params", "3.0M"), ("space", "darts")], "search")
    text = text.replace("search.budget.params=''", "search.budget.params='3000000'")
    assert resolve.config_digest(bounded) == sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "text", ["3x32", "3x32x32x1", "3x0x3", "0x1x1", "axbxc", "3 x 32 x 32", "-3x3x3", "", "3x1e3x3", "٣x3x3"]
)
def test_invalid_image_shapes_are_rejected(text: str) -> None:
    with pytest.raises(InputError, match=r"^input=.* is not an image shape; write CxHxW, such as 3x32x32\.$"):
        config.image_shape(text)


def test_image_shapes_are_read() -> None:
    assert config.image_shape("3x227x224") == (3, 227, 224)


# --- reading back ------------------------------------------------------------------------------------------------


def likely(key: key_values.Key) -> st.SearchStrategy[Any]:
    """Return a Hypothesis strategy for values within a knob's range."""
    facts = key.facts
    if facts["choices"]:
        return st.sampled_from(facts["choices"])
    if facts["amount"]:
        return st.floats(1, 1e12)
    low = facts["low"] if facts["low"] is not None else facts["above"]
    high = facts["high"] if facts["high"] is not None else facts["below"]
    if key.type is int:
        return st.integers(int(low), int(high))
    if key.type is float:
        exclude = {"exclude_min": facts["low"] is None, "exclude_max": facts["high"] is None}
        return st.floats(low, high, **exclude).filter(lambda x: x == 0 or abs(x) >= key_values.TINY)
    return st.booleans()


KNOBS = [
    key
    for key in key_values.keys(Experiment)
    if key.facts["choices"] or key.facts["amount"] or key.type in (int, float, bool)
]
CONDITIONAL = {"search.cost.latency", "search.budget.latency", "search.strategy", "search.warmup_epochs"}
CONDITIONAL |= {
    "search.lr_min",
    "retrain.lr_min",
    "search.partial_channels",
    "retrain.warmup_epochs",
    "retrain.nesterov",
}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_printed_configuration_reads_back(
    data: st.DataObject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = data.draw(
        st.lists(
            st.sampled_from([k for k in KNOBS if k.name not in CONDITIONAL]), max_size=5, unique_by=lambda key: key.name
        )
    )
    values = {key.name: data.draw(likely(key)) for key in chosen}
    values |= {"search.warmup_epochs": 0, "retrain.warmup_epochs": 0, "search.lr_min": 0, "retrain.lr_min": 0}
    pairs = [f"{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in values.items()]
    random.Random(len(pairs)).shuffle(pairs)
    assert main(["search", "digits", "--print-config", *pairs]) == 0
    printed = capsys.readouterr().out
    found = of(printed, tmp_path)
    assert {name: key_values.get(found, name) for name in values} == values
    assert key_values.save_yaml(found) == printed
    assert yaml.safe_load(printed)["data"]["name"] == found.data.name
