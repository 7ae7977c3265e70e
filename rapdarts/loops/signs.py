"""Signs that a finished run means nothing, although no number in it is infinite or NaN: a function for each sign.

Each function returns a sentence that names what to change, or an empty string if there is no such sign or the run is too
short to judge. A remark that is sometimes wrong is soon ignored, so the thresholds leave out what a healthy run of a few
steps can also show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from rapdarts.training.intervals import Interval
from rapdarts.training.metrics import Evaluation

Record = Mapping[str, Any]
"""The record of an epoch, a line of metrics.jsonl."""

ENOUGH_STEPS = 100
"""Number of steps after which the loss of a healthy training is below that of a constant prediction."""

BEGINNING = 1.5
"""Highest loss of a healthy training before ENOUGH_STEPS, as a multiple of the loss of an uninformed network."""

ABSURD, FEWEST_STEPS = 3.0, 10
"""Multiple of the loss of an uninformed network above which a loss is suspicious after only FEWEST_STEPS."""

MARGIN = 0.02
"""Smallest excess over the loss of a constant prediction that counts, as a multiple of the loss of an uninformed network."""

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
    chance = Chance.of(data, settings.class_weights)
    found = [constant_pixels(data.train), skipped_updates(records)]
    stages: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        stages.setdefault((record["stage"], record.get("replica", 0)), []).append(record)
    several = len({stage for stage, _ in stages}) > 1
    for (stage, replica), epochs in stages.items():
        number = f" of stage {stage + 1}" if several else ""
        where = f"{number}, replica {replica}" if replica else number
        found.append(loss_not_below_chance(epochs, chance, steps, where, "search.lr"))
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
    found = [constant_pixels(data.train), skipped_updates(records)]
    if not better_than_chance(test, data.test.labels):
        chance = Chance.of(data, settings.class_weights, settings.label_smoothing)
        found.append(loss_not_below_chance(records, chance, steps, "", "retrain.lr"))
        found.append(accuracy_of_chance(test, data.test.labels, steps * len(records)))
    return [*filter(None, found)]


def of_trainings(
    settings: RetrainConfig, data: DataSet, records: Sequence[Record], best: Interval, steps: int
) -> list[str]:
    """Return the signs of several finished trainings, of `steps` steps each, from the records of all their epochs.

    `best` is the 95 % interval of the highest accuracy. With class weights, even a low accuracy is no sign.
    """
    found = [constant_pixels(data.train), skipped_updates(records)]
    share = _largest_share(data.train.labels)
    if settings.class_weights == "none" and steps >= ENOUGH_STEPS and best[0] <= share:
        found.append(
            f"no accuracy is above that of always predicting the most frequent class, {100 * share:.2f} %; change the learning rate,"
            " train longer, or check the data"
        )
    return [*filter(None, found)]


# --- each sign -----------------------------------------------------------------------------------------------------


def constant_pixels(images: Images) -> str:
    """Return a warning if the training images are all equal, judged by a sample that is spread over the data."""
    if len(images) < 2:
        return ""
    pixels = images.fetch(torch.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).long())
    if not bool((pixels == pixels[:1]).all()):
        return ""
    look = "black" if not bool(pixels.any()) else "equal"
    return f"all of the {plural(len(pixels), 'training image')} that were compared are {look}, so nothing can be learned; check the data"


def skipped_updates(records: Iterable[Record]) -> str:
    """Return a warning if updates were skipped. The result is that of a run without them, but the data may be damaged."""
    skipped = sum(record.get("skipped", 0) for record in records)
    if not skipped:
        return ""
    were = "update was" if skipped == 1 else "updates were"
    return f"{skipped:,} {were} skipped, because a loss or gradient was not finite; check the data, or lower the learning rate"


def loss_not_below_chance(epochs: Sequence[Record], chance: Chance, steps: int, where: str, key: str) -> str:
    """Return a warning if the training loss of the last epoch, of `steps` steps, is not below that of a constant prediction.

    The loss is a mean over an epoch, so the limit is higher if this epoch includes some of the first ENOUGH_STEPS steps.
    """
    losses = [(number, record["train_loss"]) for number, record in enumerate(epochs) if "train_loss" in record]
    total = steps * len(epochs)
    if not losses or total < FEWEST_STEPS:
        return ""
    last, loss = losses[-1]
    early = min(max(ENOUGH_STEPS / steps - last, 0.0), 1.0)
    highest = early * BEGINNING * chance.uninformed + (1 - early) * (chance.constant + MARGIN * chance.uninformed)
    if not ((total >= ENOUGH_STEPS and loss >= highest) or loss >= ABSURD * chance.uninformed):
        return ""
    return (
        f"the training loss{where} is {loss:,.4g} in the last epoch, but a constant prediction has {chance.constant:.4g}: the weights"
        f" have learned nothing; lower {key}, or check the data"
    )


def better_than_chance(test: Evaluation, labels: Tensor) -> bool:
    """Return whether a network predicts the labels (n,) better than without looking at the images.

    The 95 % interval of its accuracy is above the share of the most frequent class, or that of its mean recall above that of
    a constant prediction. The latter counts if rare classes have a high weight in the loss.
    """
    balanced = test.balanced is not None and test.balanced[2] > 1 / len(labels.unique())
    return balanced or test.interval[0] > _largest_share(labels)


def accuracy_of_chance(test: Evaluation, labels: Tensor, steps: int) -> str:
    """Return a warning if the test accuracy is not above the share of the most frequent class of the labels (n,)."""
    share = _largest_share(labels)
    if steps < ENOUGH_STEPS or better_than_chance(test, labels):
        return ""
    return (
        f"the test accuracy, {100 * test.accuracy:.2f} %, is not above that of always predicting the most frequent class,"
        f" {100 * share:.2f} %; change the learning rate, train longer, or check the data"
    )


def alphas_unmoved(settings: SearchConfig, space: SearchSpace, last: Record, updates: int, where: str) -> str:
    """Return a warning if the alphas are near their random initial values, so that they choose at random.

    Adam's steps have about the length of the learning rate, so even a random walk of `updates` steps reaches the square
    root of their number times the learning rate. A search in which this is not far beyond the initial values is too short,
    unless it would have been long enough with the default rate.
    """
    if max(settings.alpha_lr, SearchConfig().alpha_lr) * math.sqrt(updates) < 2 * MOVED * settings.alpha_init:
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
    """Return a warning if the alphas, with this largest root mean square, had mixing weights of 0 and 1, without a gradient."""
    if largest < SATURATED:
        return ""
    return (
        f"the alphas{where} reached a root mean square of {largest:,.3g}, at which mixing weights are 0 or 1 and have no gradient,"
        " so a few steps decided the genotype; lower search.alpha_lr"
    )


def price_drowned_task(ratios: Sequence[float], where: str) -> str:
    """Return a warning if the gradient of the price is so much longer than that of the task that only the price counts.

    Adam does not depend on the scale of the gradient. The ratio is judged over most epochs, because the multiplier of a
    budget may be high for a while.
    """
    ratio = median(ratios)
    if ratio < DROWNED:
        return ""
    return (
        f"the price{where} has a gradient {ratio:,.3g} times that of the task, so the search only minimised the cost; lower"
        " search.cost, or set a budget instead"
    )


# --- predictions without images --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chance:
    """Training losses, in nats, of predictions that do not depend on the image.

    `constant` is that of the best one. `uninformed` is the higher one of equal probabilities and of the frequencies of the
    labels, which have a high loss if rare classes have a high weight: healthy networks begin between these two.
    """

    constant: float
    uninformed: float

    @classmethod
    def of(cls, data: DataSet, kind: str, smoothing: float = 0.0) -> Chance:
        """Return the losses on the training images; `kind` is that of `class_weights`, `smoothing` that of the labels."""
        labels, classes = data.train.labels.cpu(), data.classes
        shares = torch.bincount(labels, minlength=classes).double() / len(labels)
        smooth, weights = (1 - smoothing) * shares + smoothing / classes, class_weights(kind, labels, classes)
        targets = smooth if weights is None else smooth * weights.where(shares > 0, 0).double()
        total = targets.sum()
        best, equal = torch.special.entr(targets / total).sum() * total, total * math.log(classes)
        return cls(float(best), float(max(equal, -torch.special.xlogy(targets, smooth).sum())))


def _largest_share(labels: Tensor) -> float:
    return float(torch.bincount(labels).max()) / len(labels)
