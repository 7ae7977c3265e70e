"""Resuming: a run continues from its own checkpoint only, from a state that was checked, and with the record that belongs to it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.cli.main import main
from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.key_values import keys, save_yaml
from rapdarts.errors import DamagedError, DeviceError, InputError, Preempted, Stopped, exit_code
from rapdarts.files import seal
from rapdarts.training import checkpoint
from rapdarts.training.claim import reserved
from rapdarts.training.guard import Guard
from rapdarts.training.session import open_run
from rapdarts.training.state import check_place_of_records

SEVEN = Experiment(seed=7, save_seconds=0)
STOPPED_SEARCH = Path(__file__).parents[1] / "whole" / "runs_0_1_0" / "stopped_search"


class Numbers:
    """A source of five batches per epoch."""

    steps = 5

    def epoch(self, epoch: int, start: int = 0) -> Iterator[int]:
        return iter(range(start, self.steps))


def train(folder: Path, config: Experiment = SEVEN, resume: bool = False, steps: int = 99) -> dict[str, Any]:
    """Train for two epochs, or until a signal after some steps; return the weights, and the records without times."""
    done = 0
    with open_run("test", config, Launch(run=str(folder), resume=resume), "test", {"data": "x"}) as run:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        sgd = torch.optim.SGD([("weight", layer.weight)], 0.1, momentum=0.9)
        adam = torch.optim.Adam([("bias", layer.bias)], 0.1, (0.5, 0.999))
        objects = {"layer": layer, "sgd": sgd, "adam": adam, "guard": Guard(layer, ("weights", "biases"))}
        for _ in run.epochs("training", 2, 5, objects):
            for _ in run.batches(Numbers()):
                loss = layer(torch.randn(4, 3)).square().mean()
                layer.zero_grad()
                loss.backward()
                sgd.step(), adam.step()
                run.meter.add("loss", loss, 1)
                done += 1
                if done == steps:
                    run.signals.asked = 15
            run.log()
        run.write_result({"seconds": run.seconds()})
    return {"weights": layer.state_dict(), "records": [{**one, "seconds": 0} for one in run.records()]}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    weights = all(torch.equal(ours["weights"][name], theirs["weights"][name]) for name in ours["weights"])
    return weights and ours["records"] == theirs["records"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Preempted):
        train(folder, steps=7)
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("whole") / "run")


# --- the run it belongs to ---------------------------------------------------------------------------------------


def killed_between_the_renames_of_the_first_epoch(run: Path) -> None:
    (run / "checkpoint").rename(run / "checkpoint.previous")
    (run / "metrics.jsonl").write_text("")


def test_only_the_previous_checkpoint_is_a_run_that_has_begun(run: Path, whole: dict[str, Any]) -> None:
    killed_between_the_renames_of_the_first_epoch(run)
    with pytest.raises(InputError, match="seed: 7 -> 8"):
        train(run, Experiment(seed=8), resume=True)
    with pytest.raises(InputError, match="already holds a run"):
        train(run, Experiment(seed=8))
    assert same(train(run, resume=True), whole)


@pytest.mark.parametrize("previous", [False, True])
def test_a_lost_configuration_is_replaced_by_the_same_settings_only(
    previous: bool, run: Path, whole: dict[str, Any]
) -> None:
    if previous:
        killed_between_the_renames_of_the_first_epoch(run)
    (run / "config.yaml").unlink()
    before = sorted(run.iterdir())
    for other in (Experiment(seed=8), Experiment(seed=7, data=Experiment().data.__class__(fraction=0.5))):
        with pytest.raises(DamagedError, match="belongs to a different configuration"):
            train(run, other, resume=True)
    assert sorted(run.iterdir()) == before
    assert same(train(run, Experiment(seed=7, save_seconds=5), resume=True), whole)  # save_seconds is harmless
    assert resolve.experiment_of_run(run).seed == 7


def test_an_edited_configuration_does_not_fit_the_checkpoint(run: Path) -> None:
    (run / "config.yaml").write_text(save_yaml(Experiment(seed=8)))
    with pytest.raises(DamagedError, match="belongs to a different configuration"):
        train(run, Experiment(seed=8), resume=True)


def test_a_run_without_configuration_and_checkpoint_is_refused(run: Path) -> None:
    for name in ("config.yaml", "checkpoint", "checkpoint.previous"):
        (run / name).unlink(missing_ok=True)
    with pytest.raises(DamagedError, match=r"has no config\.yaml, and no checkpoint"):
        train(run, resume=True)


def test_the_digest_of_a_run_does_not_depend_on_keys_that_have_no_effect() -> None:
    assert resolve.run_digest(SEVEN) == resolve.run_digest(Experiment(seed=7, threads=3, device="cpu"))
    assert resolve.run_digest(SEVEN) != resolve.run_digest(Experiment(seed=8))


# --- the environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text(file.read_text().replace("numpy", "numpi")),
        lambda file: file.write_text('{"resumed": 1}'),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["cut", "empty", "edited", "of another kind", "folder"],
)
def test_a_damaged_environment_does_not_stop_an_intact_run(
    damage: Callable[[Path], object], run: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "environment.json"
    damage(file)
    assert same(train(run, resume=True), whole)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "environment.json" in line]
    assert line.startswith(f"{file} is damaged; it is kept as {file}.damaged, and replaced")
    assert (run / "environment.json.damaged").exists()
    assert seal.read_sealed(file)["verb"] == "test"
    assert same(train(run, resume=True), whole)
    assert "is damaged" not in capsys.readouterr().err


# --- status.json -------------------------------------------------------------------------------------------------


def status(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "status.json").read_text()))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


@pytest.mark.parametrize("before", ["preempted", "running"], ids=["stopped", "killed"])
def test_a_run_that_cannot_be_resumed_says_so_in_its_status(before: str, run: Path) -> None:
    (run / "status.json").write_text(json.dumps({"state": before, "exit_code": 75}))
    for name in ("checkpoint", "checkpoint.previous"):
        cut(run / name)
    with pytest.raises(DamagedError) as caught:
        train(run, resume=True)
    assert status(run) == {"state": "failed", "exit_code": 4, "why": str(caught.value)}


@pytest.mark.parametrize("error", [InputError("no data."), DeviceError("no GPU."), Stopped(15), MemoryError()])
def test_an_error_before_the_run_is_opened_is_recorded(error: BaseException, run: Path) -> None:
    launch = Launch(run=str(run), resume=True)
    with pytest.raises(type(error)), reserved("test", launch, "test", SEVEN):
        raise error
    found = status(run)
    assert found["exit_code"] == exit_code(error) and found["why"]
    assert found["state"] == ("preempted" if isinstance(error, Stopped) else "failed")


def test_a_run_whose_device_is_missing_says_so_in_its_status(tmp_path: Path) -> None:
    shutil.copytree(STOPPED_SEARCH, tmp_path / "run")
    before, words = snapshot(tmp_path / "run"), [f"run={tmp_path / 'run'}", "resume=true", "device=cuda:99"]
    assert main(["search", "digits", "seed=99", *words]) == 7  # another run's settings: nothing is known about this one
    assert {**snapshot(tmp_path / "run"), "lock": b""} == {**before, "lock": b""}
    assert main(["search", *words]) == 7
    assert status(tmp_path / "run")["state"] == "failed" and status(tmp_path / "run")["exit_code"] == 7


def other_data(run: Path) -> None:
    with open_run("test", SEVEN, Launch(run=str(run), resume=True), "test", {"data": "y"}):
        pass


@pytest.mark.parametrize(
    "refused",
    [
        lambda run: train(run, Experiment(seed=8), resume=True),
        lambda run: train(run, Experiment(seed=8, device="cuda"), resume=True),
        lambda run: train(run),
        other_data,
    ],
    ids=["other settings", "other settings and device", "no resume", "other data"],
)
@pytest.mark.parametrize("early", [False, True], ids=["", "claimed before"])
def test_a_refused_start_leaves_the_folder_as_it_was(
    early: bool, refused: Callable[[Path], object], run: Path, whole: dict[str, Any]
) -> None:
    before = snapshot(run)
    with pytest.raises((InputError, DamagedError)):
        refused(run)
    assert snapshot(run) == before
    if early:
        with pytest.raises((InputError, DamagedError)):
            with reserved("test", Launch(run=str(run), resume=True), "test", Experiment(seed=8)) as claim:
                with open_run("test", Experiment(seed=8), claim, "test", {"data": "x"}):
                    pass
        assert snapshot(run) == before
    assert same(train(run, resume=True), whole)


def test_a_new_run_that_fails_before_it_begins_leaves_no_status(tmp_path: Path) -> None:
    with pytest.raises(DeviceError), reserved("test", Launch(run=str(tmp_path / "new"), resume=True), "test", SEVEN):
        raise DeviceError("no GPU.")
    assert not (tmp_path / "new").exists()


# --- the configuration -------------------------------------------------------------------------------------------


def test_a_configuration_without_a_hash_that_was_cut_is_refused(run: Path) -> None:
    """Wherever the text ends, a key that every version wrote is missing, or all of them are there."""
    lines = save_yaml(SEVEN).splitlines(keepends=True)
    names = [key.name for key in keys(Experiment) if not key.name.startswith(resolve.LATER)]
    cuts = 0
    for count in range(len(lines)):
        (run / "config.yaml").write_text("".join(lines[:count]))
        try:
            kept = resolve.experiment_of_run(run)
        except (InputError, DamagedError):
            cuts += 1
        else:
            assert kept == SEVEN
    assert cuts > len(names)
    for text in (seal.seal_yaml(save_yaml(SEVEN)),):
        for at in range(90, len(text), 7):
            (run / "config.yaml").write_text(text[:at])
            with pytest.raises(DamagedError):
                resolve.experiment_of_run(run)


# --- the state ---------------------------------------------------------------------------------------------------


def deep() -> Any:
    tree: Any = []
    for _ in range(60):
        tree = [tree]
    return tree


def line(**facts: Any) -> str:
    return json.dumps({"stage": 0, "epoch": 0, "loss": 1.0, "skipped": 0, "seconds": 1.0} | facts)


def in_sgd(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["objects"]["sgd"]["state"][0].update({name: value})


def in_adam(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["objects"]["adam"]["state"][0].update({name: value})


def in_guard(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["objects"]["guard"].update({name: value})


def nothing_but_a_stage(state: dict[str, Any]) -> None:
    state.clear()
    state["stage"] = 0


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing but a stage": nothing_but_a_stage,
    "momentum of another shape": in_sgd("momentum_buffer", torch.zeros(7)),
    "momentum without a shape": in_sgd("momentum_buffer", torch.tensor(7.0)),
    "momentum of integers": in_sgd("momentum_buffer", torch.zeros(2, 3, dtype=torch.int64)),
    "weights of another type": lambda state: state["objects"]["layer"].update(weight=torch.zeros(2, 3).double()),
    "complex weights": lambda state: state["objects"]["layer"].update(weight=torch.zeros(2, 3, dtype=torch.complex64)),
    "momentum is a text": in_sgd("momentum_buffer", "x"),
    "momentum of Adam": in_sgd("exp_avg", torch.zeros(2, 3)),
    "no momentum of Adam": lambda state: state["objects"]["adam"]["state"][0].pop("exp_avg"),
    "steps of another shape": in_adam("step", torch.zeros(2)),
    "a guard without a shape": in_guard("skipped", torch.tensor(7)),
    "a guard of another shape": in_guard("in_a_row", torch.zeros(1, dtype=torch.int64)),
    "a guard of another dtype": in_guard("causes", torch.zeros(2, 4, dtype=torch.int64)),
    "a guard of another type": in_guard("skipped", [0, 0]),
    **{
        f"{name}={value!r}": lambda state, name=name, value=value: state.update({name: value})  # type: ignore[misc]
        for name, values in {
            "stage": (99, -1, 1, True, "0", None, 10**30),
            "epoch": (-5, 3, 10**9, 0.5, "1"),
            "step": (-1, 6, [], 10**40),
            "seconds": (-1.0, float("nan"), "1"),
            "elapsed": (float("inf"), []),
            "finished": (None, [1], {}),
            "meter": (None, {}, {"sums": {"a": 1}, "counts": {"a": 1}}, {"sums": {}, "counts": {"a": 1}}),
            "records": (
                *(None, [], ["{"], [1], ['{"seconds": "x"}'], ['{"seconds": 1}\n'], ['{"seconds": 1.0}'] * 4),
                *([line(), line(epoch=1)], [line(), line()], [line(epoch=1)], [line(stage=1)], [line(stage=-1)]),
                *([line(epoch=0.0)], [line(loss="1")], [line(loss=True)], [line(loss=None)], [line(seconds=-1.0)]),
            ),
            "files": ([], {"a": 1}),
            "objects": (None, {}, {"layer": 1}, {"layer": {}, "sgd": {}}),
        }.items()
        for value in values
    },
    "not finite": lambda state: state["objects"]["layer"]["weight"].fill_(float("nan")),
    "another shape": lambda state: state["objects"]["layer"].update(weight=torch.zeros(3, 3)),
    "no parameter groups": lambda state: state["objects"]["sgd"].pop("param_groups"),
    "deep nesting": lambda state: state.update(deep=deep()),
}


def forge(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the state in both checkpoints of a run, and write a matching hash."""
    file = run / "checkpoint"
    found = checkpoint.load_checkpoint(file, {})
    assert found is not None
    change(found[0])
    origin = checkpoint.origin_of(file)
    for _ in range(2):  # the previous one, too
        checkpoint.save_checkpoint(file, found[0], origin)


@pytest.mark.parametrize(
    "change",
    [{"bomb": torch.zeros(1).expand(2**40)}, {"numbers": [torch.zeros(1).expand(2**40)]}, {"numbers": []}, {"tree": 1}],
    ids=["a tensor that is not stored", "numbers that are not stored", "no numbers", "no tree"],
)
def test_a_packed_state_that_cannot_be_used_is_refused_in_one_sentence(
    change: dict[str, Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = checkpoint.pack
    monkeypatch.setattr(checkpoint, "pack", lambda state: {**pack(state), **change})
    forge(run, lambda state: None)
    with pytest.raises(DamagedError, match=r"[sS]tart a new run"):
        checkpoint.load_checkpoint(run / "checkpoint", {})


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_cannot_be_used_is_refused_in_one_sentence(name: str, run: Path) -> None:
    forge(run, STATES[name])
    with pytest.raises(DamagedError) as caught:
        train(run, resume=True)
    assert str(caught.value).startswith(("checkpoint ", "the checkpoint in ")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("places", "fits"),
    [
        ("00 01 10 11", True),
        ("00 10 11", True),  # a stage that ended early
        ("00 02 10 11", False),
        ("00 11 10 11", False),
        ("00 00 10 11", False),
        ("01 10 11", False),
        ("10 11", False),  # no record of a stage that did not diverge
        ("00 01 10", False),
        ("00 01 10 12", False),
        ("00 01 10 11 12", False),
        ("00 01 20 21", False),
        ("10 00 01", False),
    ],
)
def test_records_are_those_of_the_epochs_up_to_a_position(places: str, fits: bool) -> None:
    """The position is the third epoch of the second stage; a place is a stage and an epoch, counted from 0."""
    lines = [line(stage=int(place[0]), epoch=int(place[1])) for place in places.split()]
    state = {"stage": 1, "epoch": 2, "finished": [{}], "objects": {"layer": {}}}
    with nullcontext() if fits else pytest.raises(ValueError, match="records of"):
        check_place_of_records(lines, state)


def test_several_trainings_may_have_the_same_stage() -> None:
    """Two replicas, and the first epoch of a third one."""
    lines = [line(replica=number, epoch=epoch) for number in (1, 2) for epoch in (0, 1)]
    check_place_of_records(
        [*lines, line(replica=3)], {"stage": 2, "epoch": 1, "finished": [{}, {}], "objects": {"layer": {}}}
    )


def test_a_training_that_diverged_need_not_have_records() -> None:
    state = {"stage": 2, "epoch": 0, "finished": [{"diverged": "at once"}, {"right": None}], "objects": {"layer": {}}}
    check_place_of_records([line(stage=1)], state)
    check_place_of_records([line(), line(stage=1)], state)
    with pytest.raises(ValueError, match="records of 0 epochs"):
        check_place_of_records([], state)
    check_place_of_records([], {**state, "objects": {}})  # its steps are runs of their own


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 7.0},
        {"momentum": 0.1},
        {"betas": (0.1, 0.1)},
        {"weight_decay": 3.0},
        {"nesterov": True},
        {"maximize": True},
    ]
    + [{name: "x"} for name in ("lr", "momentum", "betas", "foreach", "params")],
    ids=str,
)
def test_settings_of_optimisers_do_not_come_from_a_checkpoint(
    change: dict[str, Any], run: Path, whole: dict[str, Any]
) -> None:
    def edit(state: dict[str, Any]) -> None:
        for name in ("sgd", "adam"):
            state["objects"][name]["param_groups"][0].update(change)

    forge(run, edit)
    assert same(train(run, resume=True), whole)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in nested lists and mappings, also those of the lists and mappings themselves."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield (*path, name)
        yield from leaves(value, (*path, name))


JUNK = [None, True, -1, 3, 10**25, 0.5, float("nan"), "x", [], {}, {"x": 1}, torch.tensor(7), torch.zeros(2, 2)]


def test_a_mutated_state_with_a_matching_hash_is_refused_in_one_sentence_or_resumed(
    stopped: Path, tmp_path: Path
) -> None:
    """Every value is replaced by junk, or removed."""
    found = checkpoint.load_checkpoint(stopped / "checkpoint", {})
    assert found is not None
    refused, resumed, failures = 0, 0, []
    for number, path in enumerate(leaves(found[0])):
        for junk in [random.Random(number).choice([*JUNK, "removed"])]:

            def mutate(state: dict[str, Any], path: tuple[Any, ...] = path, junk: Any = junk) -> None:
                place: Any = state
                for name in path[:-1]:
                    place = place[name]
                place[path[-1]] = junk
                if junk == "removed":
                    del place[path[-1]]

            shutil.copytree(stopped, tmp_path / "run")
            forge(tmp_path / "run", mutate)
            try:
                train(tmp_path / "run", resume=True)
                resumed += 1
            except DamagedError as error:
                refused += 1
                if not str(error).startswith(("checkpoint ", "the checkpoint in ")) or "\n" in str(error):
                    failures.append(f"{path} = {junk!r}: {error}")
            except Exception as error:
                failures.append(f"{path} = {junk!r}: {error!r}")
            shutil.rmtree(tmp_path / "run")
    assert not failures, "\n".join(failures)
    assert refused > 30 and resumed > 5


def test_an_archive_that_unpacks_to_more_than_it_stores_is_refused(run: Path) -> None:
    import hashlib
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10**8))
    payload = buffer.getvalue()
    header = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "origin": {}}
    for name in ("checkpoint", "checkpoint.previous"):
        (run / name).write_bytes(checkpoint.MAGIC + json.dumps(header).encode() + b"\n" + payload)
    with pytest.raises(DamagedError, match="it unpacks to more bytes than it has"):
        checkpoint.load_checkpoint(run / "checkpoint", {})


def folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("")


@pytest.mark.parametrize(
    "replace",
    [folder, os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path)],
    ids=["folder", "FIFO", "dangling link", "looping link"],
)
def test_something_else_in_place_of_the_checkpoint_falls_back_to_the_previous_one(
    replace: Callable[[Path], object], run: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # a second time, the name for the damaged file is in use
        (run / "checkpoint").unlink()
        replace(run / "checkpoint")
        with pytest.raises(Preempted):
            train(run, resume=True, steps=1)
        assert "it is not a regular file); resuming from the previous one" in capsys.readouterr().err
    assert same(train(run, resume=True), whole)


def test_a_changed_origin_is_damage(run: Path, whole: dict[str, Any]) -> None:
    raw = (run / "checkpoint").read_bytes()
    (run / "checkpoint").write_bytes(raw.replace(b'"data": "x"', b'"data": "y"', 1))
    assert same(train(run, resume=True), whole)


# --- the record --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
        lambda file: file.write_text(file.read_text().replace("loss", "lose")),
        lambda file: file.write_text(file.read_text() + '{"epoch": 1}\n{"ep'),
        lambda file: file.write_bytes(bytes(100)),
    ],
    ids=["torn", "empty", "removed", "edited", "longer", "zeros"],
)
def test_the_record_is_written_again_from_the_checkpoint(
    damage: Callable[[Path], object], run: Path, whole: dict[str, Any]
) -> None:
    damage(run / "metrics.jsonl")
    result = train(run, resume=True)
    assert same(result, whole)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [{**line, "seconds": 0} for line in lines] == result["records"]
    seal.check_record(run, seal.read_sealed(run / "result.json"))
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(DamagedError, match=r"metrics\.jsonl is damaged or was edited"):
        seal.check_record(run, seal.read_sealed(run / "result.json"))
