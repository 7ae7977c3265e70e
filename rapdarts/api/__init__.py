"""The library: what a program does with rapdarts, one function each, and what every command calls. `import rapdarts` offers them.

A mistake is an InputError with the sentence that the command would print; every other failure of a run is a RapdartsError too.
Whatever can be checked without torch is checked before torch is imported.
"""

from rapdarts.api.counting import costs, filter_designs, layer_costs, measure, space_prices
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
