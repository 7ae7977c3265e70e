"""Suggestions for an unknown key: the key that other programs call by this name, or the nearest key, or a list of keys.

A name from another program is never accepted as a key; it only leads to a suggestion.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from rapdarts.errors import FEW, NEAR, any_of

NEAR_SECTION = 0.8
"""Minimum similarity (ratio in `difflib`) of a misspelt section. There are few sections, so a looser match would mislead."""


class Synonym(NamedTuple):
    """Names of a setting in other programs, and endings of our keys for this setting, both separated by spaces.

    An ending that includes a section, or is a full name, also applies to unknown keys of other sections. If `endings` is empty,
    rapdarts has no such setting, and the note says what to do instead.
    """

    endings: str
    names: str
    note: str = ""


SYNONYMS = (
    # resources
    Synonym("cost.macs budget.macs random.macs", "flop flops mflop mflops gflop gflops madds mult_adds multiply_adds"
            " ops", "1 MAC is 2 FLOPs"),
    Synonym("cost.params budget.params", "weights param parameters num_params n_params"),
    Synonym("cost.bytes budget.bytes", "flash rom disk storage size model_size memory mem memory_size mem_size"
            " weight_bytes", "size of the weights"),
    Synonym("cost.activations budget.activations", "acts activation num_activations"),
    Synonym("cost.traffic budget.traffic", "bandwidth dram memory_access memory_traffic", "bytes moved per image"),
    Synonym("cost.energy budget.energy", "power joule joules"),
    Synonym("cost.latency budget.latency", "time runtime run_time inference_time delay speed", "time of a forward pass"),
    Synonym("cost.peak_memory", "ram sram memory mem peak peak_mem peak_ram activation_memory",
            "peak size of activations; cannot have a budget"),
    # data
    Synonym("data.name", "dataset data_set dataset_name"),
    Synonym("data.path", "data_dir data_root data_path dataset_dir dataset_path root"),
    Synonym("data.size input", "image_size img_size imgsz input_size image_shape input_shape resolution"),
    Synonym("data.crop", "padding crop_size crop_padding random_crop"),
    Synonym("data.flip", "hflip horizontal_flip random_flip"),
    Synonym("data.range", "pixel_range value_range rescale max_value scale"),
    Synonym("data.layout", "data_format channel_order channels_last channels_first"),
    Synonym("class_weights", "class_weight weighted_loss loss_weights imbalance"),
    Synonym("classes", "num_classes n_classes"),
    Synonym("validation_fraction", "val_fraction val_split val_size validation_split"),
    Synonym("weight_fraction", "train_portion"),
    Synonym("", "num_workers n_workers workers prefetch_factor persistent_workers pin_memory",
            "images are loaded by the process itself, without workers, so leave it out"),
    Synonym("", "optimizer optim", "weights are trained by SGD and alpha by Adam, so leave it out"),
    # networks
    Synonym("skeleton.channels channels", "init_channels initial_channels num_channels n_channels width"),
    Synonym("layers", "num_layers n_layers num_cells n_cells cells depth"),
    Synonym("search.space space", "search_space searchspace"),
    Synonym("primitives", "candidate_ops op_names"),
    Synonym("precision", "bits bit_width bitwidth num_bits"),
    # training
    Synonym("batch", "batch_size train_batch_size minibatch mini_batch bs"),
    Synonym("accumulate", "grad_accum gradient_accumulation gradient_accumulation_steps accumulation_steps"),
    Synonym("epochs", "n_epochs num_epochs nb_epochs max_epochs total_epochs"),
    Synonym("warmup_epochs", "warmup warm_up num_warmup_epochs"),
    Synonym("lr", "learning_rate base_lr init_lr eta"),
    Synonym("lr_min", "learning_rate_min min_learning_rate min_lr eta_min"),
    Synonym("schedule", "scheduler lr_scheduler lr_schedule"),
    Synonym("weight_decay", "wd l2"),
    Synonym("clip", "grad_clip clip_grad clip_grad_norm max_grad_norm gradient_clip"),
    Synonym("skip_dropout drop_path", "dropout dropout_rate drop_rate"),
    Synonym("drop_path", "drop_path_prob drop_path_rate droppath stochastic_depth"),
    Synonym("auxiliary", "aux aux_weight auxiliary_weight"),
    Synonym("label_smoothing", "label_smooth smoothing"),
    Synonym("cutout", "cutout_length random_erasing"),
    Synonym("ema", "ema_decay model_ema"),
    Synonym("amp", "fp16 bf16 half mixed_precision autocast"),
    Synonym("alpha_lr", "arch_lr arch_learning_rate architecture_lr"),
    Synonym("alpha_weight_decay", "arch_weight_decay arch_wd"),
    Synonym("unrolled", "second_order"),
    # runs
    Synonym("run out", "run output output_dir out_dir save_dir save_path log_dir logdir work_dir workdir exp_dir"),
    Synonym("resume", "resume restart resume_from"),
    Synonym("seed seeds", "seed random_seed manual_seed random_state"),
    Synonym("device", "device gpu gpus cuda accelerator"),
    Synonym("threads", "threads num_threads n_threads cpu_threads"),
)  # fmt: skip
"""Names of our settings in other programs. Keys without a section are listed too, so that `retrain.seed` is understood as `seed`."""


IDLE = {"retrain": ("search", "rank", "find"), "rank": ("search", "find")}
"""Sections of an experiment whose keys a command does not use, except for a few that have no namesake in other sections."""


def is_idle(name: str, section: str) -> bool:
    """Return whether the key with the full name `name` is in a section that the command with its own `section` does not use."""
    return name.partition(".")[0] in IDLE.get(section, ())


def keys_of(section: str, names: Sequence[str]) -> list[str]:
    """Return the keys of a section, beginning with `section`, which may leave out outer sections: budget.macs for search.budget.macs."""
    inside = f".{section}."
    return [name[f".{name}".index(inside) :] for name in names if section and inside in f".{name}"]


def suggest_key(given: str, names: Sequence[str], section: str = "", verb: str = "") -> str:
    """Return a clause for a message that suggests keys for an unknown key; `names` holds the full names of all keys.

    For a key with a section, keys of that section are suggested, unless `SYNONYMS` names another section; for a key without
    a section, keys of the command's own `section` come first. `verb` is the command whose help
    lists all keys.
    """
    head, _, tail = given[-80:].strip().lower().replace("-", "_").replace(" ", "_").rpartition(".")
    part = _section_meant(head, names)
    inside = [name for name in names if name.startswith(f"{part}.")] if part else list(names)
    if (part or tail not in names) and (clause := _suggest_synonym(tail, names, inside if part else (), section)):
        return clause
    if not head and (home := _section_meant(tail, names)):
        return f"use one of the keys of {home}, such as {any_of(keys_of(home.rpartition('.')[2], names)[:2])}"
    likeness = {name: _likeness(tail, name, section) for name in inside}
    nearest = max(inside, key=lambda name: likeness[name])
    if likeness[nearest]:
        return f"the nearest is {nearest}"
    if len(inside) <= FEW:
        return (
            f"the keys{f' of {part}' if part else ''} are {', '.join(name.removeprefix(f'{part}.') for name in inside)}"
        )
    return f"rapdarts {verb or section or 'VERB'} --help lists all keys"


def _section_meant(head: str, names: Sequence[str]) -> str:
    """Return the section named by `head`, the part of a key before its last dot, even if misspelt; empty if there is none."""
    homes = {name.rsplit(".", dots)[0] for name in names for dots in range(1, name.count(".") + 1)}
    sections = {alias: home for home in sorted(homes) for alias in (home, home.rpartition(".")[2])}
    near = difflib.get_close_matches(head, sections, n=1, cutoff=NEAR_SECTION)
    return sections[near[0]] if near else ""


def _suggest_synonym(tail: str, names: Sequence[str], inside: Sequence[str], section: str) -> str:
    """Return the clause for a name in `SYNONYMS`, or an empty string; `inside` holds the keys of the given section."""
    found = [synonym for synonym in SYNONYMS if tail in synonym.names.split()]
    fits = [
        (name, ending, synonym)
        for synonym in found
        for ending in synonym.endings.split()
        for name in names
        if f".{name}".endswith(f".{ending}")
    ]
    fits = [fit for fit in fits if not is_idle(fit[0], section)] or fits
    if inside:
        explicit = [fit for fit in fits if "." in fit[1] or fit[0] == fit[1]]
        best = [fit for fit in fits if fit[0] in inside] or explicit
    else:
        own = [fit for fit in fits if fit[0].rpartition(".")[0] == section]
        best = [fit for fit in fits if fit[0] == fit[1]] or own or fits
    clauses = []
    for synonym in found:
        keys = list(dict.fromkeys(name for name, _, other in best if other is synonym))
        if keys:
            clauses.append(any_of(keys) + (f" ({synonym.note})" if synonym.note else ""))
        elif not synonym.endings:
            return synonym.note
    return f"use {', or '.join(clauses)}" if clauses else ""


def _likeness(tail: str, name: str, section: str) -> float:
    """Return the similarity of `tail` to the last part of a key, or 0 if it is too small; keys of the command's section get a bonus."""
    home, _, last = name.rpartition(".")
    alike = difflib.SequenceMatcher(None, tail, last).ratio()
    own = f"{home}.".startswith(f"{section}.")
    return alike + (0.25 if tail == last else 0.0) + (0.05 if own else 0.0) if alike >= NEAR else 0.0
