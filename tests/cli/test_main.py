"""The command line: help, results on stdout only, exit codes, and commands that need no training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import read_genotype
from rapdarts.cli.arguments import SWITCHES, Call, parse
from rapdarts.cli.commands import COMMANDS, command
from rapdarts.cli.main import main
from rapdarts.config import key_values, resolve
from rapdarts.config.experiment import Experiment
from rapdarts.errors import DivergedError, InputError, Preempted, StorageError
from rapdarts.strategy.derive import best_first
from tests.edited import without_remarks

EVERY = pytest.mark.parametrize("verb", COMMANDS)
HEAVY = ("torch", "numpy", "omegaconf", "yaml", "rich", "PIL", "search_spaces")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a temporary folder, so that nothing is written to the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the output of a command that must succeed without a remark, except on files that were edited."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (code, without_remarks(err)) == (0, "")
    return out


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in bash, with `rapdarts` from this checkout."""
    bash = ("bash", "-c", command.replace("rapdarts", f"{sys.executable} -m rapdarts"))
    return subprocess.run(
        bash, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


# --- help --------------------------------------------------------------------------------------------------------


def test_every_command_has_a_usage_an_example_and_a_purpose() -> None:
    assert all(callable(command(verb)) for verb in COMMANDS)
    for verb, words in COMMANDS.items():
        assert words.usage.split()[0] == words.example.split()[0] == verb
        assert words.sentence.endswith(".")
        assert set(words.all_switches) <= set(SWITCHES)


@EVERY
def test_every_example_has_valid_keys(verb: str) -> None:
    call = parse(verb, COMMANDS[verb].example.split()[1:], COMMANDS[verb].all_switches)
    assert call.words
    if Experiment in COMMANDS[verb].schemas:
        resolve.resolve_experiment("digits", call.pairs, verb)
    else:
        key_values.checked(COMMANDS[verb].schemas[0], call.pairs)


@EVERY
def test_help_loads_no_heavy_module(verb: str) -> None:
    script = f"import sys; from rapdarts.cli.main import main; main(['{verb}', '--help']); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith(f"usage: rapdarts {verb} ")
    assert set(result.stderr.split()) & set(HEAVY) == set()


@EVERY
def test_help_lists_every_key_in_aligned_columns(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    lines = run(capsys, verb, "--help").splitlines()
    known = [key for schema in COMMANDS[verb].schemas for key in key_values.keys(schema)]
    starts = set()
    for key in known:
        (row,) = [line for line in lines if line.startswith(f"  {key.name} ")]
        before = row[: row.rindex("  " + key.facts["help"])]
        starts.add(len(before))
        _, default, *unit = re.split(r"\s{2,}", before.strip())
        assert (
            default == (str(key.default) if key.type is not bool else str(key.default).lower())
            or default == "(empty)"
            or (default == "auto" and key.default == key.facts["auto"])
            or (key.facts["amount"] and default == "0" and key.default == 0)
        )
        assert unit == ([key.facts["unit"]] if key.facts["unit"] else [])
        if key.facts["choices"]:
            assert row.endswith("[" + ", ".join(str(choice) for choice in key.facts["choices"] if choice != "") + "]")
        elif any(key.facts[bound] is not None for bound in ("low", "high", "above", "below")):
            assert row.endswith(f" [{key_values.range_text(key.facts)}]")
    assert len(starts) == 1
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(headings) == len(set(headings))
    for switch in COMMANDS[verb].all_switches:
        assert any(line.startswith(f"  {switch}") for line in lines)


@pytest.mark.parametrize(
    ("verb", "headings"),
    [
        (
            "search",
            "launch experiment search search.relax search.cost search.budget search.random data skeleton retrain rank find switches",
        ),
        (
            "retrain",
            "launch experiment retrain data skeleton search search.relax search.cost search.budget search.random rank find switches",
        ),
        (
            "rank",
            "launch experiment rank data skeleton search search.relax search.cost search.budget search.random retrain find switches",
        ),
        ("derive", "keys budget switches"),
        ("cost", "keys switches"),
    ],
)
def test_the_commands_own_section_comes_first(verb: str, headings: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.findall(r"^(\S+):$", run(capsys, verb, "--help"), re.MULTILINE) == headings.split()


def test_long_help_is_wrapped_in_its_column(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = run(capsys, "search", "--help").splitlines()
    table = [line for line in lines[4:] if line.startswith("  ")]
    assert max(map(len, table)) <= 110
    assert any(line.startswith(" " * 40) for line in table)
    assert "\N{NO-BREAK SPACE}" not in "".join(lines)


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    overview = run(capsys)
    assert overview == run(capsys, "--help") == run(capsys, "-h") == run(capsys, "help")
    for verb in COMMANDS:
        assert f"  rapdarts {verb} " in overview
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run(capsys, "--version"))


@pytest.mark.parametrize(
    "arguments", [("cost", "-h"), ("cost", "PDARTS", "--help"), ("cost", "--json", "--help", "x=3")]
)
def test_help_takes_precedence_at_any_position(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *arguments) == run(capsys, "cost", "--help")


@EVERY
def test_an_unknown_target_is_rejected_without_loading_torch(verb: str, elsewhere: Path) -> None:
    words = [verb, "nowhere", *(["digits"] if verb == "retrain" else [])]
    script = (
        f"import sys; from rapdarts.cli.main import main; code = main({words}); print(code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "2 False\n"
    assert found.stderr.startswith("rapdarts: error: ") and "nowhere" in found.stderr


# --- errors and streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("seed=x is wrong; change it."), 2, "rapdarts: error: seed=x is wrong; change it."),
        (InputError("a\nb\t\x1b[31m"), 2, r"rapdarts: error: a\nb\t\x1b[31m"),
        (DivergedError("it is not finite."), 5, "rapdarts: error: it is not finite."),
        (Preempted("stopped; continue with resume=true."), 75, "rapdarts: stopped; continue with resume=true."),
        (KeyboardInterrupt(), 130, "rapdarts: stopped immediately; everything saved so far is kept."),
        (PermissionError(13, "Permission denied", "x"), 6, "rapdarts: error: x cannot be used: Permission denied."),
        (BrokenPipeError(32, "Broken pipe"), 6, "rapdarts: error: a file cannot be used: Broken pipe."),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nTried"),
            7,
            "rapdarts: error: out of memory (CUDA out of memory.); reduce the batch size or the number of channels.",
        ),
        (
            MemoryError(),
            7,
            "rapdarts: error: out of memory (MemoryError); reduce the batch size or the number of channels.",
        ),
        (
            ValueError("first\nsecond"),
            1,
            "rapdarts: internal error: ValueError: first. Please report it with the output of --debug.",
        ),
    ],
)
def test_every_failure_gives_one_line_and_an_exit_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: Call) -> None:
        raise error

    monkeypatch.setattr("rapdarts.cli.main.command", lambda verb: fail)
    for switch in ((), ("--json",)):
        assert main(["cost", "PDARTS", *switch]) == code
        assert capsys.readouterr() == ("", words + "\n")
    assert main(["cost", "PDARTS", "--debug"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback")
    assert err.endswith(words + "\n")


def test_a_stopped_run_prints_the_command_that_continues_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(call: Call) -> None:
        raise Preempted("stopped by SIGTERM.", "runs/a b")

    monkeypatch.setattr("rapdarts.cli.main.command", lambda verb: stop)
    monkeypatch.delenv("RANK", raising=False)
    assert main(["search", "digits", "seed=1", "run=elsewhere", "--json"]) == 75
    words = "stopped by SIGTERM. Continue with: rapdarts search digits seed=1 --json 'run=runs/a b' resume=true\n"
    assert capsys.readouterr() == ("", f"rapdarts: {words}")


def test_the_installed_command_works(elsewhere: Path) -> None:
    found = shell("rapdarts search digits epochss=3 --json")
    words = "rapdarts: error: there is no key 'epochss'; the nearest is search.epochs.\n"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", words)
    assert list(elsewhere.iterdir()) == []


def test_a_closed_pipe_is_not_a_failure() -> None:
    found = shell("set -o pipefail; rapdarts search --help | true")
    assert (found.returncode, found.stderr) == (0, "")


def test_a_full_disk_on_stdout_is_reported_in_one_line() -> None:
    found = shell("rapdarts --help > /dev/full")
    words = "rapdarts: error: cannot write to standard output: No space left on device.\n"
    assert (found.returncode, found.stderr) == (6, words)


def test_closed_streams_are_tolerated() -> None:
    found = shell("rapdarts nonsense 2>&-")
    assert (found.returncode, found.stdout) == (2, "")
    assert shell("rapdarts --help >&-").returncode == 0


def test_characters_unknown_to_the_terminal_are_escaped() -> None:
    script = "from rapdarts.cli import main, output; main.command = lambda verb: lambda call: output.out('93 ± 1'); main.main(['cost'])"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == "93 \\xb1 1\n"


def test_arguments_are_parsed_into_words_settings_and_switches() -> None:
    call = parse(
        "cost", ["runs/lr=0.1", "a=b=c", "--json", "=3", "--space=x.py", "./a=b"], COMMANDS["cost"].all_switches
    )
    assert (call.words, call.settings) == (["runs/lr=0.1", "./a=b"], ["a=b=c", "=3"])
    assert (call.json, call.space, call.help, call.print_config) == (True, "x.py", False, False)
    assert parse("cost", ["--space", "x y.py"], ["--space"]).space == "x y.py"


# --- the configuration -------------------------------------------------------------------------------------------


def test_the_last_of_several_settings_wins(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = ("seed=1", "search.lr=0.1", "seed=2", "lr=0.2", "lr=0.3")
    printed = json.loads(run(capsys, "search", "digits", *pairs, "--print-config", "--json"))
    assert (printed["seed"], printed["search"]["lr"], printed["retrain"]["lr"]) == (2, 0.3, 0.05)
    printed = json.loads(run(capsys, "retrain", "PDARTS", "digits", *pairs, "--print-config", "--json"))
    assert (printed["seed"], printed["search"]["lr"], printed["retrain"]["lr"]) == (2, 0.1, 0.3)


def test_a_user_defined_space_is_recorded(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    (elsewhere / "mine.py").write_text(
        "from rapdarts.networks.primitives import choose\nfrom rapdarts import SearchSpace\n"
        'SPACE = SearchSpace("mine", choose("none", "skip_connect", "sep_conv_3x3"))\n'
    )
    printed = json.loads(run(capsys, "search", "digits", "--space", "mine.py", "--print-config", "--json"))
    assert printed["search"]["space"] == "mine"


def test_the_skeleton_of_the_command_line_overrides_the_genotypes(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rapdarts.architecture.space import Skeleton
    from rapdarts.loops import launch  # imported before the loop is replaced: other modules import it by name

    priced = Genotype("darts", LITERATURE["PDARTS"].cells, Skeleton(5, 12, (1, 8, 8), 10))
    (elsewhere / "priced.json").write_text(priced.to_json())

    def retrain(config: Any, blueprint: Any, data: Any, run: Any) -> None:
        raise StorageError(f"{blueprint.skeleton.layers} x {blueprint.skeleton.channels}.")

    monkeypatch.setattr(launch.retraining, "retrain", retrain)
    own = ", the skeleton for which the genotype was priced, instead of the experiment's 6 cells x 16 channels with the cifar stem"
    mobile = ", the skeleton for which the genotype was priced, instead of the experiment's 14 cells x 48 channels with the imagenet stem"
    (elsewhere / "same.json").write_text(replace(priced, skeleton=Skeleton(6, 16, (1, 8, 8), 10)).to_json())
    for number, (target, setting, built, why) in enumerate(
        [
            ("priced.json", "search.layers=[3, 3, 3]", "5 x 12", own),
            ("priced.json", "recipe=imagenet_mobile", "5 x 12", mobile),
            ("priced.json", "skeleton.layers=7", "7 x 16", ""),
            ("priced.json", "stem=imagenet", "6 x 16", ""),
            ("same.json", "seed=1", "6 x 16", ""),
            ("PDARTS", "seed=1", "6 x 16", ""),
        ]
    ):
        assert main(["retrain", target, "digits", setting, f"run={number}"]) == 6
        out, err = capsys.readouterr()
        (said,) = [line for line in err.splitlines() if line.startswith("building ")]
        error = err.splitlines()[-1]
        assert out == ""
        assert said.startswith(f"building {built.replace(' x ', ' cells x ')} channels")
        assert said.endswith(f"stem{why}; to change the skeleton, set skeleton.KEY=...")
        assert error == f"rapdarts: error: {built}."
        saved = resolve.experiment_of_run(Path(str(number))).skeleton
        assert f"{saved.layers} x {saved.channels}" == built


# --- commands without training -----------------------------------------------------------------------------------


def test_cost(capsys: pytest.CaptureFixture[str]) -> None:
    costs = json.loads(run(capsys, "cost", "PDARTS", "--json"))
    assert (costs["params"], costs["macs"], costs["bytes"]) == (3_433_798, 532_174_464, 4 * 3_433_798)
    assert costs["skeleton"] == {"layers": 20, "channels": 36, "image": [3, 32, 32], "classes": 10, "stem": "cifar"}


def test_cost_of_the_published_imagenet_network(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["input=3x224x224", "classes=1000", "layers=14", "channels=48"]
    costs = json.loads(run(capsys, "cost", "PDARTS", *size, "--json"))
    assert costs["macs"] == 542_819_328
    assert costs["skeleton"]["stem"] == "imagenet"


def test_cost_as_text_at_another_skeleton(capsys: pytest.CaptureFixture[str]) -> None:
    words = run(capsys, "cost", "pdarts", "layers=2", "channels=8", "input=1x100x96", "classes=3", "stem=auto")
    assert words.startswith("pdarts: 2 cells x 8 channels, 1x100x96, 3 classes, imagenet stem\n")
    assert re.search(r"^macs +814,080 ", words, re.MULTILINE) and re.search(r"^params +21,615 ", words, re.MULTILINE)


@pytest.mark.parametrize("name", LITERATURE)
def test_exported_genotypes_read_back(name: str, capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert Genotype(**vars(LITERATURE[name])).to_json() == run(capsys, "export", name)
    darts = run(capsys, "export", name, "to=darts")
    assert darts.startswith(f"# space: {LITERATURE[name].space}\nGenotype(normal=[('")
    assert darts.count("\n") == 2
    assert main(["export", name, "to=darts", "out=mine.txt"]) == 0
    assert capsys.readouterr() == ("", "written to mine.txt\n")
    assert (elsewhere / "mine.txt").read_text() == darts
    (elsewhere / "back.json").write_text(run(capsys, "export", "mine.txt", "to=json"))
    back = read_genotype(elsewhere / "back.json")
    assert (back.space, back.cells) == (LITERATURE[name].space, LITERATURE[name].cells)
    assert run(capsys, "export", "back.json", "to=darts") == darts


@pytest.fixture
def searched(elsewhere: Path) -> Path:
    """Create the run folder of a finished search, with alphas that favour skips."""
    import torch

    from rapdarts.architecture.space import Skeleton
    from rapdarts.deploy.space_lookup import named_space
    from rapdarts.strategy.alphas import alphas_to_json
    from rapdarts.strategy.relaxation import Architecture

    space = named_space("darts")
    torch.manual_seed(0)
    architecture = Architecture(space)
    with torch.no_grad():
        architecture.alpha.normal_()
        architecture.alpha[0, :, list(space.primitives).index("skip_connect")] += 2
    folder = elsewhere / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(key_values.save_yaml(Experiment()))
    (folder / "alphas.json").write_text(alphas_to_json(space, Skeleton(3, 8, (1, 8, 8), 10), [architecture]))
    return folder


def test_derive_lists_all_candidates(capsys: pytest.CaptureFixture[str], searched: Path) -> None:
    found = json.loads(run(capsys, "derive", str(searched), "out=genotype.json", "--json"))
    assert len(found) > 2
    for one in found:
        assert set(one) == {"genotype", "costs", "score", "chosen", "max_skips"}
        assert one["genotype"]["costs"] == one["costs"]
        assert all(isinstance(cost, int) for name, cost in one["costs"].items() if name != "energy")
    assert [one["chosen"] for one in found] == [True] + [False] * (len(found) - 1)
    scores = [one["score"] for one in found[1:]]
    assert scores == sorted(scores, reverse=True)
    written = read_genotype(Path("genotype.json"))
    assert json.loads(written.to_json()) == found[0]["genotype"]
    assert found[0]["max_skips"] == 2
    skips = [primitive for node in written.cells["normal"].nodes for primitive, _ in node].count("skip_connect")
    assert skips <= 2


def test_derive_with_another_rule_and_skeleton(
    capsys: pytest.CaptureFixture[str], searched: Path, elsewhere: Path
) -> None:
    words = run(capsys, "derive", str(searched), "rule=darts", "layers=4", "channels=6", "out=other.json")
    assert words.startswith("rule: the strongest primitive except none on each edge")
    assert words.endswith("written to other.json\n")
    assert json.loads((elsewhere / "other.json").read_text())["skeleton"]["layers"] == 4
    unwritten = run(capsys, "derive", str(searched), "max_skips=0", "out=")
    assert unwritten.endswith("\nnot written to a file; add out=FILE to save it\n")
    assert sorted(path.name for path in elsewhere.iterdir()) == ["other.json", "runs"]


RESULTS = {
    "derive runs/first out=runs/first/alphas.json": "the record",
    "derive runs/first/alphas.json out=runs/./first/alphas.json": "an input",
    "derive runs/first hardware=mine.yaml out=mine.yaml": "an input",
    "export runs/first out=runs/first/config.yaml": "the record",
    "export mine.json to=svg out=mine.json": "an input",
    "export net.safetensors to=safetensors out=link": "an input",
    "report runs/first out=runs/first/trained/1/network.safetensors": "the record",
    "evaluate net.safetensors plot=net.safetensors": "an input",
    "cost PDARTS --space mine.py plot=mine.py": "an input",
    "measure digits out=runs/second/latency.json": "the record",
}


@pytest.mark.parametrize("command", RESULTS)
def test_no_output_overwrites_an_input_or_a_record(
    command: str, capsys: pytest.CaptureFixture[str], searched: Path, elsewhere: Path
) -> None:
    for name in (
        "runs/first/trained/1/network.safetensors",
        "runs/second/latency.json",
        "runs/second/environment.json",
    ):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).touch()
    for name in ("mine.yaml", "mine.json", "mine.py", "net.safetensors"):
        (elsewhere / name).touch()
    (elsewhere / "link").symlink_to("net.safetensors")
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    key_and_path = command.split()[-1]
    assert out == "" and err.endswith(" and would be overwritten; choose another file.\n") and err.count("\n") == 1
    assert err.startswith(f"rapdarts: error: {key_and_path} is ") and RESULTS[command] in err
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before


def test_other_files_in_a_run_folder_may_be_overwritten(searched: Path) -> None:
    for _ in range(2):
        assert main(["derive", str(searched), f"out={searched / 'smaller.json'}"]) == 0
        assert main(["derive", str(searched), f"out={searched.parent / 'genotype.json'}"]) == 0
    assert (searched / "smaller.json").read_bytes() == (searched.parent / "genotype.json").read_bytes()


def test_candidates_without_a_score_come_last() -> None:
    some = [{"score": score, "chosen": False} for score in (None, -3.0, 0.0, -1.0)] + [{"score": -9.0, "chosen": True}]
    assert [one["score"] for one in best_first(some)] == [-9.0, 0.0, -1.0, -3.0, None]
