"""A series of injected faults: what is promised, how often it was tried, and in which trials it did not hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """Result of a series of trials of one kind. `failures` describes every trial in which the promise did not hold.

    `trials` counts what is injected (kills, mutations, signals), `note` adds a measurement, such as a duration. `sampled` is False for a
    measurement, and for trials of all cases there are: neither has a chance of a failure.
    """

    promise: str
    kind: str
    trials: int
    failures: list[str] = field(default_factory=list)
    note: str = ""
    sampled: bool = True

    @property
    def bound(self) -> str:
        """Upper limit of the chance of a failure with 95 % confidence, as text (Clopper and Pearson 1934); a dash if there is none."""
        if not self.sampled:
            return "–"
        from scipy.special import betaincinv

        failed = len(self.failures)
        limit = betaincinv(failed + 1, self.trials - failed, 0.95) if failed < self.trials else 1.0
        return f"below {limit:.1%}"


def scaled(full: float, scale: float, least: int = 1) -> int:
    """Return the number of trials of a series at a scale, where 1 is the full series."""
    return max(least, round(scale * full))


def table(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield the lines of a Markdown table of outcomes."""
    yield "| promise | kind | trials | failed | chance of a failure, 95 % | note |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for one in outcomes:
        yield f"| {one.promise} | {one.kind} | {one.trials:,} | {len(one.failures)} | {one.bound} | {one.note} |"


def say(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)
