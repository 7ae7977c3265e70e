"""The random baseline: genotypes of a given cost, trained with the retraining recipe."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype
from rapdarts.architecture.space import Skeleton
from rapdarts.cli.main import main
from rapdarts.cost.count import count_derived
from rapdarts.cost.expected import price_table
from rapdarts.errors import InputError
from rapdarts.files.run_files import RUN_FILES
from rapdarts.loops.random_baseline import conditions, draw_genotypes
from rapdarts.strategy.rule import Rule
from rapdarts.training.checkpoint import load_checkpoint
from rapdarts.training.intervals import mean_in_words, mean_interval
from rapdarts.training.run import Run
from search_spaces.darts import SPACE

TINY = [
    "threads=1",
    "data.fraction=0.2",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "strategy=random",
    "random.count=3",
    "retrain.epochs=1",
    "retrain.batch=60",
]


def test_drawn_genotypes_have_the_given_cost() -> None:
    table, rule = price_table(SPACE, Skeleton(6, 8, (3, 16, 16), 10)), Rule("pdarts", 1)
    anything = draw_genotypes(SPACE, 100, 1, None, None, "")
    center = float(np.median([table.exact(genotype)["macs"] for genotype in anything]))
    budgets, words = conditions(SPACE, table, rule, center, 0.02)
    assert words == f"random genotypes within 2 % of {center:,.0f} MACs, at most 1 skip in the normal cell"

    def drawn(seed: int) -> list[Genotype]:
        return draw_genotypes(SPACE, 20, seed, budgets, rule.max_skips, words)

    genotypes = drawn(3)
    assert all(abs(table.exact(genotype)["macs"] - center) <= 0.02 * center for genotype in genotypes)
    assert all(skips(genotype) <= 1 for genotype in genotypes) and max(map(skips, anything)) > 1
    assert len({genotype.to_darts() for genotype in genotypes}) == 20
    assert drawn(3) == genotypes and drawn(4) != genotypes


def skips(genotype: Genotype) -> int:
    return sum(name == "skip_connect" for node in genotype.cells["normal"].nodes for name, _ in node)


def test_a_cost_that_no_genotype_has_is_refused() -> None:
    macs = 1e12
    table = price_table(SPACE, Skeleton(3, 4, (1, 8, 8), 10))
    budgets, words = conditions(SPACE, table, Rule("darts"), macs, 0.05)
    with pytest.raises(InputError) as refusal:
        draw_genotypes(SPACE, 2, 0, budgets, None, words)
    assert str(refusal.value) == (
        f"found only 0 of 2 different random genotypes within 5 % of {macs:,.0f} MACs; change search.random.macs,"
        " search.random.tolerance or the budget, or draw fewer with search.random.count."
    )
    budgets, words = conditions(SPACE, table, Rule("darts"), 1.0, 0.05)
    with pytest.raises(
        InputError, match=r"no genotype of the space darts meets macs <= 1: the cheapest has [\d,]+; raise search"
    ):
        draw_genotypes(SPACE, 2, 0, budgets, None, words)


def test_random_genotypes_meet_the_conditions_of_the_search_they_are_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The budgets, shares to spend, primitives and cap on skips come from the run folder of the search; other budgets are rejected."""
    tiny = [setting for setting in TINY if not setting.startswith(("strategy", "random", "retrain"))]
    tiny += ["layers=[3]", "candidates=[0]", "skip_dropout=[0.0]", "channels=4", "epochs=1", "warmup_epochs=0"]
    own = ["primitives=[skip_connect,max_pool_3x3,sep_conv_3x3]", "batch=32", "max_skips=1"]
    search = tmp_path / "search"
    assert main(["search", "digits", *tiny, *own, "budget.params=5k", f"run={search}"]) == 0
    found = json.loads((search / "result.json").read_text())
    folder, like = tmp_path / "baseline", f"random.like={search}"
    assert baseline(folder, like) == 0
    result = json.loads((folder / "result.json").read_text())
    assert 4500 <= found["priced"]["params"] <= 5000
    assert result["drawn"] == (
        "random genotypes, params at least 4,500 and at most 5,000, at most 1 skip in the normal cell"
    )
    for network in result["networks"]:
        genotype = parse_genotype(network["genotype"], "the result")
        assert skips(genotype) <= 1 and 4500 <= network["costs"]["params"] <= 5000
        assert {name for cell in genotype.cells.values() for node in cell.nodes for name, _ in node} <= {
            "skip_connect",
            "max_pool_3x3",
            "sep_conv_3x3",
        }
    capsys.readouterr()
    assert baseline(tmp_path / "other", like, "budget.params=6k") == 2
    assert f"search.random.like={search} already sets the budgets; remove search.budget." in (capsys.readouterr().err)
    assert baseline(tmp_path / "other", like, "space=filters") == 2
    assert "searched the space darts, not filters; set space=darts." in capsys.readouterr().err
    assert baseline(tmp_path / "other", "budget.params=5k", "random.macs=1M") == 2
    assert "search.random.macs and search.budget cannot be combined; remove one." in capsys.readouterr().err
    assert baseline(tmp_path / "other", like, "random.macs=1M") == 2
    assert "search.random.macs and search.budget cannot be combined; remove one." in capsys.readouterr().err
    assert baseline(tmp_path / "other", like, "max_skips=0") == 2
    assert f"search.random.like={search} already sets search.max_skips; remove it." in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_baseline_uses_the_rule_of_the_search_it_is_compared_with(tmp_path: Path) -> None:
    """A search with strategy=darts and no budget has no cap on skips, so its baseline has none either."""
    tiny = [
        "threads=1",
        "data.fraction=0.2",
        "skeleton.layers=3",
        "skeleton.channels=4",
        "strategy=darts",
        "layers=[3]",
    ]
    search = tmp_path / "search"
    assert main(["search", "digits", *tiny, "channels=4", "epochs=1", f"run={search}"]) == 0
    assert baseline(tmp_path / "baseline", f"random.like={search}", "random.count=1", "random.tolerance=0.3") == 0
    assert "skips" not in json.loads((tmp_path / "baseline" / "result.json").read_text())["drawn"]


def baseline(folder: Path, *settings: str) -> int:
    return main(["search", "digits", *TINY, f"run={folder}", *settings])


def test_the_baseline_reports_mean_and_deviation_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Enough for accuracies that are not all the same.
    learning = ["retrain.epochs=2", "retrain.batch=12", "retrain.lr=0.1"]
    assert baseline(tmp_path / "whole", *learning) == 0
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    shares = [network["test_accuracy"] for network in result["networks"]]
    assert len(shares) == 3 and len(set(shares)) > 1
    assert result["test_accuracy"] == pytest.approx(np.mean(shares))
    assert result["standard_deviation"] == pytest.approx(np.std(shares, ddof=1))
    output = capsys.readouterr().out
    assert f"test accuracy {mean_in_words(shares)}\n" in output and "mean of 3 genotypes" in output
    assert result["interval"] == [*mean_interval(shares)]
    assert output.endswith(f"\nwritten to {tmp_path / 'whole' / 'result.json'}\n")
    for number, share in enumerate(shares, 1):
        network = tmp_path / "whole" / "trained" / str(number)
        assert main(["evaluate", str(network / "network.safetensors" if number == 1 else network), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["test_accuracy"] == share
    assert {path.name for path in (tmp_path / "whole").iterdir()} <= {*RUN_FILES, "tensorboard", "trained"}

    original, logged = Run.log, 0

    def signal_in_second_network(self: Run, *shown: Any, **facts: Any) -> None:
        nonlocal logged
        logged += 1
        if logged == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *shown, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", signal_in_second_network)
        assert baseline(tmp_path / "cut", *learning) == 75
    assert baseline(tmp_path / "cut", *learning, "resume=true") == 0
    resumed = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert resumed["networks"] == result["networks"]
    # For finished networks, the checkpoint holds the results, not the weights.
    found = load_checkpoint(tmp_path / "cut" / "checkpoint", {})
    assert found is not None
    assert [facts["correct"] / facts["n"] for facts in found[0]["finished"]] == shares[:2]
    assert all(
        value is None or isinstance(value, int | float) for facts in found[0]["finished"] for value in facts.values()
    )


def test_the_skeleton_of_a_genotype_is_used_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    like = replace(LITERATURE["PDARTS"], skeleton=Skeleton(4, 2, (1, 8, 8), 10))
    (tmp_path / "like.json").write_text(like.to_json())
    settings = [f"random.like={tmp_path / 'like.json'}", "random.tolerance=1", "random.count=1"]
    assert baseline(tmp_path / "run", *settings) == 0
    assert (
        "\nbuilding 4 cells x 2 channels with the cifar stem, the skeleton for which the genotype was priced,"
        " instead of the experiment's 3 cells x 4 channels with the cifar stem; " in capsys.readouterr().err
    )


def test_the_cost_can_come_from_a_genotype(tmp_path: Path) -> None:
    assert baseline(tmp_path / "run", "random.like=PDARTS", "random.tolerance=0.1", "random.count=1") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    table = price_table(SPACE, Skeleton(3, 4, (1, 8, 8), 10))
    assert result["target_macs"] == table.exact(LITERATURE["PDARTS"])["macs"]
    assert abs(result["networks"][0]["costs"]["macs"] - result["target_macs"]) <= 0.1 * result["target_macs"]
    assert result["standard_deviation"] is None


def test_the_cost_can_come_from_a_genotype_that_no_search_can_find(tmp_path: Path) -> None:
    """Some nodes of this genotype have fewer than two edges: the price table does not cover it, so its network is counted."""
    assert baseline(tmp_path / "run", "random.like=FairDARTS_a", "random.tolerance=0.1", "random.count=1") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    counted = count_derived(LITERATURE["FairDARTS_a"], SPACE, Skeleton(3, 4, (1, 8, 8), 10))
    assert result["target_macs"] == counted["macs"]


def test_a_training_that_diverges_is_left_out_of_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, broken = Run.log, {1}

    def log(self: Run, *shown: Any, **facts: float) -> None:
        original(self, *shown, **facts, **({"train_loss": math.nan} if self.stage in broken else {}))

    monkeypatch.setattr(Run, "log", log)
    assert baseline(tmp_path / "some") == 0
    words, progress = capsys.readouterr()
    assert (
        "network 2/3: train_loss is nan in epoch 1: the training diverged. Lower the learning rate in a new run"
        in progress
    )
    assert "mean of 2 genotypes" in words
    result = json.loads((tmp_path / "some" / "result.json").read_text())
    first, second, third = (network["test_accuracy"] for network in result["networks"])
    assert second is None and result["test_accuracy"] == pytest.approx((first + third) / 2)
    broken |= {0, 2}
    assert baseline(tmp_path / "none") == 5
    assert "every training diverged at retrain.lr=0.05 (3 networks). Lower the learning rate" in capsys.readouterr().err
