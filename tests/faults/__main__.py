"""`python -m tests.faults`: inject faults in series, and print a table of promises, trials and failures.

The table goes to stdout, progress to stderr; the exit code is 1 if a promise did not hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.faults import costs, damage, inputs, kills, numbers, owners, power, record, repeated, saves, signals, storage
from tests.faults.series import Outcome, say, table

SERIES: dict[str, Callable[[Path, float], Iterator[Outcome]]] = {
    "saves": saves.series,
    "power": power.series,
    "costs": costs.series,
    "owners": owners.series,
    "inputs": inputs.series,
    "numbers": numbers.series,
    "damage": damage.series,
    "storage": storage.series,
    "repeated": repeated.series,
    "signals": signals.series,
    "kills": kills.series,
}
"""All series by name, the short ones first. Each takes an empty folder and a scale."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run series of faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "series", nargs="*", default=list(SERIES), help=f"series to run: {', '.join(SERIES)} (default: all)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of trials (default: 1)")
    parser.add_argument("--keep", action="store_true", help="keep the results for the table in docs/reliability.md")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.series if name not in SERIES]:
        parser.error(f"there is no series {unknown[0]}; choose from {', '.join(SERIES)}")
    if given.keep and given.scale < 1:
        parser.error("only full series are kept; leave out --scale or --keep")
    outcomes: list[Outcome] = []
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        for name in given.series:
            first = len(outcomes)
            for outcome in SERIES[name](folder / name, given.scale):
                outcomes.append(outcome)
                say(f"{outcome.promise}, {outcome.kind}: {outcome.trials} trials, {len(outcome.failures)} failed")
                for failure in outcome.failures:
                    say(f"  {failure}")
            if given.keep:  # only whole series
                record.keep(outcomes[first:])
    finally:
        print("\n".join(table(outcomes)))
        shutil.rmtree(folder, ignore_errors=True)
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
