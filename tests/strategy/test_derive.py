"""Derivations by the plain rule, by the exact rule that replaces it where needed, and from several replicas."""

from __future__ import annotations

import numpy as np
import pytest

from rapdarts.architecture.genotype import Genotype, one_hot
from rapdarts.architecture.space import Skeleton
from rapdarts.config.resources import costs_line
from rapdarts.cost.count import count_derived
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.derive import derive, derive_jointly
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.exact import discretize_exactly
from rapdarts.strategy.paths import connected
from rapdarts.strategy.replicas import mean_weights
from rapdarts.strategy.rule import Rule

DARTS, BENCH = named_space("darts"), named_space("nasbench201")


@pytest.fixture(scope="module")
def bench() -> PriceTable:
    return price_table(BENCH, Skeleton(3, 4, (3, 8, 8), 10))


@pytest.fixture(scope="module")
def darts() -> PriceTable:
    return price_table(DARTS, Skeleton(3, 4, (1, 8, 8), 10))


def joined(genotype: Genotype) -> bool:
    return connected(BENCH, one_hot(BENCH, genotype) > 0)


def test_a_plain_rule_never_derives_a_disconnected_cell(bench: PriceTable) -> None:
    """The exact rule replaces a plain rule that would leave the output disconnected; otherwise the plain rule is used."""
    rng, counts = np.random.default_rng(0), {True: 0, False: 0}
    for trial in range(60):
        weights = rng.random(BENCH.mask.shape)
        weights[..., BENCH.columns["none"]] *= 3
        rule = (Rule("darts"), Rule("pdarts", 1))[trial % 2]
        found = derive(BENCH, weights, bench, rule, {})
        plain = discretize(BENCH, weights, rule.max_skips)
        counts[joined(plain)] += 1
        assert joined(found.genotype)
        assert all(joined(candidate.genotype) for candidate in found.candidates)
        if joined(plain):
            assert found.genotype.cells == plain.cells and found.rule.startswith("the strongest primitive on each edge")
        else:
            (best,) = discretize_exactly(BENCH, weights, None, rule.max_skips)
            assert found.genotype.cells == best.genotype.cells
            assert found.rule.startswith("the cells with the largest product of mixing weights")
            assert found.rule == found.genotype.provenance["rule"]
    assert min(counts.values()) > 10


def test_the_plain_rule_is_used_if_none_may_not_be_derived(bench: PriceTable) -> None:
    space = BENCH.deriving_none(False)
    weights = np.full(BENCH.mask.shape, 0.1)
    weights[..., BENCH.columns["none"]] = 0.9
    assert derive(BENCH, weights, bench, Rule("darts"), {}).genotype.line.count("none") == 5  # one edge is left
    found = derive(space, weights, price_table(space, bench.skeleton), Rule("darts"), {})
    assert found.genotype.line.count("none") == 0 and found.rule.startswith(
        "the strongest primitive except none on each edge"
    )
    assert found.genotype.line.count("skip_connect") == 6  # the lowest of equally strong primitives
    capped = derive(space, weights, price_table(space, bench.skeleton), Rule("pdarts", 3), {})
    assert capped.genotype.line.count("skip_connect") == 3


def test_one_replica_gives_the_genotype_of_a_single_search(darts: PriceTable) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(8), DARTS.mask.shape[:2])
    alone = derive_jointly(DARTS, [weights], darts, Rule("pdarts", 2), {"seed": 0}, 1, 25)
    assert alone.agreement is None
    assert alone.genotype == derive(DARTS, weights, darts, Rule("pdarts", 2), {"seed": 0}).genotype
    assert "replicas" not in alone.describe()


def test_the_peak_memory_is_printed_after_the_other_costs(darts: PriceTable) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(8), DARTS.mask.shape[:2])
    found = derive(DARTS, weights, darts, Rule("exact"), {}, count=2)
    lines = found.describe(2).splitlines()
    peak = count_derived(found.genotype, DARTS, darts.skeleton)["peak_memory"]
    assert lines[2] == f"   {costs_line(found.costs)}  peak_memory {peak:,} B"
    assert lines[4] == f"   {costs_line(found.candidates[1].genotype.costs)}"
    assert "peak_memory" not in found.costs and "peak_memory" not in found.genotype.costs


@pytest.mark.parametrize("limits", [pytest.param({}, marks=pytest.mark.proof), {"params": 12_000.0}])
def test_the_genotype_of_replicas_is_derived_from_their_mean(limits: dict[str, float], darts: PriceTable) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.dirichlet(np.ones(8), DARTS.mask.shape[:2]) for _ in range(3)]
    rule = Rule("pdarts", 2, limits, dict.fromkeys(limits, 0.9))
    found = derive_jointly(DARTS, weights, darts, rule, {}, 1, 25)
    assert found.genotype == derive(DARTS, mean_weights(weights), darts, rule, {}).genotype
    alone = [one_hot(DARTS, derive(DARTS, one, darts, rule, {}).genotype) for one in weights]
    assert found.agreement is not None and (found.agreement.replicas, found.agreement.choices) == (3, 16)
    shared = np.mean([(alone[one] * alone[other]).sum() for one, other in ((0, 1), (0, 2), (1, 2))])
    assert found.agreement.same == pytest.approx(shared)
    assert found.describe().endswith(found.agreement.words(25)) and "search.epochs=75" in found.describe()
    assert all(0.9 <= share <= 1 for share in found.used.values())
    same = derive_jointly(DARTS, [weights[0]] * 3, darts, rule, {}, 1, 25)
    assert same.agreement is not None and not same.agreement.mostly_noise and "mostly noise" not in same.describe()
    assert same.genotype.cells == derive(DARTS, weights[0], darts, rule, {}).genotype.cells


def test_fewer_genotypes_than_requested_are_reported(bench: PriceTable) -> None:
    """If only two genotypes are left, a user should know how few there were to choose from."""
    mask = np.zeros_like(BENCH.mask)
    mask[..., BENCH.columns["nor_conv_3x3"]] = True
    mask[0, 3] = False
    mask[0, 3, BENCH.columns["skip_connect"]] = True
    mask[0, 5, BENCH.columns["nor_conv_1x1"]] = True
    space, weights = BENCH.narrowed(mask), np.full(BENCH.mask.shape, 0.2)
    assert derive(space, weights, bench, Rule("exact"), {}, count=2).remark == ""
    found = derive(space, weights, bench, Rule("exact"), {}, count=3)
    assert found.remarks == ["only 2 genotypes meet these conditions."] and len(found.candidates) == 2
    assert found.describe(3).endswith("\nonly 2 genotypes meet these conditions.")
