"""Certainty of a search: entropy and margin computed by hand, and the agreement of replicas in spaces in which chance is known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from rapdarts.architecture.genotype import Genotype, one_hot
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cost.expected import price_table
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy import agreement as module
from rapdarts.strategy.agreement import Agreement, agreement, entropy, margin
from rapdarts.strategy.budgets import budgets_on
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.exact import Budgets, discretize_exactly
from rapdarts.strategy.random_cells import random_cells
from rapdarts.strategy.relaxation import Architecture, mixing_weights
from tests.enumerated import every_choice, with_paths

DARTS, BENCH = named_space("darts"), named_space("nasbench201")
WHOLE = BENCH.deriving_none(False)
"""NAS-Bench-201 without `none`: 4,096 cells, all connected."""


@pytest.fixture(autouse=True, scope="module")
def drawn_once() -> Iterator[None]:
    """Cache the random genotypes that estimate chance; they depend only on the space, its limits and the cap on skips."""

    @cache
    def cells(key: str, count: int, max_skips: int | None) -> list[Genotype]:
        return random_cells(spaces[key], np.random.default_rng(0), count, limits[key], max_skips)

    spaces: dict[str, SearchSpace] = {}
    limits: dict[str, Budgets | None] = {}

    def draw(
        space: SearchSpace,
        rng: np.random.Generator,
        count: int,
        budgets: Budgets | None,
        max_skips: int | None,
        start: np.ndarray,
    ) -> list[Genotype]:
        assert rng.integers(1000) == np.random.default_rng(0).integers(1000)
        bounds = None if budgets is None else (budgets.floors.tolist(), budgets.bounds.tolist())
        key = str((space.name, space.derive_none, space.skip_paths, space.candidates, bounds))
        spaces[key], limits[key] = space, budgets
        return cells(key, count, max_skips)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "random_cells", draw)
        yield


def mixture(rng: np.random.Generator, space: SearchSpace) -> np.ndarray:
    """Random mixing weights of the open candidates, (kinds, edges, primitives)."""
    weights = np.where(space.mask, rng.exponential(size=space.mask.shape), 0.0)
    return np.asarray(weights / weights.sum(-1, keepdims=True))


# --- one search --------------------------------------------------------------------------------------------------


def test_uniform_weights_have_full_entropy_and_a_single_choice_has_none() -> None:
    uniform = np.full(DARTS.mask.shape, 0.125)
    assert entropy(DARTS, uniform) == pytest.approx(1) and margin(DARTS, uniform) == pytest.approx(0)
    chosen = np.zeros(DARTS.mask.shape)
    chosen[..., 4] = 1
    assert entropy(DARTS, chosen) == pytest.approx(0) and margin(DARTS, chosen) == pytest.approx(1)


def test_closed_candidates_and_edges_with_one_left_do_not_count() -> None:
    mask = np.zeros_like(DARTS.mask)
    mask[..., [1, 4]] = True
    mask[:, 7:, 1] = False  # half of the edges have one candidate left
    space = DARTS.narrowed(mask)
    weights = np.where(mask, 0.25, 0.0)
    weights[:, 7:, 4] = 1
    assert entropy(space, weights) == pytest.approx(1) and margin(space, weights) == pytest.approx(0)
    weights[:, :7, 4] = 0.75
    assert entropy(space, weights) == pytest.approx((0.25 * np.log(4) + 0.75 * np.log(4 / 3)) / np.log(2))
    assert margin(space, weights) == pytest.approx(0.5)
    # Edge weights scale all candidates of an edge alike, so they change neither value.
    scaled = weights * np.linspace(0.1, 1, 14)[:, None]
    assert entropy(space, scaled) == pytest.approx(entropy(space, weights))
    assert margin(space, scaled) == pytest.approx(0.5)
    alone = space.narrowed(np.broadcast_to(np.arange(8) == 4, mask.shape))
    assert (entropy(alone, weights), margin(alone, weights)) == (0, 1)


# --- several replicas --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [DARTS, WHOLE, BENCH], ids=["darts", "without none", "nasbench201"])
def test_replicas_that_learned_the_same_agree_on_everything(space: SearchSpace) -> None:
    weights = mixture(np.random.default_rng(0), space)
    (best,) = discretize_exactly(space, weights, max_skips=2)
    found = agreement(space, [weights] * 3, [best.genotype] * 3, max_skips=2)
    assert (found.replicas, found.same, found.correlation) == (3, found.choices, pytest.approx(1))
    assert found.choices == (16 if space is DARTS else 6)
    assert found.reliability == pytest.approx(1) and not found.mostly_noise and found.chance < 0.4 * found.choices


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_that_learned_nothing_are_mostly_noise(replicas: int) -> None:
    rng, noise, correlations, same = np.random.default_rng(0), 0, [], []
    for _ in range(100):
        weights = [mixture(rng, WHOLE) for _ in range(replicas)]
        found = agreement(WHOLE, weights, [discretize(WHOLE, one) for one in weights])
        noise += found.mostly_noise
        correlations.append(found.correlation)
        same.append(found.same)
    assert noise >= 90  # two replicas of 24 weights occasionally correlate above 1/3
    assert abs(np.mean(correlations)) < 0.04
    assert np.mean(same) == pytest.approx(6 / 4, abs=0.15)  # on each of six edges, the chance of agreement is 1/4


@pytest.mark.parametrize(("signal", "says_noise"), [(1.0, False), (0.2, True)])
def test_the_reliability_is_the_correlation_of_two_means(signal: float, says_noise: bool) -> None:
    """The replicas have a common signal and independent noise; each mean is over three of them."""
    rng, reliability, correlation, noise = np.random.default_rng(0), [], [], 0
    for _ in range(60):
        logs = signal * rng.normal(size=WHOLE.mask.shape) + rng.normal(size=(6, *WHOLE.mask.shape))
        weights = list(np.where(WHOLE.mask, np.exp(logs), 0.0))
        found = agreement(WHOLE, weights[:3], [discretize(WHOLE, one) for one in weights[:3]])
        reliability.append(found.reliability)
        noise += found.mostly_noise
        usable = WHOLE.mask & WHOLE.choosable
        correlation.append(np.corrcoef(logs[:3].mean(0)[usable], logs[3:].mean(0)[usable])[0, 1])
    if says_noise:
        assert noise / 60 > 0.9 and np.mean(correlation) < 0.2
    else:  # a correlation below 0 counts as 0, so the mean is unbiased only if there is a signal
        assert noise / 60 < 0.1 and np.mean(reliability) == pytest.approx(np.mean(correlation), abs=0.08)


@pytest.mark.parametrize(
    ("derive_none", "cap", "paths"), [(True, 3, "any"), (False, 1, "any"), (False, None, "any"), (False, 3, "one")]
)
def test_chance_is_the_sum_of_the_squared_frequencies_of_all_choices(
    derive_none: bool, cap: int | None, paths: str
) -> None:
    """The choices are those of all NAS-Bench-201 cells that use 0.9 to 1 of a budget of 860,000 parameters."""
    space = BENCH.deriving_none(derive_none).with_skip_paths(paths)
    table = price_table(space, Skeleton(*space.deployment, (3, 32, 32), 10))
    band = budgets_on(table, {"params": 860_000}, floors={"params": 774_000})
    choices = every_choice(space)
    costs = table.fixed[1] + np.einsum("gkep,kep->g", choices, table.prices[table.row("params")])
    within = with_paths(space, choices) & (costs >= 774_000) & (costs <= 860_000)
    if cap is not None:
        within &= choices[..., space.columns["skip_connect"]].sum((1, 2)) <= cap
    frequencies = choices[within].mean(0)
    weights = mixture(np.random.default_rng(1), space)
    (best,) = discretize_exactly(space, weights, band, cap)
    found = agreement(space, [weights] * 2, [best.genotype] * 2, band, cap)
    assert found.chance == pytest.approx((frequencies**2).sum(), abs=0.12)
    free = agreement(space, [weights] * 2, [best.genotype] * 2, None, cap)
    assert found.chance > free.chance + 0.3  # cells of similar cost are more alike than cells of any cost


def test_shared_choices_are_a_mean_over_pairs_of_replicas() -> None:
    skip, conv, pool = ("skip_connect", "nor_conv_3x3", "avg_pool_3x3")

    def cell(*names: str) -> Genotype:
        weights = np.zeros(BENCH.mask.shape)
        for edge, name in enumerate(names):
            weights[0, edge, BENCH.columns[name]] = 1
        return discretize(BENCH, weights)

    cells = [
        cell(skip, skip, skip, skip, skip, skip),
        cell(skip, skip, skip, conv, conv, conv),
        cell(*[pool] * 5, conv),
    ]
    rng = np.random.default_rng(0)
    found = agreement(BENCH, [mixture(rng, BENCH) for _ in cells], cells)
    assert found.same == pytest.approx((3 + 0 + 1) / 3)  # first and second, first and third, second and third


def test_correlation_is_spearmans_of_weights_relative_to_their_edge() -> None:
    rng = np.random.default_rng(0)
    weights = [mixture(rng, WHOLE).round(1) + 0.1 for _ in range(3)]  # with ties
    cells = [discretize(WHOLE, one) for one in weights]
    logs = [np.log(one[0][:, WHOLE.choosable]) for one in weights]
    ranks = [rankdata(one - one.mean(-1, keepdims=True)) for one in logs]
    expected = np.mean([np.corrcoef(ranks[one], ranks[other])[0, 1] for one, other in ((0, 1), (0, 2), (1, 2))])
    assert agreement(WHOLE, weights, cells).correlation == pytest.approx(expected)
    opposite = agreement(WHOLE, [weights[0], 1 / weights[0]], cells[:2])
    assert opposite.correlation == pytest.approx(-1)
    flat = agreement(WHOLE, [np.full(WHOLE.mask.shape, 0.2), weights[0]], cells[:2])
    assert flat.correlation == 0
    # The weights of none, which is never derived here, do not count.
    other = weights[1].copy()
    other[..., 0] = rng.random(other[..., 0].shape)
    assert agreement(WHOLE, [weights[0], other], cells[:2]) == agreement(WHOLE, weights[:2], cells[:2])


def test_edge_weights_and_edges_without_a_choice_do_not_count_as_agreement() -> None:
    """Edge weights fall with the number of a node's inputs in every search, whatever it has learned."""
    mask = DARTS.mask
    mask[:, ::3, 1:] = False  # every third edge has one candidate that may be derived, and `none`, which may not
    mask[:, ::3, 4] = True
    space = DARTS.narrowed(mask)
    found = []
    for seed in range(10):
        torch.manual_seed(seed)
        noise = [mixing_weights(Architecture(space, 0.05, edge_normalization=True)) for _ in range(3)]
        found.append(agreement(space, noise, [discretize(space, one, 2) for one in noise], max_skips=2).correlation)
    assert abs(np.mean(found)) < 0.1


def test_agreement_in_words() -> None:
    found = Agreement(replicas=3, choices=16, same=10.333, chance=2.04, correlation=0.5)
    assert found.words(25) == (
        "the three replicas agree on 10.3 of 16 choices (chance: 2.04); the rank correlation of their weights is 0.50,"
        " so the mean of three other replicas would have a correlation of 0.75 with the mean of these"
    )
    noise = replace(found, correlation=0.1)
    assert noise.words(25) == (
        "the three replicas agree on 10.3 of 16 choices (chance: 2.04); the rank correlation of their weights is 0.10,"
        " so the mean of three other replicas would have a correlation of 0.25 with the mean of these. This is mostly noise; more"
        " epochs (search.epochs=75) or replicas (search.replicas=9) help"
    )
    assert (
        replace(found, correlation=-0.2)
        .words(25)
        .endswith(". This is mostly noise; more epochs (search.epochs=75) may help")
    )
    assert noise.words(25, 0.125).endswith(
        ". This is mostly noise; more effort (find.effort=0.375) or replicas (find.replicas=9) help"
    )
    assert noise.words(25, 16).endswith("; more effort or replicas (find.replicas=9) help")
    assert replace(found, replicas=12).words(1).startswith("the 12 replicas agree on ")
    assert noise.facts() == {
        "replicas": 3, "choices": 16, "same": 10.333, "chance": 2.04, "correlation": 0.1,
        "reliability": pytest.approx(0.25), "mostly_noise": True,
    }  # fmt: skip


def test_agreement_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "random_cells", random_cells)
    rng = np.random.default_rng(0)
    weights = [mixture(rng, BENCH) for _ in range(3)]
    cells = [discretize_exactly(BENCH, one, max_skips=3)[0].genotype for one in weights]
    first, second = (agreement(BENCH, weights, cells, max_skips=3) for _ in range(2))
    assert first == second
    assert first.same * 3 == sum(
        (one_hot(BENCH, cells[a]) * one_hot(BENCH, cells[b])).sum() for a, b in ((0, 1), (0, 2), (1, 2))
    )
