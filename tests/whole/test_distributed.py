"""Training with two processes matches training with one: the same numbers and decisions, one run folder, and no deadlock."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rapdarts.cli.main import main
from rapdarts.data import dataset as training_data
from rapdarts.data.batches import Batches
from rapdarts.data.dataset import load_dataset
from rapdarts.errors import DeviceError, InputError
from rapdarts.training.distributed import SINGLE_PROCESS, joined
from rapdarts.training.joint_norms import JointBatchNorm, join_batch_norms
from tests.together import (
    Job,
    command,
    compiled_in_float64,
    fewer_steps,
    free_port,
    impatient,
    in_float64,
    lacks_data,
    leaves_early,
    never_comes,
    norms,
    not_a_number,
    on_machines_of_its_own,
    other_data,
    seed_by_rank,
    slow_disk,
    slow_loading,
    stopped_while_reading,
    suspended_while_reading,
)

ROOT = Path(__file__).resolve().parents[2]

TINY = [
    "threads=1",
    "device=cpu",
    "data.fraction=0.3",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "retrain.epochs=2",
    "retrain.batch=60",
    "retrain.cutout=3",
    "retrain.label_smoothing=0.1",
    "retrain.ema=0.9",
]
"""359 images in batches of 60; the last batch has 59: 30 for one process and 29 for the other."""


def retraining(folder: Path, *settings: str) -> list[str]:
    return ["retrain", "PDARTS", "digits", *TINY, f"run={folder}", *settings]


def status(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "status.json").read_text()))


def losses(folder: Path) -> Tensor:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["train_loss"] for line in lines], dtype=torch.float64)


def wait_for_checkpoints(folder: Path, job: Job) -> None:
    """Wait for two checkpoints."""
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.previous").exists():
        assert all(process.is_alive() for process in job.processes), job.end()
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- the same numbers --------------------------------------------------------------------------------------------


def test_in_float64_two_processes_match_one(tmp_path: Path) -> None:
    """The 12 steps use drop path, both heads, accumulated parts of batches, uneven shares, and a last batch of 23 images."""
    recipe = ["retrain.drop_path=0.3", "retrain.auxiliary=0.4", "retrain.batch=30", "retrain.accumulate=2"]
    recipe += ["retrain.validation_fraction=0.1"]
    jobs = [Job(tmp_path, in_float64, *retraining(tmp_path / str(size), *recipe), processes=size) for size in (1, 2)]
    for job in jobs:
        codes, errors = job.end()
        assert not any(codes), errors
    assert errors[1] == ""  # only process 0 prints
    torch.testing.assert_close(losses(tmp_path / "1"), losses(tmp_path / "2"), rtol=1e-10, atol=0)
    one, two = (load_file(tmp_path / name / "network.safetensors") for name in "12")
    assert list(one) == list(two)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-8, atol=1e-8)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in "12"]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    assert results[0]["best"]["test_accuracy"] == results[1]["best"]["test_accuracy"]


SEPARATE = ["retrain.joint_norms=false", "retrain.drop_path=0", "retrain.auxiliary=0", "retrain.lr=0.1"]
SEPARATE += ["skeleton.layers=1", "data.fraction=0.1"]


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of two processes with separate batch norms, which save (and therefore compare) their state after every step."""
    folder = tmp_path_factory.mktemp("separate")
    codes, errors = Job(folder, in_float64, *retraining(folder / "run", *SEPARATE, "save_seconds=0")).end()
    assert codes == [0, 0], errors
    return folder / "run"


@pytest.mark.proof
def test_separate_norms_match_two_accumulated_batches(separate: Path, tmp_path: Path) -> None:
    """The losses match those of one process that accumulates two batches, and the running means are averaged."""
    batches = [*SEPARATE, "retrain.batch=30", "retrain.accumulate=2"]
    codes, errors = Job(tmp_path, in_float64, *retraining(tmp_path / "one", *batches), processes=1).end()
    assert codes == [0], errors
    torch.testing.assert_close(losses(separate), losses(tmp_path / "one"), rtol=1e-10, atol=0)
    # In a single step, the weights before the first batch norm are still the same in both jobs.
    step = [*SEPARATE, "retrain.batch=118", "retrain.epochs=1"]
    jobs = [Job(tmp_path, in_float64, *retraining(tmp_path / str(size), *step), processes=size) for size in (1, 2)]
    assert not any(code for job in jobs for code in job.end()[0])
    means = [load_file(tmp_path / name / "network.safetensors")["stem.older.1.running_mean"] for name in "12"]
    assert means[0].abs().max() > 0.001
    torch.testing.assert_close(means[0], means[1], rtol=1e-12, atol=0)


@pytest.mark.proof
def test_separate_norms_can_be_compiled(separate: Path, tmp_path: Path) -> None:
    settings = [*SEPARATE, "retrain.compile=true"]
    codes, errors = Job(tmp_path, compiled_in_float64, *retraining(tmp_path / "run", *settings)).end()
    assert codes == [0, 0], errors
    assert "compiling at the first step" in errors[0]
    names = ("network.safetensors", "genotype.json")
    assert all((tmp_path / "run" / name).read_bytes() == (separate / name).read_bytes() for name in names)
    message = "retrain.compile=true cannot compile batch norms that processes share; add retrain.joint_norms=false.\n"
    codes, errors = Job(tmp_path / "2", command, *retraining(tmp_path / "joint", "retrain.compile=true")).end()
    assert codes == [2, 2] and errors == [f"rapdarts: error: {message}", ""]
    codes, errors = Job(tmp_path / "3", command, *retraining(tmp_path / "few", *SEPARATE, "retrain.batch=3")).end()
    assert codes == [2, 2] and "of each of 2 processes; use 4 or more." in errors[0]


TWENTY_STEPS = ["data.fraction=0.1", "retrain.batch=119", "retrain.epochs=20"]
"""119 images: 60 for one process and 59 for the other."""


@pytest.mark.proof
def test_losses_of_twenty_steps_agree_at_a_high_learning_rate_in_float64(tmp_path: Path) -> None:
    """The network has both kinds of cell and both heads; at lr 0.1, rounding errors grow from step to step."""
    recipe = [*TWENTY_STEPS, "retrain.lr=0.1", "retrain.lr_min=0.1", "retrain.auxiliary=0.4", "retrain.drop_path=0.3"]
    jobs = [Job(tmp_path, in_float64, *retraining(tmp_path / str(size), *recipe), processes=size) for size in (1, 2)]
    for job in jobs:
        codes, errors = job.end()
        assert not any(codes), errors
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == 20 and one[-1] < 0.8 * one[0]
    assert (one - two).abs().max() < 1e-7


@pytest.mark.proof
def test_losses_of_twenty_steps_agree_in_float32_under_torchrun(tmp_path: Path) -> None:
    """With one cell and a low learning rate, rounding errors do not grow. An epoch is one step, so its mean loss is that of the step."""
    recipe = [*TWENTY_STEPS, "retrain.drop_path=0", "retrain.auxiliary=0", "retrain.lr=0.005", "skeleton.layers=1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={free_port()}"]
    with subprocess.Popen(
        [*torchrun, "-m", "rapdarts", *retraining(tmp_path / "2", *recipe)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as job:
        assert main(retraining(tmp_path / "1", *recipe)) == 0
        assert job.wait(120) == 0, job.communicate()[1]
    assert len(losses(tmp_path / "1")) == 20
    assert (losses(tmp_path / "1") - losses(tmp_path / "2")).abs().max() < 1e-5
    assert json.loads((tmp_path / "2" / "environment.json").read_text())["processes"] == 2


def test_joint_batch_norms_have_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    for job in [Job(tmp_path, norms, f"{tmp_path}/", processes=size) for size in (1, 2)]:
        codes, errors = job.end()
        assert not any(codes), errors
    (alone, state), (first, left), (second, right) = (
        torch.load(tmp_path / name, weights_only=True) for name in ("10", "20", "21")
    )
    assert [len(gradients[0]) for gradients in second] == [3, 0]
    for whole, mine, other in zip(alone, first, second, strict=True):
        torch.testing.assert_close(mine[0], whole[0][0::2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other[0], whole[0][1::2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine[1:], whole[1:], rtol=1e-12, atol=1e-12)  # gradients of weights are summed
    for name, value in state.items():
        torch.testing.assert_close(left[name], value, rtol=1e-12, atol=1e-12)
        assert torch.equal(left[name], right[name])


def test_in_one_process_a_joint_batch_norm_equals_a_batch_norm() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)).double()
    other = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)).double()
    join_batch_norms(other, SINGLE_PROCESS)
    assert list(other.state_dict()) == list(plain.state_dict())
    assert all(isinstance(norm, JointBatchNorm) for norm in other)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    for training in (True, False):
        plain.train(training), other.train(training)
        torch.testing.assert_close(other(x), plain(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_every_part_of_a_batch(accumulate: int, processes: int) -> None:
    from rapdarts.config.experiment import DataConfig
    from rapdarts.data.augment import Augment

    data = load_dataset(DataConfig(crop=1, fraction=0.2), torch.device("cpu"), 0)

    def batches(rank: int, size: int) -> Batches:
        augment = Augment(data.mean, data.std, 1, True, 2)
        return Batches(data.train, torch.arange(55), 24, 0, "s", augment, "b", accumulate, rank, size)

    whole, shares = batches(0, 1), [batches(rank, processes) for rank in range(processes)]
    assert [whole.size(step) for step in range(whole.steps)] == [24, 24, 7]
    for step, ((images, labels), *others) in enumerate(
        zip(whole.epoch(2), *(share.epoch(2) for share in shares), strict=True)
    ):
        parts = whole.parts(whole.size(step))
        for part in range(parts):
            for rank, (some, some_labels) in enumerate(others):
                assert torch.equal(some[part::parts], images[part::parts][rank::processes])
                assert torch.equal(some_labels[part::parts], labels[part::parts][rank::processes])


def test_every_process_gets_two_images_of_every_part() -> None:
    from rapdarts.config.experiment import DataConfig
    from rapdarts.data.augment import Augment

    data = load_dataset(DataConfig(fraction=0.2), torch.device("cpu"), 0)
    augment = Augment(data.mean, data.std, 1, True, 2)
    for images, last in ((52, 4), (51, 0)):
        shares = [
            Batches(data.train, torch.arange(images), 24, 0, "s", augment, "b", 6, rank, 2, least=4) for rank in (0, 1)
        ]
        assert shares[0].steps == 2 + (last > 0)
        for step, each in enumerate(zip(*(share.epoch(0) for share in shares), strict=True)):
            parts = shares[0].parts(shares[0].size(step))
            assert parts == (6 if step < 2 else 1)
            assert all(len(images[part::parts]) == 2 for images, _ in each for part in range(parts))


# --- the same decisions ------------------------------------------------------------------------------------------


def test_a_signal_to_one_process_stops_both_and_resuming_is_bit_identical(tmp_path: Path) -> None:
    whole = Job(tmp_path / "first", command, *retraining(tmp_path / "whole", "retrain.epochs=3"))
    settings = retraining(tmp_path / "cut", "retrain.epochs=3", "save_seconds=0")
    job = Job(tmp_path / "second", command, *settings)
    wait_for_checkpoints(tmp_path / "cut", job)
    assert job.processes[1].pid is not None
    os.kill(job.processes[1].pid, signal.SIGTERM)
    codes, errors = job.end()
    assert codes == [75, 75], errors
    assert "stopped by SIGTERM at retraining, epoch " in errors[0]
    assert errors[1] == ""
    assert (status(tmp_path / "cut")["state"], status(tmp_path / "cut")["exit_code"]) == ("preempted", 75)
    assert not (tmp_path / "cut" / "network.safetensors").exists()
    assert whole.end()[0] == [0, 0]

    codes, errors = Job(tmp_path / "third", command, *settings, "resume=true").end()
    assert codes == [0, 0], errors
    assert "not be bit-identical" not in errors[0]
    ours, theirs = ((tmp_path / name / "network.safetensors").read_bytes() for name in ("cut", "whole"))
    assert ours == theirs
    assert torch.equal(losses(tmp_path / "cut"), losses(tmp_path / "whole"))


@pytest.mark.proof
def test_a_dead_process_ends_the_job_and_one_process_resumes_it(tmp_path: Path) -> None:
    settings = retraining(tmp_path / "run", "retrain.epochs=4", "save_seconds=0")
    job = Job(tmp_path, command, *settings)
    wait_for_checkpoints(tmp_path / "run", job)
    job.processes[1].kill()
    began = time.monotonic()
    codes, errors = job.end()
    assert time.monotonic() - began < 30
    assert codes == [7, -9]
    assert errors[0].splitlines()[-1].startswith("rapdarts: error: process 1 of the 2 in this job was lost")
    assert "Traceback" not in errors[0]
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == ("failed", 7)
    assert "process 1 of the 2" in found["why"]

    codes, errors = Job(tmp_path, command, *settings, "resume=true", processes=1).end()
    assert codes == [0], errors
    assert "may not be bit-identical: processes 2 -> 1" in errors[0]
    assert status(tmp_path / "run")["state"] == "done"


@pytest.mark.parametrize(
    ("programs", "seconds"), [((impatient, command), 12), pytest.param((command,), 30, marks=pytest.mark.proof)]
)
def test_a_process_that_hangs_ends_the_job(programs: Any, seconds: int, tmp_path: Path) -> None:
    job = Job(tmp_path, *programs, *retraining(tmp_path / "run", "retrain.epochs=50", "save_seconds=0"))
    wait_for_checkpoints(tmp_path / "run", job)
    assert job.processes[1].pid is not None
    os.kill(job.processes[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    job.processes[0].join(60)
    assert time.monotonic() - began < seconds
    job.processes[1].kill()
    codes, errors = job.end()
    assert codes == [7, -9]
    assert "of the 2 in this job was lost, or did not answer for " in errors[0]
    assert status(tmp_path / "run")["exit_code"] == 7


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.proof), 1])
def test_a_process_that_hangs_while_it_reads_its_data_ends_the_job(rank: int, tmp_path: Path) -> None:
    """The other one waits as long as it shows signs of life, and then 4 s."""
    job = Job(tmp_path, impatient, suspended_while_reading, str(rank), *retraining(tmp_path / "run"))
    began = time.monotonic()
    job.processes[1 - rank].join(60)
    assert time.monotonic() - began < 25
    job.processes[rank].kill()
    codes, errors = job.end()
    assert (codes[1 - rank], codes[rank]) == (7, -9)
    assert f"process {rank} of the 2 in this job was lost" in errors[1 - rank]


@pytest.mark.proof
def test_a_checkpoint_may_take_longer_to_write_than_a_step(tmp_path: Path) -> None:
    """The second process waits for six seconds for the first one; in a step, it would wait for four."""
    recipe = ["retrain.epochs=1", "data.fraction=0.1"]
    codes, errors = Job(tmp_path, impatient, slow_disk, *retraining(tmp_path / "run", *recipe)).end()
    assert codes == [0, 0], errors


@pytest.mark.parametrize("program", [pytest.param(leaves_early, marks=pytest.mark.proof), never_comes])
def test_a_process_that_is_missing_ends_the_job(program: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    codes, errors = Job(tmp_path, impatient, program, *retraining(tmp_path / "run")).end()
    assert time.monotonic() - began < 30
    assert codes[0] == 7
    assert errors[0].splitlines()[-1].startswith("rapdarts: error: ")
    assert "Traceback" not in errors[0]


def test_a_nan_in_one_process_is_skipped_by_both_processes(tmp_path: Path) -> None:
    codes, errors = Job(tmp_path, not_a_number, "1", *retraining(tmp_path / "run")).end()
    assert codes == [0, 0], errors
    assert "an update of the weights is skipped" in errors[0] and errors[1] == ""
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(record["skipped"] for record in records) == 1


@pytest.mark.parametrize(
    "shared", [[], pytest.param(["retrain.joint_norms=false"], marks=pytest.mark.proof)], ids=["joint", "separate"]
)
def test_nans_in_one_process_stop_both_processes(shared: list[str], tmp_path: Path) -> None:
    """The process with the damaged batches says so; with joint batch norms, the other one has no finite values either."""
    codes, errors = Job(tmp_path, not_a_number, "3", *retraining(tmp_path / "run", *shared)).end()
    assert codes == [5, 5], errors
    sentence = "3 updates of the weights in a row were skipped"
    for printed in errors:
        assert sentence in printed and ", first in process 1: the training diverged" in printed
    assert errors[1].startswith("rapdarts, process 1: error: ")
    found = status(tmp_path / "run")
    assert found["exit_code"] == 5 and "first in process 1" in found["why"]


def test_processes_with_different_settings_do_not_start(tmp_path: Path) -> None:
    codes, errors = Job(tmp_path, seed_by_rank, *retraining(tmp_path / "run")).end()
    assert codes == [2, 2]
    assert errors[0] == (
        "rapdarts: error: the settings or data of process 1 differ from those of process 0; start all processes with the"
        " same command, program and data, on machines of the same kind.\n"
    )
    assert not (tmp_path / "run").exists()


def test_processes_with_different_numbers_of_steps_do_not_start(tmp_path: Path) -> None:
    codes, errors = Job(tmp_path, fewer_steps, *retraining(tmp_path / "run")).end()
    assert codes == [1, 1]
    assert "error: the numbers of steps and epochs of process 1 differ from those of process 0;" in errors[0]


def test_a_signal_to_one_process_that_reads_its_data_stops_both(tmp_path: Path) -> None:
    codes, errors = Job(tmp_path, stopped_while_reading, *retraining(tmp_path / "run")).end()
    assert codes == [75, 75], errors
    assert errors == ["rapdarts: stopped by SIGTERM; nothing is lost. Run the same command again.\n", ""]
    assert not (tmp_path / "run").exists()


READY = "could not prepare its data and network; see the error reported there."


@pytest.mark.parametrize("lacking", [0, 1, 2])
def test_the_process_without_data_reports_the_error(lacking: int, tmp_path: Path) -> None:
    """Data are missing for the first process (0), for the second (1), or for both (2)."""
    small = np.load(Path(training_data.__file__).with_name("digits.npz"))
    halves = {"train": small["test"] == 0, "test": small["test"] == 1}
    arrays = {f"{name}_{half}": small[name][rows] for name in "xy" for half, rows in halves.items()}
    for rank in {0, 1} - {lacking} if lacking < 2 else ():
        np.savez(tmp_path / f"{rank}.npz", **arrays)
    codes, errors = Job(tmp_path, other_data, f"{tmp_path}/{{}}.npz", *retraining(tmp_path / "run")).end()
    own = [f"{tmp_path}/{rank}.npz" for rank in (0, 1)]
    if lacking == 1:
        assert codes == [2, 2], errors
        assert errors[0] == f"rapdarts: error: process 1 {READY}\n"
        assert (
            errors[1].startswith("rapdarts, process 1: error: ") and own[1] in errors[1] and errors[1].count("\n") == 1
        )
    else:
        assert codes == [2, 2], errors
        assert errors[0].startswith("rapdarts: error: ") and own[0] in errors[0] and errors[0].count("\n") == 1
        assert errors[1] == ""
    assert not (tmp_path / "run").exists()


def test_a_file_missing_on_one_machine_is_reported_by_its_process(tmp_path: Path) -> None:
    job = Job(tmp_path, on_machines_of_its_own, *retraining(tmp_path / "run"))
    job.processes[1].join(60)
    assert job.processes[1].exitcode == 2
    job.processes[0].kill()
    _, errors = job.end()
    assert errors[1].startswith("rapdarts, process 1: error: there is no file or folder missing.json;")


@pytest.mark.parametrize("saved", [False, True], ids=["new", "with a checkpoint"])
def test_all_processes_learn_before_data_are_read_that_the_folder_is_in_use(saved: bool, tmp_path: Path) -> None:
    """The data are missing, so the error would be another one if they were read first."""
    folder = tmp_path / "run"
    if saved:
        shutil.copytree(Path(__file__).parent / "runs_0_1_0" / "stopped_network", folder)
    folder.mkdir(exist_ok=True)
    before = (folder / "status.json").read_bytes() if saved else b""
    words = retraining(folder, *(["resume=true"] if saved else []))
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = Job(tmp_path, other_data, f"{tmp_path}/missing-{{}}.npz", *words)
        began = time.monotonic()
        codes, errors = job.end()
    assert time.monotonic() - began < 20
    assert codes == [3, 3], errors
    assert errors[0].splitlines()[-1].startswith(f"rapdarts: error: the run folder {folder} is in use")
    assert "error" not in errors[1]
    assert not saved or (folder / "status.json").read_bytes() == before


def test_a_job_whose_data_are_missing_says_so_in_the_status_of_its_run(tmp_path: Path) -> None:
    settings = [*retraining(tmp_path / "run", "retrain.epochs=1"), "data.fraction=0.1", "skeleton.layers=1"]
    assert main(settings) == 0
    (tmp_path / "run" / "result.json").unlink()
    job = Job(tmp_path, lacks_data, *settings, "resume=true")
    assert job.end()[0] == [2, 2]
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"], found["why"]) == ("failed", 2, "no data here.")


def test_an_unusable_run_folder_ends_both_processes(tmp_path: Path) -> None:
    settings = retraining(tmp_path / "run")
    (tmp_path / "run").write_text("a file")
    codes, errors = Job(tmp_path, command, *settings).end()
    assert codes == [2, 2]
    assert "is not a folder; choose another path" in errors[0] and errors[0].count("\n") == 1
    assert errors[1] == ""


@pytest.mark.parametrize("slow", [0, 1])
def test_all_processes_wait_for_the_slowest_to_load_its_data(slow: int, tmp_path: Path) -> None:
    codes, errors = Job(tmp_path, slow_loading, str(tmp_path / "fetched"), slow).end()
    assert codes == [0, 0], errors


EXIT_HANDLER = """
import atexit, sys
atexit.register(print, "exit handler")
from rapdarts.cli.main import main
sys.argv[1:] = ["retrain", "PDARTS", "digits", "device=cuda:1"]
sys.exit(main())
"""


@pytest.mark.parametrize(("rank", "end"), [("", "exit handler\n"), ("0", ""), ("1", "")])
def test_a_failed_process_skips_exit_handlers_only_in_a_job(rank: str, end: str) -> None:
    job = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", EXIT_HANDLER], env={**os.environ, **job}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, end), done.stderr
    assert ("device=cuda:1 is one GPU, but there are 2 processes" in done.stderr) is (rank != "1")


@pytest.mark.parametrize(("own", "left"), [(None, "1000"), ("9", "9")])
def test_the_watchdog_of_torch_ends_a_waiting_process_within_a_minute(
    own: str | None, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without GPUs, only the settings of torch's watchdog are checked, before it starts."""
    name = "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC"
    monkeypatch.setenv(name, own or "")
    if own is None:
        monkeypatch.delenv(name)
    for key, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    seen = []

    def begin(backend: str, timeout: timedelta) -> None:
        seen.append((backend, os.environ[name], timeout < timedelta(seconds=50)))
        raise RuntimeError("no GPUs here")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    with pytest.raises(DeviceError, match="no GPUs here"), joined("cuda"):
        pass
    assert seen == [("nccl", left, True)]


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["search", "cost"])
def test_only_retraining_runs_in_several_processes(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([verb, "digits"]) == 2
    message = (
        f"rapdarts: error: only rapdarts retrain runs in several processes; start rapdarts {verb} without torchrun.\n"
    )
    assert capsys.readouterr().err == message


def test_one_gpu_for_all_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match=r"device=cuda:1 is one GPU, but there are 2 processes; use device=cuda"),
        joined("cuda:1"),
    ):
        pass


def test_a_job_that_cannot_connect_reports_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from rapdarts.training import distributed

    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=1))
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "RANK": "0"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    message = rf"the 2 processes of this job could not connect at 127.0.0.1:{job['MASTER_PORT']}"
    with pytest.raises(DeviceError, match=message), joined("cpu"):
        pass
