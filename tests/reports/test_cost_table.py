"""Costs are a dict that is displayed as a table."""

from __future__ import annotations

import copy
import json
import pickle
import xml.etree.ElementTree as ElementTree

from rapdarts.config.resources import RESOURCES
from rapdarts.reports.cost_table import Costs

AMOUNTS = {
    "macs": 542_819_328,
    "params": 3_433_798,
    "bytes": 13_735_192,
    "activations": 8_060_000,
    "traffic": 51_000_000,
    "energy": 2.85e-3,
    "peak_memory": 1_228_800,
    "latency": 8.25e-6,
}


def test_costs_are_a_dict() -> None:
    costs = Costs(AMOUNTS)
    assert costs == AMOUNTS
    assert dict.__eq__(AMOUNTS, costs)
    assert list(costs) == list(AMOUNTS)
    assert costs["macs"] == 542_819_328
    assert costs | {"macs": 1} == {**AMOUNTS, "macs": 1}
    assert json.loads(json.dumps(costs)) == AMOUNTS
    for again in (copy.deepcopy(costs), pickle.loads(pickle.dumps(costs))):  # noqa: S301 (our own bytes)
        assert type(again) is Costs and again == AMOUNTS


def test_repr_is_aligned() -> None:
    assert set(AMOUNTS) == set(RESOURCES)
    assert (
        repr(Costs(AMOUNTS))
        == str(Costs(AMOUNTS))
        == "\n".join(
            [
                "macs         542,819,328",
                "params         3,433,798",
                "bytes         13,735,192 B",
                "activations    8,060,000",
                "traffic       51,000,000 B",
                "energy              2.85 mJ",
                "peak_memory    1,228,800 B",
                "latency             8.25 µs",
            ]
        )
    )
    assert repr(Costs()) == "no costs"


KNOWN = {"cifar10": 0.9366, "cifar100": 0.01, "imagenet16_120": 0.4403}


def test_known_accuracies_follow_the_costs() -> None:
    costs = Costs({"macs": 149_340_800}, KNOWN)
    assert costs == {"macs": 149_340_800} and costs.known_accuracy == KNOWN
    assert Costs(AMOUNTS).known_accuracy is None
    assert repr(costs).splitlines() == [
        "macs                     149,340,800",
        "CIFAR-10 accuracy              93.66 % (NAS-Bench-201)",
        "CIFAR-100 accuracy              1.00 % (NAS-Bench-201)",
        "ImageNet16-120 accuracy        44.03 % (NAS-Bench-201)",
    ]
    for again in (copy.deepcopy(costs), pickle.loads(pickle.dumps(costs))):  # noqa: S301 (our own bytes)
        assert again == costs and again.known_accuracy == KNOWN


def test_html_has_the_same_rows() -> None:
    costs = Costs(AMOUNTS, KNOWN)
    table = ElementTree.fromstring(costs._repr_html_())  # noqa: S314 (our own text)
    rows = [[cell.text or "" for cell in row] for row in table.iter("tr")]
    assert rows[0] == ["resource", "amount", "unit"]
    assert [" ".join(row).split() for row in rows[1:]] == [line.split() for line in repr(costs).splitlines()]


def test_html_escapes_unknown_names() -> None:
    html = Costs({"<b>&": 1.5})._repr_html_()
    assert "<b>" not in html
    table = ElementTree.fromstring(html)  # noqa: S314 (our own text)
    assert [cell.text or "" for cell in table.iter("td")] == ["<b>&", "1.5", ""]
