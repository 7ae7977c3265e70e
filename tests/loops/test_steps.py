"""The steps of the search and of the retraining, compared in float64 with the same steps written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.config.experiment import CostCoefficients, DataConfig, Experiment, RetrainConfig
from rapdarts.cost.expected import price_table
from rapdarts.cost.penalty import Penalty
from rapdarts.data.dataset import DataSet, load_dataset
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops.retrain import Best, FinalNetwork, training_step
from rapdarts.loops.search import alternation, build_stage
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.training.distributed import SINGLE_PROCESS
from rapdarts.training.guard import Verdict
from rapdarts.training.optimizer import optimizer_step, set_lr, sgd_for
from rapdarts.training.state import restore
from tests.loops import by_hand

SPACE = named_space("darts").only(["none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"])
BALANCE = torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0, 0.25, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_dataset(DataConfig(), torch.device("cpu"), 0)


def batches(size: int, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return random images (size, 1, 8, 8) with random labels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, 8, 8, dtype=torch.float64, generator=generator),
            torch.randint(10, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


# --- the search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unrolled", "partial", "balance"),
    [(False, 1, None), (False, 1, BALANCE), (False, 2, None), (True, 1, None), (True, 1, BALANCE), (True, 2, BALANCE)],
    ids=["first", "first-balanced", "first-half", "second", "second-balanced", "second-balanced-half"],
)
def test_a_search_step_equals_the_step_by_hand(
    unrolled: bool, partial: int, balance: Tensor | None, digits: DataSet
) -> None:
    """A cold step and three warm ones, with both clips active, two prices, a multiplier and skip dropout.

    `half`: with partial channels, which give the edges weights too.
    """
    config = Experiment(seed=5)
    search = replace(
        config.search, supernet="plain", unrolled=unrolled, partial_channels=partial, channels=2 * partial,
        lr=0.0625, momentum=0.75, weight_decay=0.03, clip=0.5,
        alpha_lr=0.05, alpha_beta1=0.4, alpha_beta2=0.99, alpha_weight_decay=0.2, alpha_clip=0.02, alpha_init=0.5,
        cost=CostCoefficients(macs=0.5, traffic=0.25),
    )  # fmt: skip
    config = replace(config, search=search)
    table = price_table(SPACE, Skeleton(6, 8, digits.image, digits.classes))
    supernet, architecture, sgd, adam = build_stage(config, SPACE, digits, 3, 0)
    supernet.double()
    architecture.double()
    supernet.train()
    supernet.dropout.rate = 0.25
    set_lr(sgd, search.lr)
    penalty = Penalty(table, asdict(search.cost), {"params": 10.0}, 0.5)
    penalty.adjust({"params": 14.0})  # the multiplier is now 0.5 x (14 / 10 - 1)
    step = alternation(search, supernet, architecture, sgd, adam, penalty, balance)
    expected = by_hand.SearchStep(
        search, SPACE, deepcopy(supernet), table, {"macs": 0.5, "traffic": 0.25, "params": 0.2},
        {name: weight.detach().clone() for name, weight in supernet.named_parameters()},
        [value.detach().clone() for value in architecture.parameters()], balance,
    )  # fmt: skip
    assert len(expected.alpha) == partial  # with partial channels, edges have weights

    for at, (train, held_out) in enumerate(zip(batches(6, 4, 1), batches(5, 4, 2), strict=True)):
        warm = at > 0
        torch.manual_seed(at)
        wanted = expected.take(train, held_out, warm)
        torch.manual_seed(at)
        by_hand.same(step(*train, *held_out, warm), wanted, close)
        assert warm == ("search_loss" in wanted) == ("alpha" in expected.norms)
        for name, weight in supernet.named_parameters():
            torch.testing.assert_close(weight, expected.weights[name], rtol=1e-8, atol=1e-11)
        for ours, theirs in zip(architecture.parameters(), expected.alpha, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)
        assert expected.norms["weights"] > search.clip
        assert not warm or expected.norms["alpha"] > search.alpha_clip


# --- the retraining ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [None, BALANCE], ids=["plain", "balanced"])
@pytest.mark.parametrize(("nesterov", "drop_path"), [(False, 0.25), (True, 0.25), (False, 0.0)])
def test_a_retraining_step_equals_the_step_by_hand(nesterov: bool, drop_path: float, balance: Tensor | None) -> None:
    """Three steps on batches in two parts, with auxiliary head, drop path, label smoothing, clip and moving average."""
    settings = replace(
        RetrainConfig(), batch=4, accumulate=2, lr=0.0625, momentum=0.75, nesterov=nesterov, weight_decay=0.03, clip=0.5,
        drop_path=drop_path, auxiliary=0.375, label_smoothing=0.125, ema=0.5,
    )  # fmt: skip
    torch.manual_seed(3)
    network = DerivedNetwork(LITERATURE["PDARTS"], named_space("darts"), Skeleton(3, 4, (1, 8, 8), 10), auxiliary=True)
    network.double().train()
    final = FinalNetwork(network, settings.ema)
    sgd = sgd_for(network, settings.lr, settings.momentum, settings.weight_decay, settings.nesterov)
    set_lr(sgd, settings.lr)
    rate = torch.tensor(drop_path, dtype=torch.float64)
    one_process: Any = SimpleNamespace(process_group=SINGLE_PROCESS)
    in_two: Any = SimpleNamespace(parts=lambda size: 2)
    step = training_step(settings, network, final, sgd, rate, in_two, one_process, balance)
    weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    paths = network.paths if drop_path else 0
    expected = by_hand.RetrainStep(settings, deepcopy(network), paths, drop_path, weights, balance)

    for at, (images, labels) in enumerate(batches(7, 3, 1)):
        torch.manual_seed(at)
        wanted = expected.take(images, labels, 2)
        torch.manual_seed(at)
        by_hand.same(step(images, labels, 7), wanted, close)
        assert expected.norm > settings.clip
        for name, weight in network.named_parameters():
            torch.testing.assert_close(weight, expected.weights[name], rtol=1e-8, atol=1e-11)
        for name, average in final.network.named_parameters():
            torch.testing.assert_close(average, expected.average[name], rtol=1e-6, atol=1e-8)
        for ours, theirs in zip(network.buffers(), expected.network.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)
        for ours, theirs in zip(final.network.buffers(), network.buffers(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kept", [True, False])
def test_a_weight_whose_first_gradient_comes_late_starts_without_momentum(kept: bool) -> None:
    """As with torch's plain SGD; if the step is skipped, its momentum is 0."""
    early, late = (nn.Parameter(torch.ones(3)) for _ in range(2))
    sgd = torch.optim.SGD([early, late], 0.5, momentum=0.5, fused=True)
    sure = Verdict(torch.tensor(True), torch.tensor(1.0))
    optimizer_step(sgd, [early, late], [torch.ones(3), None], 0.0, sure)
    optimizer_step(sgd, [early, late], [torch.ones(3)] * 2, 0.0, Verdict(torch.tensor(kept), torch.tensor(1.0)))
    assert (early.tolist(), late.tolist()) == (([-0.25] * 3, [0.5] * 3) if kept else ([0.5] * 3, [1.0] * 3))
    assert sgd.state[late]["momentum_buffer"].tolist() == [float(kept)] * 3


def changed(**others: Any) -> Callable[[Best], dict[str, Any]]:
    """Return a function that returns the state of the best weights with other entries."""
    return lambda best: {**best.state_dict(), **others}


@pytest.mark.parametrize(
    "change",
    [
        changed(score=True), changed(score="0.5"), changed(epoch=0.5), changed(weights=[]), changed(weights={}),
        lambda best: changed(weights={**best.weights, "unknown": torch.zeros(2)})(best),
        lambda best: changed(weights={**best.weights, "weight": torch.zeros(2)})(best),
        lambda best: changed(weights={**best.weights, "weight": best.weights["weight"].double()})(best),
        lambda best: changed(weights={**best.weights, "weight": 1.0})(best),
    ],
)  # fmt: skip
def test_best_weights_that_do_not_fit_the_network_are_refused(change: Callable[[Best], dict[str, Any]]) -> None:
    best = Best(nn.Linear(2, 3))
    states = {"best": best.state_dict()}
    restore("best", best, states)
    assert (best.score, best.epoch, best.weights) == (-1.0, -1, None)
    best.weights = {name: value + 1 for name, value in best.network.state_dict().items()}
    other = Best(best.network)
    restore("best", other, {"best": best.state_dict()})
    assert other.weights == best.weights
    with pytest.raises(ValueError, match="does not fit best"):
        restore("best", other, {"best": change(best)})


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_restored_state_of_an_optimiser_has_the_layout_of_its_weights(kind: Any) -> None:
    """Fused optimisers pair the numbers of a weight and of its momentum by their place in memory."""
    trained = {}
    for layout in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(memory_format=layout)  # type: ignore[call-overload]
        options = {"momentum": 0.5} if kind is torch.optim.SGD else {}
        optimizer = kind(network.named_parameters(), 0.5, fused=True, **options)
        for step in range(2):
            torch.manual_seed(step)
            network(torch.randn(2, 3, 5, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if not step:  # as it is in a checkpoint: contiguous
                state = optimizer.state_dict()
                plain = {
                    at: {name: value.contiguous() for name, value in one.items()} for at, one in state["state"].items()
                }
                restore("it", optimizer, {"it": {**state, "state": plain}})
        trained[layout] = network.weight.detach()
        assert all(
            one.stride() == network.weight.stride() for one in optimizer.state[network.weight].values() if one.ndim
        )
    torch.testing.assert_close(*trained.values())
