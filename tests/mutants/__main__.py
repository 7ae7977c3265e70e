"""Check that every mutant is noticed: `python -m tests.mutants [WORD ...]` runs those whose file or description has a word."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import hypothesis  # noqa: F401  # these are imported here once, for all forks
import pytest  # noqa: F401
import torch

from tests.mutants.runner import LIMIT, copy_repository, exit_on_signals, report, run_mutants, run_tests
from tests.mutants.table import mutants


def main(words: Sequence[str]) -> int:
    """Run the mutants that match a word, print the table, and return the exit code: 1 unless all are killed."""
    torch.set_num_threads(1)
    chosen = [one for one in mutants() if not words or any(word in f"{one.file} {one.what}" for word in words)]
    if not chosen:
        sys.exit(f"no mutant matches {' '.join(words)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_repository(folder)
        # A test that fails without a fault would kill every mutant.
        say("running the tests without faults")
        tests = sorted({mutant.test for mutant in chosen})
        result = run_tests(folder, tests, LIMIT * len(tests))
        if result.state != "survived":
            sys.exit(f"the tests do not pass without faults ({result.state})\n{result.output[-4000:]}")
        outcomes = []
        for outcome in run_mutants(folder, chosen):
            outcomes.append(outcome)
            say(f"{len(outcomes)}/{len(chosen)} {outcome.result.state}: {outcome.mutant.what}")
    print(report(outcomes))
    return int(any(outcome.result.state != "killed" for outcome in outcomes))


def say(words: str) -> None:
    """Report progress."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    exit_on_signals()
    sys.exit(main(sys.argv[1:]))
