"""Damage to any file of a run is refused in one line, or makes no difference. `make faults` tries 2,000 mutations instead of 36."""

from __future__ import annotations

from pathlib import Path

from tests.mutations import series, survivors


def test_damage_to_the_files_of_a_search_and_a_network_is_noticed(tmp_path: Path) -> None:
    found, outcomes = survivors(tmp_path, series(tmp_path), 36)
    assert not found
    assert outcomes["refused"] > outcomes["equal"] > 0
