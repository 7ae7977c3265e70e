"""The plan of `rapdarts find`, which divides the work once, in counts and not in times, so that results are reproducible."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rapdarts.config.experiment import Experiment
from rapdarts.config.finding import LEAST_EFFORT, MOST_EFFORT, FindConfig
from rapdarts.config.resolve import config_digest
from rapdarts.config.resources import time_left
from rapdarts.errors import InputError, plural, shorten
from rapdarts.files import seal
from rapdarts.files.json import Fault, as_list, as_object, number, record, strict_loads
from rapdarts.files.text import read_text
from rapdarts.loops.pace import Pace, Sizes

FORMAT, VERSION = "rapdarts-plan", 1
MAX_BYTES = 1_000_000

HALVINGS, MOST_HALVINGS = 3, 6
"""Number of rounds of successive halving at an effort of 1 (8 cells), and the largest number of rounds (64 cells)."""
LEAST_STEPS = 40
"""Smallest number of steps in a training; the running statistics of batch norms need about as many steps to settle."""
SHARE_OF_TIME = 0.9
"""Share of the given time that is planned; the rest is a reserve for a machine that becomes slower after the measurement."""
EXPORT_SECONDS = 12.0
"""Time to write the ONNX file; most of it is for importing and tracing, for any network (8 to 11 s on a 2-GHz core)."""
TOLERANCE = 0.05
"""Largest relative difference between the compute for the search and the compute for the random cells."""


@dataclass(frozen=True, order=True)
class Round:
    """A round of successive halving: `networks` cells, each trained for `epochs` epochs; the better half reaches the next round."""

    networks: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """The division of the work, in counts.

    Each stage of each of the `replicas` has `search_epochs` epochs; the first `warmup_epochs` of these train only weights.
    The best cells of the search go through `rounds`, and the winner is trained for `retrain_epochs` epochs. `random` holds the
    rounds for the random cells, and is empty if there is no proof.
    """

    effort: float
    replicas: int
    search_epochs: int
    warmup_epochs: int
    rounds: tuple[Round, ...]
    retrain_epochs: int
    random: tuple[Round, ...] = ()

    @property
    def words(self) -> str:
        """A sentence that describes the plan."""
        rounds = "; ".join(f"{plural(one.networks, 'cell')}, {plural(one.epochs, 'epoch')} each" for one in self.rounds)
        searches = "one search" if self.replicas == 1 else f"{self.replicas} searches"
        random = f"; the same compute for {self.random[0].networks} random cells" if self.random else ""
        return (
            f"{searches} with {plural(self.search_epochs, 'epoch')} per stage; then the best cells are trained briefly and halved"
            f" ({rounds}), and the winner is trained for {plural(self.retrain_epochs, 'epoch')}{random}"
        )

    def apply(self, config: Experiment) -> Experiment:
        """Return the experiment with the plan's counts in its search and its retraining."""
        search = replace(
            config.search, replicas=self.replicas, epochs=self.search_epochs, warmup_epochs=self.warmup_epochs
        )
        warmup = min(config.retrain.warmup_epochs, self.retrain_epochs - 1)
        return replace(
            config, search=search, retrain=replace(config.retrain, epochs=self.retrain_epochs, warmup_epochs=warmup)
        )

    def to_json(self, config: Experiment, sizes: Sizes, pace: Pace) -> str:
        """Return the content of plan.json: the counts, the hash of the experiment, the sizes, and the measured pace."""
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "experiment": digest(config),
            "sizes": asdict(sizes),
            **asdict(self),
            "pace": asdict(pace),
        }
        return json.dumps(facts, indent=2) + "\n"


def digest(config: Experiment) -> str:
    """Return the sha256, in hex, of the settings that a plan depends on: all but the seed and those that do not affect results."""
    return config_digest(replace(config, seed=0))


# --- making a plan -----------------------------------------------------------------------------------------------


def plan_of(config: Experiment, sizes: Sizes, effort: float) -> Plan:
    """Return the plan for an effort.

    Searches and final training have `effort` times the epochs of the experiment. A plan with effort 1 has three rounds of halving. Each
    doubling of the effort adds a round, so that every round costs about as much as the final training. The first round trains
    for about an eighth of the experiment's epochs. No training is shorter than LEAST_STEPS steps.
    """
    search, whole = config.search, config.retrain.epochs
    epochs = max(2 if search.warmup_epochs else 1, round(effort * search.epochs))
    warmup = min(round(search.warmup_epochs * epochs / search.epochs), epochs - 1)
    halvings = min(max(HALVINGS + math.floor(math.log2(effort)), 1), MOST_HALVINGS)
    first = max(1, round(effort * whole / 2**halvings), math.ceil(LEAST_STEPS / sizes.rank_steps))
    longest = max(1, round(effort * whole), math.ceil(LEAST_STEPS / sizes.retrain_steps))
    rounds = tuple(halving(2**halvings, first, max(first, longest)))
    return Plan(effort, config.find.replicas, epochs, warmup, rounds, longest)


def halving(networks: int, epochs: int, longest: int) -> Iterator[Round]:
    """Yield the rounds of a halving: half as many networks for twice as many epochs, at most `longest`, until two are left."""
    while networks > 1:
        yield Round(networks, min(epochs, longest))
        networks, epochs = math.ceil(networks / 2), 2 * epochs


def efforts() -> list[float]:
    """Return the efforts to try for a given time, in steps of a quarter of an octave, rounded to three digits."""
    steps = range(math.ceil(4 * math.log2(LEAST_EFFORT)), math.floor(4 * math.log2(MOST_EFFORT)) + 1)
    return [float(f"{2 ** (step / 4):.3g}") for step in steps]


def fitting(seconds: float, spent: float, plans: Sequence[Plan], duration: Callable[[Plan], float]) -> Plan:
    """Return the largest plan that fits into `seconds`, of which `spent` seconds have passed; `plans` are ordered from small to large.

    Raises InputError, with the shortest possible time, if no plan fits.
    """
    fits = [plan for plan in plans if duration(plan) <= SHARE_OF_TIME * seconds - spent]
    if fits:
        return fits[-1]
    shortest = math.ceil((min(map(duration, plans)) + spent) / SHARE_OF_TIME) + 1
    raise InputError(
        f"find.time is too short: on this machine, even the shortest plan takes {time_left(shortest)}, including its preparation; set a"
        " longer time, or use fewer images (data.fraction)."
    )


# --- expected times ----------------------------------------------------------------------------------------------


def durations(plan: Plan, sizes: Sizes, pace: Pace) -> dict[str, float]:
    """Return the expected wall-clock time of every step of a plan, in seconds by the name of the step.

    The step `latency`, which has no folder, is there only if the run measures latency.
    """
    found = {"search": plan.replicas * search_seconds(plan, sizes, pace)}
    found |= {f"rank-{number}": round_seconds(one, sizes, pace) for number, one in enumerate(plan.rounds, 1)}
    training = plan.retrain_epochs * sizes.retrain_steps * pace.train + sizes.test_images * pace.test + pace.build
    found |= {"network": training, "export": EXPORT_SECONDS}
    if plan.random:
        found |= {f"random/rank-{number}": round_seconds(one, sizes, pace) for number, one in enumerate(plan.random, 1)}
        found |= {"random/network": training, "reference": training}
    waited = {name: pace.waiting * seconds for name, seconds in found.items()}
    return {"latency": pace.latency, **waited} if pace.latency else waited


def search_seconds(plan: Plan, sizes: Sizes, pace: Pace) -> float:
    """Return the time of one search in seconds."""
    cold, warm = plan.warmup_epochs, plan.search_epochs - plan.warmup_epochs
    return sum(sizes.search_steps * (cold * one.weights + warm * one.both) + one.build for one in pace.stages)


def round_seconds(one: Round, sizes: Sizes, pace: Pace) -> float:
    """Return the time of a round of halving in seconds."""
    each = one.epochs * sizes.rank_steps * pace.train + sizes.rank_images * pace.test + pace.build
    return one.networks * sizes.seeds * each


def compute(rounds: Sequence[Round], sizes: Sizes, pace: Pace) -> float:
    """Return the time of the training steps in rounds of halving, in seconds."""
    return sum(one.networks * one.epochs for one in rounds) * sizes.seeds * sizes.rank_steps * pace.train


def compute_of_search(plan: Plan, sizes: Sizes, pace: Pace) -> float:
    """Return the time of the training steps that a plan spends on choosing a cell, in seconds."""
    steps = replace(pace, stages=tuple(replace(one, build=0.0) for one in pace.stages))
    return plan.replicas * search_seconds(plan, sizes, steps) + compute(plan.rounds, sizes, pace)


def with_random(plan: Plan, sizes: Sizes, pace: Pace, most: int) -> Plan | None:
    """Return a plan with rounds for at most `most` random cells that take as long as its search and its rounds, within TOLERANCE.

    The first round has as many epochs as the plan's own first round. The last round gets the remaining time, and is never shorter
    than the round before. The number of cells is chosen so that the last round is as close as possible to that of a plain halving.
    Returns None if no number of cells is possible.
    """
    target, first = compute_of_search(plan, sizes, pace), plan.rounds[0].epochs
    longest, epoch = max(first, plan.retrain_epochs), compute((Round(1, 1),), sizes, pace)
    found: list[tuple[float, tuple[Round, ...]]] = []
    for networks in range(2, most + 1):
        *before, last = halving(networks, first, longest)
        left = target - compute(before, sizes, pace)
        rounds = (*before, replace(last, epochs=max(1, round(left / (last.networks * epoch)))))
        off = abs(compute(rounds, sizes, pace) / target - 1)
        if off <= TOLERANCE and all(one.epochs <= later.epochs for one, later in itertools.pairwise(rounds)):
            found.append((off + abs(math.log(rounds[-1].epochs / last.epochs)), rounds))
    return replace(plan, random=min(found)[1]) if found else None


# --- plan.json ---------------------------------------------------------------------------------------------------

COUNT = number(1, 1e6, whole=True)


def read_plan(settings: FindConfig, config: Experiment, sizes: Sizes) -> Plan:
    """Read the plan in the file find.plan.

    Raises InputError if the file is not a plan, if the plan is for another experiment or other numbers of images, or if only one of
    the plan and the settings includes a proof.
    """
    path, where = Path(settings.plan), f"find.plan={shorten(settings.plan)}"
    try:
        tree = as_object(strict_loads(read_text(path, where, MAX_BYTES, "is too large for a plan")), where)
    except Fault as fault:
        raise InputError(f"{where} is not a plan: {fault}.") from None
    if seal.KEY not in tree and tree.get("format") == FORMAT:
        seal.report_unsealed(path)
    tree = seal.unseal(tree, path)
    if tree.get("format") != FORMAT or tree.get("version") != VERSION:
        raise InputError(f"{where} is not a plan; use the plan.json of a run of rapdarts find.")
    if tree.get("experiment") != digest(config):
        raise InputError(
            f"{where} is the plan of another experiment or budget; use the settings that it was made for, or create a new"
            " plan with find.effort or find.time."
        )
    if tree.get("sizes") != asdict(sizes):
        raise InputError(
            f"{where} was made for another number of images; create a new plan with find.effort or find.time."
        )
    plan = plan_from({name: tree[name] for name in tree if name in Plan.__dataclass_fields__}, where)
    if settings.proof and not plan.random:
        raise InputError(
            f"{where} has no random cells, but find.proof=true needs them; create a new plan with find.effort or find.time."
        )
    if plan.random and not settings.proof:
        raise InputError(f"{where} was made for find.proof=true; add find.proof=true.")
    return plan


def plan_from(tree: Any, where: str) -> Plan:
    """Return a plan from plain values. Raises InputError for a count that is missing or out of range."""
    wholes = dict.fromkeys(("replicas", "search_epochs", "retrain_epochs"), COUNT)
    others = {"effort": number(0, 1e6, above=True), "warmup_epochs": number(0, 1e6, whole=True)}
    facts = record(tree, where, {**wholes, **others, "rounds": rounds_from, "random": rounds_from})
    if facts["warmup_epochs"] >= facts["search_epochs"]:
        raise InputError(f"{where}: warmup_epochs must be below search_epochs={facts['search_epochs']}.")
    if not facts["rounds"]:
        raise InputError(f"{where}: rounds must not be empty.")
    return Plan(**facts)


def rounds_from(tree: Any, where: str) -> tuple[Round, ...]:
    """Return rounds of halving from plain values. Raises InputError unless each has fewer networks than the one before."""
    rounds = tuple(
        Round(**record(one, f"{where}, round {place}", {"networks": COUNT, "epochs": COUNT}))
        for place, one in enumerate(as_list(tree, where), 1)
    )
    if any(later.networks >= before.networks for before, later in itertools.pairwise(rounds)):
        raise InputError(f"{where}: every round must have fewer networks than the one before.")
    return rounds
