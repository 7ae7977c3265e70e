"""Suggestions for unknown keys: for all known names from other programs, with and without a section, but never across sections."""

from __future__ import annotations

from pathlib import Path

import pytest

import rapdarts
from rapdarts.config import command_options
from rapdarts.config.command_keys import parse_options
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.key_suggestions import SYNONYMS, suggest_key
from rapdarts.config.key_values import full_name, keys, parse_settings
from rapdarts.config.resolve import resolve_experiment
from rapdarts.errors import InputError

SCHEMAS = [
    Experiment,
    Launch,
    *(kind for kind in vars(command_options).values() if hasattr(kind, "__dataclass_fields__")),
]
NAMES = [key.name for schema in (Experiment, Launch) for key in keys(schema)]
SECTIONS = ("data", "skeleton", "search", "cost", "budget", "random", "retrain", "rank")

PRICED = "use search.cost.{0} or search.budget.{0}"
SUGGESTED = {
    # names: (suggestion without a section, suggestions by section)
    "flop flops mflop mflops gflop gflops madds mult_adds multiply_adds ops": (
        "use search.cost.macs, search.budget.macs or search.random.macs (1 MAC is 2 FLOPs)",
        {
            "budget": "use search.budget.macs (1 MAC is 2 FLOPs)",
            "search.cost": "use search.cost.macs (1 MAC is 2 FLOPs)",
            "random": "use search.random.macs (1 MAC is 2 FLOPs)",
        },
    ),
    "weights param parameters num_params n_params": (
        PRICED.format("params"),
        {"budget": "use search.budget.params", "cost": "use search.cost.params", "search": PRICED.format("params")},
    ),
    "flash rom disk storage size model_size memory_size mem_size weight_bytes": (
        PRICED.format("bytes") + " (size of the weights)",
        {
            "budget": "use search.budget.bytes (size of the weights)",
            "cost": "use search.cost.bytes (size of the weights)",
        },
    ),
    "memory mem": (
        PRICED.format("bytes")
        + " (size of the weights), or search.cost.peak_memory (peak size of activations; cannot have a budget)",
        {
            "budget": "use search.budget.bytes (size of the weights)",
            "cost": "use search.cost.bytes (size of the weights), or search.cost.peak_memory (peak size of activations;"
            " cannot have a budget)",
        },
    ),
    "ram sram peak peak_mem peak_ram activation_memory": (
        "use search.cost.peak_memory (peak size of activations; cannot have a budget)",
        {"cost": "use search.cost.peak_memory (peak size of activations; cannot have a budget)"},
    ),
    "acts activation num_activations": (PRICED.format("activations"), {"budget": "use search.budget.activations"}),
    "bandwidth dram memory_access memory_traffic": (
        PRICED.format("traffic") + " (bytes moved per image)",
        {"cost": "use search.cost.traffic (bytes moved per image)"},
    ),
    "power joule joules": (PRICED.format("energy"), {"budget": "use search.budget.energy"}),
    "time runtime run_time inference_time delay speed": (
        PRICED.format("latency") + " (time of a forward pass)",
        {
            "budget": "use search.budget.latency (time of a forward pass)",
            "cost": "use search.cost.latency (time of a forward pass)",
        },
    ),
    "dataset data_set dataset_name": ("use data.name", {"data": "use data.name", "search": "use data.name"}),
    "pixel_range value_range rescale max_value scale": ("use data.range", {"data": "use data.range"}),
    "data_format channel_order channels_last channels_first": ("use data.layout", {"data": "use data.layout"}),
    "class_weight weighted_loss loss_weights imbalance": (
        "use search.class_weights",
        {"search": "use search.class_weights", "retrain": "use retrain.class_weights"},
    ),
    "optimizer optim": (
        "weights are trained by SGD and alpha by Adam, so leave it out",
        {"retrain": "weights are trained by SGD and alpha by Adam, so leave it out"},
    ),
    "data_dir data_root data_path dataset_dir dataset_path root": ("use data.path", {"data": "use data.path"}),
    "image_size img_size imgsz input_size image_shape input_shape resolution": (
        "use data.size",
        {"data": "use data.size", "search": "use data.size", "retrain": "use data.size"},
    ),
    "padding crop_size crop_padding random_crop": ("use data.crop", {"data": "use data.crop"}),
    "hflip horizontal_flip random_flip": ("use data.flip", {"data": "use data.flip"}),
    "val_fraction val_split val_size validation_split": (
        "use retrain.validation_fraction",
        {"retrain": "use retrain.validation_fraction"},
    ),
    "train_portion": ("use search.weight_fraction", {"search": "use search.weight_fraction"}),
    "num_workers n_workers workers prefetch_factor persistent_workers pin_memory": (
        "images are loaded by the process itself, without workers, so leave it out",
        {
            "data": "images are loaded by the process itself, without workers, so leave it out",
            "search": "images are loaded by the process itself, without workers, so leave it out",
        },
    ),
    "init_channels initial_channels num_channels n_channels width": (
        "use skeleton.channels",
        {"skeleton": "use skeleton.channels", "search": "use search.channels"},
    ),
    "num_layers n_layers num_cells n_cells cells depth": (
        "use search.layers",
        {"skeleton": "use skeleton.layers", "search": "use search.layers"},
    ),
    "search_space searchspace": ("use search.space", {"search": "use search.space"}),
    "candidate_ops op_names": ("use search.primitives", {"search": "use search.primitives"}),
    "bits bit_width bitwidth num_bits": ("use search.precision", {"search": "use search.precision"}),
    "batch_size train_batch_size minibatch mini_batch bs": (
        "use search.batch",
        {"search": "use search.batch", "retrain": "use retrain.batch"},
    ),
    "grad_accum gradient_accumulation gradient_accumulation_steps accumulation_steps": (
        "use retrain.accumulate",
        {"retrain": "use retrain.accumulate"},
    ),
    "n_epochs num_epochs nb_epochs max_epochs total_epochs": (
        "use search.epochs",
        {"search": "use search.epochs", "retrain": "use retrain.epochs", "rank": "use rank.epochs"},
    ),
    "warmup warm_up num_warmup_epochs": ("use search.warmup_epochs", {"retrain": "use retrain.warmup_epochs"}),
    "learning_rate base_lr init_lr eta": ("use search.lr", {"search": "use search.lr", "retrain": "use retrain.lr"}),
    "learning_rate_min min_learning_rate min_lr eta_min": ("use search.lr_min", {"retrain": "use retrain.lr_min"}),
    "scheduler lr_scheduler lr_schedule": ("use retrain.schedule", {"retrain": "use retrain.schedule"}),
    "wd l2": ("use search.weight_decay", {"retrain": "use retrain.weight_decay"}),
    "grad_clip clip_grad clip_grad_norm max_grad_norm gradient_clip": (
        "use search.clip",
        {"search": "use search.clip", "retrain": "use retrain.clip"},
    ),
    "dropout dropout_rate drop_rate": (
        "use search.skip_dropout",
        {"search": "use search.skip_dropout", "retrain": "use retrain.drop_path"},
    ),
    "drop_path_prob drop_path_rate droppath stochastic_depth": (
        "use retrain.drop_path",
        {"retrain": "use retrain.drop_path"},
    ),
    "aux aux_weight auxiliary_weight": ("use retrain.auxiliary", {"retrain": "use retrain.auxiliary"}),
    "label_smooth smoothing": ("use retrain.label_smoothing", {"retrain": "use retrain.label_smoothing"}),
    "cutout_length random_erasing": ("use retrain.cutout", {"retrain": "use retrain.cutout"}),
    "ema_decay model_ema": ("use retrain.ema", {"retrain": "use retrain.ema"}),
    "fp16 bf16 half mixed_precision autocast": (
        "use search.amp",
        {"search": "use search.amp", "retrain": "use retrain.amp"},
    ),
    "arch_lr arch_learning_rate architecture_lr": ("use search.alpha_lr", {"search": "use search.alpha_lr"}),
    "arch_weight_decay arch_wd": ("use search.alpha_weight_decay", {"search": "use search.alpha_weight_decay"}),
    "second_order": ("use search.unrolled", {"search": "use search.unrolled"}),
    "run output output_dir out_dir save_dir save_path log_dir logdir work_dir workdir exp_dir": (
        "use run",
        {"search": "use run", "retrain": "use run"},
    ),
    "resume restart resume_from": ("use resume", {"search": "use resume"}),
    "seed random_seed manual_seed random_state": (
        "use seed",
        {"search": "use seed", "retrain": "use seed", "rank": "use rank.seeds"},
    ),
    "device gpu gpus cuda accelerator": ("use device", {"search": "use device", "retrain": "use device"}),
    "threads num_threads n_threads cpu_threads": ("use threads", {"data": "use threads"}),
}
"""Names from other programs, with the suggestions of the command search: for the bare names, and by section."""

ELSEWHERE = {"num_classes", "n_classes"}
"""Names that stand only for keys of other commands."""


def is_key(given: str) -> bool:
    """Return whether a name is, or could mean, one of our own keys."""
    return any(f".{name}".endswith(f".{given}") for name in NAMES)


CASES = [
    (f"{section}.{name}" if section else name, suggestion)
    for names, (bare, sections) in SUGGESTED.items()
    for name in names.split()
    for section, suggestion in {"": bare, **sections}.items()
    if not is_key(f"{section}.{name}".removeprefix("."))
]


def refusal(given: str, schema: type = Experiment, section: str = "search", beside: type | None = Launch) -> str:
    with pytest.raises(InputError) as refused:
        full_name(schema, given, section, beside)
    start = f"there is no key {given!r}; "
    sentence = str(refused.value)
    assert sentence.startswith(start) and sentence.endswith(".")
    return sentence.removeprefix(start).removesuffix(".")


@pytest.mark.parametrize(("given", "suggestion"), CASES, ids=[given for given, _ in CASES])
def test_a_name_from_another_program_is_answered_with_our_key(given: str, suggestion: str) -> None:
    assert refusal(given) == suggestion
    assert refusal(given.upper().replace("_", "-")) == suggestion


def test_the_table_of_the_tests_is_complete() -> None:
    ours = [name for synonym in SYNONYMS for name in synonym.names.split()]
    assert set(ours) - ELSEWHERE == {name for names in SUGGESTED for name in names.split()}


def test_every_suggested_key_exists() -> None:
    everything = [key.name for schema in SCHEMAS for key in keys(schema)]
    for ending in (ending for synonym in SYNONYMS for ending in synonym.endings.split()):
        assert any(f".{name}".endswith(f".{ending}") for name in everything), ending


@pytest.mark.parametrize(
    ("schema", "given", "suggestion"),
    [
        (command_options.DeriveConfig, "flops", "use budget.macs (1 MAC is 2 FLOPs)"),
        (command_options.DeriveConfig, "budget.flops", "use budget.macs (1 MAC is 2 FLOPs)"),
        (command_options.DeriveConfig, "init_channels", "use channels"),
        (command_options.EvaluateConfig, "batch_size", "use batch"),
        (command_options.EvaluateConfig, "gpu", "use device"),
        (command_options.EvaluateConfig, "dataset", "use data.name"),
        (command_options.ExportConfig, "output", "use out"),
        (command_options.CountConfig, "image_size", "use input"),
        (command_options.CountConfig, "num_classes", "use classes"),
        (command_options.MeasureConfig, "n_classes", "use classes"),
        (command_options.MeasureConfig, "search_space", "use space"),
    ],
)
def test_other_commands_suggest_their_own_keys(schema: type, given: str, suggestion: str) -> None:
    assert refusal(given, schema, "", None) == suggestion


@pytest.mark.parametrize(
    ("given", "section", "suggestion"),
    [
        ("learning_rate", "retrain", "use retrain.lr"),
        ("learning_rate", "", "use search.lr or retrain.lr"),
        ("dropout", "retrain", "use retrain.drop_path"),
        ("dropout", "", "use search.skip_dropout or retrain.drop_path"),
        ("num_layers", "retrain", "use skeleton.layers"),
        ("num_layers", "rank", "use skeleton.layers"),
        ("num_layers", "find", "use skeleton.layers or search.layers"),
    ],
)
def test_a_name_without_a_section_means_the_commands_own_key(given: str, section: str, suggestion: str) -> None:
    assert refusal(given, section=section) == suggestion


@pytest.mark.parametrize(
    ("schema", "given", "suggestion"),
    [
        (
            command_options.DeriveConfig,
            "epochs",
            "rapdarts search, rank and retrain use it, but rapdarts derive does not; see rapdarts derive --help",
        ),
        (
            command_options.DeriveConfig,
            "retrain.epochs",
            "rapdarts retrain uses it, but rapdarts derive does not; see rapdarts derive --help",
        ),
        (
            command_options.CountConfig,
            "timing",
            "rapdarts evaluate uses it, but rapdarts cost does not; see rapdarts cost --help",
        ),
        (
            command_options.ReportConfig,
            "seed",
            "rapdarts find, search, rank, retrain and measure use it, but rapdarts report does not; see rapdarts report --help",
        ),
        (command_options.DeriveConfig, "search.max_skips", "the nearest is max_skips"),
        (command_options.ExportConfig, "output", "use out"),
        (command_options.EvaluateConfig, "zzzzzz", "the keys are "),
        (command_options.MeasureConfig, "zzzzzz", "rapdarts measure --help lists all keys"),
        (command_options.DeriveConfig, "zzzzzz", "rapdarts derive --help lists all keys"),
    ],
)
def test_a_key_of_other_commands_is_answered_with_these_commands(schema: type, given: str, suggestion: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_options(schema, [(given, "1")])
    assert str(refused.value).startswith(f"there is no key {given!r}; {suggestion}")


@pytest.mark.parametrize(
    ("given", "suggestion"),
    [
        ("budgets", "use one of the keys of search.budget, such as budget.macs or budget.params"),
        ("costs", "use one of the keys of search.cost, such as cost.macs or cost.params"),
    ],
)
def test_a_misspelt_section_is_answered_with_its_keys(given: str, suggestion: str) -> None:
    assert refusal(given) == suggestion


BUDGETS = "the keys of search.budget are macs, params, bytes, activations, traffic, energy, latency"
OWN = f"{BUDGETS}; for a user-defined resource, add --space FILE with the file that defines it (in Python, pass the space that defines it)"


@pytest.mark.parametrize(
    ("given", "suggestion"),
    [
        ("budget.flip", OWN),
        ("budget.crop", OWN),
        ("search.budget.lr", OWN),
        ("budgets.zzz", BUDGETS),
        ("budget.mac_s", "the nearest is search.budget.macs"),
        ("skeleton.epochs", "the keys of skeleton are layers, channels, stem"),
        (
            "data.learning_rate",
            "the keys of data are name, path, download, fraction, size, range, layout, crop, flip, mean, std",
        ),
        ("rank.batch_size", "the keys of rank are count, epochs, seeds, train_fraction"),
        ("retrain.alpha_lr", "rapdarts search --help lists all keys"),
        ("budget.peak_memory", BUDGETS),
        # sections that SYNONYMS names explicitly
        ("data.flops", "use search.cost.macs, search.budget.macs or search.random.macs (1 MAC is 2 FLOPs)"),
        ("budget.ram", "use search.cost.peak_memory (peak size of activations; cannot have a budget)"),
        ("rank.image_size", "use data.size"),
    ],
)
def test_a_key_with_a_section_is_answered_with_keys_of_that_section(given: str, suggestion: str) -> None:
    assert refusal(given) == suggestion


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("tail", sorted({name.rpartition(".")[2] for name in NAMES} | {"zzz", "x" * 1000}))
def test_no_key_of_another_section_is_suggested_unless_the_table_says_so(section: str, tail: str) -> None:
    given = f"{section}.{tail}"
    if is_key(given):
        return
    found = suggest_key(given, NAMES, "search")
    if not any(tail in synonym.names.split() for synonym in SYNONYMS):
        nearest = found.removeprefix("the nearest is ")
        assert nearest == found or f".{nearest.rpartition('.')[0]}.".find(f".{section}.") >= 0
        assert not found.startswith("use ")


def test_files_and_mappings_reject_unknown_keys_with_the_same_suggestions(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for text, given, suggestion in [
        ("search: {budget: {flops: 1M}}", "search.budget.flops", "use search.budget.macs (1 MAC is 2 FLOPs)."),
        ("budget: {flops: 1M}", "budget.flops", "use search.budget.macs (1 MAC is 2 FLOPs)."),
        ("retrain: {batch_size: 8}", "retrain.batch_size", "use retrain.batch."),
        ("data: {num_workers: 4}", "data.num_workers", "images are loaded by the process itself, without workers, "),
        ("image_size: 8", "image_size", "use data.size."),
    ]:
        file.write_text(text)
        with pytest.raises(InputError, match=f"^{file}: there is no key '{given}'; ") as refused:
            resolve_experiment(str(file), [], "search")
        assert suggestion in str(refused.value)
    for settings in ({"budget": {"flops": "1M"}}, {"budget.flops": "1M"}):
        with pytest.raises(InputError, match=r"there is no key 'budget\.flops'; use search\.budget\.macs \(1 MAC"):
            rapdarts.search("digits", settings)
    with pytest.raises(InputError, match=r"there is no key 'learning_rate'; use search\.lr\."):
        rapdarts.search("digits", learning_rate=0.1)
    for name in ("flops", "batch_size"):
        with pytest.raises(InputError, match=f"there is no key '{name}'"):
            parse_settings(command_options.DeriveConfig, [(name, "1")])
