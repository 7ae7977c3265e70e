"""The schedules and the images of tiny runs: what the record says, and what every step was given."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rapdarts.cli.main import main
from rapdarts.config.experiment import DataConfig
from rapdarts.config.resolve import resolve_experiment
from rapdarts.data.dataset import DataSet, load_dataset, split
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from rapdarts.loops.search import build_stage
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.loops.search_record import last_epoch

BUDGET = 2_400
SEARCH = [
    "threads=1", "data.fraction=0.1", "data.crop=2", "skeleton.layers=3", "skeleton.channels=4", "search.channels=2",
    "primitives=[none,max_pool_3x3,skip_connect,dil_conv_3x3]", "search.layers=[3,3]", "search.candidates=[0,2]",
    "search.skip_dropout=[0.25,0.5]", "search.epochs=4", "search.warmup_epochs=1", "search.subset=1",
    "search.batch=24", "search.lr=0.1", "search.lr_min=0.02", "alpha_lr=0.1", "max_skips=2",
    "search.class_weights=balanced", f"budget.params={BUDGET}", "search.budget_rate=20",
]  # fmt: skip
RETRAIN = [
    "threads=1", "data.fraction=0.1", "data.crop=2", "skeleton.layers=3", "skeleton.channels=4", "retrain.epochs=4",
    "retrain.batch=24", "retrain.warmup_epochs=2", "retrain.lr=0.1", "retrain.lr_min=0.02", "retrain.drop_path=0.4",
    "retrain.auxiliary=0.4", "retrain.class_weights=balanced",
]  # fmt: skip


@dataclass
class Steps:
    """Arguments of the steps of a run: one tuple of values for each step, and the class weights of each network."""

    given: list[tuple[Any, ...]] = field(default_factory=list)
    balances: list[Tensor | None] = field(default_factory=list)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def cosine(epoch: int, peak: float = 0.1, floor: float = 0.02, epochs: int = 4) -> float:
    return floor + (peak - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def contents(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images.contiguous()]


# --- the search --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[dict[str, Any]], Steps]]:
    """Records and steps of a search with two stages of four epochs of three steps, the first epoch of warm-up, and a budget."""
    folder, seen, original = tmp_path_factory.mktemp("runs") / "search", Steps(), searching.alternation

    def watched(
        settings: Any, supernet: Any, architecture: Any, sgd: Any, adam: Any, penalty: Any, *others: Any
    ) -> Callable[..., Any]:
        step = original(settings, supernet, architecture, sgd, adam, penalty, *others)
        seen.balances.append(others[0])

        def take(*batches: Any) -> Any:
            state = (
                float(sgd.param_groups[0]["lr"]),
                supernet.dropout.rate,
                supernet.training,
                penalty.multipliers["params"],
            )
            seen.given.append((*batches, *state))
            return step(*batches)

        return take

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "alternation", watched)
        assert main(["search", "digits", *SEARCH, f"run={folder}"]) == 0
    yield records(folder), seen


def test_a_search_follows_its_schedules(search: tuple[list[dict[str, Any]], Steps]) -> None:
    """The rates of a stage are those of the formulas, the record shows them, and the steps use them."""
    found, seen = search
    assert [(record["stage"], record["epoch"]) for record in found] == [(s, e) for s in (0, 1) for e in range(4)]
    assert len(seen.given) == 2 * 4 * 3
    for at, record in enumerate(found):
        stage, epoch = record["stage"], record["epoch"]
        initial = (0.25, 0.5)[stage]
        dropout = initial * 3 / 4 if epoch == 0 else initial * math.exp(-0.2 * (epoch - 1))
        assert record["lr"] == pytest.approx(cosine(epoch), rel=1e-12)
        assert record["skip_dropout"] == pytest.approx(dropout, rel=1e-12)
        assert ("search_loss" in record) == ("task_gradient" in record) == (epoch >= 1)
        for given in seen.given[3 * at : 3 * at + 3]:
            warm, lr, rate, training, multiplier = given[4:]
            assert warm == (epoch >= 1) and training
            assert lr == pytest.approx(record["lr"], rel=1e-6)
            assert rate == pytest.approx(dropout, abs=1 / 65536)
            assert multiplier == record["multiplier_params"]


def test_a_multiplier_is_adjusted_once_per_epoch_after_the_warm_up(search: tuple[list[dict[str, Any]], Steps]) -> None:
    """Above the budget it rises by the rate x (share - 1); below, it is multiplied by share^4. It carries over to the next stage."""
    multiplier, shares = 0.0, []
    for record in search[0]:
        assert record["multiplier_params"] == pytest.approx(multiplier, abs=1e-12)
        share = record["realised_params"] / BUDGET
        if record["epoch"] >= 1:
            multiplier = multiplier + 20 * (share - 1) if share >= 1 else multiplier * share**4
            shares.append(share)
    assert min(shares) < 1 < max(shares) and multiplier > 0


def test_weights_and_alpha_learn_from_their_own_halves(search: tuple[list[dict[str, Any]], Steps]) -> None:
    """Every image of a step is a crop of an image of its half, with that image's label; the loss has weights by class."""
    config = resolve_experiment("digits", [tuple(pair.split("=", 1)) for pair in SEARCH], "search")
    data = load_dataset(config.data, torch.device("cpu"), 0)
    halves = split(data.train.labels, 0.5, 0, "halves")
    sources = [contents(data.train.take(half).fetch(torch.arange(len(half)))) for half in halves]
    assert not set(sources[0]) & set(sources[1])
    expected = SearchBatches.of(data, config)
    assert [expected.train.index.tolist(), expected.search.index.tolist()] == [half.tolist() for half in halves]
    for images, labels, search_images, search_labels, *_ in search[1].given:
        for seen, truth, half in ((images, labels, halves[0]), (search_images, search_labels, halves[1])):
            own = {key: int(label) for key, label in windows(data, half)}
            assert [own.get(key) for key in contents(seen)] == truth.tolist()
    sizes = torch.bincount(data.train.labels)
    for balance in search[1].balances:
        torch.testing.assert_close(balance, (len(data.train) / (10 * sizes)).float())


def test_every_epoch_of_every_stage_has_its_own_shuffle_and_crops(search: tuple[list[dict[str, Any]], Steps]) -> None:
    """An image has 25 crops, so about one in 25 is the same in two epochs, of the same stage or of different stages."""
    steps = search[1].given
    for half in (0, 2):
        epochs = [[*zip(*steps[3 * at : 3 * at + 3], strict=True)] for at in range(8)]
        orders = [torch.cat(epoch[half + 1]).tolist() for epoch in epochs]
        crops = [{key for images in epoch[half] for key in contents(images)} for epoch in epochs]
        for one, other in combinations(range(8), 2):
            assert orders[one] != orders[other]
            assert len(crops[one]) > 50 and len(crops[one] & crops[other]) < 15


def windows(data: DataSet, index: Tensor) -> Iterator[tuple[bytes, Tensor]]:
    """Yield every crop of the images, normalised, with its label."""
    padded = torch.nn.functional.pad(data.train.fetch(index).float(), (2, 2, 2, 2))
    mean, std = data.mean[0], data.std[0]
    for row in range(5):
        for column in range(5):
            crops = (padded[:, :, row : row + 8, column : column + 8] / 255 - mean) / std
            yield from zip(contents(crops), data.train.labels[index], strict=True)


def test_every_stage_begins_with_its_own_weights() -> None:
    """They are a function of seed and stage, with alpha of the given deviation."""
    config = resolve_experiment("digits", [tuple(pair.split("=", 1)) for pair in [*SEARCH, "alpha_init=0.5"]], "search")
    data, space = load_dataset(config.data, torch.device("cpu"), 0), named_space("darts")

    def weights(seed: int, stage: int) -> tuple[Tensor, Tensor]:
        built, architecture, *_ = build_stage(replace(config, seed=seed), space, data, 3, stage)
        return torch.cat([weight.detach().flatten() for weight in built.parameters()]), architecture.alpha.detach()

    found = {place: weights(*place) for place in ((0, 0), (0, 1), (1, 0))}
    for one, other in combinations(found.values(), 2):
        assert all((a != b).double().mean() > 0.9 for a, b in zip(one, other, strict=True) if a.numel() > 200)
        assert not torch.equal(one[1], other[1])
    assert found[0, 0][1].std().item() == pytest.approx(0.5, rel=0.2)
    again = weights(0, 1)
    assert all(torch.equal(a, b) for a, b in zip(again, found[0, 1], strict=True))


# --- the retraining ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retraining_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Steps]:
    """Records and steps of a retraining of four epochs of five steps, two of them with a warm-up."""
    folder, seen, original = tmp_path_factory.mktemp("runs") / "network", Steps(), retraining.training_step

    def watched(settings: Any, network: Any, final: Any, sgd: Any, drop_rate: Tensor, *others: Any) -> Any:
        step = original(settings, network, final, sgd, drop_rate, *others)
        seen.balances.append(others[2])

        def take(images: Tensor, labels: Tensor, size: int) -> Any:
            state = float(sgd.param_groups[0]["lr"]), float(drop_rate), network.training
            seen.given.append((images, labels, size, *state))
            return step(images, labels, size)

        return take

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "training_step", watched)
        assert main(["retrain", "PDARTS", "digits", *RETRAIN, f"run={folder}"]) == 0
    return records(folder), seen


def test_a_retraining_follows_its_schedules(retraining_run: tuple[list[dict[str, Any]], Steps]) -> None:
    found, seen = retraining_run
    assert [record["epoch"] for record in found] == [0, 1, 2, 3] and len(seen.given) == 20
    for at, record in enumerate(found):
        lr, rate = cosine(at) * (0.5 if at == 0 else 1), 0.4 * at / 4
        assert record["lr"] == pytest.approx(lr, rel=1e-12) and record["drop_path"] == pytest.approx(rate, rel=1e-12)
        for images, labels, size, used_lr, used_rate, training in seen.given[5 * at : 5 * at + 5]:
            assert training and len(images) == len(labels) == size
            assert (used_lr, used_rate) == pytest.approx((lr, rate), rel=1e-6)
    data = load_dataset(DataConfig(fraction=0.1), torch.device("cpu"), 0)
    sizes = torch.bincount(data.train.labels)
    torch.testing.assert_close(seen.balances[0], (len(data.train) / (10 * sizes)).float())


def test_every_epoch_of_a_retraining_has_its_own_crops(retraining_run: tuple[list[dict[str, Any]], Steps]) -> None:
    """An image has 25 crops, so about one in 25 is the same in two epochs."""
    epochs = [
        {key for images, *_ in retraining_run[1].given[5 * at : 5 * at + 5] for key in contents(images)}
        for at in range(4)
    ]
    for at, first in enumerate(epochs):
        assert len(first) > 110
        assert all(len(first & other) < 30 for other in epochs[at + 1 :])


def test_the_last_epoch_of_several_replicas_is_the_mean_of_the_values_that_were_recorded() -> None:
    """A record has no means of an epoch in which every update was skipped."""
    one: list[dict[str, Any]] = [{"replica": 1, "train_loss": 9.0}, {"replica": 1, "lr": 1.0, "search_loss": 2.0}]
    other: list[dict[str, Any]] = [{"replica": 2, "lr": 2.0, "train_loss": 4.0}]
    assert last_epoch(one[:1]) == one[0]
    assert last_epoch([*one, *other]) == {"replica": 1.5, "lr": 1.5, "search_loss": 2.0, "train_loss": 4.0}
