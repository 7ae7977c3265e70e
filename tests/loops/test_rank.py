"""The ranking: its entries, its images, the intervals of its accuracies, and bit-identical resuming."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.reading import read_genotype
from rapdarts.cli.main import main
from rapdarts.config import resolve
from rapdarts.config.experiment import DataConfig, Experiment, RetrainConfig
from rapdarts.config.key_values import save_yaml
from rapdarts.data.dataset import load_dataset
from rapdarts.errors import DamagedError
from rapdarts.files.run_files import RUN_FILES
from rapdarts.loops.rank import RankingEntry, choose_entries, compared, estimate, short_recipe, split_for_ranking
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.training.checkpoint import load_checkpoint as load_checkpoint
from rapdarts.training.checkpoint import origin_of, save_checkpoint
from rapdarts.training.intervals import accuracy_interval, paired_interval, percent, wilson
from rapdarts.training.run import Run
from search_spaces.darts import SPACE
from tests.edited import plain

TINY_SEARCH = [
    "threads=1",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "search.subset=0.2",
    "search.channels=2",
    "search.layers=[3]",
    "search.candidates=[0]",
    "search.skip_dropout=[0.0]",
    "search.epochs=2",
    "search.batch=48",
]
QUICK = ["epochs=1", "retrain.batch=100"]


def all_pools() -> Genotype:
    """Return a bad genotype, in which every node is a sum of pooled inputs."""
    node = (("avg_pool_3x3", 0), ("avg_pool_3x3", 1))
    cell = Cell(2, (node,) * 4, (2, 3, 4, 5))
    return Genotype("darts", {"normal": cell, "reduce": cell})


def ranking(folder: Path, *words: str | Path) -> int:
    return main(["rank", *map(str, words), f"run={folder}"])


def result_of(folder: Path) -> dict[str, Any]:
    return dict(plain(folder / "result.json"))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "search"
    assert main(["search", "digits", *TINY_SEARCH, f"run={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a search with another seed."""
    folder = tmp_path_factory.mktemp("runs") / "second"
    assert main(["search", "digits", *TINY_SEARCH, "seed=1", f"run={folder}"]) == 0
    return folder


# --- results -----------------------------------------------------------------------------------------------------


def test_a_planted_bad_genotype_comes_last(search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "pools.json"
    bad.write_text(all_pools().to_json())
    settings = ["count=2", "epochs=5", "rank.train_fraction=0.7"]
    assert ranking(tmp_path / "rank", search, bad, *settings) == 0
    words, progress = capsys.readouterr()
    assert f"\nnetwork 1/3 comes from {bad}\nnetwork 1/3 epoch 1/5 " in progress
    assert f"\nnetwork 2/3 comes from {search} (derived)\nnetwork 2/3 epoch 1/5 " in progress
    assert " left of network 3/3)\n" in progress
    result = result_of(tmp_path / "rank")
    networks = result["networks"]
    assert [found["rank"] for found in networks] == [1, 2, 3]
    shares = [found["validation_accuracy"] for found in networks]
    assert shares == sorted(shares, reverse=True)
    assert networks[-1]["sources"] == [str(bad)] and not networks[-1]["within_error"]
    assert networks[-1]["costs"]["params"] == min(found["costs"]["params"] for found in networks)
    assert [f"{search} (derived)"] in [found["sources"] for found in networks]
    assert words.splitlines()[-1] == f"written to {tmp_path / 'rank' / 'best.json'}"
    rows = words.splitlines()[2:5]
    assert all(f"{found['costs']['macs']:,}" in row for found, row in zip(networks, rows, strict=True))


def test_the_best_network_can_be_retrained_and_all_can_be_evaluated(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rank"
    assert ranking(folder, search, "PDARTS", "count=1", *QUICK, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result == result_of(folder)
    first, last = result["networks"]
    assert {path.name for path in folder.iterdir()} <= {*RUN_FILES, "tensorboard", "trained"}
    best = read_genotype(folder / "best.json")
    assert best.line == first["genotype"] and best.costs == first["costs"]
    assert best.skeleton == read_genotype(search / "genotype.json").skeleton
    assert best.provenance["ranking"]["validation_accuracy"] == first["validation_accuracy"]
    assert [found["genotype"]["cells"] for found in json.loads((folder / "ranking.json").read_text())] == [
        json.loads((folder / found["folders"][0] / "genotype.json").read_text())["cells"] for found in (first, last)
    ]
    assert {tuple(found["sources"]) for found in result["networks"]} == {("PDARTS",), (f"{search} (derived)",)}
    assert {found["score"] is None for found in result["networks"]} == {True, False}
    for found in result["networks"]:
        assert main(["evaluate", str(folder / found["folders"][0]), "timing=false", "--json"]) == 0
        tested = json.loads(capsys.readouterr().out)
        assert tested["n"] == 600 and tested["costs"] == found["costs"]  # the real test set
    # The model card describes the training in the ranking, not the retraining that the experiment would run.
    files = [f"out={tmp_path / 'net.safetensors'}", "to=safetensors", "--json"]
    assert main(["export", str(folder / first["folders"][0]), *files]) == 0
    card = Path(json.loads(capsys.readouterr().out)["card"]).read_text()
    assert (
        f"| training | 1 epoch in a ranking, on a fraction 0.5 of these training images, with rapdarts {rapdarts.__version__}, torch"
        in card
    )
    assert "| test accuracy | unknown: the run has no result for this file |" in card
    assert main(["report", str(folder)]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert f"| rank, best of 2 | digits | 0 | 1 epoch | {first['costs']['params']:,} |" in row
    assert first["interval"] == [*wilson(first["validation_accuracy"], 596)]
    accuracy = percent(first["validation_accuracy"], first["interval"])
    assert f"| on held-out training images: {accuracy} | 596 |" in row


def test_several_seeds_give_an_interval_over_seeds(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ranking(tmp_path / "rank", search, "count=2", "seeds=2", *QUICK) == 0
    result = result_of(tmp_path / "rank")
    assert "\n95 % intervals over 596 images and 2 seeds\n" in capsys.readouterr().out
    assert sorted(folder for found in result["networks"] for folder in found["folders"]) == [
        "trained/1-1",
        "trained/1-2",
        "trained/2-1",
        "trained/2-2",
    ]
    for found in result["networks"]:
        one, other = found["accuracies"]
        assert one != other and found["validation_accuracy"] == pytest.approx((one + other) / 2)
        assert found["standard_error_seeds"] == pytest.approx(abs(one - other) / 2)
        assert found["standard_error"] == pytest.approx(
            math.hypot(found["standard_error_images"], found["standard_error_seeds"])
        )
        assert found["interval"] == [*accuracy_interval([one, other], 596)]


# --- entries -----------------------------------------------------------------------------------------------------


def contestant(
    source: str, score: float | None, *primitives: str, own: bool = False, swapped: bool = False
) -> RankingEntry:
    nodes = [((primitive, 0), ("sep_conv_3x3", 1)) for primitive in primitives]
    cell = Cell(2, tuple(node[::-1] if swapped else node for node in nodes), (2,))
    return RankingEntry(Genotype("darts", {"normal": cell, "reduce": cell}), SPACE, (source,), score, own)


def test_named_and_derived_genotypes_come_first() -> None:
    found = [
        contestant("a", -3.0, "max_pool_3x3", own=True),
        contestant("a", -1.0, "skip_connect"),
        contestant("a", -2.0, "sep_conv_3x3"),
        contestant("file", None, "avg_pool_3x3"),
        contestant("b", -2.5, "sep_conv_5x5", own=True),
        contestant("b", -1.5, "dil_conv_3x3"),
    ]
    assert choose_entries(found, 3) == [found[3], found[4], found[0], found[1]]
    assert choose_entries(found, 100) == [found[3], found[4], found[0], found[1], found[5], found[2]]
    assert choose_entries(found, 1) == [found[3], found[4]]


def test_a_genotype_found_twice_is_ranked_once() -> None:
    found = [
        contestant("a", -3.0, "max_pool_3x3"),
        contestant("b", -1.0, "max_pool_3x3", own=True, swapped=True),
        contestant("a", -2.0, "skip_connect"),
        contestant("a", -2.0, "skip_connect"),
    ]
    both, single = choose_entries(found, 5)
    assert (both.sources, both.score, both.own) == (("a", "b"), -1.0, True)
    assert single.sources == ("a",)
    named = contestant("file", None, "max_pool_3x3")
    assert choose_entries([named, *found], 1)[0].sources == ("file", "a", "b")
    assert choose_entries([*found, named], 1)[0].score is None


def test_the_derived_genotype_of_every_search_is_ranked(search: Path, second: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(search, copy)
    assert ranking(tmp_path / "rank", search, second, copy, "count=3", *QUICK) == 0
    networks = result_of(tmp_path / "rank")["networks"]
    sources = [found["sources"] for found in networks]
    assert len(sources) == 3 and len({found["genotype"] for found in networks}) == 3
    assert [f"{search} (derived)", f"{copy} (derived)"] in sources and [f"{second} (derived)"] in sources


def test_candidates_meet_the_budgets_of_their_search(search: Path, tmp_path: Path) -> None:
    def params(folder: Path) -> list[int]:
        return [found["costs"]["params"] for found in result_of(folder)["networks"]]

    assert ranking(tmp_path / "free", search, "count=2", *QUICK) == 0
    budget = min(params(tmp_path / "free")) - 500
    copy = tmp_path / "copy"
    shutil.copytree(search, copy)
    config = resolve.experiment_of_run(copy)
    bounded = replace(config.search, budget=replace(config.search.budget, params=float(budget)))
    config = replace(config, search=bounded)
    (copy / "config.yaml").write_text(save_yaml(config))
    assert ranking(tmp_path / "bound", copy, "count=2", *QUICK) == 0
    assert max(params(tmp_path / "bound")) <= budget


# --- images ------------------------------------------------------------------------------------------------------


def test_a_ranking_splits_the_training_set_into_two_parts() -> None:
    data = load_dataset(DataConfig(), torch.device("cpu"), 0)
    config = Experiment()
    parts = split_for_ranking(data, config)
    assert len(parts.train) + len(parts.test) == len(data.train)
    sizes = [torch.bincount(part.labels) for part in (parts.train, parts.test, data.train)]
    assert (sizes[0] + sizes[1] == sizes[2]).all() and ((sizes[0] - sizes[1]).abs() <= 1).all()

    def contents(images: Any) -> list[bytes]:
        return sorted(image.numpy().tobytes() for image in images.fetch(torch.arange(len(images))))

    assert sorted(contents(parts.train) + contents(parts.test)) == contents(data.train)
    config = replace(config, seed=1)
    assert contents(split_for_ranking(data, config).train) != contents(parts.train)


def test_the_test_set_is_never_used(search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sealed:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"a ranking accessed {name} of the test set")

    def sealed(*arguments: Any) -> Any:
        return replace(load_dataset(*arguments), test=Sealed())  # type: ignore[arg-type]

    monkeypatch.setattr("rapdarts.data.dataset.load_dataset", sealed)
    assert ranking(tmp_path / "rank", search, "count=1", *QUICK) == 0


def test_runs_on_other_data_are_refused(search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(search, copy)
    config = resolve.experiment_of_run(copy)
    config = replace(config, data=replace(config.data, name="mnist"))
    (copy / "config.yaml").write_text(save_yaml(config))
    capsys.readouterr()
    assert ranking(tmp_path / "rank", search, copy, *QUICK) == 2
    assert capsys.readouterr().err.endswith(
        f"{copy} did not use the data of this ranking (data.name mnist, not digits); only runs on the same data can"
        " be ranked together.\n"
    )

    shutil.copy(search / "config.yaml", copy / "config.yaml")
    save_checkpoint(copy / "checkpoint", {}, {**origin_of(copy / "checkpoint"), "data set": "0" * 64})
    assert ranking(tmp_path / "rank", search, copy, *QUICK) == 2
    assert "(fingerprint 000000000000, not " in capsys.readouterr().err
    (copy / "checkpoint.previous").unlink()
    for damaged in (b"", b"rapdarts-checkpoint 1\n{", b"rapdarts-checkpoint 1\n[]", b"rapdarts-checkpoint 2\n{}\n"):
        (copy / "checkpoint").write_bytes(damaged)
        with pytest.raises(DamagedError, match="checkpoint is damaged"):
            origin_of(copy / "checkpoint")
    (copy / "checkpoint").unlink()
    assert origin_of(copy / "checkpoint") == {}
    assert not (tmp_path / "rank").exists()


# --- standard errors ---------------------------------------------------------------------------------------------


def test_one_seed_has_the_binomial_error() -> None:
    values = (np.arange(200) < 150).astype(float)[None]
    found = estimate(values)
    assert found["mean"] == 0.75 and found["standard_error_seeds"] is None
    assert found["standard_error"] == found["standard_error_images"] == pytest.approx(math.sqrt(0.75 * 0.25 / 200))


def test_several_seeds_add_an_error_over_seeds() -> None:
    rng = np.random.default_rng(0)
    levels = np.array([0.6, 0.7, 0.9])
    found = estimate((rng.random((3, 100_000)) < levels[:, None]).astype(float))
    assert found["standard_error_seeds"] == pytest.approx(np.std(levels, ddof=1) / math.sqrt(3), rel=0.02)
    assert found["standard_error"] == math.hypot(found["standard_error_images"], found["standard_error_seeds"])


def test_a_difference_on_the_same_images_has_a_smaller_error_than_on_separate_images() -> None:
    base = (np.arange(1000) % 5 > 0).astype(float)
    better = base.copy()
    better[:15:5] = 1  # three more images are correct
    found = estimate((better - base)[None])
    assert found["mean"] == pytest.approx(0.003)
    assert found["standard_error"] == pytest.approx(math.sqrt(0.003 * 0.997 / 1000))
    apart = math.hypot(*(estimate(values[None])["standard_error"] for values in (base, better)))
    assert found["standard_error"] < apart / 8


def test_networks_are_compared_on_the_same_images() -> None:
    """The errors of the two accuracies together would hide a difference of nine images that only the first classifies correctly."""
    images = np.arange(100)
    first, second = ((images < right).astype(float)[None] for right in (55, 46))
    found = compared(2, contestant("a", -1.0, "skip_connect"), second, first)
    assert (found["validation_accuracy"], found["accuracies"]) == (0.46, [0.46])
    assert found["difference"] == pytest.approx(0.09)
    assert found["difference_error"] == pytest.approx(math.sqrt(0.09 * 0.91 / 100))
    assert not found["within_error"]
    assert found["difference_interval"] == [*paired_interval(first - second)] and found["difference_interval"][0] > 0
    assert found["difference"] < 1.96 * math.hypot(*(estimate(one)["standard_error"] for one in (first, second)))
    assert not compared(1, contestant("a", None, "skip_connect"), first, first)["within_error"]
    shuffled = np.random.default_rng(0).permutation(second, axis=1)
    assert compared(2, contestant("a", -1.0, "skip_connect"), shuffled, first)["within_error"]


# --- interruptions, diverged trainings and rejected settings -----------------------------------------------------


CARRIED = [
    "retrain.batch=75",
    "retrain.accumulate=2",
    "retrain.amp=bf16",
    "retrain.ema=0.9",
    "retrain.drop_path=0.3",
    "retrain.label_smoothing=0.1",
    "retrain.jitter=0.4",
    "epochs=2",
]
"""A recipe that uses every part with state or random numbers; 4 steps per epoch."""


def diverge(patch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Make the trainings with these numbers, counted from 0, diverge in their second epoch."""
    original = Run.log

    def log(self: Run, *shown: Any, **facts: float) -> None:
        broken = {"train_loss": math.nan} if self.stage in numbers and self.epoch == 1 else {}
        original(self, *shown, **facts, **broken)

    patch.setattr(Run, "log", log)


def same_results(one: Path, other: Path) -> bool:
    """Return whether two rankings wrote bit-identical networks and the same ranking."""
    names = [{str(file.relative_to(folder)) for file in folder.rglob("trained/*/*")} for folder in (one, other)]
    files = {"ranking.json", "best.json", *names[0]}
    return names[0] == names[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


@pytest.mark.proof
def test_a_ranking_that_is_killed_and_stopped_resumes_bit_identically(
    search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three networks diverges; the ranking is killed while it trains the first, and stopped in each of the other two."""
    settings = [search, "count=3", *CARRIED]
    diverge(monkeypatch, 1)
    assert ranking(tmp_path / "whole", *settings) == 0
    original, steps = Run._pause, 0

    def until(stage: int, last: int, end: Callable[[], object]) -> Callable[[Run], None]:
        def pause(self: Run) -> None:
            nonlocal steps
            steps += self.stage == stage
            if steps == last:
                end()
            original(self)

        return pause

    def die() -> None:
        raise SystemExit

    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_pause", until(0, 8, die))  # dies before this step is saved
        with pytest.raises(SystemExit):
            ranking(folder, *settings, "save_seconds=0")
        assert not (folder / "trained").exists()
        steps = 0
        patch.setattr(Run, "_pause", until(1, 8, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert ranking(folder, *settings, "resume=true") == 75
        assert (folder / "trained" / "1").is_dir() and not (folder / "trained" / "3").exists()
        steps = 0
        patch.setattr(Run, "_pause", until(2, 3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert ranking(folder, *settings, "resume=true") == 75
        assert not (folder / "trained" / "2").exists() and not (folder / "trained" / "3").exists()
    assert ranking(folder, *settings) == 2
    assert ranking(folder, *settings, "seed=1", "resume=true") == 2
    assert ranking(folder, *settings, "resume=true") == 0
    assert same_results(folder, tmp_path / "whole")
    # For finished networks, the checkpoint holds which predictions are correct, not the weights.
    found = load_checkpoint(folder / "checkpoint", {})
    assert found is not None
    assert [[*facts] for facts in found[0]["finished"]] == [["right"], ["right", "diverged"]]
    right = [facts["right"] for facts in found[0]["finished"]]
    assert (right[0].dtype, len(right[0]), right[1]) == (torch.bool, 596, None)


def test_a_network_with_a_diverged_training_comes_last_and_the_others_continue(
    search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(monkeypatch, 0, 3)
    settings = ["seeds=2", "count=3", "epochs=2", "retrain.batch=200"]
    assert ranking(tmp_path / "rank", search, *settings) == 0
    words, progress = capsys.readouterr()
    message = next(line for line in progress.splitlines() if line.startswith("network 1/3 seed 1/2: "))
    assert "train_loss is nan in epoch 2: the training diverged. Lower the learning rate in a new run" in message
    assert f"{message}\nnetwork 1/3 seed 2/2 epoch 1/2 " in progress
    networks = result_of(tmp_path / "rank")["networks"]
    assert [found["diverged"] for found in networks] == [False, True, True]
    assert networks[1]["costs"]["macs"] <= networks[2]["costs"]["macs"]
    assert sorted(found["folders"] for found in networks) == [
        ["trained/1-2"],
        ["trained/2-1"],
        ["trained/3-1", "trained/3-2"],
    ]
    for found in networks[1:]:
        assert found["validation_accuracy"] is found["interval"] is found["difference"] is None
        assert found["standard_error"] is found["difference_interval"] is None
        assert not found["within_error"]
        assert sorted(accuracy is None for accuracy in found["accuracies"]) == [False, True]
    assert [" diverged " in row for row in words.splitlines()[2:5]] == [False, True, True]
    assert words.splitlines()[3].count("%") == 0
    assert main(["report", str(tmp_path / "rank")]) == 0


def test_a_ranking_fails_if_all_trainings_diverge(
    search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(monkeypatch, 0, 1)
    assert ranking(tmp_path / "rank", search, "count=2", "epochs=2", "retrain.batch=200", "retrain.lr=0.3") == 5
    assert capsys.readouterr().err.splitlines()[-1] == (
        "rapdarts: error: every training diverged at retrain.lr=0.3 (2 networks). Lower the learning rate, and start a"
        " new run with run=PATH."
    )
    assert not (tmp_path / "rank" / "ranking.json").exists()
    assert json.loads((tmp_path / "rank" / "status.json").read_text())["exit_code"] == 5


def test_running_out_of_memory_reports_which_retraining_settings_to_change(
    search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def greedy(*given: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("rapdarts.loops.retrain.to_device", greedy)
    assert ranking(tmp_path / "rank", search, *QUICK) == 7
    words = (
        "error: out of memory at batch size 100: set retrain.batch=50 with retrain.accumulate=2 or retrain.amp=bf16."
    )
    assert words in capsys.readouterr().err


def test_every_network_is_evaluated_once(search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = DerivedNetwork.forward

    def counted(self: DerivedNetwork, images: torch.Tensor, *kept: Any) -> Any:
        if not self.training and len(images) > 1:  # costs are counted on one image
            seen.append(len(images))
        return forward(self, images, *kept)

    monkeypatch.setattr(DerivedNetwork, "forward", counted)
    assert ranking(tmp_path / "rank", search, "count=2", *QUICK) == 0
    assert sum(seen) == 2 * result_of(tmp_path / "rank")["validation_images"]


def test_the_number_of_epochs_is_recorded(search: Path, tmp_path: Path) -> None:
    settings = ["count=1", "retrain.epochs=2", "retrain.batch=200", "rank.train_fraction=0.4"]
    assert ranking(tmp_path / "rank", search, *settings) == 0
    assert result_of(tmp_path / "rank")["epochs"] == resolve.experiment_of_run(tmp_path / "rank").rank.epochs == 2


def test_a_ranking_shorter_than_the_warm_up_reaches_the_full_learning_rate() -> None:
    config = resolve.resolve_experiment("", [("retrain.recipe", "fast")])
    assert config.retrain.warmup_epochs == 2
    for epochs, warm in ((0, 2), (3, 2), (2, 1), (1, 0)):
        short = short_recipe(replace(config, rank=replace(config.rank, epochs=epochs)))
        assert short.retrain.warmup_epochs == warm
        resolve.check_experiment(short)  # the short recipe is valid for a retraining


def test_a_ranking_accepts_its_own_keys_and_keys_of_the_experiment(
    search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["rank", str(search), "epochs=3", "retrain.lr=0.01", "count=7", "--print-config", "--json"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert config["rank"] == {"count": 7, "epochs": 3, "seeds": 1, "train_fraction": 0.5}
    assert (config["retrain"]["epochs"], config["retrain"]["lr"], config["skeleton"]["channels"]) == (10, 0.01, 4)
    assert main(["rank", str(search), "lr=0.1", "--print-config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["retrain"]["lr"] == 0.1  # a ranking does not use search.lr


def test_a_long_recipe_is_replaced_by_the_fast_one(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(search, copy)
    config = resolve.experiment_of_run(copy)
    config = replace(config, retrain=RetrainConfig(recipe="imagenet_mobile", epochs=250, jitter=0.4))
    (copy / "config.yaml").write_text(save_yaml(config))

    def asked(*settings: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["rank", str(copy), *settings, "--print-config", "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    found, fast = asked("retrain.lr=0.3"), resolve.resolve_experiment("", [("retrain.recipe", "fast")]).retrain
    assert found["retrain"] == asdict(replace(fast, lr=0.3))
    assert (found["skeleton"], found["data"]) == (asdict(config.skeleton), asdict(config.data))
    assert asked("retrain.recipe=pdarts")["retrain"] == asdict(RetrainConfig())


def test_invalid_targets_and_keys_are_refused(search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sentence(*words: str | Path) -> str:
        capsys.readouterr()
        assert ranking(tmp_path / "rank", *words) == 2
        assert not (tmp_path / "rank").exists()
        return capsys.readouterr().err

    assert "PDARTS is not the folder of a finished search (no alphas.json)" in sentence("PDARTS")
    assert f"{tmp_path} is not the folder of a finished search" in sentence("PDARTS", tmp_path)
    assert f"{tmp_path} has no genotype.json: its search has not finished" in sentence(search, tmp_path)
    assert "there is no genotype 'PDRATS'" in sentence(search, "PDRATS")
    for key in ("budget.params", "search.budget.macs"):
        assert f"does not accept {key}=; derive another genotype" in sentence(search, f"{key}=9k")
    idle = sentence(search, "search.lr=0.3", "search.space=filters", "precision=8", "count=2")
    assert "rapdarts rank does not search; leave out search.lr=, search.space=." in idle
    assert "retrain.batch=700 is larger than the 601 of 1197 training images" in sentence(search, "retrain.batch=700")
