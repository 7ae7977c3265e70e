"""The search end to end on real digits: its files, budgets, replicas and prices, and bit-identical results on repeating or resuming."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.architecture.genotype import validate
from rapdarts.architecture.reading import parse_genotype, read_genotype
from rapdarts.cli.main import main
from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.count import ADDITIVE, COUNTERS, count_derived
from rapdarts.cost.expected import price_table
from rapdarts.data import dataset as datasets
from rapdarts.files.run_files import RUN_FILES
from rapdarts.loops.search import check_stages
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.loops.search_record import heat_map
from rapdarts.strategy.alphas import read_alphas
from rapdarts.strategy.budgets import budgets_on, spent
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.relaxation import Architecture, mixing_weights
from rapdarts.strategy.replicas import mean_weights, replica_seeds
from rapdarts.strategy.rule import rule_of
from rapdarts.training import checkpoint
from rapdarts.training.run import Run
from search_spaces.darts import SPACE
from tests import edited, tiny

TINY = [*tiny.TINY, "search.alpha_lr=0.05", "cost.macs=0.2", "cost.bytes=0.1"]


def run_search(folder: Path, *settings: str) -> int:
    return main(["search", "digits", *TINY, f"run={folder}", *settings])


def results(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on interruptions: the bytes of all result files, and the metrics without their times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    names = ("alphas.json", "genotype.json", "candidates.json")
    return {"records": records, **{name: (folder / name).read_bytes() for name in names}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted search."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run_search(folder) == 0
    return folder


def test_a_search_writes_a_priced_genotype(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genotype = read_genotype(whole / "genotype.json")
    validate(genotype, SPACE, "genotype.json")
    assert genotype.skeleton is not None
    assert genotype.skeleton.image == (1, 8, 8)
    assert genotype.skeleton.classes == 10
    counted = count_derived(genotype, SPACE, genotype.skeleton)
    energy = pytest.approx(counted["energy"], rel=1e-12)
    result = json.loads((whole / "result.json").read_text())
    assert result["counted"] == counted
    assert {**genotype.costs, "peak_memory": counted["peak_memory"]} == {**counted, "energy": energy}
    assert result["priced"] == genotype.costs
    assert {path.name for path in whole.iterdir()} >= {
        "config.yaml", "environment.json", "metrics.jsonl", "checkpoint", "genotype.json", "candidates.json",
        "alphas.json", "status.json", "tensorboard",
    }  # fmt: skip
    assert {path.name for path in whole.iterdir()} <= {*RUN_FILES, "tensorboard"}  # files that no result may overwrite
    assert json.loads((whole / "status.json").read_text())["state"] == "done"


def test_the_metrics_contain_costs_and_gradient_ratio(whole: Path) -> None:
    records = results(whole)["records"]
    assert [(record["stage"], record["epoch"]) for record in records] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for record in records:
        assert record["expected_bytes"] == pytest.approx(4 * record["expected_params"])
        assert record["realised_bytes"] == 4 * record["realised_params"]
    warm, alternating = records[0], records[1]
    assert "search_loss" not in warm
    assert alternating["gradient_ratio"] == pytest.approx(alternating["price_gradient"] / alternating["task_gradient"])
    assert alternating["gradient_ratio"] > 0


def test_candidates_are_listed_by_score_and_one_is_chosen(whole: Path) -> None:
    candidates = json.loads((whole / "candidates.json").read_text())
    genotype = json.loads((whole / "genotype.json").read_text())
    chosen = [candidate for candidate in candidates if candidate["chosen"]]
    assert [candidate["genotype"]["cells"] for candidate in chosen] == [genotype["cells"]]
    assert candidates[0]["max_skips"] is None
    scores = [candidate["score"] for candidate in candidates]
    assert scores == sorted(scores, reverse=True)


def test_alphas_read_back_bit_identically(whole: Path) -> None:
    space, skeleton, (architecture,) = read_alphas(whole / "alphas.json", SPACE)
    assert all(len(edge) == 3 for kind in space.candidates for edge in kind)
    assert skeleton == read_genotype(whole / "genotype.json").skeleton
    written = json.loads((whole / "alphas.json").read_text())["cells"]["reduce"][5]
    column = list(SPACE.primitives).index(written["candidates"][1])
    assert architecture.alpha[1, 5, column].item() == written["alpha"][1]
    assert np.allclose(mixing_weights(architecture).sum(-1), 1)


@pytest.mark.parametrize("settings", [[], ["max_skips=0"], ["rule=darts"], ["layers=20", "channels=36"]])
def test_another_genotype_is_derived_from_a_finished_search(
    whole: Path, tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.json"
    assert main(["derive", str(whole), "--json", f"out={out}", *settings]) == 0
    genotype = read_genotype(out)
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["chosen"]
    assert listed[0]["genotype"]["cells"] == json.loads(out.read_text())["cells"]
    assert genotype.skeleton is not None
    counted = count_derived(genotype, SPACE, genotype.skeleton, ADDITIVE)
    assert genotype.costs == {**counted, "energy": pytest.approx(counted["energy"], rel=1e-12)}
    if not settings:
        assert genotype.cells == read_genotype(whole / "genotype.json").cells
    if "max_skips=0" in settings:
        assert all(name != "skip_connect" for node in genotype.cells["normal"].nodes for name, _ in node)
    if "layers=20" in settings:
        assert (genotype.skeleton.layers, genotype.skeleton.channels) == (20, 36)


def test_the_same_seed_gives_the_same_search_and_another_seed_a_different_one(whole: Path, tmp_path: Path) -> None:
    assert run_search(tmp_path / "again") == 0
    assert results(tmp_path / "again") == results(whole)
    assert run_search(tmp_path / "other", "seed=1") == 0
    assert results(tmp_path / "other")["alphas.json"] != results(whole)["alphas.json"]


def interrupt_and_resume(after: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> None:
    """Stop a search with a real signal after `epoch N` or `step N`, then resume it until it is finished."""
    what, number = after.split()
    seen = 0
    original = Run.log if what == "epoch" else Run._pause

    def signal_after(self: Run, *shown: Any, **facts: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == int(number):
            os.kill(os.getpid(), signal.SIGTERM)  # the run handles it between two steps
        original(self, *shown, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log" if what == "epoch" else "_pause", signal_after)
        assert run_search(folder, *settings) == 75
    assert not (folder / "genotype.json").exists()
    assert json.loads((folder / "status.json").read_text())["state"] == "preempted"
    assert run_search(folder, *settings, "resume=true") == 0


@pytest.mark.parametrize("after", ["epoch 1", pytest.param("epoch 3", marks=pytest.mark.proof), "step 2"])
def test_an_interrupted_search_resumes_bit_identically(
    whole: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_and_resume(after, tmp_path / "cut", monkeypatch)
    assert "resume=true" in capsys.readouterr().err
    assert results(tmp_path / "cut") == results(whole)


def kill(folder: Path, epochs: int, *settings: str) -> None:
    """Start a search in another process, and end it with SIGKILL once it has recorded `epochs` epochs."""
    words = ["search", "digits", *TINY, f"run={folder}", "save_seconds=0", *settings]
    process = subprocess.Popen([sys.executable, "-m", "rapdarts", *words], stderr=subprocess.PIPE, text=True)
    record, deadline = folder / "metrics.jsonl", time.monotonic() + 120
    while not (record.exists() and record.read_bytes().count(b"\n") >= epochs):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (folder / "genotype.json").exists()


def test_a_killed_search_resumes_bit_identically(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    kill(folder, 3)
    # An incomplete last line, as left by a kill in the middle of a write, is dropped.
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"stage": 1, "ep')
    assert run_search(folder, "save_seconds=0", "resume=true") == 0
    assert results(folder) == results(whole)


def test_resuming_a_finished_search_writes_the_same_result(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(whole)
    capsys.readouterr()
    assert run_search(whole, "resume=true") == 0
    assert results(whole) == before
    progress = capsys.readouterr().err
    assert f"{whole} is finished; writing its result again\n" in progress
    assert "resuming" not in progress


def test_resuming_without_a_checkpoint_starts_from_the_beginning(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_search(tmp_path / "new", "resume=true") == 0
    assert "starting from the beginning" in capsys.readouterr().err
    assert results(tmp_path / "new") == results(whole)


def test_resuming_with_another_configuration_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search(whole, "resume=true", "search.lr=0.01") == 2
    error = capsys.readouterr().err
    assert "search.lr: 0.05 -> 0.01" in error
    assert error.count("\n") == 1


# --- budgets -----------------------------------------------------------------------------------------------------


BUDGETS = {"params": 3_000, "traffic": 100_000}
"""With the skeleton of TINY, networks have 1,982 to 19,454 parameters, and 82,432 (with two skips) to 258,816 B of traffic."""
BUDGETED = ["cost.macs=0", "cost.bytes=0", *(f"budget.{name}={bound}" for name, bound in BUDGETS.items())]


@pytest.fixture(scope="module")
def within(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a search with two budgets and no coefficients."""
    folder = tmp_path_factory.mktemp("runs") / "within"
    assert run_search(folder, *BUDGETED) == 0
    return folder


def test_budgets_are_met(within: Path) -> None:
    result = json.loads((within / "result.json").read_text())
    for name, bound in BUDGETS.items():
        assert result["counted"][name] == result["priced"][name] <= bound
        assert result["used"][name] == result["priced"][name] / bound
    candidates = json.loads((within / "candidates.json").read_text())
    assert all(candidate["costs"][name] <= bound for candidate in candidates for name, bound in BUDGETS.items())
    assert candidates[0]["chosen"]


def adjusted(multiplier: float, share: float) -> float:
    """Return a multiplier after an epoch whose genotype, derived without budgets, uses this share of the budget."""
    return multiplier + 0.5 * (share - 1) if share >= 1 else multiplier * share**4


def test_multipliers_are_adjusted_after_the_warm_up_and_carry_over(within: Path) -> None:
    records = results(within)["records"]
    for name, bound in BUDGETS.items():
        multiplier = 0.0
        for record in records:
            assert record[f"multiplier_{name}"] == pytest.approx(multiplier, abs=1e-12)
            if record["epoch"] >= 1:
                multiplier = adjusted(multiplier, record[f"realised_{name}"] / bound)
    assert records[-1]["multiplier_params"] > 0
    assert records[1]["price_gradient"] == 0 < records[3]["price_gradient"]


@pytest.mark.parametrize("after", ["epoch 2", pytest.param("epoch 3", marks=pytest.mark.proof)])
def test_an_interrupted_search_with_budgets_resumes_bit_identically(
    within: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_and_resume(after, tmp_path / "cut", monkeypatch, *BUDGETED)
    assert results(tmp_path / "cut") == results(within)


def test_genotypes_are_derived_within_other_budgets(
    within: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own budgets apply unless they are overridden; the run folder and its alphas.json give the same result."""
    assert main(["derive", str(within), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert own[0]["genotype"]["cells"] == json.loads((within / "genotype.json").read_text())["cells"]

    out = tmp_path / "three.json"
    assert main(["derive", str(within / "alphas.json"), "budget.params=4k", "count=3", f"out={out}", "--json"]) == 0
    three = json.loads(capsys.readouterr().out)
    assert len(three) == 3 and all(one["costs"]["params"] <= 4000 for one in three)
    assert [one["score"] for one in three] == sorted((one["score"] for one in three), reverse=True)
    assert edited.plain(out) == three[0]["genotype"]
    assert all(one["costs"]["traffic"] <= BUDGETS["traffic"] for one in three)  # the run's other budget still applies
    assert main(["derive", str(within), "budget.params=none", "budget.traffic=none", "--json"]) == 0
    free = json.loads(capsys.readouterr().out)
    assert free[0]["score"] > own[0]["score"]
    assert main(["derive", str(within), "rule=pdarts"]) == 2
    assert "remove the budgets with budget.params=none budget.traffic=none" in capsys.readouterr().err

    assert main(["derive", str(within), "budget.params=1k"]) == 2
    remark, error = capsys.readouterr().err.splitlines()
    assert remark == "looking for genotypes with params <= 1,000 and traffic <= 100,000 B"
    assert (
        " meets params <= 1,000 and traffic <= 100,000 B with at most 2 skips in its normal cell: the lowest cost is "
        in error
        and " in the full space)" in error
    )
    assert "Genotype(" not in error and len(error) < 400


def test_a_budget_below_the_lowest_cost_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_search(tmp_path / "none", "budget.params=1k") == 2
    data, remark, error = capsys.readouterr().err.splitlines()
    assert data == "119 training and 600 test images, 1x8x8, 10 classes (11 to 12 training images each), from digits"
    assert remark == "looking for genotypes with params <= 1,000"
    assert "the cheapest has " in error and "skeleton.channels=" in error
    assert not (tmp_path / "none").exists()


def test_the_number_of_channels_is_found_automatically(tmp_path: Path) -> None:
    assert run_search(tmp_path / "wide", "skeleton.channels=auto", "budget.params=12k") == 0
    genotype = read_genotype(tmp_path / "wide" / "genotype.json")
    assert genotype.skeleton is not None and genotype.skeleton.channels > 4
    assert genotype.costs["params"] <= 12_000
    assert f"channels: {genotype.skeleton.channels}" in (tmp_path / "wide" / "config.yaml").read_text()


# --- lower bounds on the use of budgets --------------------------------------------------------------------------


def used(folder: Path) -> dict[str, float]:
    """Return the shares of the budgets that the genotype of a search uses."""
    return dict(json.loads((folder / "result.json").read_text())["used"])


def test_the_budget_that_binds_first_is_used(within: Path) -> None:
    """Every candidate uses at least 0.9 of this budget, and the description of the rule gives this lower bound."""
    shares, candidates = used(within), json.loads((within / "candidates.json").read_text())
    binding = max(shares, key=lambda name: shares[name])
    assert 0.9 <= shares[binding] <= 1
    assert all(0.9 * BUDGETS[binding] <= one["costs"][binding] <= BUDGETS[binding] for one in candidates)
    rule = json.loads((within / "result.json").read_text())["rule"]
    assert f"{binding} at least " in rule and rule.count("at least") == 1


def test_every_genotype_derived_within_a_budget_uses_it(within: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["derive", str(within), "budget.params=4k", "budget.traffic=none", "count=5"]
    assert main([*words, "--json"]) == 0
    five = json.loads(capsys.readouterr().out)
    scores = [one["score"] for one in five]
    assert len(five) == 5 and scores == sorted(scores, reverse=True)
    assert all(3_600 <= one["costs"]["params"] <= 4_000 for one in five)
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "params at least 3,600 and at most 4,000" in output
    assert f"\n{100 * (five[0]['costs']['params'] / 4000):.1f} % of the params budget (4,000) is used" in output

    assert main([*words, "spend=0.97", "--json"]) == 0
    assert all(3_880 <= one["costs"]["params"] <= 4_000 for one in json.loads(capsys.readouterr().out))
    assert main([*words, "spend=0", "--json"]) == 0
    free = json.loads(capsys.readouterr().out)
    assert free[0]["score"] >= scores[0] and all(one["costs"]["params"] <= 4_000 for one in free)


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        (
            ["budget.params=3k", "budget.traffic=none", "spend=1"],
            "no cell was found that uses at least 100 % of the params budget",
        ),
        (["budget.params=50k", "budget.traffic=none"], "even the most expensive cell meets params <= 50,000"),
    ],
)
def test_a_lower_bound_that_is_reduced_or_absent_is_reported(
    settings: list[str], remark: str, within: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["derive", str(within), *settings]) == 0
    assert remark in capsys.readouterr().out


def test_a_search_reports_a_budget_without_a_lower_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = ["search.layers=[3]", "candidates=[0]", "skip_dropout=[0]", "epochs=1", "warmup_epochs=0", "cost.macs=0"]
    assert run_search(tmp_path / "ample", *stage, "cost.bytes=0", "budget.params=50k") == 0
    assert (
        "even the most expensive cell meets params <= 50,000, so there is no lower bound (search.spend)."
        in capsys.readouterr().out
    )
    # A resource with a price has no lower bound unless one is requested.
    priced = [*stage, "cost.bytes=0", "cost.params=1000", "budget.params=12k"]
    assert run_search(tmp_path / "priced", *priced) == 0 and used(tmp_path / "priced")["params"] < 0.9
    capsys.readouterr()
    assert main(["derive", str(tmp_path / "priced"), "spend=0.9", "--json"]) == 0
    assert 10_800 <= json.loads(capsys.readouterr().out)[0]["costs"]["params"] <= 12_000


def test_cells_of_nasbench201_are_residual_unless_skip_paths_is_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Search and derive choose a cell with exactly one skip-only path. A run keeps its own condition; runs of older versions have none."""
    stage = ["search.layers=[3]", "candidates=[0]", "skip_dropout=[0]", "epochs=1", "warmup_epochs=0", "rule=exact"]
    folder = tmp_path / "bench"
    assert run_search(folder, "space=nasbench201", *stage) == 0
    tree = edited.plain(folder / "alphas.json")
    for entry in tree["cells"]["normal"]:
        entry["alpha"] = [0.0, 0.0, 0.0, 3.0, 0.0]
    (folder / "alphas.json").write_text(json.dumps(tree))

    def derived(*options: str) -> str:
        capsys.readouterr()
        assert main(["derive", str(folder), "--json", *options]) == 0
        best = json.loads(capsys.readouterr().out)[0]["genotype"]
        assert ("one skip-only path" in best["provenance"]["rule"]) == ("skip_connect" in str(best["cells"]))
        return parse_genotype(json.dumps(best), "").to_nasbench201()

    plain = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    residual = plain.replace("+|nor_conv_3x3~0|nor_conv_3x3~1|nor", "+|skip_connect~0|nor_conv_3x3~1|nor")
    assert derived() == derived("skip_paths=auto") == residual
    assert derived("skip_paths=any") == derived("rule=darts") == plain
    assert main(["derive", str(folder), "rule=darts", "skip_paths=one"]) == 2
    assert "skip_paths=one needs rule=exact; add rule=exact, or leave out skip_paths." in capsys.readouterr().err
    config = (folder / "config.yaml").read_text().partition("\n")[2]  # without the hash, which no longer fits
    (folder / "config.yaml").write_text(config.replace("skip_paths: auto", "skip_paths: one"))
    assert derived() == residual and derived("rule=darts") == plain  # another rule drops the run's condition
    (folder / "config.yaml").write_text(config.replace("  skip_paths: auto\n", ""))
    assert derived() == plain


@pytest.mark.parametrize("allowed", [False, True])
def test_none_is_derived_only_on_request(allowed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This applies to search and derive, in a space that allows `none`; the output always remains connected to the input."""
    stage = ["search.layers=[3]", "candidates=[0]", "skip_dropout=[0]", "epochs=1", "warmup_epochs=0"]
    folder = tmp_path / "bench"
    assert run_search(folder, "space=nasbench201", *stage, f"derive_none={str(allowed).lower()}") == 0
    found = read_genotype(folder / "genotype.json")
    assert allowed or "none" not in found.to_nasbench201()
    capsys.readouterr()
    assert main(["derive", str(folder), "--json"]) == 0
    assert parse_genotype(json.dumps(json.loads(capsys.readouterr().out)[0]["genotype"]), "").cells == found.cells
    tree = edited.plain(folder / "alphas.json")
    for edge, entry in enumerate(tree["cells"]["normal"]):
        entry["alpha"] = [3.0, 0.2 if edge < 4 else 0.1, 0.0, 0.0, 0.1]
    (folder / "alphas.json").write_text(json.dumps(tree))
    assert main(["derive", str(folder), "--json"]) == 0
    best = json.loads(capsys.readouterr().out)[0]["genotype"]
    cell = parse_genotype(json.dumps(best), "").to_nasbench201()
    assert cell == (
        "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
        if allowed
        else "|avg_pool_3x3~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|avg_pool_3x3~1|avg_pool_3x3~2|"
    )
    assert best["provenance"]["rule"].startswith(
        "the cells with the largest" if allowed else "the strongest primitive except none on each edge"
    )


# --- replicas ----------------------------------------------------------------------------------------------------

FEW = ["primitives=[none,max_pool_3x3,skip_connect,dil_conv_3x3]", "cost.macs=0", "cost.bytes=0", "budget.params=3k"]
REPLICATED = [*FEW, "candidates=[0,2]", "replicas=3"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted search with three replicas and a budget."""
    folder = tmp_path_factory.mktemp("runs") / "three"
    assert run_search(folder, *REPLICATED) == 0
    return folder


def test_replicas_train_one_after_the_other_in_every_stage(three: Path) -> None:
    records = results(three)["records"]
    places = [(record["stage"], record["replica"], record["epoch"]) for record in records]
    assert places == [(stage, replica, epoch) for stage in (0, 1) for replica in (1, 2, 3) for epoch in (0, 1)]
    losses = [record["train_loss"] for record in records if (record["stage"], record["epoch"]) == (0, 0)]
    assert len(set(losses)) == 3
    # Each replica has its own multipliers, which carry over from stage to stage.
    for replica in (1, 2, 3):
        multiplier = 0.0
        for record in (one for one in records if one["replica"] == replica):
            assert record["multiplier_params"] == pytest.approx(multiplier, abs=1e-12)
            if record["epoch"] >= 1:
                multiplier = adjusted(multiplier, record["realised_params"] / 3000)


def test_all_replicas_are_pruned_alike(three: Path) -> None:
    """The pruning uses the mean of the mixing weights of all three replicas after the first stage."""
    left, skeleton, architectures = read_alphas(three / "alphas.json", SPACE)
    assert len(architectures) == 3 and json.loads((three / "alphas.json").read_text())["version"] == 2
    found = checkpoint.load_checkpoint(three / "checkpoint", {})
    assert found is not None
    finished = [state["architecture"] for state in found[0]["finished"]]
    assert len(finished) == 5  # the sixth ended the search
    settings = resolve.experiment_of_run(three).search
    space, weights = SPACE.only(settings.primitives), []
    for state in finished[:3]:
        architecture = Architecture(space)
        architecture.load_state_dict(state)
        weights.append(mixing_weights(architecture))
    rule, mean = rule_of(settings, space), mean_weights(weights)
    bounds, _ = spent(space, mean, budgets_on(price_table(space, skeleton), rule.limits), rule)
    assert prune(space, mean, 2, bounds, rule.max_skips).candidates == left.candidates
    assert any(prune(space, one, 2, bounds, rule.max_skips).candidates != left.candidates for one in weights)
    columns = [SPACE.columns[name] for name in space.primitives]
    for state, architecture in zip(finished[3:], architectures, strict=False):
        open_ = torch.as_tensor(left.mask[..., columns])
        assert torch.equal(state["alpha"][open_], architecture.alpha[..., columns][open_])


def test_the_genotype_of_several_replicas_meets_the_budget_and_can_be_derived_again(
    three: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genotype, result = read_genotype(three / "genotype.json"), json.loads((three / "result.json").read_text())
    assert 2700 <= genotype.costs["params"] <= 3000 and 0.9 <= result["used"]["params"] <= 1
    assert any("the three replicas agree on " in note for note in result["notes"])
    assert main(["derive", str(three), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)[0]
    assert again["genotype"]["cells"] == json.loads((three / "genotype.json").read_text())["cells"]
    assert again["costs"] == genotype.costs
    assert again["genotype"]["provenance"]["seeds"] == replica_seeds(0, 3)
    assert main(["derive", str(three)]) == 0
    assert "the three replicas agree on " in capsys.readouterr().out
    assert main(["report", str(three)]) == 0


@pytest.mark.parametrize("after", [pytest.param("epoch 3", marks=pytest.mark.proof), "epoch 8"])
def test_an_interrupted_search_with_replicas_resumes_bit_identically(
    three: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is stopped during a replica in the first stage, or between two replicas in the second."""
    interrupt_and_resume(after, tmp_path / "cut", monkeypatch, *REPLICATED)
    assert results(tmp_path / "cut") == results(three)


@pytest.mark.proof
def test_a_killed_search_with_replicas_resumes_bit_identically(three: Path, tmp_path: Path) -> None:
    kill(tmp_path / "killed", 9, *REPLICATED)
    assert run_search(tmp_path / "killed", *REPLICATED, "save_seconds=0", "resume=true") == 0
    assert results(tmp_path / "killed") == results(three)


def test_a_search_with_one_replica_writes_the_files_of_a_plain_search(whole: Path, tmp_path: Path) -> None:
    assert run_search(tmp_path / "one", "replicas=1") == 0
    assert results(tmp_path / "one") == results(whole)
    assert not any("replica" in record for record in results(whole)["records"])
    assert json.loads((whole / "alphas.json").read_text())["version"] == 1


def test_resuming_with_another_number_of_replicas_is_refused(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search(three, *REPLICATED, "replicas=2", "resume=true") == 2
    assert "search.replicas: 3 -> 2" in capsys.readouterr().err


@pytest.mark.proof
def test_three_searches_equal_one_search_with_three_replicas(tmp_path: Path) -> None:
    """With a single stage and all images, each replica equals the search with its seed, and the genotype of their mean is the same."""
    stage = ["search.layers=[3]", "candidates=[0]", "skip_dropout=[0.3]", "epochs=1", "warmup_epochs=0", "subset=0.1"]
    settings = ["data.fraction=1", *stage, *FEW]
    seeds = replica_seeds(0, 3)
    folders = [tmp_path / str(seed) for seed in seeds]
    for folder, seed in zip(folders, seeds, strict=True):
        assert run_search(folder, *settings, f"seed={seed}") == 0
    assert run_search(tmp_path / "three", *settings, "replicas=3") == 0

    learned = json.loads((tmp_path / "three" / "alphas.json").read_text())["replicas"]
    records = results(tmp_path / "three")["records"]
    for number, folder in enumerate(folders, 1):
        alone = json.loads((folder / "alphas.json").read_text())
        assert learned[number - 1] == {"cells": alone["cells"]}
        own = [record for record in records if record["replica"] == number]
        assert own == [{**record, "replica": number} for record in results(folder)["records"]]

    apart = rapdarts.derive(folders, progress=False)
    whole = rapdarts.derive(tmp_path / "three", progress=False)
    genotype = read_genotype(tmp_path / "three" / "genotype.json")
    assert apart.agreement == whole.agreement is not None
    for found in (apart, whole):
        assert (found.genotype.cells, found.costs) == (genotype.cells, genotype.costs)
        assert found.genotype.provenance["seeds"] == seeds


@pytest.mark.proof
def test_searches_that_dropped_different_candidates_can_be_averaged(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_search(tmp_path / "other", "seed=1") == 0
    capsys.readouterr()
    out = tmp_path / "both.json"
    assert main(["derive", str(whole), str(tmp_path / "other"), f"out={out}"]) == 0
    printed = capsys.readouterr()
    assert "the two replicas agree on " in printed.out and printed.out.endswith(f"written to {out}\n")
    assert "the settings of" not in printed.err
    assert run_search(tmp_path / "longer", "seed=2", "alpha_lr=0.02", "weight_decay=0") == 0
    assert main(["derive", str(whole), str(tmp_path / "longer")]) == 0
    assert (
        f"the settings of {whole} are used; those of {tmp_path / 'longer'} differ: weight_decay: 0.0003 -> 0.0,"
        " alpha_lr: 0.05 -> 0.02" in " ".join(capsys.readouterr().err.split())
    )
    validate(read_genotype(out), SPACE, "both")
    assert main(["derive", str(whole / "alphas.json"), str(tmp_path / "other" / "alphas.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["genotype"]["cells"] == json.loads(out.read_text())["cells"]


# --- prices ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpriced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Costs of the network that a search without prices finds, with enough layers for its memory peak to be in a cell."""
    folder = tmp_path_factory.mktemp("runs") / "unpriced"
    assert run_search(folder, "cost.macs=0", "cost.bytes=0", "skeleton.layers=6") == 0
    costs = json.loads((folder / "result.json").read_text())["counted"]
    return dict(costs)


@pytest.mark.parametrize(
    "resource",
    [pytest.param(name, marks=[] if name in ("macs", "peak_memory") else [pytest.mark.proof]) for name in COUNTERS],
)
def test_a_price_on_a_resource_lowers_its_cost(resource: str, unpriced: dict[str, float], tmp_path: Path) -> None:
    prices = ["cost.macs=0", "cost.bytes=0", f"cost.{resource}=1000"]
    assert run_search(tmp_path / "priced", *prices, "skeleton.layers=6") == 0
    records = results(tmp_path / "priced")["records"]
    assert all(np.isfinite(record["train_loss"]) for record in records)
    assert records[1]["gradient_ratio"] > 10
    assert records[-1][f"expected_{resource}"] < records[0][f"expected_{resource}"]
    costs = json.loads((tmp_path / "priced" / "result.json").read_text())["counted"]
    # Nine of ten random networks have the lowest possible peak memory, so the network found without a price may have it
    # too; after four epochs, only the expected peak of the mixture must have fallen.
    if resource != "peak_memory":
        assert costs[resource] < unpriced[resource]


def test_the_darts_strategy_searches_with_both_orders_of_gradient(tmp_path: Path) -> None:
    settings = ["strategy=darts", "search.layers=[3]", "epochs=1", "search.batch=24"]
    assert (
        run_search(
            tmp_path / "first", *settings[:1], "candidates=[0]", "skip_dropout=[0.0]", "warmup_epochs=0", *settings[1:]
        )
        == 0
    )
    assert (
        run_search(
            tmp_path / "second",
            *settings[:1],
            "candidates=[0]",
            "skip_dropout=[0.0]",
            "warmup_epochs=0",
            "unrolled=true",
            *settings[1:],
        )
        == 0
    )
    first, second = (results(tmp_path / name) for name in ("first", "second"))
    assert len(first["records"]) == len(second["records"]) == 1
    assert second["records"][0]["search_loss"] > 0
    assert first["alphas.json"] != second["alphas.json"]


def test_partial_channels_learn_edge_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The edge weights are saved with alpha and affect which edges the genotype keeps."""
    folder = tmp_path / "partial"
    assert run_search(folder, "partial_channels=2", "search.channels=4") == 0
    _, _, (architecture,) = read_alphas(folder / "alphas.json", SPACE)
    assert architecture.beta is not None and architecture.beta.abs().max() > 0.05  # the size of a step of Adam
    written = edited.plain(folder / "alphas.json")
    assert architecture.beta[1, 5].item() == written["cells"]["reduce"][5]["beta"]
    genotype = read_genotype(folder / "genotype.json")
    assert genotype.skeleton is not None
    result = json.loads((folder / "result.json").read_text())
    assert result["counted"] == count_derived(genotype, SPACE, genotype.skeleton)

    capsys.readouterr()
    assert main(["derive", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["genotype"]["cells"] == json.loads(genotype.to_json())["cells"]
    # Large differences between edge weights decide which edges are kept.
    for entries in written["cells"].values():
        for entry in entries:
            entry["beta"] = float(entry["input"])
    (folder / "alphas.json").write_text(json.dumps(written))
    assert main(["derive", str(folder), "max_skips=8", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)[0]["genotype"]["cells"]
    for cell in cells.values():
        assert [[source for _, source in node] for node in cell["nodes"]] == [[0, 1], [1, 2], [2, 3], [3, 4]]


def test_a_diverging_search_stops_and_keeps_a_finite_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["search.lr=1000", "search.weight_decay=1", "search.clip=0", "search.epochs=6", "save_seconds=0"]
    assert run_search(tmp_path / "wild", *wild) == 5
    assert "diverged" in capsys.readouterr().err
    assert not (tmp_path / "wild" / "genotype.json").exists()
    found = checkpoint.load_checkpoint(tmp_path / "wild" / "checkpoint", {})
    assert found is not None
    tensors = found[0]["objects"]["supernet"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_the_halves_share_no_image_and_the_smaller_half_is_repeated() -> None:
    config = resolve_experiment(
        "digits", [("search.batch", "64"), ("search.weight_fraction", "0.7"), ("search.subset", "1")], "search"
    )
    data = datasets.load_dataset(config.data, torch.device("cpu"), 0)
    halves = SearchBatches.of(data, config)
    assert not set(halves.train.index.tolist()) & set(halves.search.index.tolist())
    assert len(halves.train.index) + len(halves.search.index) == len(data.train) == 1197
    assert halves.search.steps < halves.train.steps
    labels = [tuple(search[1].tolist()) for _, search in halves.epoch(0)]
    assert len(labels) == halves.train.steps
    later = [tuple(search[1].tolist()) for _, search in halves.epoch(0, start=3)]
    assert later == labels[3:]
    part = SearchBatches.of(data, replace(config, search=replace(config.search, subset=0.5)))
    assert len(part.train.index) + len(part.search.index) == pytest.approx(1197 / 2, abs=10)
    assert len(part.train.index) == pytest.approx(0.7 * 1197 / 2, abs=10)


def test_stages_must_fit_the_space() -> None:
    from rapdarts.errors import InputError

    settings = Experiment().search
    check_stages(settings, SPACE)
    for candidates in ([4, 5, 3], [0, 9, 3], [0, 3, 5]):
        with pytest.raises(InputError, match=re.escape(str(candidates))):
            check_stages(replace(settings, candidates=candidates), SPACE)


def test_the_heat_map_is_brightest_at_the_largest_weight() -> None:
    weights = torch.full((2, 14, 8), 0.1)
    weights[1, 3, 5] = 0.9
    pixels = heat_map(weights).astype(int).sum(-1)
    assert pixels.shape == (28 * 16, 8 * 24)
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (row // 16, column // 24) == (14 + 3, 5)
