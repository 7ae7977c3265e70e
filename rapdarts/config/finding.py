"""Knobs of `rapdarts find`, which set the total amount of work."""

from __future__ import annotations

from dataclasses import dataclass

from rapdarts.config.key_values import knob
from rapdarts.config.resources import seconds
from rapdarts.errors import InputError, any_of

LEAST_EFFORT, MOST_EFFORT = 0.001, 32.0
"""Range of the effort, which is defined in `loops.plan`."""


@dataclass(frozen=True)
class FindConfig:
    """Settings of `rapdarts find`: the amount of work, and whether to compare the network with random cells."""

    time: str = knob(
        "", "total time, such as 30m or 2h, which sets the effort; empty: determined by the effort or the plan"
    )
    effort: float = knob(
        -1.0,
        "relative amount of work; 1: search and final training as in the experiment; auto: determined by the time or the plan, else 1",
        low=LEAST_EFFORT,
        high=MOST_EFFORT,
        auto=-1,
    )
    plan: str = knob("", "plan.json of another run of the same experiment, to use its plan again; empty: none", "path")
    replicas: int = knob(3, "number of searches with different seeds, which are averaged", low=1, high=100)
    proof: bool = knob(
        False, "compare the network with random cells of the same cost and compute, and with a reference network"
    )

    @property
    def seconds(self) -> float:
        """The time in seconds; 0 if none is set. Raises InputError for a string that is not a duration."""
        return seconds(self.time, "find.time") if self.time else 0.0


def check_find(settings: FindConfig) -> None:
    """Raise InputError if the time is not a duration, or if more than one of time, effort and plan is set."""
    given = {"time": settings.seconds > 0, "effort": settings.effort > 0, "plan": bool(settings.plan)}
    several = [f"find.{name}" for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise InputError(f"only one key can set the amount of work; keep either {any_of(several)}.")
