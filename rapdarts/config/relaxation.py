"""Settings of the relaxations, and of the additions that prevent a search from collapsing to skips."""

from __future__ import annotations

from dataclasses import dataclass

from rapdarts.config.key_values import knob

RELAXATIONS = ("softmax", "gumbel", "dirichlet", "sigmoid")
"""Values of `search.relaxation`; rapdarts.strategy.relaxations has a class for each."""


@dataclass(frozen=True)
class RelaxationConfig:
    """Settings of single relaxations, and of additions that work with several relaxations and are off by default."""

    temperature: list[float] = knob(
        [10.0, 0.1],
        "gumbel: temperature in the first and in the last epoch of a stage; it falls linearly",
        above=0,
        high=1e6,
    )
    hard: bool = knob(
        True,
        "gumbel: use only the drawn candidate of each edge (GDAS, Dong and Yang 2019); false: use all candidates, weighted by the"
        " soft sample (SNAS, Xie et al. 2019)",
    )
    zero_one: float = knob(
        10.0,
        "sigmoid: weight of the loss that moves gates to 0 or 1 (FairDARTS, Chu et al. 2020); 0: off",
        "nats",
        low=0,
        high=1e6,
    )
    beta_decay: float = knob(
        0.0,
        "softmax and gumbel: weight of the Beta-Decay regulariser in the last epoch of a stage, such as 50; it rises linearly from 0"
        " (Ye et al. 2022); 0: off",
        "nats",
        low=0,
        high=1e6,
    )
    auxiliary_skip: float = knob(
        0.0,
        "weight of an auxiliary skip in the first epoch of a stage, such as 1; it falls linearly to 0 (DARTS-, Chu et al. 2021);"
        " 0: off",
        low=0,
        high=1e3,
    )
    stop_ratio: float = knob(
        0.0,
        "stop a stage when the largest eigenvalue of alpha's Hessian `stop_window` epochs ago, divided by the current one, falls"
        " below this value, such as 0.75 (Zela et al. 2020); 0: off",
        low=0,
        below=1,
    )
    stop_window: int = knob(
        5,
        "number of epochs over which the eigenvalue is averaged; a stopped stage goes back by as many epochs",
        "epochs",
        low=1,
        high=1e6,
    )
