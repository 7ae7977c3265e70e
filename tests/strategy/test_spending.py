"""Spending of budgets: which budget gets a lower bound, its share, lower shares if no cell uses that share, and three stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rapdarts.architecture.genotype import one_hot, random_genotype
from rapdarts.architecture.space import Skeleton
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.budgets import budgets_on, spent
from rapdarts.strategy.derive import derive
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.exact import Budgets, Infeasible, discretize_exactly, exists, feasible
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.rule import Rule

DARTS, BENCH = named_space("darts"), named_space("nasbench201").with_skip_paths("any")


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return price_table(DARTS, Skeleton(20, 36, (3, 32, 32), 10))


@pytest.fixture(scope="module")
def bench() -> PriceTable:
    return price_table(BENCH, Skeleton(*BENCH.deployment, (3, 32, 32), 10))


def favouring(*names: str) -> np.ndarray:
    """Return mixing weights with most of the weight on the named primitives, on every edge."""
    weights = np.full(DARTS.mask.shape, 0.01)
    weights[..., [DARTS.columns[name] for name in names]] = 1
    return weights / weights.sum(-1, keepdims=True)


def rule(limits: dict[str, float], share: float = 0.9, cap: int | None = 2) -> Rule:
    return Rule("exact", cap, limits, dict.fromkeys(limits, share))


def floors(budgets: Budgets | None) -> dict[str, float]:
    """Return the lower bounds by resource."""
    assert budgets is not None
    pairs = zip(budgets.names, budgets.floors, strict=True)
    return {name: float(floor) for name, floor in pairs if floor > -np.inf}


# --- the budget with a lower bound, and its share ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "binding"),
    [
        ({"params": 2.5e6}, "params"),
        ({"params": 2.5e6, "macs": 500e6}, "params"),
        ({"macs": 500e6, "params": 2.5e6}, "params"),
        ({"params": 3.3e6, "macs": 400e6}, "macs"),
    ],
)
def test_the_budget_that_binds_first_gets_the_lower_bound(
    limits: dict[str, float], binding: str, table: PriceTable
) -> None:
    """This is the budget of which the best genotype without a lower bound uses the largest share."""
    weights = favouring("sep_conv_3x3", "dil_conv_5x5", "skip_connect")
    budgets = budgets_on(table, limits)
    strongest = discretize_exactly(DARTS, weights, budgets, 2)[0].genotype
    shares = {name: table.exact(strongest)[name] / limit for name, limit in limits.items()}
    assert max(shares, key=lambda name: shares[name]) == binding
    within, remark = spent(DARTS, weights, budgets, rule(limits))
    assert remark == "" and floors(within) == {binding: 0.9 * limits[binding]}
    assert within is not None and budgets is not None
    np.testing.assert_array_equal(within.bounds, budgets.bounds)


def test_only_a_budget_with_a_share_to_spend_gets_a_lower_bound(table: PriceTable) -> None:
    """The best genotype uses a larger share of the params budget, but the second rule has a share to spend only for macs."""
    weights, limits = favouring("sep_conv_5x5"), {"params": 2.5e6, "macs": 400e6}
    assert floors(spent(DARTS, weights, budgets_on(table, limits), rule(limits))[0]) == {"params": 2.25e6}
    held = Rule("exact", 2, limits, {"macs": 0.7})
    assert floors(spent(DARTS, weights, budgets_on(table, limits), held)[0]) == {"macs": 280e6}


def test_there_is_no_lower_bound_without_a_share_to_spend(table: PriceTable) -> None:
    weights, budgets = favouring("skip_connect"), budgets_on(table, {"params": 3e6})
    assert spent(DARTS, weights, budgets, Rule("exact", 2, {"params": 3e6})) == (budgets, "")
    assert spent(DARTS, weights, None, Rule("pdarts", 2)) == (None, "")


def test_a_budget_above_the_most_expensive_cell_gets_no_lower_bound_and_a_remark(table: PriceTable) -> None:
    weights = favouring("sep_conv_5x5")
    most = table.exact(discretize(DARTS, weights))["params"]  # sep_conv_5x5 on all edges
    for limit in (most, most + 1.0, 2.0 * most):
        limits = {"params": float(limit)}
        within, remark = spent(DARTS, weights, budgets_on(table, limits), rule(limits))
        assert floors(within) == {}
        assert remark == (
            f"even the most expensive cell meets params <= {limit:,.0f}, so there is no lower bound (search.spend)."
        )
    limits = {"params": most - 1.0}
    within, remark = spent(DARTS, weights, budgets_on(table, limits), rule(limits))
    assert remark == "" and floors(within) == {"params": np.ceil(0.9 * (most - 1))}


def test_the_most_expensive_cell_depends_on_the_cap_the_primitives_and_the_other_budgets(table: PriceTable) -> None:
    skips = DARTS.only(["skip_connect", "sep_conv_5x5"])
    few = price_table(skips, table.skeleton)
    weights = np.broadcast_to([0.1, 0.9], skips.mask.shape).copy()
    limits = {"params": few.exact(discretize(skips, weights))["params"] + 1.0}
    assert "there is no lower bound" in spent(skips, weights, budgets_on(few, limits), rule(limits))[1]

    # The budget on MACs allows no cell with more than 2.33 million parameters, whatever the budget on parameters.
    limits = {"params": 2.6e6, "macs": 350e6}
    held = Rule("exact", 2, limits, {"params": 0.9})
    within, remark = spent(DARTS, favouring("sep_conv_5x5"), budgets_on(table, limits), held)
    assert floors(within) == {} and "even the most expensive cell meets params <= 2,600,000" in remark


def test_a_budget_that_no_cell_reaches_leaves_the_lower_bound_to_the_next_one(bench: PriceTable) -> None:
    """The strongest cell uses a larger share of the first budget, which no cell can exceed, than of the second."""
    weights = np.full(BENCH.mask.shape, 0.1)
    weights[..., BENCH.columns["nor_conv_1x1"]] = 0.6
    most = bench.exact(
        discretize(BENCH, np.where(np.arange(5) == BENCH.columns["nor_conv_3x3"], 0.9, 0.1) + 0 * weights)
    )
    limits = {"activations": most["activations"] + 1.0, "macs": 0.5 * most["macs"]}
    budgets = budgets_on(bench, limits)
    strongest = bench.exact(discretize_exactly(BENCH, weights, budgets, 3)[0].genotype)
    shares = {name: strongest[name] / limit for name, limit in limits.items()}
    assert shares["activations"] > shares["macs"]
    within, remark = spent(BENCH, weights, budgets, rule(limits, cap=3))
    assert set(floors(within)) == {"macs"}
    loose = {name: 2.0 * most[name] for name in limits}
    within, remark = spent(BENCH, weights, budgets_on(bench, loose), rule(loose, cap=3))
    assert floors(within) == {} and "activations <= " in remark and "macs <= " in remark


def test_candidates_dropped_in_earlier_stages_do_not_remove_the_lower_bound(table: PriceTable) -> None:
    only_pools = prune(DARTS, favouring("max_pool_3x3", "avg_pool_3x3"), 2)
    limits = {"params": 3e6}
    within, remark = spent(only_pools, favouring("max_pool_3x3"), budgets_on(table, limits), rule(limits))
    assert floors(within) == {"params": 1_350_000} and "the lower bound is now 45 %." in remark  # all have 1,370,134


def test_the_lower_bound_falls_in_steps_until_a_cell_meets_it(bench: PriceTable) -> None:
    """Cells of NAS-Bench-201 have 28 different numbers of parameters, none of them between 886,426 and 1,045,466."""
    weights = np.full(BENCH.mask.shape, 0.2)
    for limit, share, words in (
        (
            1_000_000.0,
            0.85,
            "no cell was found that uses at least 90 % of the params budget; the lower bound is now 85 %.",
        ),
        (
            1_040_000.0,
            0.85,
            "no cell was found that uses at least 90 % of the params budget; the lower bound is now 85 %.",
        ),
        (984_917.0, 0.9, ""),  # at least 886,425.3 parameters
    ):
        limits = {"params": limit}
        within, remark = spent(BENCH, weights, budgets_on(bench, limits), rule(limits, cap=3))
        assert floors(within) == {"params": np.ceil(share * limit)} and remark.startswith(words)
        assert bool(remark) == (share < 0.9) and feasible(BENCH, within, 3)
    limits = {"params": 1_000_000.0}
    within, remark = spent(BENCH, weights, budgets_on(bench, limits), rule(limits, share=1.0, cap=3))
    assert floors(within) == {"params": 850_000}
    assert remark == ("no cell was found that uses at least 100 % of the params budget; the lower bound is now 85 %.")


def test_the_lower_bound_falls_to_zero_if_every_cell_is_free(bench: PriceTable) -> None:
    """Only skips are left, and the fixed parts cost nothing."""
    mask = np.broadcast_to([name == "skip_connect" for name in BENCH.primitives], BENCH.mask.shape)
    budgets = budgets_on(bench, {"params": 3e5})
    assert budgets is not None
    free = replace(budgets, fixed=np.zeros(1))
    within, remark = spent(BENCH.narrowed(mask), mask / 1, free, rule({"params": 3e5}, share=0.93, cap=None))
    assert floors(within) == {"params": 0} and "the lower bound is now 0 %." in remark


def test_the_lower_bound_on_energy_is_not_rounded(table: PriceTable) -> None:
    """Only resources that are counted in whole numbers have whole bounds."""
    limits = {"energy": 0.004}
    weights = favouring("skip_connect", "sep_conv_3x3")
    within, remark = spent(DARTS, weights, budgets_on(table, limits), rule(limits))
    assert remark == "" and floors(within) == {"energy": 0.9 * 0.004}
    found = derive(DARTS, weights, table, rule(limits), {})
    assert 0.9 <= found.used["energy"] <= 1


def test_budgets_that_no_cell_meets_are_refused(table: PriceTable) -> None:
    limits = {"params": 1e6}
    with pytest.raises(Infeasible, match="meets params <= 1,000,000: the cheapest has 1,370,134"):
        spent(DARTS, favouring("skip_connect"), budgets_on(table, limits), rule(limits))


def test_two_budgets_are_decided_quickly(table: PriceTable) -> None:
    """For budgets that nearly exclude each other, a proof may take minutes; derivation does not wait for it."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        weights = rng.dirichlet(np.full(8, rng.choice([0.3, 1, 5])), DARTS.mask.shape[:2])
        params = rng.uniform(1.8e6, 3.6e6)
        limits = {"params": params, "macs": params * 155 * rng.uniform(0.85, 1.2)}
        found = derive(DARTS, weights, table, rule(limits), {})
        share = max(found.used.values())
        assert share <= 1 and (share >= 0.9 or found.remark)
    # No cell within this many MACs has more than 2,622,070 parameters, but this is not proved here, so the bound remains.
    limits = {"params": 2.625e6, "macs": 400e6}
    held = Rule("exact", 2, limits, {"params": 0.9})
    assert spent(DARTS, favouring("sep_conv_5x5"), budgets_on(table, limits), held)[1] == ""
    over = budgets_on(table, {"params": 3e6, "macs": 400e6}, floors={"params": 2_625_001})
    assert exists(DARTS, over, 2) is None


# --- derivation with a lower bound -------------------------------------------------------------------------------


def test_every_derived_genotype_is_in_the_band_and_the_best_comes_first(table: PriceTable) -> None:
    rng = np.random.default_rng(0)
    weights, limits = rng.dirichlet(np.ones(8), DARTS.mask.shape[:2]), {"params": 3e6}
    found = derive(DARTS, weights, table, rule(limits), {"seed": 1}, count=6)
    scores = [candidate.score for candidate in found.candidates]
    assert len(scores) == 6 and scores == sorted(scores, reverse=True)
    assert all(2.7e6 <= candidate.genotype.costs["params"] <= 3e6 for candidate in found.candidates)
    assert "params at least 2,700,000 and at most 3,000,000" in found.rule == found.genotype.provenance["rule"]
    assert found.used == {"params": found.genotype.costs["params"] / 3e6} and found.remark == ""
    assert f"{100 * found.used['params']:.1f} % of the params budget (3,000,000) is used" in found.describe()
    free = derive(DARTS, weights, table, replace(rule(limits), spend={}), {})
    assert free.candidates[0].score >= scores[0]
    drawn = [random_genotype(DARTS, rng) for _ in range(300)]
    within = [one for one in drawn if 2.7e6 <= table.exact(one)["params"] <= 3e6]
    logs = [np.log(weights[one_hot(DARTS, one) > 0]).sum() for one in within]
    assert len(within) > 20 and max(logs) < scores[0]


def test_a_derivation_includes_the_remark_on_its_lower_bound(table: PriceTable) -> None:
    limits = {"params": 9e6}
    found = derive(DARTS, favouring("sep_conv_3x3"), table, rule(limits), {})
    assert "the most expensive cell meets params <= 9,000,000" in found.remark
    assert found.describe().endswith(found.remark)
    assert "at least" not in found.rule


@pytest.mark.parametrize("share", [0.9, pytest.param(1.0, marks=pytest.mark.proof)])
def test_a_genotype_that_uses_the_budget_remains_through_three_stages(share: float, table: PriceTable) -> None:
    """The weights favour cheap primitives and the budget is near the maximum: the plain rule drops all expensive primitives."""
    limits, weights = {"params": 4.5e6}, favouring("skip_connect", "max_pool_3x3", "avg_pool_3x3")
    space, cheap, budgets = DARTS, DARTS, budgets_on(table, limits)
    mixture = uniform_mixing(DARTS.mask).weights.numpy()
    for keep in (8, 5, 3):
        within, _ = spent(space, mixture, budgets, rule(limits, share))
        space = prune(space, mixture, keep, within, 2)
        assert all(len(names) == keep for kind in space.candidates for names in kind)
        cheap = prune(cheap, mixture, keep, budgets, 2)
        mixture = weights
    found = derive(space, weights, table, rule(limits, share), {})
    assert found.used["params"] > 0.9 and found.used["params"] <= 1
    # Without the lower bound, no such genotype remains.
    assert derive(cheap, weights, table, rule(limits, share), {}).used["params"] < 0.9


def test_a_budget_that_only_cells_with_other_skip_only_paths_can_exceed_still_binds(
    bench: PriceTable,
) -> None:
    """The budget is the cost of five 3x3 convolutions and a 1x1; the condition requires a skip, so only 0.98 of it can be used."""
    space = BENCH.with_skip_paths("one")
    names = ["nor_conv_3x3"] * 5 + ["nor_conv_1x1"]
    most = sum(bench.prices[bench.row("macs"), 0, edge, BENCH.columns[name]] for edge, name in enumerate(names))
    limits = {"macs": float(bench.fixed[bench.row("macs")] + most)}
    weights = np.full(space.mask.shape, 0.1)
    weights[..., space.columns["avg_pool_3x3"]] = 0.6
    budgets = budgets_on(bench, limits)
    within, remark = spent(space, weights, budgets, rule(limits, cap=3))
    assert floors(within) == {"macs": np.ceil(0.9 * limits["macs"])} and not remark
    best = discretize_exactly(space, weights, within, 3)[0].genotype
    assert best.to_nasbench201().count("nor_conv_3x3") == 5 and best.to_nasbench201().count("skip_connect") == 1
