"""TODO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import deliver, say
from rapdarts.config import knobs
from rapdarts.config.commands import ReportConfig

if TYPE_CHECKING:
    pass


def report(call: Call) -> None:
    call.target("run folders")
    options = knobs.parse_settings(ReportConfig, call.pairs)
    from rapdarts.reports.run_table import table

    text, left_out = table([Path(word) for word in call.words])
    if left_out:
        say(f"left out: {'; '.join(left_out)}")
    deliver(text, options.out)
