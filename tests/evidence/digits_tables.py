"""The tables on the digits in experiments/README.md: searches with prices and budgets, and the costs of what they find."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

import rapdarts
from rapdarts.config.resources import show
from tests.evidence.store import ROOT, keep, load, origin, origin_of, own_origin, say, scratch
from tests.evidence.tables import sources, table
from tests.evidence.workers import each

PAGE = ROOT / "experiments" / "README.md"
RESULTS = "digits_tables"

PRICED = ("macs", "params", "bytes", "activations", "traffic", "energy", "peak_memory")
BUDGETS: dict[str, dict[str, Any]] = {
    "budget.params=100k": {"budget.params": 100_000},
    "budget.params=120k budget.traffic=1.0MB": {"budget.params": 120_000, "budget.traffic": 1_000_000},
}
RUNS: dict[str, tuple[dict[str, Any], range]] = {
    "no price": ({}, range(3)),
    "cost.macs=5": ({"cost.macs": 5}, range(3)),
    **{name: ({"spend": 0, **keys}, range(5)) for name, keys in BUDGETS.items()},
    **{f"cost.{name}=1": ({f"cost.{name}": 1}, range(2)) for name in PRICED},
    "cost.peak_memory=30": ({"cost.peak_memory": 30}, range(2)),
}
"""Searches of the tables, by name: their settings and their seeds."""


def run(jobs: int, again: bool = False) -> None:
    """Run the searches that are missing, or all of them `again`, keep their costs, and write the tables."""
    known = load(RESULTS)
    if "runs" not in known:
        known = {**origin(), "runs": {}}
        for name, value in known.items():
            keep(RESULTS, value, name)
    calls = [
        (name, seed)
        for name, (_, seeds) in RUNS.items()
        for seed in seeds
        if again or str(seed) not in known["runs"].get(name, {})
    ]
    for left, ((name, seed), result) in enumerate(each(search, calls, jobs), 1 - len(calls)):
        keep(RESULTS, {**own_origin(known), **result}, "runs", name, str(seed))
        say(f"digits, {name}, seed {seed}: {result['cpu_seconds']:.0f} CPU s, {-left} left")
    write()


def search(name: str, seed: int) -> dict[str, Any]:
    """Search the digits with the settings of RUNS, and return the costs of the genotype found."""
    torch.set_num_threads(1)
    began = time.process_time()
    with scratch("digits") as folder:
        found = rapdarts.search("digits", {"seed": seed, **RUNS[name][0]}, run=folder, progress=False)
    counted = rapdarts.costs(found.genotype)
    costs = {resource: counted[resource] for resource in PRICED}
    return {"costs": costs, "cpu_seconds": round(time.process_time() - began, 1)}


# --- the tables --------------------------------------------------------------------------------------------------


def write() -> None:
    """Write the tables into the page, each between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(text, load(RESULTS)), encoding="utf-8")


def filled(text: str, known: Mapping[str, Any]) -> str:
    """Return the text of a page with the tables of the results between the marks `<!-- table NAME -->` and `<!-- end -->`."""
    for name, lines in tables(known).items():
        mark = f"<!-- table {name} -->\n"
        found = re.search(re.escape(mark) + r".*?(?=<!-- end -->)", text, re.S)
        if found is None:
            raise ValueError(f"the page has no mark {mark.strip()}")
        text = text.replace(found.group(), "\n".join([mark, *lines, ""]))
    return text


def tables(known: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the lines of every table, by name."""
    runs: Mapping[str, Mapping[str, Any]] = known["runs"]
    return {
        "prices": prices(runs),
        "budgets": budgets(runs),
        "resources": resources(runs),
        "commands": sources(_origins(known)),
    }


def prices(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of searches with and without a high price on MACs."""
    rows = []
    for name in ("no price", "cost.macs=5"):
        for seed, one in runs[name].items():
            costs = one["costs"]
            rows.append([name, seed, f"{costs['params']:,}", f"{costs['macs']:,}", f"{one['cpu_seconds']:.0f} s"])
    return table(["settings", "seed", "params", "MACs", "CPU time"], rows)


def budgets(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of searches under budgets, with the share of each budget that is used."""
    head, rows = ["seed"], []
    for name in BUDGETS:
        head += [f"`{name}`", "used"]
    for seed in map(str, RUNS[next(iter(BUDGETS))][1]):
        row = [seed]
        for name, keys in BUDGETS.items():
            costs = runs[name][seed]["costs"]
            limits = {key.removeprefix("budget."): limit for key, limit in keys.items()}
            row.append(", ".join(amount(resource, costs[resource]) for resource in limits))
            row.append(" and ".join(f"{100 * costs[resource] / limit:.1f} %" for resource, limit in limits.items()))
        rows.append(row)
    return table(head, rows)


def resources(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of searches with a price on each resource, compared with those without a price."""
    rows = []
    for resource, key in [*((name, f"cost.{name}=1") for name in PRICED), ("peak_memory", "cost.peak_memory=30")]:
        seeds = list(runs[key])
        free, priced = ([runs[name][seed]["costs"][resource] for seed in seeds] for name in ("no price", key))
        ratio = sum(cost / other for cost, other in zip(priced, free, strict=True)) / len(seeds)
        shown = (", ".join(amount(resource, cost) for cost in costs) for costs in (free, priced))
        rows.append([resource, f"`{key}`", *shown, f"{ratio:.2f}"])
    return table(["resource", "settings", "no price (seeds 0, 1)", "with the price", "mean ratio"], rows)


def amount(resource: str, cost: float) -> str:
    """Return a cost as the tables show it: bytes and energies with their unit, other counts with their name if it is needed."""
    return f"{cost:,} params" if resource == "params" else show(cost, resource)


def largest_share(runs: Mapping[str, Mapping[str, Any]], names: Iterable[str] = tuple(BUDGETS)) -> float:
    """Return the largest share of a budget that any search under budgets uses; at most 1 if all are met."""
    shares: Sequence[float] = [
        one["costs"][key.removeprefix("budget.")] / limit
        for name in names
        for one in runs[name].values()
        for key, limit in BUDGETS[name].items()
    ]
    return max(shares)


def _origins(known: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    """Yield the command, date and machine of every run."""
    for seeds in known["runs"].values():
        for one in seeds.values():
            yield origin_of(one, known)
