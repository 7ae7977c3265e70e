"""The exact discretisation, compared with all genotypes of small spaces, and with real prices in a large space."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.architecture.genotype import Genotype, one_hot, random_genotype, validate
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cost.expected import price_table
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DivergedError, InputError
from rapdarts.strategy.discretize import Candidate, discretize, score
from rapdarts.strategy.exact import (
    Budgets,
    Infeasible,
    cheapest,
    discretize_exactly,
    exists,
    feasible,
)
from rapdarts.strategy.paths import connected, skip_paths, unbridged
from tests.enumerated import every_choice, paths, with_paths

DARTS, BENCH = named_space("darts"), named_space("nasbench201").with_skip_paths("any")


def bare(name: str, *primitives: str, **facts: Any) -> SearchSpace:
    def nothing(channels: int, stride: int, affine: bool) -> torch.nn.Module:
        return torch.nn.Identity()

    return SearchSpace(name, {primitive: nothing for primitive in primitives}, **facts)


SMALL = bare("small", "skip_connect", "conv", "pool", nodes=2)
BARRED = bare("barred", "none", "skip_connect", "conv", nodes=2)
ALONE = bare("alone", "none", "skip_connect", "conv", nodes=3, inputs=1, keep=None, derive_none=True)
SHORTCUT = bare(
    "shortcut", "none", "skip_connect", "conv", nodes=3, inputs=1, keep=None, derive_none=True, skip_paths="one"
)
OPEN = bare("open", "none", "skip_connect", nodes=2, derive_none=True)
SPACES = {space.name: space for space in (SMALL, BARRED, ALONE, SHORTCUT, OPEN, BENCH)}


@cache
def everything(name: str) -> np.ndarray:
    """Return all genotypes of a space, as a bool array (genotypes, kinds, edges, primitives)."""
    return every_choice(SPACES[name])


@cache
def joined(name: str) -> np.ndarray:
    """Return a mask (genotypes,) of the genotypes that meet the space's conditions on paths."""
    return with_paths(SPACES[name], everything(name))


class Brute:
    """All genotypes of a small space that are connected and within the limits, best first."""

    def __init__(self, space: SearchSpace, weights: np.ndarray, budgets: Budgets, max_skips: int | None) -> None:
        choices = everything(space.name)
        within = ~(choices & ~space.mask).any((1, 2, 3)) & joined(space.name)
        if max_skips is not None:
            within &= choices[:, 0, :, space.columns["skip_connect"]].sum(-1) <= max_skips
        self.allowed = choices[within]
        flat = self.allowed.reshape(len(self.allowed), space.mask.size).astype(np.float64)
        self.costs = budgets.fixed + flat @ budgets.prices.reshape(len(budgets.names), space.mask.size).T
        self.below = self.costs <= budgets.bounds
        self.met = self.below & (self.costs >= budgets.floors)
        flat = flat[self.met.all(-1)]
        keys = np.stack([flat @ values.ravel() for values in self.values(space, weights)], -1)
        keys[:, 1] = keys[:, 1].round(9)  # so that rounding errors do not break ties
        self.keys = keys[np.lexsort(keys.T[::-1])]

    @staticmethod
    def values(space: SearchSpace, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return three measures of how bad each choice is, (kinds, edges, primitives): no weight, a low weight, a high rank."""
        numbers = np.broadcast_to(np.arange(space.mask[0].size).reshape(space.mask[0].shape), space.mask.shape)
        return weights == 0, -np.log(np.where(weights == 0, 1, weights)), numbers

    def key(self, space: SearchSpace, weights: np.ndarray, genotype: Genotype) -> list[float]:
        chosen = one_hot(space, genotype) > 0
        return [float(values[chosen].sum()) for values in self.values(space, weights)]

    def floor(self, row: int, under: np.ndarray) -> float:
        """Return the least cost in one resource among genotypes within the upper bounds in the mask `under` (resources,)."""
        return float(self.costs[self.below[:, under].all(-1), row].min(initial=np.inf))


def drawn(rng: np.random.Generator, space: SearchSpace, resources: int) -> Budgets:
    """Return random whole prices, upper bounds from impossible to loose, and lower bounds for some resources."""
    prices = rng.integers(0, 10 ** rng.integers(1, 10), (resources, *space.mask.shape)).astype(np.float64)
    prices *= rng.random(prices.shape) > 0.2
    fixed = rng.integers(0, 1000, resources).astype(np.float64)
    pairs = len(space.kinds) * sum(map(space.edges_kept, range(space.nodes)))
    bounds = fixed + np.floor(prices.mean((1, 2, 3)) * pairs * rng.uniform(0.1, 1.2, resources))
    shares = rng.choice([0.0, 0.5, 0.9, 1.0], resources, p=[0.4, 0.2, 0.3, 0.1])
    floors = np.where(shares > 0, np.floor(shares * bounds), -np.inf)
    return Budgets(tuple("abcd"[:resources]), fixed, prices, bounds, floors)


def weights_for(rng: np.random.Generator, space: SearchSpace) -> np.ndarray:
    """Return random weights: those of a softmax, weights with many ties, or weights with many zeros."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice([0.125, 0.25, 0.5], space.mask.shape)
    if kind == 1:
        return rng.choice([0.0, 0.0, 0.25, 0.5], space.mask.shape)
    raised = np.exp(rng.normal(0, rng.choice([1e-3, 1, 10]), space.mask.shape))
    return raised / raised.sum(-1, keepdims=True)


def cases(number: int, seed: int) -> Iterator[tuple[SearchSpace, np.ndarray, Budgets, int | None]]:
    """Yield `number` cases in spaces without a condition on skip-only paths, and a quarter as many in a space with this condition.

    Without RAPDARTS_PROOFS, these are a third as many.
    """
    number = number if "RAPDARTS_PROOFS" in os.environ else number // 3
    freely = [name for name, space in SPACES.items() if space.skip_paths == "any"]
    for names, count in ((freely, number), ([SHORTCUT.name], number // 4)):
        rng = np.random.default_rng(seed)
        for _ in range(count):
            space = SPACES[rng.choice(names)]
            if rng.random() < 0.3:
                space = space.narrowed(space.mask & (rng.random(space.mask.shape) < rng.choice([0.9, 0.6])))
            cap = [None, 0, 1, 2][rng.integers(4)]
            yield space, weights_for(rng, space), drawn(rng, space, rng.integers(1, 3)), cap


# --- compared with all genotypes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.proof) for seed in (1, 2))])
def test_the_result_is_the_best_of_all_allowed_genotypes(seed: int) -> None:
    outcomes = {"found": 0, "refused": 0}
    for space, weights, budgets, cap in cases(100, seed):
        brute = Brute(space, weights, budgets, cap)
        assert feasible(space, budgets, cap) == exists(space, budgets, cap) == bool(len(brute.keys))
        if not len(brute.keys):
            with pytest.raises(InputError):
                discretize_exactly(space, weights, budgets, cap)
            outcomes["refused"] += 1
            continue
        (best,) = discretize_exactly(space, weights, budgets, cap)
        assert best == Candidate(best.genotype, cap, score(space, weights, best.genotype))
        assert brute.key(space, weights, best.genotype) == pytest.approx(brute.keys[0].tolist(), abs=1e-8)
        assert budgets.met_by(one_hot(space, best.genotype))
        assert with_paths(space, one_hot(space, best.genotype)[None] > 0)[0]
        validate(best.genotype, space, "the best")
        outcomes["found"] += 1
    assert min(outcomes.values()) > 10


def test_the_best_few_are_listed_in_order() -> None:
    shorter = 0
    for space, weights, budgets, cap in cases(40, seed=7):
        brute = Brute(space, weights, budgets, cap)
        if not len(brute.keys):
            continue
        found = discretize_exactly(space, weights, budgets, cap, count=6)
        assert len(found) == min(6, len(brute.keys))
        shorter += len(found) < 6
        assert len({str(candidate.genotype.cells) for candidate in found}) == len(found)
        assert all(budgets.met_by(one_hot(space, candidate.genotype)) for candidate in found)
        keys = [brute.key(space, weights, candidate.genotype) for candidate in found]
        np.testing.assert_allclose(keys, brute.keys[: len(keys)], rtol=0, atol=1e-8)
    assert shorter


def test_budgets_that_cannot_be_met_are_refused_with_the_lowest_costs() -> None:
    seen = {"alone": 0, "together": 0, "nothing": 0, "between": 0}
    for space, weights, budgets, cap in cases(200, seed=5):
        brute = Brute(space, weights, budgets, cap)
        if len(brute.keys):
            continue
        try:
            discretize(space, weights)
        except InputError:  # some edges have no candidate left
            continue
        with pytest.raises(Infeasible) as refusal:
            discretize_exactly(space, weights, budgets, cap)
        error = refusal.value
        if not len(brute.allowed):
            assert not error.floors and f"at most {cap} skip" in str(error)
            seen["nothing"] += 1
            continue
        if brute.below.all(-1).any():
            assert error.floors == error.cheapest == {}
            for low, high in zip(budgets.floors, budgets.bounds, strict=True):
                assert (low == -np.inf or f"at least {low:,.0f}" in str(error)) and f"at most {high:,.0f}" in str(error)
            seen["between"] += 1
            continue
        rows = np.arange(len(budgets.names))
        floors = np.array([brute.floor(row, rows < 0) for row in rows])
        together = (floors <= budgets.bounds).all()
        if together:
            floors = np.array([brute.floor(row, rows != row) for row in rows])
        seen["together" if together else "alone"] += 1
        assert error.floors == dict(zip(budgets.names, floors, strict=True))
        assert ("within the other budgets" in str(error)) == together
        for name, bound, floor in zip(budgets.names, budgets.bounds, floors, strict=True):
            assert f"{name} <= {bound:,.0f}" in str(error) and f"has {floor:,.0f}" in str(error)
            assert budgets.costs(one_hot(space, error.cheapest[name]))[name] == floor
            if together:
                assert budgets.without_floors().without(name).met_by(one_hot(space, error.cheapest[name]))
    assert min(seen.values()) > 0, seen


def test_the_messages_of_infeasible_budgets() -> None:
    prices = np.zeros((2, *SMALL.mask.shape))
    prices[:, ..., SMALL.columns["conv"]] = 1_000
    prices[0, ..., SMALL.columns["pool"]] = 0.5
    weights = np.full(SMALL.mask.shape, 0.5)

    def refusal(bounds: list[float], cap: int | None, resources: int) -> str:
        budgets = Budgets(
            ("params", "macs")[:resources], np.full(2, 1e6)[:resources], prices[:resources], np.array(bounds)
        )
        with pytest.raises(Infeasible) as error:
            discretize_exactly(SMALL, weights, budgets, cap)
        return str(error.value)

    assert refusal([10], None, 1) == "no genotype of the space small meets params <= 10: the cheapest has 1,000,000."
    assert refusal([10, 20], 0, 2) == (
        "no genotype of the space small with at most 0 skips in its normal cell meets params <= 10 and macs <= 20: "
        "the cheapest in params has 1,000,002, the cheapest in macs has 1,000,000."
    )
    prices[1, 0, :, SMALL.columns["pool"]] = 1e5
    assert refusal([1_000_003, 1_004_500], 0, 2) == (
        "no genotype of the space small with at most 0 skips in its normal cell meets params <= 1,000,003 and macs <= 1,004,500: "
        "the cheapest in params within the other budgets has 1,004,000, the cheapest in macs within the other budgets has 1,400,000."
    )
    skips = SMALL.narrowed(np.broadcast_to([True, False, False], SMALL.mask.shape))
    with pytest.raises(
        Infeasible, match="no genotype with at most 3 skips in its normal cell is left in the space small"
    ) as error:
        discretize_exactly(skips, weights, max_skips=3)
    assert error.value.floors == error.value.cheapest == {}
    assert not feasible(skips, max_skips=3) and feasible(skips, max_skips=4)
    prices[0, ..., SMALL.columns["pool"]] = 1
    band = Budgets(("params",), np.full(1, 1e6), prices[:1], np.full(1, 1_001_500.0), np.full(1, 1_001_010.0))
    with pytest.raises(Infeasible) as error:
        discretize_exactly(SMALL, weights, band, max_skips=2)
    assert str(error.value) == (
        "no genotype of the space small with at most 2 skips in its normal cell has at least 1,001,010 and at most 1,001,500 params;"
        " lower search.spend, or change the budget."
    )


def test_the_cheapest_genotype_has_the_least_cost() -> None:
    for space, weights, budgets, cap in cases(60, seed=9):
        brute = Brute(space, weights, budgets, cap)
        if not len(brute.allowed):
            with pytest.raises(Infeasible):
                cheapest(space, budgets, "a", cap)
            continue
        for row, name in enumerate(budgets.names):
            genotype = cheapest(space, budgets, name, cap)
            assert budgets.costs(one_hot(space, genotype))[name] == brute.costs[:, row].min()
            assert with_paths(space, one_hot(space, genotype)[None] > 0)[0]
            if len(brute.keys):
                genotype = cheapest(space, budgets, name, cap, under=budgets)
                assert budgets.met_by(one_hot(space, genotype))
                within = brute.costs[brute.met.all(-1), row]
                assert budgets.costs(one_hot(space, genotype))[name] == within.min()


# --- ties, zeros, rounding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_without_limits_the_result_is_that_of_the_plain_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for space in (DARTS, *SPACES.values()):
        for weights in (weights_for(rng, space), np.full(space.mask.shape, 0.125), np.zeros(space.mask.shape)):
            plain = discretize(space, weights)
            if not with_paths(space, one_hot(space, plain)[None] > 0)[0]:
                continue
            assert discretize_exactly(space, weights)[0].genotype == plain
            # A price on every choice that the best genotype does not make changes nothing.
            chosen = one_hot(space, plain) > 0
            priced = Budgets(("off",), np.zeros(1), np.where(chosen, 0.0, 1.0)[None], np.array([0.0]))
            assert discretize_exactly(space, weights, priced)[0].genotype == plain


def test_ties_go_to_the_lowest_edges_then_the_lowest_primitives() -> None:
    """All choices are equally strong; the budget excludes skip_connect on edge 0 of the normal cell."""
    weights = np.full(BARRED.mask.shape, 0.25)
    prices = np.zeros((1, *BARRED.mask.shape))
    prices[0, 0, 0, BARRED.columns["skip_connect"]] = 1
    genotype = discretize_exactly(BARRED, weights, Budgets(("toll",), np.zeros(1), prices, np.zeros(1)))[0].genotype
    skip = "skip_connect"
    assert genotype.cells["normal"].nodes == ((("conv", 0), (skip, 1)), ((skip, 0), (skip, 1)))
    assert genotype.cells["reduce"] == discretize(BARRED, weights).cells["reduce"]


def test_a_choice_of_weight_zero_is_made_only_if_nothing_else_is_left() -> None:
    weights = np.full(SMALL.mask.shape, 1e-300)
    weights[..., SMALL.columns["conv"]] = 1.0
    weights[0, 0] = 0.0, 1.0, 0.0
    prices = np.zeros((1, *SMALL.mask.shape))
    prices[..., SMALL.columns["conv"]] = 1
    budgets = Budgets(("convs",), np.zeros(1), prices, np.array([1.0]))
    best = discretize_exactly(SMALL, weights, budgets, max_skips=0)[0]
    # The only conv is placed on the edge where the alternative has weight 0.
    assert best.genotype.cells["normal"].nodes[0][0] == ("conv", 0)
    assert best.score == pytest.approx(7 * np.log(1e-300))
    none = Budgets(("convs",), np.zeros(1), prices, np.zeros(1))
    forced = discretize_exactly(SMALL, weights, none, max_skips=0)[0]
    assert forced.genotype.cells["normal"].nodes[0][0] == ("pool", 0)
    assert forced.score == -np.inf


def test_a_bound_is_met_to_the_last_bit() -> None:
    """Prices are fractional; bounds equal the cost of the best genotype, or differ from it by less than any solver's tolerance."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        weights = rng.random(SMALL.mask.shape)
        prices = 1e6 * rng.random((1, *SMALL.mask.shape))
        plain = discretize(SMALL, weights)
        cost = Budgets(("x",), np.full(1, 0.1), prices, np.zeros(1)).costs(one_hot(SMALL, plain))["x"]
        at = Budgets(("x",), np.full(1, 0.1), prices, np.array([cost]))
        assert discretize_exactly(SMALL, weights, at)[0].genotype == plain
        below = Budgets(("x",), np.full(1, 0.1), prices, np.array([np.nextafter(cost, 0)]))
        other = discretize_exactly(SMALL, weights, below)[0].genotype
        assert other != plain and below.costs(one_hot(SMALL, other))["x"] < cost
        assert discretize_exactly(SMALL, weights, at.with_floor("x", cost))[0].genotype == plain
        above = Budgets(("x",), np.full(1, 0.1), prices, np.array([np.inf]), np.array([np.nextafter(cost, np.inf)]))
        other = discretize_exactly(SMALL, weights, above)[0].genotype
        assert other != plain and above.costs(one_hot(SMALL, other))["x"] > cost


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(wrong: float) -> None:
    weights = np.full(SMALL.mask.shape, 0.5)
    weights[1, 4, 2] = wrong
    with pytest.raises(DivergedError, match=r"the mixing weights are not finite, so no genotype can be derived\."):
        discretize_exactly(SMALL, weights)


# --- paths from the inputs to the outputs ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, space in SPACES.items() if space.skip_paths == "any"])
def test_a_cell_is_connected_if_every_output_has_a_path(name: str) -> None:
    space, choices = SPACES[name], everything(name)
    some = np.random.default_rng(0).permutation(len(choices))[:2000]
    assert [connected(space, choices[one]) for one in some] == joined(name)[some].tolist()
    assert joined(name).all() == (not space.derive_none)


def test_all_skip_only_paths_are_found() -> None:
    choices = everything(SHORTCUT.name)
    number = paths(SHORTCUT, choices, ["skip_connect"])[:, 0, 0]
    assert set(number) == {0, 1, 2, 3, 4}
    for choice, expected in zip(choices, number, strict=True):
        found = skip_paths(SHORTCUT, choice)
        assert len({path.tobytes() for path in found}) == len(found) == expected
        assert all((path <= choice).all() and paths(SHORTCUT, path[None], ["skip_connect"]) == 1 for path in found)


def test_exactly_one_skip_only_path_is_derived_against_the_weights() -> None:
    """There is one such path even if skips are weakest, and only one even if they are strongest."""
    for weight in (0.01, 0.98):
        weights = np.full(BENCH.mask.shape, (1 - weight) / 4)
        weights[..., BENCH.columns["skip_connect"]] = weight
        space = BENCH.with_skip_paths("one")
        (best,) = discretize_exactly(space, weights)
        assert len(skip_paths(space, one_hot(space, best.genotype) > 0)) == 1
        anything = discretize_exactly(BENCH, weights)[0]
        assert len(skip_paths(BENCH, one_hot(BENCH, anything.genotype) > 0)) == (0 if weight < 0.5 else 4)


def test_the_message_if_no_skip_only_path_is_left() -> None:
    with pytest.raises(Infeasible) as error:
        discretize_exactly(SHORTCUT, np.full(SHORTCUT.mask.shape, 0.2), max_skips=0)
    assert str(error.value) == (
        "no genotype with at most 0 skips in its normal cell and one skip-only path from input to output is left in the"
        " space shortcut; set skip_paths=any."
    )


def test_a_disconnected_cell_violates_a_constraint_that_every_connected_cell_satisfies() -> None:
    """The constraint requires a choice that leads from the input, or from a node reached from it, to a node that is not reached."""
    none, skip, conv = (BENCH.columns[name] for name in ("none", "skip_connect", "nor_conv_3x3"))
    chosen = np.zeros(BENCH.mask.shape, dtype=bool)
    # Node 1 reads the input and node 3 reads node 2, which has no input.
    for edge, column in enumerate([conv, none, none, none, none, skip]):
        chosen[0, edge, column] = True
    crossing = unbridged(BENCH, chosen)
    assert crossing is not None
    from_reached = [False, True, True, True, True, False]  # from the input and from node 1, to nodes 2 and 3
    assert crossing[0].tolist() == [[leads and column != none for column in range(5)] for leads in from_reached]
    assert not (crossing & chosen).any()
    choices = everything(BENCH.name)
    assert (choices[joined(BENCH.name)] & crossing).any((1, 2, 3)).all()


@pytest.mark.parametrize("space", [ALONE, OPEN, BENCH], ids=lambda space: space.name)
def test_the_best_connected_genotype_is_found_if_none_has_most_of_the_weight(space: SearchSpace) -> None:
    rng, unlimited = np.random.default_rng(0), Budgets((), np.zeros(0), np.zeros((0, *space.mask.shape)), np.zeros(0))
    moved = 0
    for _ in range(10):
        weights = rng.random(space.mask.shape)
        weights[..., space.columns["none"]] *= 5
        moved += not connected(space, one_hot(space, discretize(space, weights)) > 0)
        brute = Brute(space, weights, unlimited, None)
        for place, candidate in enumerate(discretize_exactly(space, weights, count=3)):
            key = brute.key(space, weights, candidate.genotype)
            assert key == pytest.approx(brute.keys[place].tolist(), abs=1e-8)
    assert moved > 2
    nothing = space.narrowed(np.broadcast_to([name == "none" for name in space.primitives], space.mask.shape))
    assert not feasible(nothing)
    with pytest.raises(Infeasible):
        discretize_exactly(nothing, np.ones(space.mask.shape))


# --- real prices -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Budgets:
    """Prices of all resources at the skeleton of Liu et al. 2019 for CIFAR-10, without bounds."""
    table = price_table(DARTS, Skeleton(20, 36, (3, 32, 32), 10))
    return Budgets(tuple(table.resources), table.fixed, table.prices, np.full(len(table.fixed), np.inf))


def bounded(real: Budgets, names: tuple[str, ...], genotype: Genotype) -> Budgets:
    """Return budgets on some resources that a genotype exactly meets."""
    rows = [real.names.index(name) for name in names]
    costs = real.costs(one_hot(DARTS, genotype))
    return Budgets(names, real.fixed[rows], real.prices[rows], np.array([costs[name] for name in names]))


def check_budgets(real: Budgets, number: int, seed: int) -> dict[str, float]:
    """Draw pairs of alpha and budgets that some genotype exactly meets, and count how many results meet their budgets.

    Returns this count, the same count for the plain rule, and the median and maximum processor time of a result in ms.
    """
    rng = np.random.default_rng(seed)
    met, plain_met, times = 0, 0, []
    for pair in range(number):
        alpha = rng.normal(0, rng.choice([1e-3, 0.1, 1, 5]), DARTS.mask.shape)
        weights = torch.softmax(torch.as_tensor(alpha), -1).numpy()
        names = (("params", "macs"), ("params",), ("macs",), real.names)[pair % 4]
        # The budgets are the costs of a random genotype, which may be cheaper or more expensive than the strongest one.
        shares = (real.prices / real.prices.max((1, 2, 3), keepdims=True)).sum(0)
        witness = discretize(DARTS, np.exp(rng.normal(0, 1, shares.shape) - rng.uniform(0, 3) * shares), max_skips=2)
        budgets = bounded(real, names, witness)
        begun = time.process_time()
        (best,) = discretize_exactly(DARTS, weights, budgets, max_skips=2)
        times.append(1e3 * (time.process_time() - begun))
        chosen = one_hot(DARTS, best.genotype)
        skips = chosen[0, :, DARTS.columns["skip_connect"]].sum()
        met += budgets.met_by(chosen) and skips <= 2 and best.score >= score(DARTS, weights, witness) - 1e-9
        plain_met += budgets.met_by(one_hot(DARTS, discretize(DARTS, weights, max_skips=2)))
    return {
        "pairs": number,
        "met": met,
        "met by the plain rule": plain_met,
        "median ms": statistics.median(times),
        "maximum ms": max(times),
    }


def test_every_budget_is_met(real: Budgets) -> None:
    """RAPDARTS_PROOFS sets the number of pairs; with RAPDARTS_PROOFS=1000, the results of all 1,000 pairs meet their budgets."""
    number = int(os.environ.get("RAPDARTS_PROOFS", "40"))
    found = check_budgets(real, number, seed=0)
    print(", ".join(f"{name}: {value:,.0f}" for name, value in found.items()))
    assert found["met"] == number > found["met by the plain rule"]


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    cap=st.sampled_from([None, 2, 4]),
    names=st.sampled_from([("params",), ("params", "macs")]),
)
def test_no_genotype_within_the_budgets_is_better(
    real: Budgets, seed: int, cap: int | None, names: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(seed)
    weights = weights_for(rng, DARTS)
    drawn = random_genotype(DARTS, rng)
    if cap is not None and one_hot(DARTS, drawn)[0, :, DARTS.columns["skip_connect"]].sum() > cap:
        return
    budgets = bounded(real, names, drawn)
    (best,) = discretize_exactly(DARTS, weights, budgets, cap)
    assert budgets.met_by(one_hot(DARTS, best.genotype))
    assert best.score >= score(DARTS, weights, drawn) - 1e-9


def test_the_lowest_cost_of_the_full_space_can_be_met_and_is_reported(real: Budgets) -> None:
    params = bounded(real, ("params",), cheapest(DARTS, real, "params", max_skips=2))
    floor = params.bounds[0]
    weights = np.full(DARTS.mask.shape, 0.125)
    assert discretize_exactly(DARTS, weights, params, max_skips=2)
    short = Budgets(params.names, params.fixed, params.prices, params.bounds - 1)
    with pytest.raises(
        Infeasible, match=f"meets params <= {floor - 1:,.0f}: the cheapest has {floor:,.0f}\\."
    ) as error:
        discretize_exactly(DARTS, weights, short, max_skips=2)
    assert error.value.floors == {"params": floor}
    assert params.met_by(one_hot(DARTS, error.value.cheapest["params"]))
