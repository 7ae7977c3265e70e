"""Faults that have tests of their own, each run several times: mixed runs, disks that are really full, and jobs of two processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.faults import runs
from tests.faults.series import Outcome, say, scaled

TIMES = 5
"""Repetitions of every test in the full series."""

DISKS = [
    f"tests/training/test_storage.py::{name}[{how}]"
    for name in (
        "test_a_run_goes_on_when_the_space_is_back",
        "test_a_run_ends_after_three_failures_and_keeps_its_last_checkpoint",
    )
    for how in ("disk", "limit")
]
"""Tests of a file system without space, which needs the right to mount one, and of a limit on the size of files."""

JOBS = [
    f"tests/whole/test_distributed.py::test_{name}"
    for name in (
        "a_signal_to_one_process_stops_both_and_resuming_is_bit_identical",
        "a_signal_to_one_process_that_reads_its_data_stops_both",
        "a_dead_process_ends_the_job_and_one_process_resumes_it",
        "a_process_that_hangs_ends_the_job[programs1-30]",
        "a_process_that_is_missing_ends_the_job[leaves_early]",
        "a_process_that_is_missing_ends_the_job[never_comes]",
        "a_nan_in_one_process_is_skipped_by_both_processes",
        "nans_in_one_process_stop_both_processes[joint]",
        "nans_in_one_process_stop_both_processes[separate]",
        "processes_with_different_settings_do_not_start",
        "processes_with_different_numbers_of_steps_do_not_start",
    )
]
"""Tests of jobs of two processes, of which one is signalled, dies, hangs, is missing, diverges or differs."""

MIXED = [
    f"tests/training/test_resume.py::test_{name}"
    for name in (
        "only_the_previous_checkpoint_is_a_run_that_has_begun",
        *(f"a_lost_configuration_is_replaced_by_the_same_settings_only[{previous}]" for previous in (False, True)),
        "an_edited_configuration_does_not_fit_the_checkpoint",
        "a_run_without_configuration_and_checkpoint_is_refused",
        *(
            f"a_refused_start_leaves_the_folder_as_it_was[{claimed}-{what}]"
            for claimed in ("", "claimed before")
            for what in ("other settings", "other settings and device", "no resume", "other data")
        ),
        "a_changed_origin_is_damage",
    )
]
"""Tests of starts in the folder of a run that would mix it with another run, or with other settings or data."""

TESTS = {
    "P1 exact resume": ("starts that would mix two runs, settings or data", MIXED),
    "P11 storage errors": ("full disks and limits on the size of files", DISKS),
    "P12 several processes": ("signalled, dead, hanging, missing, diverging and differing processes", JOBS),
}
"""For each promise, what is injected, and the tests."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Run the tests again and again, each time in a new process."""
    folder.mkdir(parents=True, exist_ok=True)
    for promise, (kind, tests) in TESTS.items():
        ran, failures, times = Counter[str](), list[str](), scaled(TIMES, scale)
        for number in range(times):
            for test, why in results(tests, folder / f"{promise.split()[0]}-{number}").items():
                if why == "skipped":
                    say(f"{promise}: {test} cannot be tried here")
                    continue
                ran[test] += 1
                failures += [f"{test}, {number}: {why}"] if why else []
        if ran:
            note = f"{len(ran)} of {len(tests)} tests, {times} times each"
            yield Outcome(promise, kind, ran.total(), failures, note)


def results(tests: Sequence[str], folder: Path) -> dict[str, str]:
    """Run tests in a new process; return what failed by test, "skipped" for those that cannot be run here, and an empty text for others."""
    report = folder.with_suffix(".xml")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "proof or not proof", *tests]
    words += [f"--basetemp={folder}", f"--junitxml={report}"]
    done = subprocess.run(words, cwd=runs.ROOT, env=runs.ENVIRONMENT, capture_output=True, text=True, check=False)
    cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()  # noqa: S314 (written by pytest)
    found = {str(case.get("name")): said(case) for case in cases}
    missing = f"it did not run: {done.stdout[-300:]}"
    return {test: found.get(test.partition("::")[2], missing) for test in tests}


def said(case: ElementTree.Element) -> str:
    """Return what failed in a test, "skipped", or an empty text."""
    for part in case:
        if part.tag in ("failure", "error"):
            return f"{part.tag}: {part.get('message')}"
        if part.tag == "skipped":
            return "skipped"
    return ""
