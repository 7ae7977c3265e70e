"""The tables on the digits: up to date with their results, every budget met, and one short search in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evidence import digits_tables, store


def made_up() -> dict[str, Any]:
    """Return results in which the costs of every search are its seed plus a power of ten for each resource."""
    costs = {seed: {name: 10 ** (i + 3) + seed for i, name in enumerate(digits_tables.PRICED)} for seed in range(5)}
    runs = {
        name: {str(seed): {"costs": costs[seed], "cpu_seconds": 20.0} for seed in seeds}
        for name, (_, seeds) in digits_tables.RUNS.items()
    }
    return {"command": "python -m tests.evidence digits", "date": "2026-11-30", "machine": "AMD EPYC", "runs": runs}


def test_the_tables_of_the_page_are_up_to_date() -> None:
    text = digits_tables.PAGE.read_text(encoding="utf-8")
    known = store.load(digits_tables.RESULTS)
    assert digits_tables.filled(text, known) == text, "run `python -m tests.evidence digits`"
    assert {name: len(seeds) for name, (_, seeds) in digits_tables.RUNS.items()} == {
        name: len(runs) for name, runs in known["runs"].items()
    }
    assert digits_tables.largest_share(known["runs"]) <= 1


def test_tables_replace_what_is_between_their_marks() -> None:
    marks = "".join(f"<!-- table {name} -->\nold\n<!-- end -->\n" for name in digits_tables.tables(made_up()))
    text = digits_tables.filled(f"before\n{marks}after", made_up())
    assert "old" not in text and text.startswith("before\n") and text.endswith("after")
    assert digits_tables.filled(text, made_up()) == text
    assert "| cost.macs=5 | 2 | 10,002 | 1,002 | 20 s |" in text
    assert "| 1 | 10,001 params | 10.0 % | 10,001 params, 10,000,001 B | 8.3 % and 1000.0 % |" in text
    assert "| macs | `cost.macs=1` | 1,000, 1,001 | 1,000, 1,001 | 1.00 |" in text
    assert text.count("`python -m tests.evidence digits`") == 1
    with pytest.raises(ValueError, match="no mark <!-- table prices -->"):
        digits_tables.filled("a page", made_up())


def test_shares_above_1_are_noticed() -> None:
    known = made_up()
    assert digits_tables.largest_share(known["runs"]) == pytest.approx(10.000004)


def test_a_search_returns_the_costs_of_its_genotype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"search.layers": [3], "search.candidates": [0], "search.skip_dropout": [0.0], "search.epochs": 2,
             "search.warmup_epochs": 1, "search.subset": 0.2, "search.batch": 32}  # fmt: skip
    monkeypatch.setattr(store, "WORK", tmp_path)
    monkeypatch.setitem(digits_tables.RUNS, "short", (short, range(1)))
    found = digits_tables.search("short", 0)
    assert set(found["costs"]) == set(digits_tables.PRICED)
    assert found["costs"]["params"] >= 58_522 and found["costs"]["macs"] >= 964_096
    assert not list(tmp_path.iterdir())
