"""Tests of latency tables: measuring, strict reading, rejection of tables that do not fit, and prices."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.cli.main import main
from rapdarts.cost import latency
from rapdarts.cost import measure as stopwatch
from rapdarts.cost.expected import places, price_table
from rapdarts.cost.latency import NOTHING, Check, LatencyTable, Timing, with_latency
from rapdarts.cost.measure import fit, measure, measure_within
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError, shorten
from rapdarts.networks.derived import DerivedNetwork

DARTS, BENCH = named_space("darts"), named_space("nasbench201")
SMALL = Skeleton(3, 4, (1, 8, 8), 10)
CPU = torch.device("cpu")


def made(space: SearchSpace = DARTS, skeleton: Skeleton = SMALL, scale: float = 1.25) -> LatencyTable:
    """Return a table of made-up times, different at every place."""
    timings: dict[latency.Build, Timing] = {}
    for place in places(space, skeleton):
        if space.choosable[place.column]:
            identity = (place.name, place.stride) == ("skip_connect", 1)
            median = (len(timings) + 1) * 1e-5
            timings.setdefault(place.build, NOTHING if identity else Timing(median, 0.9 * median, 1.5 * median, 40))
    return LatencyTable(
        space=space.name,
        skeleton=skeleton,
        device=latency.device_name(CPU),
        threads=1,
        torch=torch.__version__,
        batch=1,
        precision="float32",
        layout="channels_last",
        clock="thread",
        scale=scale,
        fixed_s=2.5e-3,
        places=timings,
        check=Check(20, 40, 0.006, 0.018, 0.97, 0.02, 0.05, 0.01, 0.03),
    )


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [DARTS, BENCH], ids=lambda space: space.name)
@pytest.mark.parametrize("spearman", [0.97, None])
def test_round_trip(space: SearchSpace, spearman: float | None, tmp_path: Path) -> None:
    table = made(space)
    table = replace(table, check=replace(table.check, spearman=spearman))
    file = tmp_path / "latency.json"
    file.write_text(table.to_json(), encoding="utf-8")
    assert latency.read_latency_table(file) == table
    assert latency.read_latency_table(file).where == shorten(str(file))
    assert latency.read_latency_table(file).to_json() == table.to_json()
    assert json.loads(table.to_json())["format"] == "rapdarts-latency"


Change = Callable[[dict[str, Any]], object]


def put(value: Any, *path: str | int) -> Change:
    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        del tree[path[-1]]

    return change


@pytest.mark.parametrize(
    "change, words",
    [
        (put("rapdarts-genotype", "format"), "is not a latency table"),
        (drop("format"), "is not a latency table"),
        (put(2, "version"), "has version 2, but this version of rapdarts reads version 1"),
        (put("1", "version"), "version must be a whole number"),
        (put(True, "version"), "version must be a whole number"),
        (put(1, "speed"), "there is no field 'speed'"),
        (drop("clock"), "the field clock is missing"),
        (drop("check"), "the field check is missing"),
        (put("../x", "space"), "space must be a name"),
        (put(3, "device"), "device must be a string"),
        (put("", "torch"), "torch must be a string"),
        (put("a\nb", "layout"), "layout must be a string"),
        (put("x" * 201, "precision"), "precision must be a string"),
        (put(0, "threads"), "threads must be a whole number from 1"),
        (put(1.5, "batch"), "batch must be a whole number"),
        (put(0, "scale"), "scale must be a number above 0"),
        (put(-1e-3, "fixed_s"), "fixed_s must be a number from 0"),
        (put("1", "fixed_s"), "fixed_s must be a number"),
        (put(1e7, "fixed_s"), "fixed_s must be a number"),
        (put([], "skeleton"), "skeleton must be an object"),
        (drop("skeleton", "classes"), "skeleton: the field classes is missing"),
        (put(0, "skeleton", "layers"), "skeleton: layers must be a whole number from 1 to 1000"),
        (put(1, "skeleton", "channels"), "cannot halve"),
        (put("big", "skeleton", "stem"), "stem must be cifar or imagenet"),
        (put([8, 8], "skeleton", "image"), "image must be 3 whole numbers"),
        (put([1, 8, 8.0], "skeleton", "image"), "image must be 3 whole numbers"),
        (put([], "places"), "places must be a list"),
        (put({}, "places"), "places must be a list"),
        (put(7, "places", 2), "places, entry 2 must be an object"),
        (drop("places", 2, "n"), "entry 2: the field n is missing"),
        (put("", "places", 0, "primitive"), "primitive must be a string"),
        (put([8], "places", 0, "size"), "size must be 2 whole numbers"),
        (put(-1.0, "places", 0, "median_s"), "median_s must be a number from 0"),
        (put(1.0, "places", 0, "p10_s"), "must be in ascending order"),
        (put(0, "places", 0, "n"), "median_s and n must both be above 0 or both be 0"),
        (lambda tree: tree["places"].append(tree["places"][0]), "appears twice"),
        (put(1.5, "check", "spearman"), "spearman must be a number from -1 to 1"),
        (put(None, "check", "noise"), "noise must be a number"),
        (drop("check", "drift"), "check: the field drift is missing"),
    ],
)
def test_invalid_fields_are_refused(change: Change, words: str) -> None:
    tree = json.loads(made().to_json())
    change(tree)
    with pytest.raises(InputError) as error:
        latency.parse(json.dumps(tree), "t.json")
    text = str(error.value)
    assert words in text and "\n" not in text and text.endswith(".") and len(text) < 400
    assert "t.json" in text or "halve" in text


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not JSON"),
        ("[1, 2]", "is not a latency table"),
        ('{"format": "rapdarts-latency", "format": "rapdarts-latency"}', "is repeated in one object"),
        ('{"format": NaN}', "NaN is not a valid number"),
        ('{"format": -Infinity}', "-Infinity is not a valid number"),
        ('{"format": ' + "9" * 5000 + "}", "is not a valid number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_invalid_json_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        latency.parse(text, "t.json")
    assert len(str(error.value)) < 400


def test_an_infinite_number_is_refused() -> None:
    with pytest.raises(InputError, match="fixed_s must be a number"):
        latency.parse(made().to_json().replace('"fixed_s": 0.0025', '"fixed_s": 1e999'), "t.json")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * 1_000_001)
    (tmp_path / "binary").write_bytes(b"{\xff}")
    os.mkfifo(tmp_path / "fifo")
    for name, words in {
        ".": "not a regular file",
        "fifo": "not a regular file",
        "absent": "cannot be read: No such file",
        "large": "more than 1,000,000 bytes",
        "binary": "not UTF-8 text",
        "a\0b": "is not the name of a file",
    }.items():
        with pytest.raises(InputError, match=words):
            latency.read_latency_table(tmp_path / name)


# --- space, skeleton and device ----------------------------------------------------------------------------------


def test_a_table_fits_the_space_skeleton_and_device_of_its_measurement() -> None:
    made().check_fits(DARTS, SMALL, CPU, 1)
    made().check_fits(DARTS.only(["max_pool_3x3", "skip_connect"]), SMALL)  # the same space with fewer candidates
    # If no device is given, the table may come from any device, such as the one to deploy on.
    replace(made(), device="another", torch="1.0", threads=8).check_fits(DARTS, SMALL)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"device": "Cray-1"}, "was measured for device Cray-1, not for device "),
        ({"threads": 4}, "was measured for threads 4, not for threads 1;"),
        ({"torch": "1.0"}, "was measured for torch 1.0, not for torch "),
        ({"space": "filters"}, "was measured for space filters, not for space darts;"),
        (
            {"skeleton": Skeleton(6, 16, (3, 32, 32), 10)},
            "was measured for layers 6, channels 16, image 3x32x32, not for layers 3, channels 4, image 1x8x8;",
        ),
        ({"threads": 2, "torch": "1.0"}, "was measured for torch 1.0, threads 2, not for torch "),
        (
            {"places": {build: t for build, t in made().places.items() if build[0] != "sep_conv_5x5"}},
            "has no sep_conv_5x5;",
        ),
        (
            {"places": {build: t for build, t in made().places.items() if build != ("max_pool_3x3", 8, 2, (8, 8))}},
            "has no max_pool_3x3 at 8 channels, stride 2, 8x8;",
        ),
    ],
    ids=["device", "threads", "torch", "space", "skeleton", "two", "primitive", "place"],
)
def test_a_refusal_names_every_mismatch(changes: dict[str, Any], words: str) -> None:
    table = replace(made(), **changes)
    with pytest.raises(InputError) as error:
        table.check_fits(DARTS, SMALL, CPU, 1)
    assert words in str(error.value)
    assert str(error.value).endswith("measure a new table with rapdarts measure.")


# --- prices ------------------------------------------------------------------------------------------------------


def by_hand(table: LatencyTable, genotype: Genotype, space: SearchSpace) -> float:
    """Return scale x (sum of the times of the network's edges, cell by cell) + fixed."""
    total = 0.0
    for plan in table.skeleton.cells(space):
        if plan.kind in space.kinds:
            inside = tuple(-(-side // plan.stride) for side in plan.size)
            for node in genotype.cells[plan.kind].nodes:
                for name, source in node:
                    at = (plan.stride, plan.size) if source < space.inputs else (1, inside)
                    total += table.places[name, plan.channels, *at].median_s
    return table.scale * total + table.fixed_s


@pytest.mark.parametrize("space", [DARTS, BENCH], ids=lambda space: space.name)
def test_prices_match_a_sum_by_hand(space: SearchSpace) -> None:
    table = made(space)
    counted = price_table(space, SMALL)
    priced = with_latency(counted, table)
    rng = np.random.default_rng(0)
    for genotype in [random_genotype(space, rng) for _ in range(5)]:
        costs = priced.exact(genotype)
        assert costs["latency"] == pytest.approx(by_hand(table, genotype, space), rel=1e-12)
        assert {**counted.exact(genotype), "latency": costs["latency"]} == costs
    assert priced.resources[-1] == "latency" and priced.row("latency") == len(priced.prices) - 1


def test_identities_cost_nothing() -> None:
    skips = tuple((("skip_connect", 0), ("skip_connect", 1)) for _ in range(4))
    table = made()
    fixed, prices = table.prices(DARTS, SMALL)
    assert fixed == table.fixed_s
    assert (prices[0, :, DARTS.columns["skip_connect"]] == 0).all()
    assert (prices[:, :, DARTS.columns["none"]] == 0).all()
    cell = Cell(2, skips, DARTS.outputs)
    genotype = Genotype("darts", {"normal": cell, "reduce": cell})
    cost = with_latency(price_table(DARTS, SMALL), table).exact(genotype)["latency"]
    halved = sum(8 * table.places["skip_connect", width, 2, (size, size)].median_s for width, size in ((8, 8), (16, 4)))
    assert cost == pytest.approx(table.fixed_s + table.scale * halved, rel=1e-12)


def test_gradient_of_expected_latency_matches_finite_differences() -> None:
    priced = with_latency(price_table(DARTS, SMALL), made())
    row = priced.row("latency")

    def cost(alpha: torch.Tensor) -> torch.Tensor:
        return priced.expected(Mixing(torch.softmax(alpha, -1)))[row]

    alpha = torch.randn(DARTS.mask.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(cost(alpha.requires_grad_()), alpha)
    for index in [(0, 0, 1), (0, 9, 4), (1, 0, 3), (1, 13, 7), (1, 5, 0)]:
        step = torch.zeros_like(alpha)
        step[index] = 1e-4
        with torch.no_grad():
            slope = (cost(alpha + step) - cost(alpha - step)) / 2e-4
        assert slope.item() != 0
        assert gradient[index].item() == pytest.approx(slope.item(), rel=1e-6)


# --- the fit and the check ---------------------------------------------------------------------------------------

SUMS = np.linspace(2e-3, 9e-3, 20)


def test_fit_finds_the_line() -> None:
    assert fit(SUMS, SUMS + 3e-3) == pytest.approx((1, 3e-3))
    assert fit(SUMS, 1.7 * SUMS + 3e-3) == pytest.approx((1.7, 3e-3))
    assert fit(SUMS, 0.5 * SUMS) == pytest.approx((0.5, 0), abs=1e-12)


def test_fit_is_robust() -> None:
    rng = np.random.default_rng(0)
    noisy = (SUMS + 3e-3) * (1 + 0.02 * rng.standard_normal(20))
    scale, fixed = fit(SUMS, noisy)
    assert scale == 1 and fixed == pytest.approx(3e-3, rel=0.1)  # noise alone does not change the scale
    outliers = 1.7 * SUMS + 3e-3
    outliers[[3, 11]] *= 5
    assert fit(SUMS, outliers) == pytest.approx((1.7, 3e-3))  # two slow moments do not change the fit
    assert fit(SUMS[:3], 1.7 * SUMS[:3] + 3e-3)[0] == 1  # three networks are too few to fit a scale
    scale, fixed = fit(SUMS[:3], 0.5 * SUMS[:3])  # unless scale 1 would need a negative fixed time
    assert scale < 1 and fixed >= 0
    assert fit(np.zeros(4), np.full(4, 2e-3)) == (1, 2e-3)


def test_check_by_hand() -> None:
    measured = np.array([[1.0, 1.1, 1.0, 1.1], [2.0, 2.2, 2.0, 2.2], [3.0, 3.3, 3.0, 3.3]])
    check = stopwatch._check(np.array([1.05, 2.1, 3.465]), measured, measured)
    assert check == Check(3, 4, 1.05, 3.15, 1.0, 0.0, 0.1, 0.0909091, 0.0)
    assert check.reliable
    assert not replace(check, spearman=0.5).reliable and not replace(check, median_error=0.2).reliable
    assert stopwatch._check(np.ones(3), measured, measured).spearman is None


def test_rank_correlation_matches_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, y = rng.integers(0, 6, (2, 12))
        assert stopwatch._spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-5)


# --- clocks ------------------------------------------------------------------------------------------------------


def test_one_thread_is_timed_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    nap = partial(time.sleep, 0.05)
    assert stopwatch.clock(CPU) == "thread"
    assert 0 < stopwatch.timer(CPU)(nap) < 0.05
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert stopwatch.clock(CPU) == "wall"
    assert stopwatch.timer(CPU)(nap) >= 0.049


def test_a_gpu_is_timed_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("synchronize")

        def elapsed_time(self, end: Event) -> float:
            return 1.5  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    gpu = torch.device("cuda", 1)
    assert stopwatch.clock(gpu) == "events"
    assert stopwatch.timer(gpu)(lambda: calls.append("run")) == pytest.approx(1.5e-3)
    assert calls == ["record", "run", "record", "synchronize"]


def test_every_round_is_shuffled() -> None:
    seen: list[str] = []
    jobs = [partial(seen.append, name) for name in "abcdefgh"]

    def time_of(run: Callable[[], object]) -> float:
        run()
        return float(len(seen))

    seconds = stopwatch._rounds(jobs, [1] * 4 + [3] * 4, time_of, range(5), 0)
    warm, rest = seen[: 8 * stopwatch.WARM_UP], seen[8 * stopwatch.WARM_UP :]
    assert set(warm) == set("abcdefgh")
    each = [rest[start : start + 16] for start in range(0, 80, 16)]
    assert all(Counter(order) == Counter("abcd" + 3 * "efgh") for order in each)
    assert len({tuple(order) for order in each}) == 5
    assert [len(times) for times in seconds] == [5] * 4 + [15] * 4
    assert all(seen[int(at) - 1] == "c" for at in seconds[2])


# --- real measurements -------------------------------------------------------------------------------------------


def test_activations_of_settled_networks_do_not_vanish() -> None:
    torch.manual_seed(0)
    skeleton = Skeleton(12, 4, (1, 8, 8), 10)
    node = (("sep_conv_3x3", 0), ("sep_conv_3x3", 1))
    cell = Cell(2, (node,) * 4, DARTS.outputs)
    network = DerivedNetwork(Genotype("darts", {"normal": cell, "reduce": cell}), DARTS, skeleton)
    sizes: list[float] = []
    network.classifier.register_forward_pre_hook(lambda module, given: sizes.append(given[0].abs().max().item()))
    with torch.no_grad():
        network.eval()(torch.randn(1, 1, 8, 8))
        stopwatch.settled(network, skeleton.image).eval()(torch.randn(1, 1, 8, 8))
    assert sizes[0] < 1e-6 and 0.1 < sizes[-1] < 100


def test_none_is_measured_in_spaces_that_derive_it() -> None:
    table = measure(BENCH, Skeleton(3, 4, (1, 8, 8), 10), CPU, range(2), networks=6)
    timings = {build[0]: timing for build, timing in table.places.items()}
    assert list(timings) == list(BENCH.primitives)
    assert timings["skip_connect"] == NOTHING
    assert 0 < timings["none"].median_s < timings["nor_conv_3x3"].median_s
    assert 0 < timings["none"].p10_s <= timings["none"].median_s <= timings["none"].p90_s
    assert timings["none"].n == 2 * stopwatch.SHOTS


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a temporary folder, so that nothing is written to the checkout, and restore the number of threads."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_num_threads(threads)


def test_measure_from_the_command_line(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    assert main(["measure", "digits", "layers=3", "channels=4", "rounds=8", "networks=6", "out=t.json"]) == 0
    out, err = capsys.readouterr()
    assert torch.equal(state, torch.get_rng_state())
    assert "darts: 3 cells x 4 channels, 1x8x8, 10 classes, cifar stem, batch size 1, on " in out
    assert "rank correlation" in out and out.endswith("written to t.json\n")
    assert "round 8/8" in err

    table = latency.read_latency_table(Path("t.json"))
    table.check_fits(DARTS, SMALL, CPU, 1)
    assert (table.check.networks, table.check.rounds, table.clock) == (3, 8, "thread")
    assert set(table.places) == set(made().places)
    for (name, _, stride, _), timing in table.places.items():
        nothing = (name, stride) == ("skip_connect", 1)
        assert timing == NOTHING if nothing else (timing.n == 8 * stopwatch.SHOTS and timing.p10_s > 0)
    priced = with_latency(price_table(DARTS, SMALL), table)
    genotype = random_genotype(DARTS, np.random.default_rng(7))
    network = DerivedNetwork(genotype, DARTS, SMALL)
    predicted = priced.exact(genotype)["latency"]
    assert predicted > 0 and math.isfinite(predicted)
    image = torch.ones(1, *SMALL.image)
    measured = measure_within(partial(network.eval(), image), CPU, most=8)
    assert 0.1 < predicted / measured.median_s < 10


def test_measure_prints_its_check_as_json(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["space=nasbench201", "layers=3", "channels=4", "input=1x8x8", "classes=3", "rounds=4", "networks=6"]
    assert main(["measure", *keys, "batch=2", "--json"]) == 0
    head = json.loads(capsys.readouterr().out)
    table = latency.read_latency_table(Path("latency.json"))
    assert head == json.loads(json.dumps(table.head()))
    assert (table.space, table.batch, table.check.networks) == ("nasbench201", 2, 3)
    assert table.skeleton == Skeleton(3, 4, (1, 8, 8), 3)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["out=no/such/folder/t.json"], "there is no folder no/such/folder; create it first, or choose another"),
        (["out="], "out= is not the name of a file; use the path of a file"),
        (["out=."], "out=. is not the name of a file; use the path of a file"),
        (["digit"], "there is no experiment 'digit'; the nearest is digits"),
        (["input=32"], "write CxHxW"),
        (["space=dart"], "there is no search space 'dart'; the nearest is darts"),
        (["device=tpu"], "device=tpu is not a device"),
        (["networks=2"], "networks=2 is out of range"),
    ],
)
def test_mistakes_are_reported_before_measuring(
    arguments: list[str], words: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err
    assert list(elsewhere.iterdir()) == []
