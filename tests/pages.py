"""Examples in the Markdown pages of the repository: code blocks, and commands with the output shown after them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(text: str, *languages: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line and the text of every code block in one of the languages."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        if found[1] in languages:
            yield text[: found.start()].count("\n") + 2, found[2]


def session(text: str, *languages: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every `rapdarts` command from the code blocks in these languages, with the lines of output shown after it."""
    for _, block in blocks(text, *languages):
        command, output = "", list[str]()
        for line in [*block.splitlines(), "$"]:
            found = re.match(r"(?:\$ )?rapdarts (.+)", line.partition("  #")[0])
            if not found and not line.startswith("$"):
                output.append(line)
                continue
            if command:
                yield command, output
            command, output = found[1] if found else "", []
