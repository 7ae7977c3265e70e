"""Relaxations, which map architecture parameters to mixing weights, and the table of their names."""

from __future__ import annotations

import torch

from rapdarts.architecture.space import NONE, SKIP, SearchSpace
from rapdarts.config.experiment import SearchConfig
from rapdarts.errors import InputError, plural
from rapdarts.strategy.relaxations.auxiliary_skip import AuxiliarySkip
from rapdarts.strategy.relaxations.base import Relaxation
from rapdarts.strategy.relaxations.beta_decay import BetaDecay
from rapdarts.strategy.relaxations.dirichlet import Dirichlet
from rapdarts.strategy.relaxations.gumbel import Gumbel
from rapdarts.strategy.relaxations.sigmoid import Sigmoid
from rapdarts.strategy.relaxations.softmax import Softmax

RELAXATIONS: dict[str, type[Relaxation]] = {one.name: one for one in (Softmax, Gumbel, Dirichlet, Sigmoid)}
"""Relaxations by the value of `search.relaxation`."""


def relaxation_of(settings: SearchConfig, space: SearchSpace) -> Relaxation:
    """Return the relaxation of a search, with its regulariser and auxiliary skip if they are set."""
    relaxation: Relaxation = RELAXATIONS[settings.relaxation](settings.relax)
    if settings.relax.beta_decay:
        relaxation = BetaDecay(relaxation)
    if settings.relax.auxiliary_skip:
        relaxation = AuxiliarySkip(relaxation, torch.tensor([float(name == SKIP) for name in space.primitives]))
    return relaxation


def check_relaxation(settings: SearchConfig, space: SearchSpace) -> None:
    """Raise InputError if the settings of the relaxation contradict each other, or do not fit the space."""
    relax, name = settings.relax, settings.relaxation
    if len(relax.temperature) != 2 or relax.temperature[0] < relax.temperature[1]:
        raise InputError(
            f"search.relax.temperature={relax.temperature} must be two values, the larger one first, such as 10,0.1."
        )
    if settings.partial_channels > 1 and not RELAXATIONS[name].edge_weights:
        raise InputError(
            f"search.partial_channels={settings.partial_channels} makes edges compete in a softmax, but search.relaxation={name}"
            " has no competition; set search.partial_channels=1, or choose a different relaxation."
        )
    if relax.beta_decay and not RELAXATIONS[name].is_softmax:
        raise InputError(
            f"search.relax.beta_decay regularises a softmax of alpha, but search.relaxation={name} has none; set"
            " search.relax.beta_decay=0."
        )
    if name == "sigmoid" and space.derive_none and NONE in space.primitives:
        raise InputError(
            "search.relaxation=sigmoid cannot learn to derive none, because its gate has no effect on the loss; set"
            " search.derive_none=false."
        )
    if relax.auxiliary_skip and SKIP not in space.primitives:
        raise InputError(
            f"search.relax.auxiliary_skip needs the candidate {SKIP}; add it to search.primitives, or set"
            " search.relax.auxiliary_skip=0."
        )
    left = settings.epochs - settings.warmup_epochs
    if relax.stop_ratio and left < 2 * relax.stop_window:
        raise InputError(
            f"search.relax.stop_ratio compares two windows of {plural(relax.stop_window, 'epoch')}, but a stage trains alpha"
            f" for {plural(left, 'epoch')}; set a smaller search.relax.stop_window, or a larger search.epochs."
        )
