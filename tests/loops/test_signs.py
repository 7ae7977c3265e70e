"""Signs that a run means nothing: each planted cause is named, and short healthy runs get no remark."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rapdarts.architecture.space import SearchSpace
from rapdarts.cli.main import main
from rapdarts.config.experiment import DataConfig, RetrainConfig, SearchConfig
from rapdarts.data.dataset import DataSet, load_dataset
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops import signs
from rapdarts.loops.retrain import summed_loss
from rapdarts.training.metrics import Evaluation
from tests.loops.planted import RETRAIN, SEARCH

DARTS = named_space("darts")


def warnings(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "result.json").read_text())["warnings"]
    return found


# --- thresholds ----------------------------------------------------------------------------------------------------


TEN = signs.Chance(math.log(10), math.log(10))  # ten classes of equal size: 2.3026


@pytest.mark.parametrize(
    ("losses", "steps", "is_sign"),
    [
        ([9, 2.35], 100, True), ([9, 2.34], 100, False), ([9, None, 2.35, None], 100, True), ([None, None], 100, False),
        ([3.46], 100, True), ([3.45], 100, False), ([3.46], 99, False),  # an epoch that begins at up to 1.5 x 2.3026
        ([9, 2.63], 80, True), ([9, 2.62], 80, False),  # a quarter of the epoch belongs to the first 100 steps
        ([6.9], 10, False), ([7.0], 10, True), ([7.0], 9, False), ([754.0], 15, True),
    ],
)  # fmt: skip
def test_a_loss_is_compared_with_that_of_a_constant_prediction(
    losses: list[float | None], steps: int, is_sign: bool
) -> None:
    records = [{} if loss is None else {"train_loss": loss} for loss in losses]
    found = signs.loss_not_below_chance(records, TEN, steps, " of stage 2", "search.lr")
    assert bool(found) == is_sign
    last = next((loss for loss in reversed(losses) if loss is not None), 0.0)
    assert not found or (f"the training loss of stage 2 is {last:,.4g}" in found and "lower search.lr" in found)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_the_loss_of_chance_is_the_least_of_all_constant_predictions(kind: str, smoothing: float) -> None:
    """The loss is that of a retraining, with smoothed labels and weights of the classes."""
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    data: Any = type("Data", (), {"train": type("Images", (), {"labels": labels}), "classes": 3})
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    weights = signs.class_weights(kind, labels, 3)
    newton = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-12)

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        balance = None if weights is None else weights.double()
        return summed_loss(logits.expand(100, 3), labels, smoothing, balance) / 100

    def loss() -> torch.Tensor:
        newton.zero_grad()
        value = loss_of(logits)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    newton.step(loss)  # type: ignore[no-untyped-call]
    chance = signs.Chance.of(data, kind, smoothing)
    assert chance.constant == pytest.approx(loss().item(), rel=1e-6)
    frequencies = (1 - smoothing) * torch.tensor([[0.6, 0.3, 0.1]]).double() + smoothing / 3
    guesses = loss_of(torch.zeros(1, 3).double()).item(), loss_of(frequencies.log()).item()
    assert chance.uninformed == pytest.approx(max(guesses), rel=1e-6)
    assert (guesses[1] > guesses[0]) == (kind == "balanced")


def test_a_perfect_classifier_of_rare_classes_with_smoothed_labels_is_below_chance() -> None:
    """With 95:5 images and a smoothing of 0.1, its loss is 0.1985, that of a constant prediction without smoothing."""
    labels = torch.tensor([0] * 95 + [1] * 5)
    data: Any = type("Data", (), {"train": type("Images", (), {"labels": labels}), "classes": 2})
    perfect = summed_loss(torch.tensor([0.95, 0.05]).log()[None], torch.tensor([0]), 0.1).item()
    assert perfect == pytest.approx(0.1985, abs=5e-5)
    assert signs.Chance.of(data, "none").constant == pytest.approx(perfect, rel=1e-6)
    smoothed = signs.Chance.of(data, "none", 0.1)
    assert smoothed.constant == pytest.approx(-0.905 * math.log(0.905) - 0.095 * math.log(0.095))
    assert signs.loss_not_below_chance([{"train_loss": perfect}] * 25, smoothed, 100, "", "retrain.lr") == ""


@pytest.mark.parametrize(
    ("rms", "changed", "updates", "space", "is_sign"),
    [
        (1.9e-3, 20, 1000, DARTS, True),
        (2.1e-3, 20, 1000, DARTS, False),
        (0.1, 0, 1000, DARTS, True),
        (0.1, 1, 1000, DARTS, False),
        (1e-3, 0, 40, DARTS, False),  # too short: a random walk reaches 3.8 times the initial deviation
        (0.1, 0, 1000, named_space("nasbench201"), False),  # six edges may keep their winners by chance
        (1e-3, 0, 1000, named_space("nasbench201"), True),
    ],
)
def test_alphas_that_stay_at_their_initial_values_are_named(
    rms: float, changed: int, updates: int, space: SearchSpace, is_sign: bool
) -> None:
    settings, last = SearchConfig(), {"alpha_rms": rms, "winners_changed": changed}
    assert (settings.alpha_init, settings.alpha_lr) == (1e-3, 6e-4)
    found = signs.alphas_unmoved(settings, space, last, updates, "")
    assert bool(found) == is_sign and (not found or found.startswith("the alphas did not move ("))
    slow = replace(settings, alpha_lr=1e-6)  # too low a rate does not make a search too short to judge
    assert bool(signs.alphas_unmoved(slow, space, last, updates, "")) == is_sign


def test_alphas_without_any_gradient_are_named_if_they_begin_at_zero() -> None:
    last = {"alpha_rms": 0.0, "winners_changed": 0}
    assert signs.alphas_unmoved(replace(SearchConfig(), alpha_init=0.0), DARTS, last, 1, "")


def test_saturated_alphas_are_named() -> None:
    assert not signs.alphas_saturated(16.0, "")
    assert "lower search.alpha_lr" in signs.alphas_saturated(17.0, "")


def test_a_price_is_judged_over_most_epochs() -> None:
    assert not signs.price_drowned_task([50.0, 9.0, 9.0], "")
    assert "12.3 times" in signs.price_drowned_task([1.0, 12.34, 50.0], "")


@pytest.mark.parametrize(
    ("correct", "steps", "is_sign"), [(12, 100, True), (12, 99, False), (40, 100, False), (0, 100, True)]
)
def test_an_accuracy_is_compared_with_the_share_of_the_most_frequent_class(
    correct: int, steps: int, is_sign: bool
) -> None:
    labels = torch.arange(100) % 10
    assert bool(signs.accuracy_of_chance(Evaluation(correct, 100, 2.3), labels, steps)) == is_sign


def test_a_frequent_class_raises_the_accuracy_of_chance() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert "90.00 %" in signs.accuracy_of_chance(Evaluation(91, 100, 0.3), labels, 100)


def test_a_mean_recall_above_that_of_a_constant_prediction_is_enough() -> None:
    """With a high weight, a rare class costs accuracy of the frequent one."""
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert not signs.accuracy_of_chance(Evaluation(85, 100, 0.3, (0.8, 0.1, 0.51, 0.9)), labels, 100)
    assert signs.accuracy_of_chance(Evaluation(85, 100, 0.3, (0.6, 0.1, 0.5, 0.8)), labels, 100)


@pytest.mark.parametrize(("correct", "remarks"), [(300, 0), (60, 2)])
def test_a_retraining_that_tests_above_chance_gets_no_remark(correct: int, remarks: int, digits: DataSet) -> None:
    records, test = [{"train_loss": 3.0}] * 2, Evaluation(correct, 600, 1.0)
    found = signs.of_retraining(RetrainConfig(), digits, records, test, 100)
    assert len(found) == remarks and all("the training loss is 3" in one for one in found[:1])


# --- planted causes ------------------------------------------------------------------------------------------------

SEVERAL = ["search.epochs=4"]


def pixels(folder: Path, images: np.ndarray) -> list[str]:
    np.savez(folder / "own.npz", x=images, y=np.arange(120) % 10)
    return ["data.name=npz", f"data.path={folder / 'own.npz'}", "data.fraction=1", "search.batch=20"]


CAUSES: dict[str, tuple[Any, str]] = {
    "lr": (lambda folder: ["search.lr=1000", "search.clip=0", *SEVERAL], "the training loss is "),
    "alpha_lr": (lambda folder: ["search.alpha_lr=1000"], "the alphas reached a root mean square of "),
    "price": (lambda folder: ["cost.macs=1000"], "the price has a gradient "),
    "black": (lambda folder: pixels(folder, np.zeros((120, 8, 8), np.uint8)), "training images that were compared are black"),
    "equal": (
        lambda folder: pixels(folder, np.repeat(np.arange(64, dtype=np.uint8).reshape(1, 8, 8), 120, 0)),
        "training images that were compared are equal",
    ),
    "frozen": (lambda folder: ["search.alpha_lr=1e-9", "search.epochs=17"], "the alphas did not move ("),
    "frozen, but too short to judge": (lambda folder: ["search.alpha_init=0.3", "search.alpha_lr=1e-9"], ""),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_a_search_that_means_nothing_says_so(cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In result.json, on the screen and in the table of runs."""
    keys, sign = CAUSES[cause]
    folder = tmp_path / "run"
    assert main([*SEARCH, *keys(tmp_path), f"run={folder}"]) == 0
    found, shown = [one for one in warnings(folder) if sign and sign in one], capsys.readouterr().out
    assert len(found) == (1 if sign else 0), warnings(folder)
    assert main(["report", str(folder)]) == 0
    table = capsys.readouterr().out
    assert all(f"warning: {one}" in shown and one in table for one in found)
    assert found or (warnings(folder) == [] and "warning" not in shown + table)


def test_a_retraining_that_means_nothing_says_so(tmp_path: Path) -> None:
    long = ["retrain.epochs=25", "retrain.ema=0", "retrain.drop_path=0"]
    keys = pixels(tmp_path, np.zeros((120, 8, 8), np.uint8))[:3]
    assert main([*RETRAIN, *long, *keys, "retrain.batch=20", f"run={tmp_path / 'run'}"]) == 0
    first, second = warnings(tmp_path / "run")[0], warnings(tmp_path / "run")[-1]
    assert "are black" in first and "the test accuracy, 10.00 %, is not above" in second


SMALL = ["threads=1", "skeleton.layers=3", "skeleton.channels=4", "retrain.batch=10"]


def trainings(verb: str, folder: Path, *keys: str) -> list[str]:
    """Train several networks, of a ranking or a random baseline, and return the warnings."""
    words = ["search", "digits", *keys, "strategy=random", "random.count=1", "retrain.epochs=20"]
    if verb == "rank":
        assert main([*SEARCH, *keys, "search.epochs=1", "search.warmup_epochs=0", f"run={folder / 'search'}"]) == 0
        words = ["rank", str(folder / "search"), "rank.count=1", "rank.epochs=30"]
    assert main([*words, *SMALL, f"run={folder / 'run'}"]) == 0
    return warnings(folder / "run")


@pytest.mark.parametrize("verb", ["rank", "random"])
def test_trainings_that_mean_nothing_say_so(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen and in result.json. A ranking trains on 40 of the 120 images."""
    keys = pixels(tmp_path, np.zeros((120, 8, 8), np.uint8))[:3]
    found = trainings(verb, tmp_path, *keys)
    assert "are black" in found[0] and "no accuracy is above that of always predicting" in found[1]
    shown = capsys.readouterr().out
    assert all(f"warning: {one}" in shown for one in found)


@pytest.mark.parametrize("verb", ["rank", pytest.param("random", marks=pytest.mark.proof)])
def test_healthy_trainings_get_no_remark(verb: str, tmp_path: Path) -> None:
    assert trainings(verb, tmp_path, "data.fraction=0.1") == []


# --- healthy runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_dataset(DataConfig(), torch.device("cpu"), 0)


def test_healthy_images_differ(digits: DataSet) -> None:
    assert signs.constant_pixels(digits.train) == ""


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_short_healthy_search_gets_no_remark(seed: int, epochs: int, tmp_path: Path) -> None:
    keys = [f"search.epochs={epochs}", f"search.warmup_epochs={epochs - 1}", f"seed={seed}"]
    assert main([*SEARCH, *keys, f"run={tmp_path / 'run'}"]) == 0
    assert warnings(tmp_path / "run") == []


def rare(folder: Path) -> list[str]:
    """Return the settings for 900 dark and bright images in a ratio of 19 to 1."""
    labels, random = np.arange(900) % 20 == 0, np.random.default_rng(0)
    images = (random.integers(0, 100, (900, 8, 8)) + 60 * labels[:, None, None]).astype(np.uint8)
    np.savez(folder / "rare.npz", x=images, y=labels.astype(np.int64))
    return ["data.name=npz", f"data.path={folder / 'rare.npz'}", "data.fraction=1"]


def test_a_short_healthy_search_with_a_rare_class_gets_no_remark(tmp_path: Path) -> None:
    """Its loss is a mean over all steps, so it is still above that of a constant prediction."""
    keys = [*rare(tmp_path), "search.batch=2", "search.epochs=1", "search.warmup_epochs=0", "search.lr=0.005"]
    assert main([*SEARCH, *keys, f"run={tmp_path / 'run'}"]) == 0
    (record,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert record["train_loss"] > 0.1985 + 0.02 * math.log(2)
    assert warnings(tmp_path / "run") == []


@pytest.mark.proof
def test_a_retraining_with_a_rare_class_and_smoothed_labels_gets_no_remark(tmp_path: Path) -> None:
    """Its loss is below that of a constant prediction, which depends on the smoothing."""
    keys = [*rare(tmp_path), "retrain.batch=24", "retrain.epochs=12", "retrain.label_smoothing=0.1"]
    plain = ["retrain.ema=0", "retrain.drop_path=0", f"run={tmp_path / 'run'}"]
    assert main([*RETRAIN, *keys, *plain]) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0.1985 <= last["train_loss"] < 0.3145
    assert warnings(tmp_path / "run") == []


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "keys", [["search.epochs=1", "search.warmup_epochs=0"], ["search.epochs=2"], [], ["budget.params=100k"]], ids=str
)
def test_a_search_of_the_digits_gets_no_remark(keys: list[str], seed: int, tmp_path: Path) -> None:
    assert main(["search", "digits", "threads=1", *keys, f"seed={seed}", f"run={tmp_path / 'run'}"]) == 0
    assert warnings(tmp_path / "run") == []


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_a_retraining_of_the_digits_gets_no_remark(epochs: int, seed: int, tmp_path: Path) -> None:
    keys = ["threads=1", f"retrain.epochs={epochs}", f"seed={seed}", f"run={tmp_path / 'run'}"]
    assert main(["retrain", "PDARTS", "digits", *keys]) == 0
    assert warnings(tmp_path / "run") == []
