"""Signs that a finished run means nothing, although no number in it is infinite or NaN: a function for each sign.

Each function returns a sentence that names what to change, or an empty string if there is no such sign or the run is too
short to judge. A remark that is sometimes wrong is soon ignored, so the thresholds leave out what a healthy run of a few
steps can also show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import RetrainConfig, SearchConfig
from rapdarts.data.dataset import DataSet
from rapdarts.data.images import Images
from rapdarts.errors import plural
from rapdarts.training.class_weights import class_weights
from rapdarts.training.metrics import Evaluation

Record = Mapping[str, Any]
"""The record of an epoch, a line of metrics.jsonl."""

ENOUGH_STEPS = 100
"""Number of steps after which a loss is below chance in a healthy training; healthy searches of a few steps end at up to 1.4 x chance."""

ABSURD, FEWEST_STEPS = 3.0, 10
"""Multiple of chance above which a loss is suspicious after only FEWEST_STEPS: healthy networks begin at up to 1.5 x chance."""

MOVED = 2.0
"""Smallest root mean square of the alphas, in units of their initial standard deviation, that counts as movement."""

LUCK = 1e-3
"""Largest probability that all winners would be the initial ones by chance; in small spaces, this is no sign."""

SATURATED = 24 * math.log(2)
"""Difference between two alphas at which the smaller mixing weight vanishes next to the larger one in float32, which has 24 bits."""

DROWNED = 10.0
"""Ratio of the gradient norms of price and task at which their sum differs from the direction of the price by at most 6 degrees."""

LOOKED_AT = 64
"""Number of training images that are compared."""


# --- the signs of a run --------------------------------------------------------------------------------------------


def of_search(
    settings: SearchConfig, space: SearchSpace, data: DataSet, records: Sequence[Record], steps: int
) -> list[str]:
    """Return the signs of a finished search with `steps` steps per epoch, from the records of all its epochs."""
    chance = chance_loss(data, settings.class_weights)
    found = [constant_pixels(data.train), skipped_updates(records)]
    stages: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        stages.setdefault((record["stage"], record.get("replica", 0)), []).append(record)
    several = len({stage for stage, _ in stages}) > 1
    for (stage, replica), epochs in stages.items():
        number = f" of stage {stage + 1}" if several else ""
        where = f"{number}, replica {replica}" if replica else number
        found.append(loss_not_below_chance(epochs[-1]["train_loss"], chance, steps * len(epochs), where, "search.lr"))
        warm = [record for record in epochs if "gradient_ratio" in record or "search_loss" in record]
        if warm and "alpha_rms" in warm[-1]:  # older versions did not record it
            updates = steps * len(warm)
            found.append(alphas_saturated(max(record.get("alpha_rms", 0.0) for record in warm), where))
            found.append(alphas_unmoved(settings, space, warm[-1], updates, where))
            found.append(price_drowned_task([record.get("gradient_ratio", 0.0) for record in warm], where))
    return [*dict.fromkeys(filter(None, found))]


def of_retraining(
    settings: RetrainConfig, data: DataSet, records: Sequence[Record], test: Evaluation, steps: int
) -> list[str]:
    """Return the signs of a finished retraining with `steps` steps per epoch, from the records of all its epochs."""
    chance, total = chance_loss(data, settings.class_weights), steps * len(records)
    return [
        *filter(
            None,
            [
                constant_pixels(data.train),
                skipped_updates(records),
                loss_not_below_chance(records[-1]["train_loss"], chance, total, "", "retrain.lr"),
                accuracy_of_chance(test, data.test.labels, total),
            ],
        )
    ]


# --- each sign -----------------------------------------------------------------------------------------------------


def constant_pixels(images: Images) -> str:
    """Images that do not differ teach nothing. A sample that is spread over the data is enough to tell."""
    if len(images) < 2:
        return ""
    pixels = images.fetch(torch.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).long())
    if not bool((pixels == pixels[:1]).all()):
        return ""
    look = "black" if not bool(pixels.any()) else "equal"
    return f"all of the {plural(len(pixels), 'training image')} that were compared are {look}, so nothing can be learned; check the data"


def skipped_updates(records: Iterable[Record]) -> str:
    """The run went on without these updates, so its result is sound, but its data or its learning rate may not be."""
    skipped = sum(record.get("skipped", 0) for record in records)
    if not skipped:
        return ""
    were = "update was" if skipped == 1 else "updates were"
    return f"{skipped:,} {were} skipped, because a loss or gradient was not finite; check the data, or lower the learning rate"


def loss_not_below_chance(loss: float, chance: float, steps: int, where: str, key: str) -> str:
    """A constant prediction has the loss `chance`."""
    judged = (steps >= ENOUGH_STEPS and loss >= chance) or (steps >= FEWEST_STEPS and loss >= ABSURD * chance)
    if not judged:
        return ""
    return (
        f"the training loss{where} is {loss:,.4g} in the last epoch, but a constant prediction has {chance:.4g}: the weights have"
        f" learned nothing; lower {key}, or check the data"
    )


def accuracy_of_chance(test: Evaluation, labels: Tensor, steps: int) -> str:
    """A network that always predicts the most frequent class of the labels (n,) has its share as accuracy."""
    share = float(torch.bincount(labels).max()) / len(labels)
    if steps < ENOUGH_STEPS or test.interval[0] > share:
        return ""
    return (
        f"the test accuracy, {100 * test.accuracy:.2f} %, is not above that of always predicting the most frequent class,"
        f" {100 * share:.2f} %; change the learning rate, train longer, or check the data"
    )


def alphas_unmoved(settings: SearchConfig, space: SearchSpace, last: Record, updates: int, where: str) -> str:
    """Alphas near their random initial values choose at random.

    Adam's steps have about the length of the learning rate, so even a random walk of `updates` steps reaches the square
    root of their number times the learning rate. A search in which this is not far beyond the initial values is too short.
    """
    if settings.alpha_lr * math.sqrt(updates) < 2 * MOVED * settings.alpha_init:
        return ""
    unmoved = last["alpha_rms"] <= MOVED * settings.alpha_init
    edges = len(space.kinds) * len(space.edges)
    unchanged = last["winners_changed"] == 0 and 2.0**-edges < LUCK
    if not (unmoved or unchanged):
        return ""
    sign = (
        f"their root mean square is {last['alpha_rms']:.2g}, and the initial one {settings.alpha_init:.2g}"
        if unmoved
        else "the strongest primitive of every edge is still the one of the random initial values"
    )
    return f"the alphas{where} did not move ({sign}), so the genotype is random; change search.alpha_lr, or check prices and data"


def alphas_saturated(largest: float, where: str) -> str:
    """Mixing weights of 0 and 1 have no gradient: the few steps that led there have decided everything."""
    if largest < SATURATED:
        return ""
    return (
        f"the alphas{where} reached a root mean square of {largest:,.3g}, at which mixing weights are 0 or 1 and have no gradient,"
        " so a few steps decided the genotype; lower search.alpha_lr"
    )


def price_drowned_task(ratios: Sequence[float], where: str) -> str:
    """Adam does not depend on the scale of the gradient, so a price that is far too high replaces the task completely.

    The ratio is judged over most epochs, because the multiplier of a budget may be high for a while.
    """
    ratio = median(ratios)
    if ratio < DROWNED:
        return ""
    return (
        f"the price{where} has a gradient {ratio:,.3g} times that of the task, so alpha learned only to be cheap; lower search.cost,"
        " or set a budget instead"
    )


def chance_loss(data: DataSet, kind: str) -> float:
    """Return the lowest loss of a constant prediction on the training images, in nats; `kind` is that of `class_weights`."""
    labels = data.train.labels.cpu()
    weights = class_weights(kind, labels, data.classes)
    shares = torch.bincount(labels, minlength=data.classes).double() / len(labels)
    shares = shares if weights is None else shares * weights.where(shares > 0, 0).double()
    return float(torch.special.entr(shares / shares.sum()).sum() * shares.sum())
