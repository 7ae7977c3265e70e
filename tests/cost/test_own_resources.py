"""User-defined resources: counted, priced and budgeted like ours if they add up, reported if they do not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rapdarts
from rapdarts.architecture.genotype import one_hot, random_genotype
from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.cli.main import main
from rapdarts.config.experiment import Experiment, SearchConfig
from rapdarts.config.key_values import keys
from rapdarts.config.own_resources import experiment_schema, knowing
from rapdarts.cost.count import ADDITIVE, count_derived
from rapdarts.cost.own_resources import full_price_table, own_counters
from rapdarts.cost.prices import prices
from rapdarts.deploy.space_lookup import known_resources, named_space, source_of
from rapdarts.errors import InputError
from tests.tiny import TINY

Image = tuple[int, int, int]
SMALL = Skeleton(4, 4, (3, 16, 16), 10)
FILE = """
from torch import nn
from search_spaces.{space} import SPACE

def launches(network, image):
    kinds = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
    return sum(isinstance(module, kinds) for module in network.modules())

def wear(network, image):
    return sum(parameter.numel() ** 0.5 for parameter in network.parameters())

def widest(network, image):
    return max((module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)), default=0)

RESOURCES = {{"launches": launches, "wear": wear, "widest": widest}}
"""


def launches(network: nn.Module, image: Image) -> int:
    kinds = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
    return sum(isinstance(module, kinds) for module in network.modules())


def widest(network: nn.Module, image: Image) -> int:
    return max((module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)), default=0)


def pixels(network: nn.Module, image: Image) -> float:
    """Return a resource that depends on the image of every convolution: its area times its inputs."""
    total = 0.0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            total += 0.1 * image[1] * image[2] * module.in_channels
    return total


def with_own(name: str, **resources: Any) -> SearchSpace:
    return replace(named_space(name), resources=resources)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a file with the space darts and three resources, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FILE.format(space="darts"))
    return "mine.py"


# --- prices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darts", "nasbench201", "filters"])
def test_prices_of_resources_that_add_up_are_exact(name: str) -> None:
    def root(network: nn.Module, image: Image) -> float:
        return sum(parameter.numel() ** 0.5 for parameter in network.parameters())

    space = with_own(name, launches=launches, root=root)
    table = full_price_table(space, SMALL, ADDITIVE)
    assert table.resources == (*ADDITIVE, "launches", "root") and table.notes == ()
    assert "launches" in table.whole and "root" not in table.whole
    rng = np.random.default_rng(7)
    for _ in range(10):
        genotype = random_genotype(space, rng)
        counted = count_derived(genotype, space, SMALL, own_counters(space))
        exact = table.exact(genotype)
        assert exact["launches"] == counted["launches"] and isinstance(exact["launches"], int)
        assert exact["root"] == pytest.approx(counted["root"], rel=1e-12)
        chosen = Mixing(torch.as_tensor(one_hot(space, genotype)))
        assert table.expected(chosen)[-2].item() == counted["launches"]


def test_resources_that_do_not_add_up_are_only_counted() -> None:
    space = with_own("darts", launches=launches, widest=widest, pixels=pixels)
    table = full_price_table(space, SMALL, ADDITIVE)
    assert table.resources == (*ADDITIVE, "launches")
    assert [note.partition(" (")[0] for note in table.notes] == [
        f"{name} is not additive" for name in ("widest", "pixels")
    ]
    counted = rapdarts.costs("PDARTS", (1, 8, 8), channels=4, layers=3, space=space)
    assert (counted["launches"], counted["widest"]) == (
        launches(rapdarts.derived("PDARTS", 4, 3, (1, 8, 8)), (1, 8, 8)),
        16,
    )


@pytest.mark.parametrize("section", ["cost", "budget"])
@pytest.mark.parametrize(
    "name, resources, words",
    [
        (
            "widest",
            {"widest": widest},
            "widest is not additive .* leave out {section}.widest",
        ),
        ("launches", {}, "the resource launches is not defined; use --space with a file that contains RESOURCES"),
    ],
)
def test_only_resources_that_add_up_have_prices_and_budgets(
    section: str, name: str, resources: dict[str, Any], words: str
) -> None:
    schema = experiment_schema(name)
    settings = schema().search
    settings = replace(settings, **{section: replace(getattr(settings, section), **{name: 5.0})})
    with pytest.raises(InputError, match=words.format(section=section)):
        prices(settings, with_own("darts", **resources), SMALL)
    assert prices(SearchConfig(), with_own("darts", **resources), SMALL).resources[: len(ADDITIVE)] == tuple(ADDITIVE)


# --- keys --------------------------------------------------------------------------------------------------------


def test_keys_of_own_resources_are_known_only_with_their_space(mine: str) -> None:
    plain = [key.name for key in keys(experiment_schema())]
    assert experiment_schema() is Experiment
    with known_resources(Path(mine)):
        names = {key.name for key in keys(experiment_schema())} - set(plain)
        assert names == {
            f"search.{part}.{name}" for part in ("cost", "budget") for name in ("launches", "wear", "widest")
        }
        assert isinstance(experiment_schema()(), Experiment)
    assert [key.name for key in keys(experiment_schema())] == plain
    with knowing(["a"]), knowing(["b"]):
        assert vars(experiment_schema()().search.cost)["b"] == 0.0


def test_a_value_is_recognised_by_the_source_of_its_resources() -> None:
    one, same, other = (source_of(with_own("darts", own=function)) for function in (launches, launches, widest))
    assert one == same != other and "0x" not in one


# --- commands ----------------------------------------------------------------------------------------------------


def test_a_search_prices_and_budgets_them_and_its_files_can_be_read(
    mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["search", "digits", *TINY, "budget.launches=60", "cost.wear=0.1", "--space", mine, "run=run"]
    assert main([*arguments, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "    launches: 60.0\n" in printed and "    wear: 0.1\n" in printed
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert " of the launches budget (60) is used" in out and "widest is not additive" in out
    result = json.loads(Path("run/result.json").read_text())
    assert 54 <= result["counted"]["launches"] == result["priced"]["launches"] <= 60
    assert result["priced"]["wear"] == pytest.approx(result["counted"]["wear"], rel=1e-12)
    assert "widest" in result["counted"] and "widest" not in result["priced"]
    assert set(result["expected"]) == {*result["priced"]}
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert {"expected_wear", "realised_launches", "multiplier_launches"} <= last.keys()

    assert main([*arguments, "resume=true"]) == 0
    capsys.readouterr()
    assert main(["derive", "run", "budget.launches=50", "--space", mine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["costs"]["launches"] <= 50
    assert main(["report", "run"]) == 0 and "budget.launches=60" in capsys.readouterr().out
    assert main(["derive", "run"]) == 2
    assert (
        "the resource wear is not defined; use --space with a file that contains RESOURCES = {'wear': function}."
        in capsys.readouterr().err
    )
    train = ["retrain.epochs=1", "retrain.batch=60", "threads=1", "data.fraction=0.1"]
    assert main(["retrain", "run", "digits", *train, "--space", mine, "run=net"]) == 0
    trained = json.loads(Path("net/result.json").read_text())
    assert trained["costs"]["launches"] == result["counted"]["launches"]


def test_costs_show_them(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["layers=3", "channels=4", "input=1x8x8"]
    assert main(["cost", "PDARTS", *small, "--space", mine, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    network = rapdarts.derived("PDARTS", 4, 3, (1, 8, 8))
    assert (found["launches"], found["widest"]) == (launches(network, (1, 8, 8)), widest(network, (1, 8, 8)))
    assert main(["cost", "PDARTS", "lenet", "input=1x28x28", "--space", mine]) == 0
    assert [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("user-defined resource")
    ] == [
        "launches",
        "wear",
        "widest",
    ]
    assert main(["cost", *small, "--space", mine, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["floor"]["launches"] < found["ceiling"]["launches"] and "widest" not in found["floor"]
    assert len(found["notes"]) == 1 and found["notes"][0].startswith("widest is not additive")


def test_a_program_passes_them_with_its_space(tmp_path: Path) -> None:
    space = with_own("darts", launches=launches)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (120, 1, 8, 8), dtype=np.uint8), np.arange(120) % 3
    settings = dict(pair.split("=", 1) for pair in TINY if not pair.startswith("data."))
    settings |= {"search.layers": [3], "search.candidates": [0], "search.skip_dropout": [0.3]}
    run = partial(rapdarts.search, "digits", data=data, space=space, progress=False)
    found = run({**settings, "budget.launches": 60}, run=tmp_path / "run")
    assert found.costs["launches"] <= 60
    again = rapdarts.derive(found, {"budget.launches": 50}, progress=False)
    assert again.genotype.costs["launches"] <= 50


@pytest.mark.parametrize(
    "code, words",
    [
        ("[]", "RESOURCES must be a mapping from names to functions, not a list."),
        ("{'macs': len}", "the resource macs has the name of a built-in resource; rename it."),
        ("{'Launches': len}", "the resource 'Launches' needs a name of lower-case letters, digits and _."),
        ("{3: len}", "the resource 3 needs a name"),
        ("{'own': 3}", "the resource own must be a function of a network and an image, not a int."),
        ("{'own': lambda network: 3}", "the resource own fails on a "),
        ("{'own': lambda network, image: 1 / 0}", "ZeroDivisionError: division by zero; fix its function."),
        ("{'own': lambda network, image: 'many'}", "the resource own returns 'many' for a "),
        ("{'own': lambda network, image: -1}", "return a finite number of at least 0."),
        ("{'own': lambda network, image: float('nan')}", "the resource own returns 'nan'"),
        ("{'own': lambda network, image: True}", "the resource own returns 'True'"),
        ("{'own': lambda network, image: None}", "the resource own returns 'None'"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    code: str, words: str, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.py").write_text(f"from search_spaces.darts import SPACE\nRESOURCES = {code}\n")
    assert main(["cost", "PDARTS", "layers=3", "channels=4", "input=1x8x8", "--space", "bad.py"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err


@pytest.mark.parametrize(
    "keys, words",
    [
        (
            ["cost.widest=1", "--space", "mine.py"],
            "it can be counted, but cannot have a price or a budget; leave out cost.widest.",
        ),
        (
            ["cost.launchs=1", "--space", "mine.py"],
            "there is no key 'cost.launchs'; the nearest is search.cost.launches",
        ),
        (["budget.launches=-3", "--space", "mine.py"], "budget.launches=-3 must be above 0"),
        (["budget.launches=3ms", "--space", "mine.py"], "ms is not a unit of launches"),
        (["budget.launches=3", "--space", "mine.py"], "meets launches <= 3: the cheapest has 21; raise the budget"),
        (
            ["cost.launches=1"],
            "for a user-defined resource, add --space FILE with the file that defines it (in Python,",
        ),
    ],
)
def test_keys_that_cannot_be_used_are_refused(
    keys: list[str], words: str, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "digits", *TINY, *keys, "run=run"]) == 2
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err and not Path("run").exists()
