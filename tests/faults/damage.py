"""Files of runs that are cut, changed in one bit, zeroed, extended or swapped: each is refused, or it makes no difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests import mutations
from tests.faults.series import Outcome, scaled

MUTATIONS = 2000
"""Mutated files in the full series."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Mutate the files of searches, retrainings, rankings, random baselines and exports one at a time, and read each."""
    count = scaled(MUTATIONS, scale)
    failures, outcomes = mutations.survivors(folder, mutations.series(folder, complete=True), count, seed=1)
    note = f"{outcomes['refused']:,} refused, {outcomes['equal']:,} without effect"
    yield Outcome("P4 damage is noticed", "mutated files of runs", count, failures, note)
