"""The library API: one function for each task, most of them available from `import rapdarts`. The commands call the same functions.

Invalid input raises InputError with the message that the command would print. Every other failure of a run raises
a RapdartsError. Everything that can be checked without torch is checked before torch is imported.
"""

from rapdarts.api.counting import costs, filter_designs, layer_costs, measure, space_prices
from rapdarts.api.finding import find
from rapdarts.api.genotypes import derive, derived, read
from rapdarts.api.runs import random_baseline, rank, report, retrain, search
from rapdarts.api.trained_networks import evaluate, export, load

__all__ = [
    "costs",
    "derive",
    "derived",
    "evaluate",
    "export",
    "filter_designs",
    "find",
    "layer_costs",
    "load",
    "measure",
    "random_baseline",
    "rank",
    "read",
    "report",
    "retrain",
    "search",
    "space_prices",
]
