"""Mutated inputs for the command line: files of every kind and arguments, with a marker that shows whether any of them was executed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.architecture.writing import FORMATS
from rapdarts.cli.main import main
from rapdarts.config import key_values
from rapdarts.config.resolve import resolve_experiment
from rapdarts.data import readers
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.model_file import to_safetensors
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.alphas import alphas_to_json
from rapdarts.strategy.relaxation import Architecture
from tests.hung import LIMIT, in_time

SIDE = 32
"""Height and width of the images, those of CIFAR."""

MOST_BYTES = 500 * 10**6
"""Memory that a process may take for an input."""

OLDER = Path(__file__).with_name("whole") / "runs_0_1_0" / "search"
"""The folder of a search by version 0.1.0."""

MARKER = "marker"
"""File that a hostile input would create if it were executed."""

HOSTILE = [
    f"__import__('os').system('touch {MARKER}')", f"!!python/object/apply:os.system ['touch {MARKER}']", f"$(touch {MARKER})",
    f"`touch {MARKER}`", f"; touch {MARKER};", "${oc.env:HOME}", "_target_: os.system", f"cos\nsystem\n(S'touch {MARKER}'\ntR.",
    "../../", "/etc/passwd", "\0", "\ufeff", "\u202e", "\x1b[31m", "\r", "ѕkip_connect", "\U0001f600", "\ud800", "&a [*a,*a]",
    "NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "1e-320", "9" * 5000, "1" * 17, "010", "1:30", "no", "null", "true", "''",
    "[" * 3000, "{" * 3000, "(" * 200, "]", "}", ")", '"', "'", ",", ":", "|", "~", "#", "=", "- ", "\n", "\t", " ",
]  # fmt: skip
"""Texts that are inserted into inputs, from harmless to hostile."""


@dataclass
class Input:
    """A command and the file that is mutated for it; `text` files are mutated by lines and words, others by bytes."""

    command: list[str]
    path: str = ""
    content: bytes = b""
    text: bool = True
    others: dict[str, bytes] = field(default_factory=dict)


class Memory:
    """The most memory that one input has taken, in bytes, beyond what this process had. Linux can reset the earlier peak."""

    def __init__(self) -> None:
        self.most = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Yield a list to which the memory that the block takes at most is added."""
        found: list[int] = []
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the peak
        before = self._high_water_mark()
        yield found
        found.append(self._high_water_mark() - before)
        self.most = max(self.most, *found)

    @staticmethod
    def _high_water_mark() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@dataclass
class Failure:
    """An input for which a command did anything but succeed or refuse it in one line."""

    name: str
    number: int
    what: str
    content: bytes


# --- what is mutated -----------------------------------------------------------------------------------------------


def weights(channels: int) -> bytes:
    """Return the file of a network with few layers and random weights, for images of SIDE x SIDE pixels."""
    blueprint = ReferenceBlueprint("lenet", (channels, SIDE, SIDE), 10)
    torch.manual_seed(0)

    class Data:
        mean, std, class_names = [0.5] * channels, [0.5] * channels, [str(label) for label in range(10)]

    return to_safetensors(blueprint.build().state_dict(), blueprint, Data)  # type: ignore[arg-type]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">I", 0x800 + array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def encoded(save: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def picture(kind: str, mode: str = "L") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return encoded(lambda stream: Image.fromarray(pixels).convert(mode).save(stream, kind))


def inputs() -> dict[str, Input]:
    """Return every kind of input with a valid example; the commands take some ten milliseconds each."""
    genotype = LITERATURE["PDARTS"]
    found = {
        f"genotype as {form}": Input(
            ["export", f"cell.{form}", "to=darts"], f"cell.{form}", FORMATS[form](genotype).encode()
        )
        for form in ("json", "darts")
    }
    python = f"import os\n\nPDARTS = {genotype.line}\nOTHER = PDARTS\n"
    yaml = "seed: 1\ndata: {name: digits}\nsearch:\n  epochs: 3\n  warmup_epochs: 1\n  lr: 1e-3\n  budget: {params: 100k}\n"
    found |= {
        "genotype in Python": Input(["export", "cell.py:PDARTS", "to=json"], "cell.py", python.encode()),
        "log": Input(["export", "log.txt", "to=json"], "log.txt", f"epoch 1\ngenotype = {genotype.line}\n".encode() * 3),
        "experiment": Input(["search", "mine.yaml", "--print-config"], "mine.yaml", yaml.encode()),
        "hardware table": Input(["cost", "lenet", "hardware=e.yaml"], "e.yaml", b"name: chip\nmac_8: 0.2\nmac_32: 4\ndram_32: 1e2\n"),
        "command line": Input(["search", "digits", "seed=1", "search.lr=0.1", "search.layers=[3,3,3]", "budget.params=100k", "run=x"]),
        "words": Input(["export", "PDARTS", "to=json"]),
    }  # fmt: skip
    return {**found, **runs(), **data()}


def runs() -> dict[str, Input]:
    """Return inputs from the folders of runs."""
    space = named_space("nasbench201")
    torch.manual_seed(0)
    alphas = alphas_to_json(space, Skeleton(3, 4, (1, 8, 8), 10), [Architecture(space, 1.0)]).encode()
    config = key_values.save_yaml(resolve_experiment("digits", [("search.space", "nasbench201")], "search")).encode()
    result = json.dumps({"counted": {"params": 1000, "macs": 20000}, "seconds": 3.5}).encode()
    place = json.dumps({"verb": "search", "gpu": None, "threads": 1}).encode()
    whole = {"first/config.yaml": config, "first/result.json": result, "first/environment.json": place}
    arrays = {f"alphas_{kind}": np.random.default_rng(1).normal(size=(6, 5)) for kind in space.kinds}
    tensors = {f"alphas_{kind}": torch.randn(6, 5) for kind in space.kinds}
    return {
        "result": Input(["report", "first"], "first/result.json", result, others=whole),
        "configuration": Input(["report", "first"], "first/config.yaml", config, others=whole),
        "environment": Input(["report", "first"], "first/environment.json", place, others=whole),
        "verb": Input(["search", "digits", "run=first", "--print-config"], "first/environment.json", place, others=whole),
        "candidates": Input(["cost", "c.json:0.genotype"], "c.json", (OLDER / "candidates.json").read_bytes()),
        "hardware": Input(["cost", "PDARTS", "hardware=h.yaml"], "h.yaml", b"name: phone\nmac_32: 1.0\ndram_32: 100\n"),
        "alphas": Input(["derive", "first"], "first/alphas.json", alphas, others={"first/config.yaml": config}),
        "arrays of alphas": Input(
            ["derive", "a.npz", "space=nasbench201"], "a.npz", encoded(lambda stream: np.savez(stream, **arrays)), False
        ),
        "tensors of alphas": Input(
            ["derive", "a.pt", "space=nasbench201"], "a.pt", encoded(lambda stream: torch.save(tensors, stream)), False
        ),
        "weights": Input(["evaluate", "net.safetensors", "timing=false", "data.name=npz", "data.path=d.npz"], "net.safetensors",
                         weights(1), False, {"d.npz": arrays_of_images()}),
    }  # fmt: skip


def arrays_of_images() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE), dtype=np.uint8)
    return encoded(lambda stream: np.savez(stream, x=pixels, y=np.arange(20) % 10))


def data() -> dict[str, Input]:
    """Return data sets, on which a network is tested."""
    rng, labels = np.random.default_rng(0), np.arange(20, dtype=np.uint8) % 10
    grey, colour = ({f"net{channels}.safetensors": weights(channels)} for channels in (1, 3))
    records = np.concatenate([labels[:10, None], rng.integers(0, 256, (10, 3072), dtype=np.uint8)], axis=1).tobytes()
    pixels = rng.integers(0, 256, (20, SIDE, SIDE), dtype=np.uint8)
    halves = ("train", "t10k")
    mnist = {f"d/{half}-images-idx3-ubyte": idx(pixels) for half in halves} | {
        f"d/{half}-labels-idx1-ubyte": idx(labels) for half in halves
    }
    photos = {f"d/{half}/{label}/0.png": picture("PNG") for half in ("train", "test") for label in range(10)}

    def tested(channels: int, name: str, path: str = "d") -> list[str]:
        return ["evaluate", f"net{channels}.safetensors", "timing=false", f"data.name={name}", f"data.path={path}"]

    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in mnist.items()}
    found = {
        "CIFAR": Input(tested(3, "cifar10"), "d/data_batch_1.bin", records, False, {**colour, "d/test_batch.bin": records}),
        "IDX": Input(tested(1, "mnist"), "d/t10k-images-idx3-ubyte", idx(pixels), False, grey | mnist),
        "labels": Input(tested(1, "mnist"), "d/t10k-labels-idx1-ubyte", idx(labels), False, grey | mnist),
        "packed IDX": Input(
            tested(1, "mnist"), "d/t10k-images-idx3-ubyte.gz", packed["d/t10k-images-idx3-ubyte.gz"], False, grey | packed
        ),
        "arrays": Input(tested(1, "npz", "d.npz"), "d.npz", arrays_of_images(), False, grey),
    }  # fmt: skip
    for kind, suffix in (
        ("PNG", "png"),
        ("JPEG", "jpg"),
        ("GIF", "gif"),
        ("TIFF", "tif"),
        ("BMP", "bmp"),
        ("WEBP", "webp"),
        ("PPM", "ppm"),
    ):
        path = f"d/test/3/1.{suffix}"
        found[f"picture in {kind}"] = Input(tested(3, "folder"), path, picture(kind, "RGB"), False, colour | photos)
    return found


# --- mutations -----------------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: random.Random, text: bool) -> bytes:
    """Return content with one to four changes: bits flipped, parts removed, repeated or moved, hostile texts inserted."""
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randint(0, len(content)), rng.choice((1, 1, 4, 30, 300))
        part = content[place : place + length]
        change = rng.randrange(7)
        if change == 0 and part:
            content = content[:place] + bytes([part[0] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
        elif change == 1:
            content = content[:place] + content[place + length :]
        elif change == 2:
            content = content[:place] + part * rng.choice((2, 3, 50)) + content[place + length :]
        elif change == 3:
            content = content[:place]
        elif change == 4:
            content = content[:place] + rng.randbytes(length) + content[place + length :]
        elif change == 5:
            content = content[:place] + bytes([rng.choice((0, 255))]) * len(part) + content[place + length :]
        if change == 6 or (text and rng.random() < 0.5):
            new = rng.choice(HOSTILE).encode("utf-8", "surrogatepass")
            words = [at for at, one in enumerate(content) if chr(one) in " \n,:=[]()'\""] or [0]
            at = rng.choice(words) if text else place
            content = content[:at] + new + content[at + (length if rng.random() < 0.3 else 0) :]
    return content


def mutated_words(words: list[str], rng: random.Random) -> list[str]:
    """Return arguments with one or two changes; those after the verb are removed, repeated, exchanged, cut or extended."""
    words = [*words]
    for _ in range(rng.randint(1, 2)):
        at, change = rng.randrange(1, len(words)), rng.randrange(5)
        if change == 0 and len(words) > 2:
            del words[at]
        elif change == 1:
            words.insert(at, words[rng.randrange(1, len(words))])
        elif change == 2:
            words.insert(at, rng.choice(HOSTILE))
        else:
            key, equals, value = words[at].rpartition("=")
            text = value if change == 3 else words[at]
            place = rng.randint(0, len(text))
            text = text[:place] + rng.choice(HOSTILE) + text[rng.choice((place, place + 1, len(text))) :]
            words[at] = f"{key}{equals}{text}" if change == 3 else text
    return words


# --- trials --------------------------------------------------------------------------------------------------------


def fuzz(count: int, folder: Path, seed: int = 0, memory: Memory | None = None) -> Iterator[Failure]:
    """Give `count` mutated inputs to the command line, in turn of every kind, and yield those that it does not handle.

    A command must end within 5 s with the exit code 0, 2 or 4, and an error must be one line; nothing may be executed. The process,
    which has loaded all that any of the inputs needs, may not take more than 500 MB for one.
    """
    known, memory = inputs(), memory or Memory()
    names = [*known]
    with (
        contextlib.chdir(folder),
        patch.dict(readers.CIFAR_RECORDS, cifar10={"data_batch_1.bin": 10, "test_batch.bin": 10}),
    ):
        for name, one in known.items():  # a valid example is accepted, which also imports what the command needs
            code, _, err = answer(one, one.command, one.content)
            assert code == 0, f"{name}: {err}"
        for number in range(count):
            name = names[number % len(names)]
            yield from trial(name, known[name], number, random.Random(f"{seed} {number}"), memory)


def trial(name: str, one: Input, number: int, rng: random.Random, memory: Memory) -> Iterator[Failure]:
    """Yield a failure unless the command handles a mutation of its input."""
    command, content = one.command, mutated(one.content, rng, one.text)
    if not one.path:
        command = mutated_words(command, rng)
        content = " ".join(command).encode("utf-8", "surrogatepass")
    began = time.monotonic()
    with in_time(), memory.watched() as most:
        problem = problem_of(*answer(one, command, content))
    if most[0] > MOST_BYTES:
        problem = problem or f"it took {most[0] / 1e9:.2f} GB"
    if problem or time.monotonic() - began > LIMIT:
        yield Failure(name, number, problem or "it hung", content)


def answer(one: Input, command: Sequence[str], content: bytes) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it writes to stdout and stderr, with `content` in the file that it reads."""
    for place, other in one.others.items():
        write(place, other)
    if one.path:
        write(one.path, content)
    elif command[0] == "search":
        command = [*command, "--print-config"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    if one.path:
        os.unlink(one.path)
    return code, out.getvalue(), err.getvalue()


def problem_of(code: int, out: str, err: str) -> str:
    """Return what is wrong with the answer of a command; empty if it is as promised."""
    if code not in (0, 2, 4) and not (code == 5 and "outputs are not finite" in err):  # weights may become infinite
        return f"exit code {code}: {err[-300:]}"
    if "Traceback" in err:
        return "a traceback"
    if code and not (err.splitlines()[-1].startswith("rapdarts: error: ") and err.endswith(".\n")):
        return f"not a sentence: {err[-300:]!r}"
    if code and len(err.splitlines()[-1]) > 1500:
        return f"a long message: {err[:300]}"
    if not (out + err).replace("\n", "").replace("\t", "").isprintable():
        return f"unprintable characters: {out + err!r:.300}"
    return "something was executed" if os.path.exists(MARKER) else ""


def write(place: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
    Path(place).write_bytes(content)
