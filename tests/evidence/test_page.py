"""Tests of the page and its figure: rendered without results and with all results, and up to date."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from tests.evidence import (  # fmt: skip
    attempts,
    bank_tables,
    banks,
    figure,
    nasbench,
    page,
    plan,
    satisficing_figure,
    satisficing_tables,
    searches,
    store,
    tables,
    tasks,
)
from tests.evidence.made_up import bank_of, multiplied
from tests.evidence.nasbench import ALL_BUDGETS


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    assert page.render() == page.PAGE.read_text(encoding="utf-8"), "run `python -m tests.evidence render`"


def test_the_figures_are_up_to_date() -> None:
    drawn = figure.as_svg(figure.picture(store.load("nasbench201")))
    assert drawn == page.PAGE.with_suffix(".svg").read_bytes(), "run `python -m tests.evidence render`"
    for name, lines in satisficing_tables.figures(store.load("nasbench201")).items():
        drawn = figure.as_svg(satisficing_figure.picture(lines))
        assert drawn == page.PAGE.with_name(name).read_bytes(), "run `python -m tests.evidence render`"


def test_the_readme_quotes_the_headlines() -> None:
    readme = " ".join((store.ROOT / "README.md").read_text(encoding="utf-8").split())
    for words in (attempts.headline(store.load("nasbench201"), plan.CURRENT), *map(bank_tables.headline, plan.BANKS)):
        assert words in readme


def test_a_page_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    text = page.render()
    assert text.startswith("# Evidence") and text.count("Not run yet.") == 13 and "evidence.svg" not in text
    assert figure.as_svg(figure.picture(store.load("nasbench201"))).startswith(b"<?xml")


def test_a_page_with_all_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    rng, facts = np.random.default_rng(0), store.origin()

    def series(task: str, keys: dict[str, object], seeds: range) -> store.Rows:
        shape = tasks.TASKS[task].space.mask.shape
        logs = {str(seed): np.log(rng.dirichlet(np.ones(shape[-1]), shape[:2])).tolist() for seed in seeds}
        found = {seed: {"cpu_seconds": 20.0, "log_weights": one} for seed, one in logs.items()}
        return {searches.variant_name(keys): {**facts, "keys": keys, "seeds": found}}

    ten = {
        str(budget): nasbench.genotype(np.flatnonzero(nasbench.derivable(budget))[0]).to_nasbench201()
        for budget in ALL_BUDGETS
    }
    one = {"cpu_seconds": 20.0, "cell": ten["11"], "macs": nasbench.FIXED + 10 * nasbench.UNIT}
    rows = store.load("nasbench201") | {
        "searches": series("nasbench201", {}, range(3))
        | series("nasbench201", dict(plan.CURRENT.keys), plan.CURRENT.seeds[:6]),
        "naswot": {
            **facts,
            "seeds": {str(seed): {"cpu_seconds": 9.0, "cells": ten} for seed in (100, plan.CURRENT.seeds[0])},
        },
        "budgeted": {**facts, "keys": {}, "seed": 0, "budgets": {"11": one}},
    }
    store.save("nasbench201", rows)
    cells = [genotype.line for genotype in banks.drawn(tasks.TASKS["cifar16"], 4)]
    trained = bank_of([60, 61], [63, 62], [66, 67], [64, 64])["trained"].values()
    store.save("cifar16", {
        "searches": series("cifar16", {}, range(3)),
        "cells": cells,
        "trained": dict(zip(cells, trained, strict=True)),
        "bank": facts,
        "naswot": {**facts, "seed": 0, "cpu_seconds": 9.0, "scores": dict(zip(cells, (1.0, 2.0, 3.0, 4.0), strict=True))},
    })  # fmt: skip
    store.save("multiplier", multiplied())

    text = page.render()
    sentences = " ".join(text.split())
    for words in (
        "So far 6 of 12 searches have been run.",
        "| one search | 6 |",
        "| three searches averaged | 2 |",
        "One search does not beat any of these with 95 % confidence.",
        "A random cell among them scores 70.8",
        "| the best of ten random cells by NASWOT (any number of skip-only paths), seeds 100-111 | 1 |",
        "| 11 units | 1 | 12,759,680 | 11,776,640 | 92.3% |",
        "| `as in the task` | 3 | 0-2 |",
        "| `cifar16` | 4 | 8 |",
        "three searches averaged, `as in the task`, seeds 0-2",
        "| NASWOT | 4 cells | 0.80 | 66.7 | 9 |",
        "`fashion14`: not run yet.",
        "| digits | 90,000 params | subtract | 0.9 | 2 |",
        "## How well two searches agree",
    ):
        assert words in text or words in sentences, words


def test_the_figure_is_labelled() -> None:
    drawn = ElementTree.fromstring((page.PAGE.with_suffix(".svg")).read_bytes())  # noqa: S314 - our own file
    words = " ".join("".join(one.itertext()) for one in drawn.iter("{http://www.w3.org/2000/svg}text"))
    for name in (*figure.REFERENCES, "three searches averaged", "million MACs"):
        assert name in words


def test_ranges_lists_and_tables_as_text() -> None:
    assert tables.ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert [tables.listed(list(words)) for words in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert tables.table(["", "n"], [["one", 1]]) == ["|  | n |", "| --- | ---: |", "| one | 1 |", ""]


def test_raw_results_have_one_row_per_line() -> None:
    for file in sorted(store.FOLDER.glob("*.json")):
        text = file.read_text(encoding="utf-8")
        rows = json.loads(text)
        assert text == store._text(rows, 0) + "\n", file.name
        assert all(series["command"] and series["date"] for series in rows.get("searches", {}).values())
    row = {"cpu_seconds": 1.5, "log_weights": [[0, -1]]}
    written = store._text({"searches": {"plain": {"seeds": {"0": row, "1": row}}}}, 0)
    assert written.splitlines()[4:6] == [f'    "0": {json.dumps(row)},', f'    "1": {json.dumps(row)}']


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "cifar16",
            "CIFAR-10 at 16 x 16 pixels, 10 % of the training images; networks of 4 cells and 8 channels with 1.17M to 1.3M MACs.",
        ),
        (
            "fashion14",
            "Fashion-MNIST at 14 x 14 pixels, 5 % of the training images; networks of 4 cells and 8 channels with 0.9M to 1M MACs.",
        ),
    ],
)
def test_description_of_a_bank(name: str, words: str) -> None:
    assert bank_tables.description(tasks.TASKS[name]) == words
