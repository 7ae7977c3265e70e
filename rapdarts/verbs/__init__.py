"""The commands: each takes its command line, does one thing, and answers. Heavy imports wait until a verb really runs."""

from __future__ import annotations

from collections.abc import Callable

from rapdarts.call import Call
from rapdarts.verbs.counting import cost, measure
from rapdarts.verbs.learning import retrain
from rapdarts.verbs.ranking import rank
from rapdarts.verbs.searching import derive, search
from rapdarts.verbs.showing import export, report
from rapdarts.verbs.testing import evaluate

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
