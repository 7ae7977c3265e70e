"""The commands: each takes its command line, does one thing, and answers. Heavy imports wait until a verb really runs."""

from __future__ import annotations

from collections.abc import Callable

from rapdarts.cli.arguments import Call
from rapdarts.cli.commands.cost import cost
from rapdarts.cli.commands.derive import derive
from rapdarts.cli.commands.evaluate import evaluate
from rapdarts.cli.commands.export import export
from rapdarts.cli.commands.measure import measure
from rapdarts.cli.commands.rank import rank
from rapdarts.cli.commands.report import report
from rapdarts.cli.commands.retrain import retrain
from rapdarts.cli.commands.search import search

VERBS: dict[str, Callable[[Call], None]] = {
    "search": search,
    "derive": derive,
    "retrain": retrain,
    "rank": rank,
    "evaluate": evaluate,
    "export": export,
    "cost": cost,
    "measure": measure,
    "report": report,
}
"""Every command; what there is to say about it stands in rapdarts.help."""
