"""Reference networks scaled to budgets: the widest that fits, by comparison with every width, and the messages."""

from __future__ import annotations

import pytest
from torch import nn

from rapdarts.cost.count import COUNTERS, params, resources
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.scaled_reference import scaled_to
from rapdarts.errors import InputError

IMAGE = (1, 8, 8)


@pytest.mark.parametrize(
    "limits",
    [
        {"params": 1_189},  # exactly those of width 1
        {"macs": 1_000_000},
        {"params": 50_000, "macs": 200_000},
        {"bytes": 60_000, "activations": 3_000, "traffic": 300_000, "energy": 2e-5},
    ],
)
def test_the_widest_network_within_all_budgets_is_found(limits: dict[str, float]) -> None:
    def fits(width: int) -> bool:
        costs = ReferenceBlueprint(f"resnet20@{width}", IMAGE, 10).costs
        return all(costs[name] <= limit for name, limit in limits.items())

    found, remark = scaled_to("resnet20", IMAGE, 10, limits)
    width = found.width
    assert width is not None and found == ReferenceBlueprint(f"resnet20@{width}", IMAGE, 10) and remark == ""
    assert [fits(one) for one in range(1, width + 3)] == [True] * width + [False] * 2


def test_a_budget_equal_to_the_cost_is_met() -> None:
    assert scaled_to("resnet20", (3, 32, 32), 10, {"params": 152_182})[0].width == 12
    assert scaled_to("resnet20", (3, 32, 32), 10, {"params": 152_181})[0].width == 11
    assert scaled_to("resnet20", (3, 32, 32), 10, {"macs": 40_551_040})[0].reference == "resnet20"
    assert scaled_to("resnet20", (1, 1, 1), 2, {"params": 1e15})[0].width == 4096


def test_budgets_without_a_counter_are_named() -> None:
    remark = "the width of resnet20 ignores budgets that cannot be counted for reference networks: latency <= 8 ms."
    for limits, width in (({"latency": 0.008, "params": 152_182}, 12), ({"latency": 0.008}, 16)):
        found, said = scaled_to("resnet20", (3, 32, 32), 10, limits)
        assert (found.width, said) == (width, remark)
    assert scaled_to("resnet20", IMAGE, 10, {}) == (ReferenceBlueprint("resnet20", IMAGE, 10), "")


def test_costs_are_counted_by_the_given_counters() -> None:
    """At 8 bits, four times as many parameters fit; a user-defined resource has a budget like any other."""
    limits = {"bytes": 4 * 50_000}
    wide, _ = scaled_to("resnet20", IMAGE, 10, limits, resources(8))
    assert wide == scaled_to("resnet20", IMAGE, 10, {"params": 200_000})[0]
    assert scaled_to("resnet20", IMAGE, 10, limits)[0] == scaled_to("resnet20", IMAGE, 10, {"params": 50_000})[0]

    def layers(network: nn.Module, image: object) -> float:
        return params(network, IMAGE) / 1000

    own = {**COUNTERS, "own": layers}
    assert scaled_to("resnet20", (3, 32, 32), 10, {"own": 152.182}, own)[0].width == 12


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("resnet20", {"params": 1_188}, "no width of resnet20 meets params <= 1,188: resnet20@1 has 1,189 params; raise the budget."),
        (
            "resnet20",
            {"params": 5_000, "macs": 9, "bytes": 9},
            "no width of resnet20 meets macs <= 9 and bytes <= 9 B: resnet20@1 has 10,408 macs and 4,756 B (bytes); raise the budget.",
        ),
        ("lenet", {}, "lenet is not a reference network of variable width; choose from resnet20."),
        ("resnet20@3", {}, "resnet20@3 is not a reference network of variable width; choose from resnet20."),
    ],
)  # fmt: skip
def test_budgets_and_networks_that_are_refused(name: str, limits: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        scaled_to(name, IMAGE, 10, limits)
    assert str(error.value) == message
