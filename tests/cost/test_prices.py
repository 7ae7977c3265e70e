"""Tests of prices and budgets from settings: custom hardware, budgets that cannot be met, and the width of a network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rapdarts.architecture.genotype import one_hot, random_genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import RULES, BudgetConfig, SearchConfig, budget_limits
from rapdarts.config.hardware import HardwareConfig
from rapdarts.cost.count import count_derived
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.cost.prices import prices, read_hardware
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from rapdarts.strategy.budgets import budgets_on, check_budgets, widest
from rapdarts.strategy.derive import derive, where_infeasible
from rapdarts.strategy.exact import cheapest
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.rule import Rule, rule_of
from rapdarts.strategy.smaller_skeletons import largest, remedy

DARTS = named_space("darts")
SMALL = Skeleton(4, 8, (3, 8, 8), 10)
FULL = Skeleton(20, 36, (3, 32, 32), 10)
FLOOR = 1_370_134
"""Parameters of the cheapest network of the darts space at the skeleton FULL."""


def with_budgets(**budgets: float) -> SearchConfig:
    return SearchConfig(budget=BudgetConfig(**budgets))


def check(settings: SearchConfig, space: SearchSpace, skeleton: Skeleton) -> None:
    check_budgets(settings, prices(settings, space, skeleton))


def test_precision_scales_bytes_and_traffic() -> None:
    genotype = random_genotype(DARTS, np.random.default_rng(0))
    whole = prices(SearchConfig(), DARTS, SMALL).exact(genotype)
    for bits in (16, 8):
        cost = prices(SearchConfig(precision=bits), DARTS, SMALL).exact(genotype)
        assert (cost["macs"], cost["params"]) == (whole["macs"], whole["params"])
        assert (cost["bytes"], cost["traffic"]) == (whole["bytes"] * bits // 32, whole["traffic"] * bits // 32)
        mac = {16: 1.5e-12, 8: 0.23e-12}[bits]
        assert cost["energy"] == pytest.approx(mac * cost["macs"] + 640e-12 * bits / 32 * cost["params"], rel=1e-12)


def test_custom_hardware(tmp_path: Path) -> None:
    file = tmp_path / "phone.yaml"
    file.write_text("name: phone\nmac_32: 1.0\ndram_32: 100\n")
    genotype = random_genotype(DARTS, np.random.default_rng(0))
    cost = prices(SearchConfig(hardware=str(file)), DARTS, SMALL).exact(genotype)
    assert cost["energy"] == pytest.approx(1e-12 * cost["macs"] + 100e-12 * cost["params"], rel=1e-12)
    file.write_text("mac_32: 1.0\n")
    assert read_hardware(str(file)).name == "phone"  # the name comes from the file, not from the default hardware


def test_the_built_in_hardware_has_the_name_that_is_printed_with_energies() -> None:
    assert read_hardware("horowitz_45nm") == read_hardware("") == HardwareConfig()
    genotype = random_genotype(DARTS, np.random.default_rng(0))
    named, default = (
        prices(SearchConfig(hardware=name), DARTS, SMALL).exact(genotype) for name in ("horowitz_45nm", "")
    )
    assert named == default


@pytest.mark.parametrize(
    "text, words",
    [
        ("mac_64: 1.0\n", "there is no key 'mac_64'"),
        ("mac_32: -1\n", "mac_32=-1.0 is out of range"),
        ("mac_32: fast\n", "mac_32 takes a number"),
        ("[1, 2]\n", "must contain keys with values, such as mac_32: 4.6"),
    ],
)
def test_invalid_hardware_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "phone.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="phone.yaml.*" + words):
        read_hardware(str(file))
    with pytest.raises(InputError, match="cannot be read"):
        read_hardware(str(tmp_path / "nowhere.yaml"))


def test_budgets_below_the_floor_are_refused() -> None:
    check(with_budgets(params=FLOOR), DARTS, FULL)
    with pytest.raises(InputError) as error:
        check(with_budgets(params=FLOOR - 1), DARTS, FULL)
    words = str(error.value)
    assert "params <= 1,370,133: the cheapest has 1,370,134" in words
    channels, layers = (
        int(words.split(f"skeleton.{name}=")[1].split()[0].rstrip(".")) for name in ("channels", "layers")
    )
    assert (channels, layers) == (35, 19)
    check(with_budgets(params=FLOOR - 1), DARTS, replace(FULL, channels=channels))
    check(with_budgets(params=FLOOR - 1), DARTS, replace(FULL, layers=layers))


def test_contradicting_budgets_are_refused() -> None:
    """Each budget alone can be met, but not both: the cell with the least traffic has skips of stride 2, which cost MACs."""
    skeleton = Skeleton(4, 8, (3, 32, 32), 10)
    budgets = budgets_on(prices(SearchConfig(), DARTS, skeleton), {"macs": 1.0, "traffic": 1.0})
    assert budgets is not None
    least = {
        name: int(budgets.costs(one_hot(DARTS, cheapest(DARTS, budgets, name, 2)))[name]) for name in budgets.names
    }
    for name, floor in least.items():
        check(with_budgets(**{name: floor}), DARTS, skeleton)
    with pytest.raises(InputError) as error:
        check(with_budgets(**least), DARTS, skeleton)
    assert "the cheapest in macs within the other budgets has " in str(error.value)
    assert "the cheapest in traffic within the other budgets has " in str(error.value)


def test_a_latency_budget_needs_a_latency_table() -> None:
    with pytest.raises(InputError, match="needs a table from rapdarts measure; pass it with latency=FILE"):
        budgets_on(prices(SearchConfig(), DARTS, SMALL), {"latency": 0.005})


def test_settings_without_budgets_are_accepted() -> None:
    assert budget_limits(BudgetConfig()) == {}
    assert budgets_on(prices(SearchConfig(), DARTS, SMALL), {}) is None
    check(SearchConfig(), DARTS, SMALL)


@pytest.mark.parametrize(
    "low, high, most, found",
    [(2, 100, 37, 37), (2, 100, 100, 100), (2, 100, 2, 2), (2, 9, 50, 9), (2, 100, 1, None), (5, 4, 9, None)],
)
def test_largest(low: int, high: int, most: int, found: int | None) -> None:
    tried: list[int] = []

    def fits(value: int) -> bool:
        tried.append(value)
        return value <= most

    assert largest(fits, low, high) == found
    assert all(low <= value <= high for value in tried) and len(tried) <= 16


def test_the_mean_cell_fits_the_budgets_at_the_widest_network() -> None:
    settings, shallow = with_budgets(params=150e3, macs=1e9), replace(FULL, layers=5)
    channels = widest(settings, DARTS, replace(shallow, channels=2))
    mean = {}
    for width in (channels, channels + 1):
        table = prices(settings, DARTS, replace(shallow, channels=width))
        mean[width] = table.expected(uniform_mixing(DARTS.mask))[table.row("params")].item()
    assert mean[channels] <= 150e3 < mean[channels + 1]

    # No width meets this budget; the narrowest is returned, and `check_budgets` rejects the budget.
    assert widest(with_budgets(params=1e3), DARTS, replace(shallow, channels=2)) == 2


def test_the_width_admits_a_cell_within_the_cap_on_skips() -> None:
    """Skips are free and separable convolutions expensive, so the mean also fits at widths where no cell without skips does."""
    space = DARTS.only(["skip_connect", "sep_conv_5x5"])
    settings = replace(with_budgets(params=2e6), max_skips=0)
    channels = widest(settings, space, replace(FULL, layers=12, channels=2))
    check(settings, space, replace(FULL, layers=12, channels=channels))


@pytest.mark.parametrize("name", ["darts", pytest.param("filters", marks=pytest.mark.proof), "nasbench201"])
def test_a_refusal_names_the_floor_and_skeletons_that_fit(name: str) -> None:
    space, skeleton = named_space(name), Skeleton(6, 8, (3, 8, 8), 10)
    floor = int(sum(prices(SearchConfig(), space, skeleton).fixed[1:2]))  # the fixed params: pools and none are free
    check(with_budgets(params=floor), space, skeleton)
    with pytest.raises(InputError, match=f"the cheapest has {floor:,}; raise the budget, or set skeleton.channels="):
        check(with_budgets(params=floor - 1), space, skeleton)
    fewest = "3 layers" if space.inputs == 1 else "1 layer"
    with pytest.raises(
        InputError, match=f"; smaller networks, down to 2 channels x {fewest} with either stem, do not meet it"
    ):
        check(with_budgets(params=1.0), space, skeleton)


def test_advice_combines_width_depth_and_stem() -> None:
    """Changes of one size or the stem alone are offered if they suffice, else the smallest of several together."""
    skeleton = Skeleton(6, 16, (3, 32, 32), 10)

    def advice(**limits: float) -> str:
        with pytest.raises(InputError) as error:
            check(with_budgets(**limits), DARTS, skeleton)
        return str(error.value).split("or set ")[1].rstrip(".")

    def least(smaller: Skeleton) -> float:
        table = prices(SearchConfig(), DARTS, smaller)
        budgets = budgets_on(table, {"macs": 1.0})
        assert budgets is not None
        return table.exact(cheapest(DARTS, budgets, "macs", 2))["macs"]

    for words in advice(macs=1.5e6).split(" or "):
        assert least(changed(skeleton, words)) <= 1.5e6 < least(skeleton)
    assert "skeleton.stem=imagenet" in advice(macs=400e3).split(" or ")
    together = changed(skeleton, advice(macs=250e3))
    assert least(together) <= 250e3
    assert together.stem == "imagenet"
    wider = replace(together, channels=together.channels + 1)
    assert least(wider) > 250e3


@pytest.mark.parametrize(
    "limit, share, offered",
    [
        (3000, 0.2, "skeleton.channels=12 or skeleton.layers=2"),
        (900, 0.2, "skeleton.channels=6"),
        (900, 0.01, "skeleton.channels=6 or skeleton.stem=imagenet"),
        (60, 0.2, "skeleton.channels=4 skeleton.layers=18 skeleton.stem=imagenet"),
        (60, 0.9, "skeleton.channels=2 skeleton.layers=15"),
        (36, 0.2, "skeleton.channels=3 skeleton.stem=imagenet"),
        (30, 0.2, "skeleton.channels=3 skeleton.layers=16 skeleton.stem=imagenet"),
        (0.5, 0.2, ""),
    ],
)
def test_advice_is_the_smallest_change_of_the_fewest_keys(limit: float, share: float, offered: str) -> None:
    """Every single key that suffices is offered, even if a combination (900: 15 channels) has fewer halvings; few prices are computed."""
    skeleton, stems, tried = FULL, {"cifar": 1.0, "imagenet": share}, []

    def fits(smaller: Skeleton) -> bool:
        tried.append(smaller)
        return smaller.layers * smaller.channels**2 * stems[smaller.stem] <= limit

    words = remedy(skeleton, DARTS, fits)
    assert words.partition("or set ")[2] == offered
    assert len(tried) <= 60

    def halvings(smaller: Skeleton) -> float:
        return np.log2(36 / smaller.channels * 20 / smaller.layers) + (smaller.stem == "imagenet")

    every = [
        replace(skeleton, channels=width, layers=depth, stem=stem)
        for width in range(2, 37)
        for depth in range(1, 21)
        for stem in stems
        if fits(replace(skeleton, channels=width, layers=depth, stem=stem))
    ]
    alone = [
        [one for one in every if one == replace(skeleton, **{key: getattr(one, key)})]
        for key in ("channels", "layers", "stem")
    ]
    expected = [min(found, key=halvings) for found in alone if found] or sorted(every, key=halvings)[:1]
    meant = [changed(skeleton, alternative) for alternative in filter(None, offered.split(" or "))]
    assert all(map(fits, meant))
    assert [halvings(one) for one in meant] == pytest.approx([halvings(one) for one in expected])


def changed(skeleton: Skeleton, words: str) -> Skeleton:
    """Return a skeleton with the changes of an advice, such as skeleton.channels=12 skeleton.stem=imagenet."""
    pairs = [word.removeprefix("skeleton.").split("=") for word in words.split()]
    return replace(skeleton, **{name: value if name == "stem" else int(value) for name, value in pairs})


def test_energy_meets_its_budget_exactly() -> None:
    """The table's sum and the count of the network differ in their last digit; neither exceeds the budget."""
    table = prices(SearchConfig(), DARTS, SMALL)
    rng = np.random.default_rng(0)
    for _ in range(20):
        witness = table.exact(random_genotype(DARTS, rng))["energy"]
        limits = {"energy": witness * (1 + 1e-9)}
        found = derive(DARTS, rng.dirichlet(np.ones(8), DARTS.mask.shape[:2]), table, Rule("pdarts", 2, limits), {})
        assert found.genotype.costs["energy"] <= limits["energy"]
        assert count_derived(found.genotype, DARTS, SMALL)["energy"] <= limits["energy"]


def test_the_rule_decides_the_cap_on_skips() -> None:
    caps = {name: rule_of(SearchConfig(rule=name, max_skips=3), DARTS).max_skips for name in RULES}
    assert caps == {"auto": 3, "pdarts": 3, "darts": None, "exact": 3}


def favouring_expensive(first: str) -> np.ndarray:
    """Return weights that favour expensive primitives, most of all the primitive `first`."""
    weights = np.full(DARTS.mask.shape, 0.001)
    for name, weight in (("dil_conv_5x5", 0.15), ("sep_conv_3x3", 0.2), ("dil_conv_3x3", 0.1), (first, 0.5)):
        weights[..., DARTS.columns[name]] = weight
    return weights / weights.sum(-1, keepdims=True)


def test_a_budget_just_above_the_floor_survives_three_stages() -> None:
    """Weights favour the most expensive cell, but only the cheapest cells meet the budget; one of them is still derived."""
    table = prices(SearchConfig(), DARTS, FULL)
    limits = {"params": FLOOR + 10_000.0}
    budgets, space, weights = budgets_on(table, limits), DARTS, favouring_expensive("sep_conv_5x5")
    for keep in (8, 5, 3):
        space = prune(space, weights, keep, budgets, 2)
        assert all(len(names) == keep for kind in space.candidates for names in kind)
    derivation = derive(space, weights, table, Rule("pdarts", 2, limits), {})
    assert FLOOR <= derivation.genotype.costs["params"] <= limits["params"]
    assert derivation.used["params"] <= 1
    plain = prune(prune(DARTS, weights, 5), weights, 3)  # pruning without budgets leaves nothing cheap enough
    with pytest.raises(InputError):
        derive(plain, weights, table, Rule("pdarts", 2, limits), {})


def test_genotypes_are_sorted_by_score_and_all_meet_the_budget() -> None:
    table, rng = prices(SearchConfig(), DARTS, SMALL), np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(8), DARTS.mask.shape[:2])
    limit = np.median([table.exact(random_genotype(DARTS, rng))["params"] for _ in range(100)])
    derivation = derive(DARTS, weights, table, Rule("pdarts", 1, {"params": limit}), {"seed": 0}, count=4)
    scores = [candidate.score for candidate in derivation.candidates]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert all(candidate.genotype.costs["params"] <= limit for candidate in derivation.candidates)
    assert derivation.genotype == derivation.candidates[0].genotype
    assert "params at most" in derivation.rule and "at most 1 skip in" in derivation.rule
    assert derivation.genotype.provenance == {"seed": 0, "rule": derivation.rule}
    free = derive(DARTS, weights, table, Rule("darts"), {}, count=2)
    assert free.genotype.cells == derive(DARTS, weights, table, Rule("darts"), {}).genotype.cells


@pytest.mark.parametrize("params", [2e6, 1e6])
def test_a_refused_derivation_names_the_lowest_costs_of_the_run_and_the_space(params: float) -> None:
    table = prices(SearchConfig(), DARTS, FULL)
    left = prune(prune(DARTS, favouring_expensive("sep_conv_5x5"), 5), favouring_expensive("sep_conv_5x5"), 1)
    limits = {"params": params}
    with pytest.raises(InputError) as error, where_infeasible(DARTS, left, table, Rule("pdarts", 2, limits)):
        derive(left, favouring_expensive("sep_conv_5x5"), table, Rule("pdarts", 2, limits), {})
    again = ", or run a new search with this budget" if params > FLOOR else ""
    assert str(error.value) == (
        f"no genotype of the remaining candidates meets params <= {params:,.0f} with at most 2 skips in its normal cell:"
        f" the lowest cost is 5,144,086 params ({FLOOR:,} params in the full space); raise the budget{again}."
    )


def test_a_cap_on_skips_that_cannot_be_met_is_reported_without_budgets() -> None:
    table = prices(SearchConfig(), DARTS, SMALL)
    mask, weights, limits = DARTS.mask, uniform_mixing(DARTS.mask).weights.numpy(), {"params": 1.0, "macs": 1.0}
    mask[..., [column for name, column in DARTS.columns.items() if name != "skip_connect"]] = False
    left = DARTS.narrowed(mask)
    with pytest.raises(InputError, match="with at most 2 skips in its normal cell is left in the space darts"):
        with where_infeasible(DARTS, left, table, Rule("pdarts", 2, limits)):
            derive(left, weights, table, Rule("pdarts", 2, limits), {})
    with pytest.raises(InputError) as error, where_infeasible(DARTS, left, table, Rule("darts", None, limits)):
        derive(left, weights, table, Rule("darts", None, limits), {})
    assert re.search(
        r"no genotype of the remaining candidates meets params <= 1 and macs <= 1: the lowest cost is [\d,]+ params or"
        r" [\d,]+ macs \([\d,]+ params or [\d,]+ macs in the full space\), each resource minimised alone; raise the budget\.$",
        str(error.value),
    )
