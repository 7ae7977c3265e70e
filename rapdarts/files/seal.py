"""Seals: a file written by rapdarts carries the SHA-256 of the rest of its content, so that damage is noticed when it is read.

A JSON file carries it in its first field, a YAML file in its first line, and a binary file in its metadata. A copy of the file keeps
it, and writing the file stays one step. A seal shows damage, not forgery: anyone who can change a file can also write a matching
seal. It covers the values of a JSON file, not its spaces and line breaks, which some programs change.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from rapdarts.errors import DamagedError, InputError, warn
from rapdarts.files.json import Fault, as_object, strict_loads
from rapdarts.files.regular import read_bytes
from rapdarts.files.run_files import RunFile
from rapdarts.files.text import read_text

KEY = "sha256"
"""Field of JSON files, and key of metadata, that contains the seal."""

RECORD, FILES = RunFile.RESULT, "files"
"""File of a finished run, and its field, in which the seals of the run's other files are listed by their names."""

BLANK = hashlib.sha256(b"rapdarts").hexdigest()
"""Stands for the seal in a binary file while its hash is computed."""

HEX = r"[0-9a-f]{64}"
IN_JSON = re.compile(rf'"{KEY}":\s*"({HEX})"')
IN_YAML = re.compile(rf"# written by rapdarts, {KEY} ({HEX})\n")
INDENT = re.compile(r"\{\n( *)")
MOST_BYTES = 100_000_000
"""Maximum size of the record of a run."""

CHUNK = 2**20
"""Number of bytes of a file that are hashed at a time."""

_reported: set[Path] = set()
"""Folders with a file that cannot be verified and that was reported in this process."""


# --- JSON --------------------------------------------------------------------------------------------------------


def seal_json(text: str) -> str:
    """Return the text of a JSON object with a seal as its first field; in a list, every object gets one. A sealed text is unchanged."""
    return _sealed_json(text)[0]


def _sealed_json(text: str) -> tuple[str, str]:
    """Return what `seal_json` returns, and what `seal_of_json` returns for it."""
    tree = json.loads(text)
    if isinstance(tree, list):
        entries = [{KEY: hash_of(one), **one} if isinstance(one, dict) and KEY not in one else one for one in tree]
        return json.dumps(entries, indent=2, allow_nan=False) + "\n", _seal_of_tree(entries)
    if not isinstance(tree, dict) or not tree or KEY in tree:
        return text, _seal_of_tree(tree)
    own, indent = hash_of(tree), INDENT.match(text)
    gap = f"\n{indent[1]}" if indent else ""
    return f'{{{gap}"{KEY}": "{own}",{text[1:] if indent else " " + text[1:]}', own


def hash_of(tree: Any) -> str:
    """Return the SHA-256 of a tree of JSON values, as hex; it does not depend on the order of keys."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def unseal(tree: Any, where: str | Path) -> Any:
    """Return the values of a JSON object without its seal; other values, and objects without a seal, are returned unchanged.

    `where` names the file in messages. If it is a path in the folder of a finished run, the file must be the one that this run
    wrote. Raises DamagedError.
    """
    if not isinstance(tree, Mapping) or KEY not in tree:
        return tree
    rest = {name: value for name, value in tree.items() if name != KEY}
    if tree[KEY] != hash_of(rest):
        raise damaged(where, f"the field {KEY}")
    if isinstance(where, Path):
        check_belongs(where, tree[KEY])
    return rest


# --- YAML --------------------------------------------------------------------------------------------------------


def seal_yaml(text: str) -> str:
    """Return a YAML text with a seal in its first line."""
    return _sealed_yaml(text)[0]


def _sealed_yaml(text: str) -> tuple[str, str]:
    """Return a YAML text with a seal in its first line, and the seal."""
    found = IN_YAML.match(text)
    own = found[1] if found else _hash_of_text(text)
    return text if found else f"# written by rapdarts, {KEY} {own}\n{text}", own


def check_yaml(text: str, where: str | Path) -> bool:
    """Return whether a YAML text has a seal; `where` names the file.

    Raises DamagedError if the text does not match its seal, or if `where` is a path in the folder of a finished run that wrote another
    file. That of config.yaml is not compared here, because its run lists the digest of its settings.
    """
    text = text.replace("\r\n", "\n")
    found = IN_YAML.match(text)
    if found and found[1] != _hash_of_text(text[found.end() :]):
        raise damaged(where, f"the first line, with its {KEY}")
    if isinstance(where, Path) and where.name != RunFile.CONFIG:
        check_belongs(where, found[1] if found else "")
    return found is not None


def _hash_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- binary files ------------------------------------------------------------------------------------------------


def seal_bytes(content: bytes) -> bytes:
    """Return a binary content in whose metadata the BLANK is replaced by the seal."""
    return content.replace(BLANK.encode(), _hash_of_stream(io.BytesIO(content), BLANK).encode(), 1)


def check_bytes(content: bytes, seal: Any, where: str | Path) -> None:
    """Raise DamagedError unless `seal`, which stands in the metadata of a binary content, matches it."""
    check_stream(io.BytesIO(content), seal, where)


def check_stream(file: BinaryIO, seal: Any, where: str | Path) -> None:
    """Raise DamagedError unless `seal` matches the content of an open file, which may be larger than the memory."""
    file.seek(0)
    if not (isinstance(seal, str) and re.fullmatch(HEX, seal) and _hash_of_stream(file, seal) == seal):
        raise damaged(where)
    if isinstance(where, Path):
        check_belongs(where, seal)


def _hash_of_stream(file: BinaryIO, seal: str) -> str:
    """Return the SHA-256 of the rest of a file with the BLANK in place of the first occurrence of its seal; empty if there is none."""
    mark, total, left = seal.encode(), hashlib.sha256(), b""
    while chunk := file.read(CHUNK):
        before, found, after = (left + chunk).partition(mark)
        if found:
            total.update(before + BLANK.encode() + after)
            while chunk := file.read(CHUNK):
                total.update(chunk)
            return total.hexdigest()
        kept = len(before) - min(len(before), len(mark) - 1)  # the seal may begin at the end of a chunk
        total.update(before[:kept])
        left = before[kept:]
    return ""


# --- files of a run ----------------------------------------------------------------------------------------------


def seal_file(name: str, content: str | bytes) -> tuple[str | bytes, str]:
    """Return the content of a file of a run with its seal, and the seal; the seal is empty for a file that is not read again."""
    if isinstance(content, bytes):
        return content, seal_of_bytes(content)
    if name.endswith(".yaml"):
        return _sealed_yaml(content)
    if name.endswith(".json") and Path(name).name != RunFile.STATUS:
        return _sealed_json(content)
    return content, ""


def read_sealed(path: Path, remedy: str = "run the command that wrote it again") -> dict[str, Any]:
    """Return the values of a JSON object that a run wrote; `remedy` is part of the message if the file cannot be read.

    Raises DamagedError if it cannot be read or does not match its seal.
    """
    if not os.path.lexists(path):
        raise DamagedError(f"{path} cannot be read ({os.strerror(errno.ENOENT)}); {remedy}.")
    try:
        text = read_text(path, "it", MOST_BYTES, f"has more than {MOST_BYTES:,} bytes")
        tree: dict[str, Any] = as_object(strict_loads(text), "it")
    except (InputError, Fault) as error:
        raise DamagedError(f"{path} is damaged ({str(error).rstrip('.')}); {remedy}.") from None
    if KEY not in tree:
        report_unsealed(path)
    return dict(unseal(tree, path))


def seal_of_json(text: str) -> str:
    """Return the seal of a JSON object, or the hash of a list of sealed objects; empty for another text."""
    if not IN_JSON.search(text):
        return ""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return _seal_of_tree(tree)


def _seal_of_tree(tree: Any) -> str:
    """Return the seal of a JSON object that contains it, or the hash of a list of such objects; empty for another value."""
    if isinstance(tree, dict):
        return tree[KEY] if isinstance(tree.get(KEY), str) else ""
    is_list = isinstance(tree, list) and tree and all(isinstance(one, dict) and KEY in one for one in tree)
    return hash_of(tree) if is_list else ""


def seal_of_bytes(content: bytes) -> str:
    """Return the seal in the metadata of a .safetensors or an ONNX content; empty if there is none."""
    found = re.search(rf'\\"{KEY}\\": \\"({HEX})\\"'.encode(), content[:1000])
    if found is None:
        # A protocol buffer writes the length of a string before it: \x06 for the key, @ (64) for the value.
        at = content.rfind(b"\n\x06" + KEY.encode() + b"\x12@")
        found = re.compile(b".{10}(" + HEX.encode() + b")", re.S).match(content, at) if at >= 0 else None
    return found[1].decode() if found else ""


def check_belongs(path: Path, seal: str) -> None:
    """Raise DamagedError if the finished run in whose folder a sealed file lies wrote another file under this name."""
    folder, name = path.parent, path.name
    if path.absolute().parent.parent.name == "trained":
        folder, name = path.absolute().parents[2], f"trained/{folder.name}/{name}"
    if name != RECORD and written_by(folder).get(name, seal) != seal:
        raise DamagedError(
            f"{path} is not the file that the run in {folder} wrote according to its {RECORD}; one of the two is damaged or from another"
            " run. Move it away, then repeat the command of the run with resume=true to write its own file again."
        )


def written_by(folder: Path) -> dict[str, str]:
    """Return the seals of the files that a finished run wrote, by their names in its folder; empty if they are not known.

    Raises DamagedError if the result of the run does not match its seal, and says so if it cannot be read.
    """
    record, tree = folder / RECORD, None
    with suppress(InputError, ValueError, RecursionError):
        tree = json.loads(read_bytes(record, most=MOST_BYTES).decode())
    again = "repeat the command of the run with resume=true to write it again"
    if tree is None and os.path.lexists(record):
        _warn_once(folder, f"{record} is damaged, so the other files there cannot be compared with it; {again}")
    try:
        files = unseal(tree, str(record)).get(FILES) if isinstance(tree, dict) else None
    except DamagedError as error:
        raise DamagedError(f"{str(error).rstrip('.')}, or move it to another folder and {again}.") from None
    return {name: seal for name, seal in files.items() if isinstance(seal, str)} if isinstance(files, dict) else {}


def check_record(folder: Path, result: Mapping[str, Any]) -> None:
    """Raise DamagedError if metrics.jsonl is not the record that the `result` of the run in a folder was computed from.

    A missing file is accepted, because no result is computed from it again.
    """
    files, record = result.get(FILES), folder / RunFile.METRICS
    wanted = files.get(RunFile.METRICS) if isinstance(files, dict) else None
    try:
        found = hashlib.sha256(read_bytes(record)).hexdigest() if wanted and record.is_file() else wanted
    except InputError as error:
        raise DamagedError(f"{str(error).rstrip('.')}; resume the run to write it again.") from None
    if found != wanted:
        raise DamagedError(f"{record} is damaged or was edited; resume the run with resume=true to write it again.")


# --- messages ----------------------------------------------------------------------------------------------------


def damaged(where: str | Path, seal: str = "") -> DamagedError:
    """Return the error for a file that does not match its seal; `seal` names the part that a user who edited the file must remove."""
    remedy = f"; if you edited it on purpose, remove {seal}" if seal else ""
    return DamagedError(f"{where} is damaged: its content does not match its {KEY}{remedy}.")


def report_unsealed(path: Path) -> None:
    """Log, once for each folder, that a file has no seal, so that damage to it cannot be noticed."""
    _warn_once(
        path.parent,
        f"{path} has no {KEY}, so damage to it cannot be noticed; an older version or another program wrote it, or it was edited",
    )


def _warn_once(folder: Path, text: str) -> None:
    """Warn of a file in a folder of which this process has not yet warned."""
    if folder not in _reported:
        _reported.add(folder)
        warn(text)
