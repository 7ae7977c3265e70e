"""Tests of the differentiable penalty: its unit, its multipliers, and its invariances."""

from __future__ import annotations

import pytest
import torch

from rapdarts.architecture.space import Mixing, Skeleton
from rapdarts.cost.count import ADDITIVE
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.cost.penalty import Penalty, uniform_mixing
from search_spaces.darts import SPACE as DARTS
from tests.mixtures import mixing_at, random_alpha

DEPLOYMENT = Skeleton(20, 36, (3, 32, 32), 10)


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return price_table(DARTS, DEPLOYMENT)


@pytest.fixture(scope="module")
def small() -> PriceTable:
    return price_table(DARTS, Skeleton(3, 4, (3, 9, 7), 10))


@pytest.mark.parametrize("resource", ADDITIVE)
def test_coefficient_1_is_one_nat_at_uniform_mixing(table: PriceTable, resource: str) -> None:
    penalty = Penalty(table, {resource: 1.0})
    value = penalty(uniform_mixing(DARTS.mask))
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(1, abs=1e-12)
    assert Penalty(table, {resource: 0.25})(uniform_mixing(DARTS.mask)).item() == pytest.approx(0.25, abs=1e-12)


def test_penalties_add_up(table: PriceTable) -> None:
    mixing = mixing_at(random_alpha(DARTS, 1.0))
    both = Penalty(table, {"macs": 0.2, "params": 0.7})(mixing)
    apart = 0.2 * Penalty(table, {"macs": 1.0})(mixing) + 0.7 * Penalty(table, {"params": 1.0})(mixing)
    assert both.item() == pytest.approx(apart.item(), rel=1e-12)
    assert Penalty(table, {})(mixing).item() == 0


def test_penalty_is_expected_cost_divided_by_its_reference(table: PriceTable) -> None:
    floor = torch.zeros(DARTS.mask.shape, dtype=torch.float64)
    floor[..., 1] = 1  # max_pool_3x3
    assert Penalty(table, {"macs": 1.0})(Mixing(floor)).item() == pytest.approx(227.27232 / 459.566, rel=1e-5)


def test_reference_is_that_of_the_full_space_in_every_stage(table: PriceTable) -> None:
    """A later stage, with fewer open candidates, has the same unit."""
    mask = DARTS.mask.copy()
    mask[..., 4:6] = False  # no separable convolutions
    cheap = Penalty(table, {"macs": 1.0})(uniform_mixing(mask)).item()
    narrowed = PriceTable(DARTS.only(list(DARTS.primitives)), DEPLOYMENT, table.resources, table.fixed, table.prices)
    assert Penalty(narrowed, {"macs": 1.0})(uniform_mixing(mask)).item() == cheap < 0.8


def test_penalty_does_not_depend_on_skeleton_or_unit(table: PriceTable, small: PriceTable) -> None:
    """The uniform mixture has penalty 1 at any skeleton, and costs in another unit give the same penalty."""
    mixing = mixing_at(random_alpha(DARTS, 1.0))
    assert Penalty(small, {"macs": 1.0})(uniform_mixing(DARTS.mask)).item() == pytest.approx(1, abs=1e-12)
    thousandth = PriceTable(DARTS, DEPLOYMENT, table.resources, table.fixed / 1000, table.prices / 1000)
    expected = Penalty(table, {"macs": 1.0})(mixing).item()
    assert Penalty(thousandth, {"macs": 1.0})(mixing).item() == pytest.approx(expected, rel=1e-12)
    assert expected != pytest.approx(1, abs=1e-3)
    # Bytes are four times the parameters, so their penalties are equal.
    weights, stored = (Penalty(table, {name: 1.0})(mixing).item() for name in ("params", "bytes"))
    assert weights == pytest.approx(stored, rel=1e-12)


def test_multipliers_rise_above_a_budget_and_shrink_below_it(table: PriceTable) -> None:
    mixing = mixing_at(random_alpha(DARTS, 1.0))
    penalty = Penalty(table, {"macs": 0.1}, {"params": 2e6, "macs": 400e6}, rate=0.5)
    plain = penalty(mixing).item()
    assert plain == pytest.approx(0.1 * Penalty(table, {"macs": 1.0})(mixing).item(), rel=1e-12)

    penalty.adjust({"params": 3e6, "macs": 200e6, "bytes": 0})
    assert penalty.multipliers == {"params": pytest.approx(0.25), "macs": 0.0}  # 0.5 x (1.5 - 1); 0 stays 0
    risen = 0.25 * Penalty(table, {"params": 1.0})(mixing).item()
    assert penalty(mixing).item() == pytest.approx(plain + risen, rel=1e-12)

    resumed = Penalty(table, {"macs": 0.1}, {"params": 2e6, "macs": 400e6}, rate=0.5)
    resumed.load_state_dict(penalty.state_dict())
    assert resumed(mixing).item() == penalty(mixing).item()
    penalty.adjust({"params": 1.5e6, "macs": 400e6})
    assert penalty.multipliers == {"params": pytest.approx(0.25 * 0.75**4), "macs": 0.0}
    assert resumed.multipliers["params"] == pytest.approx(0.25)  # no state is shared


def test_a_penalty_uses_one_device(table: PriceTable) -> None:
    """All its tensors are on the given device: meta tensors cannot be combined with tensors on another device."""
    penalty = Penalty(table, {"macs": 1.0}, {"params": 2e6}, device="meta")
    mixing = Mixing(uniform_mixing(DARTS.mask).weights.to("meta"))
    assert penalty(mixing).device.type == penalty.weights.device.type == "meta"


def test_uniform_mixing_follows_the_mask() -> None:
    mask = DARTS.mask.copy()
    mask[0, 3, :6] = False
    weights = uniform_mixing(mask).weights
    assert weights.dtype == torch.float64
    assert weights[0, 3].tolist() == [0] * 6 + [0.5] * 2
    assert weights[1, 3].tolist() == [0.125] * 8


def test_peak_memory_is_computed_only_with_a_coefficient(small: PriceTable) -> None:
    mixing = uniform_mixing(DARTS.mask)
    assert Penalty(small, {"peak_memory": 0.5})(mixing).item() == pytest.approx(0.5, abs=1e-12)
    assert Penalty(small, {"macs": 1.0}).expected.peak is None
