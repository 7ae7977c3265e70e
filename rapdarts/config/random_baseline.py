"""Knobs of the random baseline."""

from __future__ import annotations

from dataclasses import dataclass

from rapdarts.config.key_values import knob


@dataclass(frozen=True)
class RandomConfig:
    """The random baseline: genotypes drawn under the constraints of a search and trained with the retraining recipe."""

    count: int = knob(5, "number of genotypes to draw and train", low=1, high=1e4)
    macs: float = knob(
        0.0,
        "MACs to match, such as 500M; 0: meet the budgets or, without budgets, match the MACs of `random.like` if it is set",
        amount="macs",
    )
    like: str = knob(
        "", "search whose budgets, cap on skips and MACs are matched, or genotype whose MACs are matched", "path"
    )
    tolerance: float = knob(
        0.05, "largest relative difference in MACs, if there is no budget", "fraction", above=0, high=1
    )
