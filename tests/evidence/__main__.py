"""Test whether a search beats chance at equal cost: run the missing searches, and write docs/evidence.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rapdarts.files.yaml import parse_value
from tests.evidence import (  # fmt: skip
    banks,
    contributions,
    digits_tables,
    finding,
    found,
    multiplier,
    naswot,
    pace,
    page,
    plan,
    relaxations,
    satisficing,
    satisficing_bank,
    searches,
)
from tests.evidence.tasks import TASKS

BANKS = [name for name, task in TASKS.items() if task.macs]


def seeds_of(text: str) -> list[int]:
    """Return the seeds in a string such as `0-11` or `3,5`."""
    parts = [part.split("-") for part in text.split(",")]
    return [seed for part in parts for seed in range(int(part[0]), int(part[-1]) + 1)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. Without a verb, `plan.run` runs the missing searches."""
    whole = argparse.ArgumentParser(prog="python -m tests.evidence", description=__doc__)
    whole.add_argument(
        "--again", action="store_true", help="repeat finished searches and NASWOT runs too (only without a verb)"
    )
    whole.add_argument("--jobs", type=int, default=1, help="number of single-threaded processes")
    verbs = whole.add_subparsers(dest="verb", metavar="VERB")
    search = verbs.add_parser("search", help="run the search of a task with several seeds, and keep the mixing weights")
    search.add_argument("task", choices=list(TASKS))
    search.add_argument("keys", nargs="*", metavar="key=value", help="settings that override the task's")
    bank = verbs.add_parser("bank", help="train the cells of a bank with several seeds")
    bank.add_argument("task", choices=BANKS)
    derived = verbs.add_parser(
        "derived",
        help="train the genotypes derived from a bank's searches: from single searches and from means of three",
    )
    derived.add_argument("task", choices=BANKS)
    derived.add_argument("keys", nargs="*", metavar="key=value", help="settings of the searches")
    derived.add_argument("--searches", type=seeds_of, required=True, help="seeds of the searches")
    for verb in (search, bank, derived):
        verb.add_argument("--seeds", type=seeds_of, default="0-2", help="seeds, such as 0-11 or 3,5 (default: 0-2)")
        verb.add_argument("--jobs", type=int, default=1, help="number of single-threaded processes")
    scores = verbs.add_parser(
        "naswot",
        help="score the cells of a bank by NASWOT, or choose cells by NASWOT for every attempt on NAS-Bench-201",
    )
    scores.add_argument("task", choices=list(TASKS))
    scores.add_argument("--jobs", type=int, default=1, help="number of single-threaded processes (NAS-Bench-201 only)")
    prices = verbs.add_parser(
        "multiplier", help="search under budgets with three rules for the multiplier, and retrain"
    )
    prices.add_argument("tasks", nargs="*", default=list(multiplier.BUDGETS), help="tasks (default: all)")
    prices.add_argument("--seeds", type=seeds_of, default="0-7", help="seeds (default: 0-7)")
    prices.add_argument("--jobs", type=int, default=1, help="number of single-threaded processes")
    digits = verbs.add_parser(
        "digits", help="search the digits for the tables in experiments/README.md, and write them"
    )
    digits.add_argument("--again", action="store_true", help="repeat finished searches too", dest="repeat")
    digits.add_argument("--jobs", type=int, default=1, help="number of single-threaded processes")
    comparison = verbs.add_parser(
        "find",
        help="compare `rapdarts find` with random cells that get the same compute (hours), on one task or on all",
    )
    comparison.add_argument("tasks", nargs="*", default=[finding.TASK, *plan.BANKS], help="tasks (default: all)")
    relaxed = verbs.add_parser("relaxations", help="search with every relaxation")
    cheaper = verbs.add_parser("cheaper", help="search with settings that make a search cheaper")
    satisfice = verbs.add_parser("satisfice", help="run what the section on satisficing needs of a bank (hours)")
    contributed = verbs.add_parser("contributions", help="measure losses of one-hot cells in searched supernets")
    measure = verbs.add_parser("pace", help="measure the times of all methods in turn, once, on an idle machine")
    recipes = verbs.add_parser("recipes", help="try the recipes of the short trainings of `find`")
    full = verbs.add_parser(
        "full",
        help="what has no result yet of the current attempt, the banks, the relaxations, the comparisons of `find` and the"
        " multipliers, which takes many hours",
    )
    for verb in (comparison, relaxed, cheaper, satisfice, contributed, measure, recipes, full):
        verb.add_argument("--jobs", type=int, default=1, help="number of single-threaded processes")
    verbs.add_parser("render", help="write docs/evidence.md and its figure from the results so far")
    return whole


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    given = parser().parse_args(arguments)
    if given.verb == "search":
        searches.run_series(given.task, keys_of(given.keys), given.seeds, given.jobs)
    elif given.verb == "bank":
        banks.train(given.task, banks.begin(given.task)["cells"], given.seeds, given.jobs)
    elif given.verb == "derived":
        plan.train_derived(given.task, keys_of(given.keys), given.searches, given.seeds, given.jobs)
    elif given.verb == "naswot" and given.task not in BANKS:
        for attempt in plan.ATTEMPTS:
            plan.draw_tens(attempt, given.jobs)
    elif given.verb == "naswot":
        banks.begin(given.task)
        naswot.run_bank(given.task, again=True)
    elif given.verb == "digits":
        digits_tables.run(given.jobs, given.repeat)
    elif given.verb == "multiplier":
        multiplier.run(given.jobs, given.tasks, given.seeds)
    elif given.verb == "find":
        find(given.jobs, given.tasks)
    elif given.verb == "relaxations":
        relaxations.run(given.jobs)
    elif given.verb == "cheaper":
        satisficing.run(given.jobs)
    elif given.verb == "satisfice":
        satisficing_bank.run(given.jobs)
    elif given.verb == "contributions":
        contributions.run(given.jobs)
    elif given.verb == "pace":
        pace.run()
    elif given.verb == "recipes":
        finding.try_recipes(given.jobs)
    else:
        if given.verb == "full":
            run_all(given.jobs)
        elif given.verb is None:
            plan.run(given.jobs, given.again)
        page.write()


def find(jobs: int, tasks: Sequence[str]) -> None:
    """Run the missing comparisons of `rapdarts find` with random cells on some tasks."""
    if unknown := [task for task in tasks if task not in TASKS]:
        raise SystemExit(f"there is no task {unknown[0]}; the tasks are {', '.join(TASKS)}")
    if finding.TASK in tasks:
        pace.run()
        finding.run_all(jobs)
    found.run(jobs, [task for task in BANKS if task in tasks])


def run_all(jobs: int) -> None:
    """Run what has no result yet, except earlier attempts, tuning searches and the tables of the digits."""
    for task in plan.BANKS:
        banks.train(task, banks.begin(task)["cells"], plan.RECIPE_SEEDS, jobs)
    plan.run(jobs)
    contributions.run(jobs)
    finding.try_recipes(jobs)
    relaxations.run(jobs)
    satisficing.run(jobs)
    pace.run()
    find(jobs, [finding.TASK, *plan.BANKS])
    satisficing_bank.run(jobs)
    multiplier.run(jobs, list(multiplier.BUDGETS), list(range(8)))


def keys_of(words: Sequence[str]) -> dict[str, object]:
    """Return settings from `key=value` arguments, with parsed values."""
    pairs = (word.split("=", 1) for word in words)
    return {key: parse_value(value, key) for key, value in pairs}


if __name__ == "__main__":
    main()
