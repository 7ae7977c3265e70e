"""Table of relaxations: the search of the current attempt with each of them, on the first tuning seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.evidence import searches
from tests.evidence.figures import mean, paired_gain
from tests.evidence.plan import CURRENT
from tests.evidence.scorings import scored_by
from tests.evidence.store import Rows, load
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table

SEEDS = range(8)

RELAXED: Mapping[str, Mapping[str, Any]] = {
    "softmax, the default (DARTS: Liu et al. 2019)": {},
    "one candidate drawn per edge, straight through (GDAS: Dong and Yang 2019)": {"search.relaxation": "gumbel"},
    "Gumbel-softmax (SNAS: Xie et al. 2019)": {"search.relaxation": "gumbel", "search.relax.hard": False},
    "Dirichlet (DrNAS: Chen et al. 2021)": {"search.relaxation": "dirichlet"},
    "sigmoid gates with a zero-one loss (FairDARTS: Chu et al. 2020)": {"search.relaxation": "sigmoid"},
    "Beta-Decay (Ye et al. 2022)": {"search.relax.beta_decay": 50},
    "auxiliary skip (DARTS-: Chu et al. 2021)": {"search.relax.auxiliary_skip": 1},
    "stop by the dominant eigenvalue (RobustDARTS: Zela et al. 2020)": {
        "search.relax.stop_ratio": 0.75,
        "search.relax.stop_window": 2,  # eight epochs are too few for two windows of five
    },
}
"""The settings of every relaxation and addition, by its name on the page."""


def run(jobs: int) -> None:
    """Run the missing searches."""
    for keys in RELAXED.values():
        searches.run_series("nasbench201", {**CURRENT.keys, **keys}, SEEDS, jobs)


def section() -> list[str]:
    """Return the section as lines."""
    rows = load("nasbench201")
    names = {words: searches.variant_name({**CURRENT.keys, **keys}) for words, keys in RELAXED.items()}
    known = {words: name for words, name in names.items() if searches.seeds_of(rows, name, SEEDS)}
    heading = ["## Relaxations", ""]
    if len(known) < 2:
        return [*heading, NOT_RUN, ""]
    head = ["relaxation or addition", "settings", "n", "CIFAR-10 score", "gain", "order", "gain in order", "time"]
    waiting = [words for words in names if words not in known]
    return [
        *heading,
        *paragraph(
            f"""Searches of the current attempt (`{CURRENT.name}`, tuning seeds {ranges(SEEDS)}) with the relaxations of
            [search.md](search.md#relaxations) at their default settings, except for a shorter `stop_window`. One cell is derived
            from each search for each of the four budgets, under the conditions of the attempt. *Gain* is the mean paired difference
            from the softmax on the same seeds, and *order* the rank correlation of the search's scores with the true accuracies of
            all cells that it could derive. *Time* is the time of a search, measured for all of fixed length in turn, as a multiple
            of the first row's. Nothing was tuned for any of them, and eight seeds describe but do not decide."""
        ),
        *table(head, [row(rows, words, name) for words, name in known.items()]),
        *paragraph(f"Not run yet: {', '.join(waiting)}." if waiting else ""),
        *sources(
            one for name in known.values() for one in searches.origins(rows, name, searches.seeds_of(rows, name, SEEDS))
        ),
    ]


def row(rows: Rows, words: str, name: str) -> list[object]:
    """Return the row of a relaxation."""
    seeds = searches.seeds_of(rows, name, SEEDS)
    own, plain = (scored_by(searches.weights_of(rows, one, seeds)) for one in (name, CURRENT.name))
    gains = ["–", "–"]
    if name != CURRENT.name:
        gains = [paired_gain(*pair).text(places, sign=True) for *pair, places in zip(own, plain, (1, 2), strict=True)]
    scores, orders = map(mean, own)
    changed = name.removeprefix(CURRENT.name).strip()
    settings = f"`{changed}`" if changed else "–"
    pace = rows.get("pace", {}).get("searches", {})
    time = f"{pace[words] / pace[next(iter(RELAXED))]:.2f}" if words in pace else "–"
    return [words, settings, len(seeds), scores, gains[0], orders.text(2), gains[1], time]
