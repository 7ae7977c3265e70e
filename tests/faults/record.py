"""Results of the series: one row for each promise and kind in experiments/reliability.json, and a table of them in docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rapdarts.cost.latency import device_name
from rapdarts.files.atomic import write_atomically
from rapdarts.training.device import training_device
from tests.faults.series import Outcome

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
PROMISES = [f"P{number}" for number in range(1, 14)]
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
"""Lines of the page between which the table is written."""


def keep(outcomes: Iterable[Outcome]) -> None:
    """Keep outcomes with the date and the machine, in place of earlier ones of the same kinds, and write the table."""
    known = {(row["promise"], row["kind"]): row for row in rows()}
    today, machine = datetime.now(UTC).date().isoformat(), device_name(training_device("cpu", 1))
    for one in outcomes:
        known[one.promise, one.kind] = {**asdict(one), "date": today, "machine": machine}
    ordered = sorted(known.values(), key=lambda row: (int(row["promise"].split()[0][1:]), row["kind"]))
    write_atomically(RESULTS, json.dumps(ordered, indent=1) + "\n")
    write_atomically(PAGE, with_table(PAGE.read_text(encoding="utf-8")))


def rows() -> list[dict[str, Any]]:
    """Return all rows, in the order of the promises."""
    return list(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else []


def with_table(page: str) -> str:
    """Return the text of the page with the table of the results."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    left = missing()
    note = [f"Not run in full yet: {', '.join(left)}.", ""] if left else []
    return "\n".join([before + BEGIN, "", *table(rows()), "", *note, END + after])


def missing() -> list[str]:
    """Return the promises of which no results are kept."""
    kept = {row["promise"].split()[0] for row in rows()}
    return [promise for promise in PROMISES if promise not in kept]


def table(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| promise | injected | n | failed | chance of a failure | measured | date, machine |"
    yield "| --- | --- | ---: | ---: | ---: | --- | --- |"
    for row in results:
        one = Outcome(row["promise"], row["kind"], row["trials"], row["failures"], row["note"], row["sampled"])
        cells = [
            one.promise,
            one.kind,
            f"{one.trials:,}",
            len(one.failures),
            one.bound,
            one.note,
            f"{row['date']}, {row['machine']}",
        ]
        yield f"| {' | '.join(map(str, cells))} |"
