"""Tests of counting: single layers by hand, designs of a convolution, and the cheapest and most expensive cells."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.space import Skeleton
from rapdarts.config.hardware import HardwareConfig
from rapdarts.cost.count import (
    COUNTERS,
    count,
    count_derived,
    deployment_facts,
    joules,
    macs,
    params,
    resources,
    weight_bytes,
)
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from rapdarts.networks.derived import DerivedNetwork


def conv(inputs: int, outputs: int, kernel: int | tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding="same", bias=False)


@pytest.mark.parametrize(
    "layer, image, expected",
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 7), 5 * 4 * 8 * 3 * 9),
        (nn.Conv2d(6, 6, 5, groups=6, padding=4, dilation=2), (6, 8, 8), 8 * 8 * 6 * 25),
        (nn.Conv2d(8, 4, (1, 7), groups=2, padding=(0, 3)), (8, 5, 5), 5 * 5 * 4 * 4 * 7),
        (nn.Sequential(nn.Flatten(), nn.Linear(60, 7)), (3, 4, 5), 60 * 7),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.MaxPool2d(2)), (3, 8, 8), 0),
        (nn.Identity(), (3, 8, 8), 0),
    ],
    ids=["strided", "depthwise", "grouped", "linear", "no MACs", "identity"],
)
def test_macs_by_hand(layer: nn.Module, image: tuple[int, int, int], expected: int) -> None:
    assert macs(layer, image) == expected


@pytest.mark.parametrize(
    "design, multiplications, weights, stored",
    [
        ([conv(384, 256, 3)], 149_520_384, 884_736, 3_538_944),
        ([conv(384, 256, 5)], 415_334_400, 2_457_600, 9_830_400),
        ([conv(384, 256, (3, 1)), conv(384, 256, (1, 3))], 99_680_256, 589_824, 2_359_296),
        ([conv(384, 256, (5, 1)), conv(384, 256, (1, 5))], 166_133_760, 983_040, 3_932_160),
        ([nn.Sequential(conv(384, 64, 1), conv(64, 256, 3))], 29_073_408, 172_032, 688_128),
    ],
    ids=["3x3", "5x5", "3x1 + 1x3", "5x1 + 1x5", "1x1 to 64, then 3x3"],
)
def test_filter_designs(design: list[nn.Module], multiplications: int, weights: int, stored: int) -> None:
    """Count AlexNet's fifth convolution (384x13x13 to 256 channels) in five designs, two of which have two branches."""
    counted = [count(branch, (384, 13, 13)) for branch in design]
    assert sum(branch["macs"] for branch in counted) == multiplications
    assert sum(branch["params"] for branch in counted) == weights
    assert sum(branch["bytes"] for branch in counted) == stored


def test_params_exclude_buffers() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False))
    assert params(layer, (3, 8, 8)) == 3 * 8 * 9 + 8 + 2 * 8  # no running means, variances or counters
    assert weight_bytes(layer, (3, 8, 8)) == 4 * 240
    names = ["macs", "params", "bytes", "activations", "traffic", "energy", "peak_memory"]
    assert list(COUNTERS) == list(count(layer, (3, 8, 8))) == names


@pytest.mark.parametrize("precision, pj, bytes_", [(32, 4.6, 4), (16, 1.5, 2), (8, 0.23, 1)])
def test_activations_traffic_and_energy_by_hand(precision: int, pj: float, bytes_: int) -> None:
    """Count a folded convolution, a pool and a linear layer at 45 nm: 640 pJ per 32 bits read from DRAM (Horowitz 2014)."""
    folded = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    network = nn.Sequential(*folded, nn.Flatten(), nn.Linear(36, 5))
    counted = count(network, (3, 8, 8), resources(precision))
    assert counted["macs"] == 4 * 36 * 27 + 36 * 5
    assert counted["activations"] == 4 * 36 + 5
    conv, pool, linear = 192 + 112 + 144, 144 + 36, 36 + 185 + 5
    assert counted["traffic"] == bytes_ * (conv + pool + linear)
    assert counted["params"] == 112 + 8 + 185 and counted["bytes"] == bytes_ * 305
    assert counted["energy"] == pytest.approx((4068 * pj + 305 * 640 * bytes_ / 4) * 1e-12, rel=1e-12)
    assert sum(joules(4068, 305, precision)) == counted["energy"]
    assert counted["peak_memory"] == 4 * (192 + 144)  # fp32 at any precision


def test_counting_does_not_change_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 2, 1))
    network(torch.ones(2, 3, 8, 8)).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]
    state = torch.get_rng_state()

    assert count(network, (3, 8, 8))["macs"] == 36 * 8 * 27 + 36 * 16

    assert all(module.training for module in network.modules())
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is not None for weight in network.parameters())
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), state)


def test_count_derived_leaves_out_the_auxiliary_head() -> None:
    space, skeleton = named_space("filters"), Skeleton(3, 5, (1, 9, 7), 4)
    genotype = random_genotype(space, np.random.default_rng(0))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    counted = count_derived(genotype, space, skeleton)
    assert torch.equal(torch.get_rng_state(), state)  # no weights were drawn
    assert counted == count(DerivedNetwork(genotype, space, skeleton), skeleton.image)
    assert counted == count(DerivedNetwork(genotype, space, skeleton, auxiliary=True), skeleton.image) | {
        "params": counted["params"],
        "bytes": counted["bytes"],
        "energy": counted["energy"],
    }


@pytest.mark.parametrize(
    "primitive, weights, multiplications",
    [("avg_pool_3x3", 1_370_134, 227_272_320), ("sep_conv_5x5", 5_144_086, 817_833_600)],
    ids=["floor", "ceiling"],
)
def test_floor_and_ceiling(primitive: str, weights: int, multiplications: int) -> None:
    cell = Cell(2, tuple(((primitive, 0), (primitive, 1)) for _ in range(4)), (2, 3, 4, 5))
    genotype = Genotype("darts", {"normal": cell, "reduce": cell})
    counted = count_derived(genotype, named_space("darts"), Skeleton(20, 36, (3, 32, 32), 10))
    assert (counted["params"], counted["macs"]) == (weights, multiplications)


def test_a_genotype_is_counted_as_its_provenance_says() -> None:
    """The provenance records the precision and the energies that the costs were counted with."""
    space, skeleton = named_space("darts"), Skeleton(3, 4, (3, 8, 8), 10)
    plain = random_genotype(space, np.random.default_rng(0))
    chip = HardwareConfig(name="chip", mac_8=0.5, dram_32=100)
    small = replace(plain, provenance=deployment_facts(8, chip))
    cost, whole = count_derived(small, space, skeleton), count_derived(plain, space, skeleton)
    assert cost["macs"] == whole["macs"] and 4 * cost["bytes"] == whole["bytes"]
    assert cost["energy"] == pytest.approx(0.5e-12 * cost["macs"] + 25e-12 * cost["params"], rel=1e-12)
    assert DerivedBlueprint(small, space, skeleton).costs == cost
    for invalid, words in (
        ({"precision": 7}, "has precision 7; it must be 32, 16 or 8 bits"),
        ({"precision": [8]}, "has precision [8]; it must be"),
        ({"precision": 8, "hardware": 3}, "has hardware 3; it must be an object of energies"),
        ({"precision": 8, "hardware": [1, 2]}, "has hardware [1, 2]; it must be an object"),
        ({"hardware": {"mac_8": -1}}, "the hardware in the genotype's provenance: mac_8=-1.0 is out of range"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            count_derived(replace(plain, provenance=invalid), space, skeleton)
