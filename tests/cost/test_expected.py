"""Tests of expected costs: exact for one network, the mean over draws for a mixture, and differentiable everywhere."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, one_hot, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.cost.count import ADDITIVE, count_derived
from rapdarts.cost.expected import ExpectedCost, PriceTable, draw_probabilities, price_table, siblings
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from rapdarts.networks.derived import DerivedNetwork
from tests.mixtures import mixing_at, random_alpha

SPACES = {name: named_space(name) for name in ("darts", "filters", "nasbench201")}
DARTS = SPACES["darts"]
DEPLOYMENT = Skeleton(20, 36, (3, 32, 32), 10)
SMALL = Skeleton(3, 4, (3, 9, 7), 10)
GENOTYPES = int(os.environ.get("RAPDARTS_PROOFS", "30"))
"""Number of random genotypes of each space whose costs are compared with counts; `make proofs` uses 1,000."""

COUNTED_ROWS = ("macs", "params", "bytes", "activations", "traffic")
"""Resources counted in whole numbers, which are compared for equality."""


@pytest.fixture(scope="module")
def tables() -> dict[str, PriceTable]:
    """Return the price table of each space at its deployment skeleton."""
    own = {"nasbench201": Skeleton(17, 16, (3, 32, 32), 10)}
    return {name: price_table(space, own.get(name, DEPLOYMENT)) for name, space in SPACES.items()}


@pytest.fixture(scope="module")
def table(tables: dict[str, PriceTable]) -> PriceTable:
    return tables["darts"]


@pytest.fixture(scope="module")
def small_tables() -> dict[str, PriceTable]:
    return {name: price_table(space, SMALL) for name, space in SPACES.items()}


def genotypes_of(space: SearchSpace, number: int, seed: int = 0) -> list[Genotype]:
    rng = np.random.default_rng(seed)
    return [random_genotype(space, rng) for _ in range(number)]


# --- prices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "primitive, normal, strided, inside",
    [
        ("none", (0, 0), (0, 0), (0, 0)),
        ("max_pool_3x3", (0, 0), (0, 0), (0, 0)),
        ("avg_pool_3x3", (0, 0), (0, 0), (0, 0)),
        ("skip_connect", (0, 0), (26_352, 2_654_208), (0, 0)),
        ("sep_conv_3x3", (359_856, 54_743_040), (56_592, 5_806_080), (56_592, 5_806_080)),
        ("sep_conv_5x5", (408_240, 67_129_344), (63_504, 6_690_816), (63_504, 6_690_816)),
        ("dil_conv_3x3", (179_928, 27_371_520), (28_296, 2_903_040), (28_296, 2_903_040)),
        ("dil_conv_5x5", (204_120, 33_564_672), (31_752, 3_345_408), (31_752, 3_345_408)),
    ],
)
def test_price_of_a_primitive(
    table: PriceTable, primitive: str, normal: tuple[int, int], strided: tuple[int, int], inside: tuple[int, int]
) -> None:
    column = list(DARTS.primitives).index(primitive)
    assert table.resources == (*COUNTED_ROWS, "energy")
    for edge, (_, source) in enumerate(DARTS.edges):
        for kind, (weights, macs) in enumerate([normal, strided if source < 2 else inside]):
            assert table.prices[:3, kind, edge, column].tolist() == [macs, weights, 4 * weights], (kind, edge)
    assert table.prices.dtype == table.fixed.dtype == np.float64


@pytest.mark.parametrize(
    "primitive, weights, macs",
    [
        ("max_pool_3x3", 1_370_134, 227_272_320),
        ("avg_pool_3x3", 1_370_134, 227_272_320),
        ("sep_conv_5x5", 5_144_086, 817_833_600),
        ("sep_conv_3x3", 4_701_718, 711_665_280),
        ("dil_conv_3x3", 3_035_926, 469_468_800),
        ("dil_conv_5x5", 3_257_110, 522_552_960),
        ("skip_connect", 1_580_950, 248_505_984),
    ],
)
def test_cells_of_one_primitive(table: PriceTable, primitive: str, weights: int, macs: int) -> None:
    cell = Cell(2, tuple(((primitive, 0), (primitive, 1)) for _ in range(4)), (2, 3, 4, 5))
    cost = table.exact(Genotype("darts", {"normal": cell, "reduce": cell}))
    assert (cost["macs"], cost["params"], cost["bytes"]) == (macs, weights, 4 * weights)
    assert all(type(cost[name]) is int for name in COUNTED_ROWS)
    assert cost["energy"] == pytest.approx(4.6e-12 * macs + 640e-12 * weights, rel=1e-12)


@pytest.mark.parametrize(
    "name, weights, macs",
    [
        ("DARTS_V1", 3_169_414, 500_987_520),
        ("DARTS_V2", 3_349_342, 528_359_040),
        ("PDARTS", 3_433_798, 532_174_464),
        ("PC_DARTS_cifar", 3_634_678, 556_670_592),
    ],
)
def test_literature(table: PriceTable, name: str, weights: int, macs: int) -> None:
    cost = table.exact(LITERATURE[name])
    assert (cost["macs"], cost["params"], cost["bytes"]) == (macs, weights, 4 * weights)


def test_genotypes_without_prices_are_refused(table: PriceTable) -> None:
    cells = LITERATURE["PDARTS"].cells
    narrow = Genotype("darts", {**cells, "normal": Cell(2, cells["normal"].nodes, (3, 4, 5))})
    with pytest.raises(InputError, match="normal concatenates 3 of 4 nodes"):
        table.exact(narrow)
    with pytest.raises(InputError, match="5 nodes; the space darts has 4"):
        table.exact(LITERATURE["NASNet"])
    with pytest.raises(InputError, match="cell normal, node 1 has 1 edge, but mixing weights need"):
        table.exact(LITERATURE["FairDARTS_b"])


def test_any_additive_resource_can_be_priced() -> None:

    def norms(network: nn.Module, image: tuple[int, int, int]) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())

    table = price_table(DARTS, SMALL, {"norms": norms})
    genotype = LITERATURE["PDARTS"]
    assert table.exact(genotype) == {"norms": norms(DerivedNetwork(genotype, DARTS, SMALL), SMALL.image)}


# --- one network -------------------------------------------------------------------------------------------------


def counted_by_hooks(network: DerivedNetwork, image: tuple[int, int, int]) -> dict[str, int]:
    """Return an independent count, from the output sizes of the layers in a real forward pass."""
    found = {"macs": 0, "activations": 0}

    def add(layer: nn.Module, inputs: Any, y: Tensor) -> None:
        found["macs"] += layer.weight.numel() * (y[0, 0].numel() if y.dim() == 4 else 1)
        found["activations"] += y.numel()

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(add)
    with torch.no_grad():
        network.eval()(torch.zeros(1, *image))
    weights = sum(weight.numel() for weight in network.parameters())
    return {**found, "params": weights, "bytes": 4 * weights}


@pytest.mark.parametrize("name", SPACES)
def test_exact_cost_equals_the_count_of_the_network(small_tables: dict[str, PriceTable], name: str) -> None:
    space, table = SPACES[name], small_tables[name]
    for genotype in genotypes_of(space, GENOTYPES):
        found = counted_by_hooks(DerivedNetwork(genotype, space, SMALL), SMALL.image)
        assert found.items() <= table.exact(genotype).items()


@pytest.mark.parametrize("name", SPACES)
def test_expected_cost_of_one_hot_weights_equals_the_count(small_tables: dict[str, PriceTable], name: str) -> None:
    """Whole numbers are compared for equality, energy up to rounding."""
    space, table = SPACES[name], small_tables[name]
    for genotype in genotypes_of(space, GENOTYPES, seed=1):
        counted = count_derived(genotype, space, SMALL, ADDITIVE)
        expected = table.expected(Mixing(torch.as_tensor(one_hot(space, genotype)))).tolist()
        assert expected[:5] == [counted[name] for name in COUNTED_ROWS]
        assert table.exact(genotype) == {**counted, "energy": pytest.approx(counted["energy"], rel=1e-12)}
        assert expected[5] == pytest.approx(counted["energy"], rel=1e-12)


@pytest.mark.parametrize("name", ["filters", "nasbench201"])
def test_exact_cost_equals_the_count_at_the_deployment_skeleton(tables: dict[str, PriceTable], name: str) -> None:
    """For `darts`, genotypes from the literature cover this: the tests of derived networks count them, and tests above price them."""
    space, table = SPACES[name], tables[name]
    for genotype in genotypes_of(space, 2, seed=2):
        counted = count_derived(genotype, space, table.skeleton, ADDITIVE)
        assert table.exact(genotype) == {**counted, "energy": pytest.approx(counted["energy"], rel=1e-12)}


def test_exact_cost_with_the_imagenet_stem() -> None:
    skeleton = Skeleton(4, 6, (3, 45, 70), 5, "imagenet")
    table = price_table(DARTS, skeleton)
    for genotype in genotypes_of(DARTS, 2):
        counted = count_derived(genotype, DARTS, skeleton, ADDITIVE)
        assert table.exact(genotype) == {**counted, "energy": pytest.approx(counted["energy"], rel=1e-12)}


# --- a mixture ---------------------------------------------------------------------------------------------------


def test_expected_at_uniform_mixing(table: PriceTable) -> None:
    """The plain sum over all edges is 583 M MACs, but a cell keeps only some of the edges."""
    mixing = uniform_mixing(DARTS.mask)
    macs, weights, stored = table.expected(mixing).tolist()[:3]
    assert round(macs / 1e6, 3) == 459.566
    assert round(weights / 1e6, 3) == 2.912
    assert stored == pytest.approx(4 * weights, rel=1e-12)
    plain_sum = table.fixed + (table.prices * mixing.weights.numpy()).sum((1, 2, 3))
    assert round(plain_sum[0] / 1e6) == 583


def test_costs_of_random_cells(table: PriceTable) -> None:
    """The mean cost of random cells is the uniform mixture's expected cost; MACs and parameters are almost perfectly correlated."""
    costs = [table.exact(genotype) for genotype in genotypes_of(DARTS, 2000)]
    macs, weights = (np.array([cost[name] for cost in costs]) / 1e6 for name in ("macs", "params"))
    assert np.corrcoef(macs, weights)[0, 1] > 0.99
    assert macs.std() == pytest.approx(72.8, rel=0.06)
    assert weights.std() == pytest.approx(0.459, rel=0.06)
    assert abs(macs.mean() - 459.566) < 3 * 72.8 / 2000**0.5
    assert abs(weights.mean() - 2.912) < 3 * 0.459 / 2000**0.5
    assert np.quantile(weights, [0.05, 0.95]) == pytest.approx([2.163, 3.680], abs=0.05)
    assert np.mean(weights < 3.0) == pytest.approx(0.58, abs=0.04)


def edge_weights(space: SearchSpace, deviation: float) -> Tensor:
    """Return a softmax over the edges into each node, as with edge normalisation; uniform at deviation 0."""
    torch.manual_seed(5)
    beta = deviation * torch.randn(space.mask.shape[:2], dtype=torch.float64)
    return torch.cat([torch.softmax(beta[:, space.edges_into(node)], -1) for node in range(space.nodes)], -1)


@pytest.mark.parametrize("name", SPACES)
def test_edge_weights_change_the_draws_but_not_the_cost_of_one_network(
    small_tables: dict[str, PriceTable], name: str
) -> None:
    table, space = small_tables[name], SPACES[name]
    for genotype in genotypes_of(space, 5):
        one = Mixing(torch.as_tensor(one_hot(space, genotype)), edge_weights(space, 2.0))
        exact = list(table.exact(genotype).values())
        assert table.expected(one).tolist() == pytest.approx(exact, rel=1e-12)

    plain = mixing_at(random_alpha(space, 1.0))
    uniform_edges, uneven = (
        table.expected(Mixing(plain.weights, edge_weights(space, deviation))) for deviation in (0.0, 2.0)
    )
    torch.testing.assert_close(uniform_edges, table.expected(plain), rtol=1e-12, atol=0)
    if space.keep is not None:
        assert not torch.allclose(uneven, uniform_edges, rtol=1e-3)
        by_hand = Mixing(plain.weights * edge_weights(space, 2.0)[..., None])
        torch.testing.assert_close(uneven, table.expected(by_hand), rtol=1e-12, atol=0)
    else:  # every edge is always in the cell
        torch.testing.assert_close(uneven, uniform_edges, rtol=1e-12, atol=0)


def drawn_costs(table: PriceTable, weights: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the costs (draws, resources) of cells drawn as in rapdarts.cost.expected: one edge after another, each with a primitive."""
    rng, space = np.random.default_rng(seed), table.space
    rows = np.arange(draws)

    def draw(strength: np.ndarray) -> Any:
        """Return an index for each row of (draws, n), with probability proportional to the strengths."""
        steps = np.cumsum(strength, 1)
        return (rng.random((draws, 1)) * steps[:, -1:] >= steps).sum(1)

    choosable = weights * space.choosable
    total = np.tile(table.fixed, (draws, 1))
    for kind in range(len(space.kinds)):
        for node in range(space.nodes):
            into = choosable[kind, space.edges_into(node)]
            prices = table.prices[:, kind, space.edges_into(node)]
            left = np.tile(into.sum(-1), (draws, 1))
            for _ in range(space.edges_kept(node)):
                edge = draw(left)
                left[rows, edge] = 0
                total += prices[:, edge, draw(into[edge])].T
    return total


@pytest.mark.parametrize("name, deviation", [("darts", 0.5), ("darts", 2.0), ("filters", 1.0), ("nasbench201", 1.0)])
def test_expected_cost_is_the_mean_over_draws(tables: dict[str, PriceTable], name: str, deviation: float) -> None:
    table = tables[name]
    mixing = mixing_at(random_alpha(table.space, deviation, seed=3))
    costs = drawn_costs(table, mixing.weights.numpy(), 20_000, seed=4)
    error = costs.std(0) / 20_000**0.5
    distance = np.abs(costs.mean(0) - table.expected(mixing).numpy()) / error
    assert (distance < 4).all(), distance


def test_gradient_matches_finite_differences(table: PriceTable) -> None:
    reference = table.expected(uniform_mixing(DARTS.mask))
    alpha = random_alpha(DARTS, 1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda at: table.expected(mixing_at(at)) / reference, (alpha,))
    (gradient,) = torch.autograd.grad(table.expected(mixing_at(alpha))[0], [alpha])
    both_kept = DARTS.edges_into(0)  # the weight of `none`, column 0, has no effect on them
    assert gradient[:, both_kept, 0].abs().max() < 1e-6
    gradient[:, both_kept, 0] = 1
    assert (gradient != 0).all()


def saturated(fill: Callable[[Tensor], None]) -> Tensor:
    weights = torch.zeros(DARTS.mask.shape, dtype=torch.float64)
    fill(weights)
    return weights.requires_grad_()


def one_edge_has_all_weight(weights: Tensor) -> None:
    weights[..., 0] = 1  # none, except on the first edge of each node
    for node in range(4):
        first = DARTS.edges_into(node).start
        weights[:, first] = torch.eye(8, dtype=torch.float64)[5]


def all_is_none(weights: Tensor) -> None:
    weights[..., 0] = 1


def all_is_zero(weights: Tensor) -> None:
    """Leave all weights at zero."""


@pytest.mark.parametrize("fill, edges", [(one_edge_has_all_weight, 4), (all_is_none, 0), (all_is_zero, 0)])
def test_saturated_mixing(table: PriceTable, fill: Callable[[Tensor], None], edges: int) -> None:
    """If fewer edges have weight than a node keeps, only those are drawn; cost and gradient stay finite."""
    weights = saturated(fill)
    expected = table.expected(Mixing(weights))
    assert expected[1].item() == 1_370_134 + edges * (408_240 + 63_504)
    (gradient,) = torch.autograd.grad((expected / 1e6).sum(), [weights])
    assert gradient.isfinite().all()


def test_saturated_alpha(table: PriceTable) -> None:
    """The float32 alphas are so far apart that their softmax is exactly one-hot."""
    genotype = LITERATURE["PDARTS"]
    chosen = torch.as_tensor(one_hot(DARTS, genotype))
    dropped = chosen.sum(-1) == 0
    chosen[..., 0][dropped] = 1
    alpha = (1000 * chosen).float().requires_grad_()
    expected = table.expected(mixing_at(alpha))
    assert expected.tolist() == pytest.approx(list(table.exact(genotype).values()), rel=1e-14)
    (gradient,) = torch.autograd.grad(expected.sum(), [alpha])
    assert gradient.isfinite().all()


# --- drawing edges -----------------------------------------------------------------------------------------------


def bare(**facts: Any) -> SearchSpace:
    def nothing(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Identity()

    return SearchSpace("bare", {"one": nothing}, **facts)


STRENGTHS = st.floats(0.01, 10)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 2, 3, None]), st.integers(1, 4), st.data())
def test_survival_probabilities_sum_to_the_number_of_edges_kept(
    keep: int | None, nodes: int, data: st.DataObject
) -> None:
    space = bare(nodes=nodes, keep=keep)
    shape = (2, len(space.edges))
    strength = torch.as_tensor(data.draw(arrays.arrays(np.float64, shape, elements=STRENGTHS)))
    survival = strength * draw_probabilities(space, strength, siblings(space, strength.device))
    assert (survival > 0).all() and (survival < 1 + 1e-9).all()
    for node in range(nodes):
        kept = survival[:, space.edges_into(node)].sum(-1)
        wanted = 2 + node if keep is None else min(keep, 2 + node)
        torch.testing.assert_close(kept, torch.full((2,), float(wanted), dtype=torch.float64))


@settings(deadline=None, max_examples=20)
@given(arrays.arrays(np.float64, (2, 14), elements=STRENGTHS), st.sampled_from([1, 2, 3, 4]))
def test_survival_probabilities_match_an_enumeration(strength: np.ndarray, keep: int) -> None:
    """Enumerate every order in which `keep` of the five edges into the last node can be drawn."""
    space = bare(nodes=4, keep=keep)
    expected = np.zeros((2, 5))
    for kind, q in enumerate(strength[:, -5:]):
        for order in itertools.permutations(range(5), keep):
            probability, left = 1.0, q.sum()
            for edge in order:
                probability *= q[edge] / left
                left -= q[edge]
            expected[kind, list(order)] += probability
    survival = (
        strength * draw_probabilities(space, torch.as_tensor(strength), siblings(space, torch.device("cpu"))).numpy()
    )
    np.testing.assert_allclose(survival[:, -5:], expected, rtol=1e-9)


# --- every resource ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("row, resource", list(enumerate([*ADDITIVE, "peak_memory"])))
def test_every_resource_has_a_gradient_in_alpha(name: str, row: int, resource: str) -> None:
    """For each resource in each space, d E[cost] / d alpha is not zero and matches finite differences."""
    space = SPACES[name]
    deep = Skeleton(6, 4, (3, 16, 16), 10)  # so that the peak is reached in a cell, not in the stem
    expected = ExpectedCost(price_table(space, deep), torch.device("cpu"), peak=True)
    assert expected.resources[row] == resource
    reference = expected(uniform_mixing(space.mask))[row]
    alpha = random_alpha(space, 0.5, seed=row).requires_grad_()

    def share(at: Tensor) -> Tensor:
        return expected(mixing_at(at))[row] / reference

    (gradient,) = torch.autograd.grad(share(alpha), [alpha])
    assert gradient.abs().max() > 1e-4
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(alpha.shape, generator=generator, dtype=torch.float64)
        step = 1e-5 * direction
        with torch.no_grad():
            slope = (share(alpha + step) - share(alpha - step)) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-7)
