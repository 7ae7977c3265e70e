"""Derivations: the plain rule where it may stand, the exact one where it must, and one for several replicas."""

from __future__ import annotations

import numpy as np
import pytest

from rapdarts.architecture.genotype import Genotype, one_hot
from rapdarts.architecture.space import Skeleton
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


def test_a_plain_rule_never_derives_a_cell_that_its_input_does_not_reach(bench: PriceTable) -> None:
    """It gives what the exact rule does then; otherwise it stays what it is."""
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
            assert found.genotype.cells == plain.cells and found.rule.startswith("on each edge the strongest primitive")
        else:
            (best,) = discretize_exactly(BENCH, weights, None, rule.max_skips)
            assert found.genotype.cells == best.genotype.cells
            assert found.rule.startswith("the cells of the largest product of mixing weights")
            assert found.rule == found.genotype.provenance["rule"]
    assert min(counts.values()) > 10


def test_where_none_is_not_derived_the_plain_rule_stands(bench: PriceTable) -> None:
    space = BENCH.deriving_none(False)
    weights = np.full(BENCH.mask.shape, 0.1)
    weights[..., BENCH.columns["none"]] = 0.9
    assert derive(BENCH, weights, bench, Rule("darts"), {}).genotype.line.count("none") == 5  # one edge is left
    found = derive(space, weights, price_table(space, bench.skeleton), Rule("darts"), {})
    assert found.genotype.line.count("none") == 0 and found.rule.startswith(
        "on each edge the strongest primitive but none"
    )
    assert found.genotype.line.count("skip_connect") == 6  # the lowest primitive of equals
    capped = derive(space, weights, price_table(space, bench.skeleton), Rule("pdarts", 3), {})
    assert capped.genotype.line.count("skip_connect") == 3


def test_one_replica_is_derived_from_as_ever(darts: PriceTable) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(8), DARTS.mask.shape[:2])
    alone = derive_jointly(DARTS, [weights], darts, Rule("pdarts", 2), {"seed": 0}, 1, 25)
    assert alone.agreement is None
    assert alone.genotype == derive(DARTS, weights, darts, Rule("pdarts", 2), {"seed": 0}).genotype
    assert "replicas" not in alone.describe()


@pytest.mark.parametrize("limits", [{}, {"params": 12_000.0}])
def test_several_replicas_are_derived_from_by_their_mean(limits: dict[str, float], darts: PriceTable) -> None:
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


def test_fewer_genotypes_than_asked_for_are_said(bench: PriceTable) -> None:
    """Two genotypes are left: of what is chosen between them, a search with a tight budget should not keep silent."""
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
