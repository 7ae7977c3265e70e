"""Hostile files and texts: each is refused or taken as text, and none of them runs code, reads other files or writes outside."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from rapdarts.architecture.literature import LITERATURE
from rapdarts.cli.main import main
from rapdarts.config import key_values
from rapdarts.config.resolve import resolve_experiment
from rapdarts.data import readers
from rapdarts.errors import warn
from rapdarts.training import checkpoint
from tests.hung import in_time

MARKER = "marker"

Places = dict[str, tuple[str, str]]
"""A path and a command that reads it, by name."""


class Payload:
    """Creates the file `marker` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {MARKER}",)


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command in a folder of its own, which must refuse it and change nothing."""
    monkeypatch.setitem(readers.CIFAR_RECORDS, "cifar10", {"data_batch_1.bin": 10, "data_batch_2.bin": 10})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("kept")
    inside = tmp_path / "inside"

    def command(*words: str, codes: tuple[int, ...] = (2, 4), **files: bytes) -> str:
        inside.mkdir(exist_ok=True)
        monkeypatch.chdir(inside)
        for place, content in files.items():
            path = inside / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "first":
                config = key_values.save_yaml(resolve_experiment("digits", [], "search"))
                (path.parent / "config.yaml").write_text(config)
                (path.parent / "result.json").write_text("{}")
            path.write_bytes(content)
        with in_time(5 if 0 not in codes else 60):
            code = main(words)
        out, err = capsys.readouterr()
        assert code in codes, err
        assert "Traceback" not in err and len(err) < 2000
        assert (out + err).replace("\n", "").replace("\t", "").isprintable()
        assert not list(tmp_path.rglob(MARKER)), "something was executed"
        assert os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "kept"
        return err

    return command


# --- texts that are code elsewhere ---------------------------------------------------------------------------------

TEXTS = {
    "an expression": f"__import__('os').system('touch {MARKER}')",
    "a call in a genotype": f"Genotype(normal=__import__('os').system('touch {MARKER}'), normal_concat=[2], reduce=[], reduce_concat=[2])",
    "a lambda": f'(lambda: exec(\'open("{MARKER}", "w")\'))()',
    "a format": "{0.__class__.__mro__[1].__subclasses__}",
    "a YAML tag": f"!!python/object/apply:os.system ['touch {MARKER}']",
    "a YAML constructor": "!!python/object/new:exec [open('marker', 'w')]",
    "a target": f"_target_: os.system\ncommand: touch {MARKER}",
    "an interpolation": "path: ${oc.env:HOME}\nother: ${oc.decode:1}",
    "a shell": f"$(touch {MARKER}); touch {MARKER} | `touch {MARKER}`",
    "a template": f"{{{{ ''.__class__ }}}} {{% import os %}} <script>touch {MARKER}</script>",
    "a pickle in text": f"cos\nsystem\n(S'touch {MARKER}'\ntR.",
    "escape codes": "\x1b]0;owned\x07\x1b[2J\x9b31m \u202e evil \u2066",
}

TEXT_PLACES: Places = {
    "genotype": ("cell.txt", "export cell.txt to=json"),
    "genotype in Python": ("cell.py", "export cell.py to=json"),
    "genotype in JSON": ("cell.json", "cost cell.json"),
    "genotype in YAML": ("cell.yaml", "export cell.yaml to=json"),
    "experiment": ("mine.yaml", "search mine.yaml run=new"),
    "hardware table": ("e.yaml", "cost PDARTS hardware=e.yaml"),
    "latency table": (
        "t.json",
        "search digits search.space=nasbench201 skeleton.layers=3 search.latency=t.json cost.latency=1 run=new",
    ),
    "plan": ("p.json", "find digits budget.params=100k find.plan=p.json run=new"),
    "configuration": ("first/config.yaml", "report first"),
    "result": ("first/result.json", "report first"),
    "alphas": ("first/alphas.json", "derive first"),
    "candidates": ("first/candidates.json", "cost first/candidates.json:a"),
}


@pytest.mark.parametrize("place", TEXT_PLACES)
def test_texts_are_never_executed(place: str, refuse: Callable[..., str]) -> None:
    path, command = TEXT_PLACES[place]
    for text in TEXTS.values():
        refuse(*command.split(), **{path: text.encode()})


WORDS = ("cost", "search", "retrain", "rank", "derive", "evaluate", "report", "export", "find")


@pytest.mark.parametrize("verb", WORDS)
def test_arguments_are_never_executed(verb: str, refuse: Callable[..., str]) -> None:
    for text in TEXTS.values():
        refuse(verb, text)
        refuse(verb, "digits", f"data.path={text}", "data.name=npz", "run=new")
        refuse(verb, "digits", f"{text}=1")


# --- pickles -------------------------------------------------------------------------------------------------------


def saved(zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"alphas_normal": Payload()}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def in_npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([Payload()] * 20), y=np.arange(20) % 2)
    return stream.getvalue()


def in_zip(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, pickle.dumps(Payload()))
    return stream.getvalue()


PICKLES: dict[str, Callable[[], bytes]] = {
    **{f"protocol {number}": (lambda number=number: pickle.dumps(Payload(), number)) for number in range(6)},
    "torch": lambda: saved(True),
    "old torch": lambda: saved(False),
    "npz": in_npz,
    "zip with data.pkl": lambda: in_zip("archive/data.pkl"),
    "zip with x.npy": lambda: in_zip("x.npy"),
}

PICKLE_PLACES: Places = {
    "tensors of alphas": ("a.pt", "derive a.pt space=darts"),
    "arrays of alphas": ("a.npz", "derive a.npz space=darts"),
    "alphas": ("first/alphas.json", "derive first"),
    "genotype": ("cell.pkl", "cost cell.pkl"),
    "network": ("net.pth", "evaluate net.pth"),
    "weights": ("net.safetensors", "evaluate net.safetensors"),
    "ONNX": ("net.onnx", "evaluate net.onnx"),
    "arrays": ("d.npz", "search digits data.name=npz data.path=d.npz run=new"),
    "CIFAR": ("d/data_batch_1.bin", "search digits data.name=cifar10 data.path=d run=new"),
    "CIFAR in Python": ("d/data_batch_1", "search digits data.name=cifar10 data.path=d run=new"),
    "CIFAR archive": ("d/cifar-10-binary.tar.gz", "search digits data.name=cifar10 data.path=d run=new"),
    "IDX": ("d/train-images-idx3-ubyte", "search digits data.name=mnist data.path=d run=new"),
    "picture": ("d/cat/1.png", "search digits data.name=folder data.path=d run=new"),
    "configuration": ("first/config.yaml", "report first"),
}


@pytest.mark.parametrize("place", PICKLE_PLACES)
def test_pickles_are_never_loaded(place: str, refuse: Callable[..., str]) -> None:
    path, command = PICKLE_PLACES[place]
    for write in PICKLES.values():
        refuse(*command.split(), **{path: write()})


def test_a_checkpoint_with_code_is_refused(refuse: Callable[..., str], tmp_path: Path) -> None:
    """Its hash is right, because anybody can compute it."""
    from unittest.mock import patch

    folder, code = tmp_path / "inside" / "first", saved(True)
    refuse("report", "first", **{"first/environment.json": b'{"verb": "search"}'})
    with patch.object(torch, "save", lambda state, stream: stream.write(code)):
        checkpoint.save_checkpoint(folder / "checkpoint", {}, {"command": "search"})
    refuse("search", "digits", "run=first", "resume=true")


# --- bombs ---------------------------------------------------------------------------------------------------------


def stretched() -> bytes:
    """Return tensors that state 2^40 values but store one."""
    stream = io.BytesIO()
    torch.save({f"alphas_{kind}": torch.zeros(1).expand(2**40) for kind in ("normal", "reduce")}, stream)
    return stream.getvalue()


def shared() -> bytes:
    """Return a list of a thousand lists of a thousand lists of a thousand zeros, each stored once."""
    parts: list = [0] * 1000
    for _ in range(3):
        parts = [parts] * 1000
    stream = io.BytesIO()
    torch.save({"alphas_normal": parts}, stream)
    return stream.getvalue()


def empty_bytes() -> bytes:
    """Return a file of torch that creates 10^10 bytes from a number."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\xe4\x0b\x54\x02\x85R.")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
    return stream.getvalue()


DEEP, NUMBER = 100_000, "9" * 5000
JSON_BOMBS = {
    "lists": "[" * DEEP + "]" * DEEP,
    "open lists": "[" * DEEP,
    "objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "a long number": f'{{"version": {NUMBER}}}',
    "a large number": '{"version": 1e999}',
    "not a number": '{"version": NaN, "space": -Infinity}',
    "a key twice": '{"format": "rapdarts-genotype", "format": "other", "version": 1}',
    "a mark": "\ufeff{}",
    "half of a pair": '{"format": "\\ud800"}',
    "NUL": "{}\0",
}
JSON_PLACES = ("genotype in JSON", "latency table", "plan", "result", "alphas", "candidates")

YAML_BOMBS = {
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "aliases in a genotype": "normal: &a [[skip_connect, 0]]\nreduce: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("bcdefghi", "cdefghij", strict=True)
    ),
    "lists": "[" * 3000 + "]" * 3000,
    "maps": "{a: " * 3000 + "1" + "}" * 3000,
    "indents": "".join(f"{' ' * depth}a:\n" for depth in range(400)),
    "a key twice": "seed: 1\nseed: 2\n",
    "a long number": f"seed: {NUMBER}",
    "a large number": "search: {lr: 1e999}",
    "not a number": "search: {lr: .nan}",
    "a merge": "<<: {seed: 1}\nsearch: {<<: {lr: 1}}\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a control character": "seed: \x07",
    "half of a pair": 'run: "\\ud800"',
}
YAML_PLACES = ("experiment", "hardware table", "configuration", "genotype in YAML")


@pytest.mark.parametrize("place", JSON_PLACES)
def test_json_bombs_are_refused(place: str, refuse: Callable[..., str]) -> None:
    path, command = TEXT_PLACES[place]
    for text in JSON_BOMBS.values():
        for encoding in ("utf-8", "utf-16"):
            refuse(*command.split(), **{path: text.encode(encoding, "surrogatepass")})


@pytest.mark.parametrize("place", YAML_PLACES)
def test_yaml_bombs_are_refused(place: str, refuse: Callable[..., str]) -> None:
    path, command = TEXT_PLACES[place]
    for text in YAML_BOMBS.values():
        for encoding in ("utf-8", "utf-16"):
            refuse(*command.split(), **{path: text.encode(encoding)})


@pytest.mark.parametrize("write", [stretched, shared, empty_bytes])
def test_bombs_of_torch_are_refused(write: Callable[[], bytes], refuse: Callable[..., str]) -> None:
    refuse("derive", "a.pt", "space=darts", **{"a.pt": write()})


# --- pictures ------------------------------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(marker) (w) file closefile\nshowpage\n%%EOF\n"


def two_classes(content: bytes, suffix: str = "png") -> dict[str, bytes]:
    return {f"d/{name}/{number}.{suffix}": content for name in ("cat", "dog") for number in range(3)}


def encoded(width: int, height: int, kind: str = "PNG", mode: str = "1") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, kind)
    return stream.getvalue()


def claiming(width: int, height: int) -> bytes:
    """Return a BMP file of a few bytes that states a size."""
    content = bytearray(encoded(8, 8, "BMP", "L"))
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(content)


PICTURES = {
    "PostScript": (EPS, "is in none of the formats JPEG, PNG"),
    "PDF": (b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", "is in none of the formats"),
    "a vector image": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>", "is in none of the formats"),
    "a program": (b"#!/bin/sh\ntouch marker\n", "is in none of the formats"),
    "a bomb": (encoded(20_000, 20_000), "400000000 pixels"),
    "a large image": (encoded(10_000, 10_000), "10,000 x 10,000 pixels, more than 89 million"),
    "a stated size": (claiming(9_000, 9_000), "is not a readable image"),
    "half an image": (encoded(64, 64, "PNG", "RGB")[:-60], "is not a readable image"),
    "no bytes": (b"", "is empty"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_decoded_only_by_decoders(
    name: str, refuse: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program called gs is in the path: Pillow passes PostScript to it, whatever the suffix."""
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {MARKER} {tmp_path}/outside/{MARKER}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    content, words = PICTURES[name]
    error = refuse("search", "digits", "data.name=folder", "data.path=d", "run=new", **two_classes(content))
    assert words in error and "d/cat/0.png" in error
    assert "new" not in os.listdir()


def test_a_folder_that_contains_itself_is_refused(refuse: Callable[..., str], tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    for link, target in (("d/cat/again", "."), ("d/cat/up", "../..")):
        (inside / "d" / "cat").mkdir(parents=True, exist_ok=True)
        (inside / link).symlink_to(target)
        error = refuse("search", "digits", "data.name=folder", "data.path=d", "run=new", **two_classes(encoded(8, 8)))
        assert f"{link}" in error and "leads back to a folder that contains it; remove the link." in error
        (inside / link).unlink()


# --- names ---------------------------------------------------------------------------------------------------------

STRANGE = ("a\x1b[31m\u202eb\nc", "-x $(touch marker) $y$ ѕкот ", "a\udcffb" + "x" * 200)
"""Escape codes, an override of the direction, a line break; a dash, a shell, a formula, another script; a byte that is not UTF-8."""


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_strange_names_are_taken_as_text(name: str, refuse: Callable[..., str], tmp_path: Path) -> None:
    """The name is that of a genotype, an output, a run, a class, an image and a folder of images; all of them work."""
    cell, done = LITERATURE["PDARTS"].line.encode(), (0,)
    refuse("export", f"./{name}.txt", "to=json", f"out=./{name}.json", codes=done, **{f"{name}.txt": cell})
    refuse("export", f"./{name}.json", "to=darts", codes=done)
    data = tmp_path / "inside" / "d"
    for half in ("train", "test"):
        for label in (name, "other"):
            (data / half / label / name).mkdir(parents=True)
            (data / half / label / name / f"{name}.png").write_bytes(encoded(32, 32, mode="RGB"))
    settings = ["data.name=folder", "data.path=d", "retrain.epochs=1", "retrain.batch=2", "retrain.warmup_epochs=0"]
    refuse("retrain", "lenet", "digits", *settings, f"run=./{name}", codes=done)
    refuse("evaluate", f"./{name}", "timing=false", "plot=matrix.png", codes=done)
    refuse("cost", f"./{name}", "plot=costs.svg", codes=done)
    refuse("report", f"./{name}", "out=report.md", codes=done)
    refuse("export", f"./{name}", "to=safetensors", f"out=./{name}.safetensors", codes=done)
    texts = [(tmp_path / "inside" / file).read_text() for file in (f"{name}.safetensors.md", "report.md")]
    assert "".join(texts).replace("\n", "").isprintable()


def test_a_file_without_a_hash_in_a_strange_folder_is_reported_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / STRANGE[0]
    shutil.copytree(Path(__file__).parent / "runs_0_1_0" / "search", folder)
    assert main(["report", str(folder)]) == 0
    printed = capsys.readouterr().err
    assert printed.startswith("rapdarts: ") and "has no sha256" in printed and printed[:-1].isprintable()
    assert not caplog.messages
    warn(f"{folder} is strange")  # in a program
    assert caplog.messages == [rf"{tmp_path}/a\x1b[31m\u202eb\nc is strange"]


def test_the_output_of_debug_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", STRANGE[0], "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "y/" * 3000, "../../../proc/none/x"])
def test_impossible_names_of_runs_are_refused(name: str, refuse: Callable[..., str]) -> None:
    error = refuse("search", "digits", "data.fraction=0.1", f"run={name}", codes=(2, 6))
    assert error.splitlines()[-1].startswith("rapdarts: error: ")


def test_names_in_files_are_no_paths(refuse: Callable[..., str]) -> None:
    tree = json.loads(LITERATURE["PDARTS"].to_json())
    for space in (
        "../../outside/secret",
        "/etc/passwd",
        "os",
        "darts\0",
        "CON",
        "x" * 300,
        "darts.py",
        "search_spaces.darts",
    ):
        refuse("cost", "cell.json", **{"cell.json": json.dumps({**tree, "space": space}).encode()})
    for name in ("ѕkip_connect", "skip_connect ", "Skip_Connect", "../skip_connect", "__class__", "\u202eskip_connect"):
        tree["cells"]["normal"]["nodes"][0][0][0] = name
        refuse("cost", "cell.json", **{"cell.json": json.dumps(tree).encode()})


def test_a_link_in_the_place_of_a_new_file_is_not_followed(refuse: Callable[..., str], tmp_path: Path) -> None:
    """The names of temporary files are random; a link in the place of the file itself is replaced."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out.json").symlink_to(tmp_path / "outside" / "secret")
    refuse("export", "PDARTS", "out=out.json", codes=(0,))
    assert (inside / "out.json").is_file() and not (inside / "out.json").is_symlink()


COUNT = (
    len(TEXTS) * (len(TEXT_PLACES) + 3 * len(WORDS))
    + len(PICKLES) * len(PICKLE_PLACES)
    + 2 * len(JSON_BOMBS) * len(JSON_PLACES)
    + 2 * len(YAML_BOMBS) * len(YAML_PLACES)
    + len(PICTURES)
)
"""Number of hostile files and texts in this module."""


def test_there_are_more_than_a_hundred() -> None:
    assert COUNT > 100
