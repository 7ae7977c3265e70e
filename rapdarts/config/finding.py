"""Knobs of `rapdarts find`: how much work a search, a selection and a training may be together."""

from __future__ import annotations

from dataclasses import dataclass

from rapdarts.config.key_values import knob
from rapdarts.config.resources import seconds
from rapdarts.errors import InputError, any_of

LEAST_EFFORT, MOST_EFFORT = 0.001, 32.0
"""Range of the effort; `loops.plan` says what it means."""


@dataclass(frozen=True)
class FindConfig:
    """From data and a budget to a tested network: how much work, and whether to compare the network with random cells."""

    time: str = knob(
        "", "time for everything, such as 30m or 2h, which sets the effort; empty: set by the effort, or the plan"
    )
    effort: float = knob(
        -1.0,
        "amount of work; at 1, search and final training are as long as in the experiment; auto: 1 without a time or a plan",
        low=LEAST_EFFORT,
        high=MOST_EFFORT,
        auto=-1,
    )
    plan: str = knob("", "plan.json of another run of the experiment, to do the same work; empty: none", "path")
    replicas: int = knob(3, "number of searches that are averaged; the others start from other seeds", low=1, high=100)
    proof: bool = knob(
        False, "give the same compute to random cells of the same cost, train a reference network too, and compare"
    )

    @property
    def seconds(self) -> float:
        """The time in seconds; 0 if none is set. Raises InputError for a string that is not a duration."""
        return seconds(self.time, "find.time") if self.time else 0.0


def check_find(settings: FindConfig) -> None:
    """Raise InputError if the time is not a duration, or if more than one of time, effort and plan is set."""
    given = {"time": bool(settings.time), "effort": settings.effort > 0, "plan": bool(settings.plan)}
    several = [f"find.{name}" for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise InputError(f"{any_of(several)}: only one of them can set the amount of work; keep one.")
