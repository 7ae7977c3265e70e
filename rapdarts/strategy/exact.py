"""Discretisation to the best genotype within budgets, as a 0-1 program that HiGHS (Huangfu and Hall 2018) solves to proven optimality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rapdarts.architecture.genotype import Genotype, one_hot
from rapdarts.architecture.space import SKIP, SearchSpace
from rapdarts.config.resources import show
from rapdarts.cost.expected import choice_costs
from rapdarts.errors import InputError, plural
from rapdarts.strategy.discretize import Candidate, discretize, score
from rapdarts.strategy.paths import ONE_SKIP_PATH, not_crossed, skip_paths, unbridged


@dataclass(frozen=True)
class Budgets:
    """Upper and lower bounds on resources that add up over a network's parts.

    `names` are the resources, in the order of the first axis. `fixed` (resources,) is the cost of the parts that do not
    depend on choices, and `prices` (resources, kinds, edges, primitives) is the cost that a choice adds. `bounds` and `floors`
    (resources,) are the highest and lowest allowed costs; without `floors`, there is no lower bound. All are float64.
    """

    names: tuple[str, ...]
    fixed: np.ndarray
    prices: np.ndarray
    bounds: np.ndarray
    floors: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if len(self.floors) != len(self.names):
            object.__setattr__(self, "floors", np.full(len(self.names), -np.inf))

    def costs(self, chosen: np.ndarray) -> dict[str, float]:
        """Return the cost of a one-hot choice (kinds, edges, primitives) by resource; see `choice_costs`."""
        return choice_costs(self.names, self.fixed, self.prices, chosen)

    def met_by(self, chosen: np.ndarray) -> bool:
        """Return whether the costs of a one-hot choice (kinds, edges, primitives) are within all bounds."""
        costs = self.costs(chosen).values()
        return all(low <= cost <= high for low, cost, high in zip(self.floors, costs, self.bounds, strict=True))

    def without(self, name: str) -> Budgets:
        """Return the budgets of all resources except `name`."""
        rest = [row for row, other in enumerate(self.names) if other != name]
        names = tuple(self.names[row] for row in rest)
        return Budgets(names, self.fixed[rest], self.prices[rest], self.bounds[rest], self.floors[rest])

    def without_floors(self) -> Budgets:
        """Return the same budgets without lower bounds."""
        return replace(self, floors=np.full(len(self.names), -np.inf))

    def with_floor(self, name: str, floor: float) -> Budgets:
        """Return the same budgets with a lower bound on one resource."""
        floors = self.floors.copy()
        floors[self.names.index(name)] = floor
        return replace(self, floors=floors)


class Infeasible(InputError):
    """Error for budgets that no genotype meets.

    `cheapest` maps every resource to its cheapest genotype. If each budget alone can be met, this genotype also meets all
    other budgets where possible. `floors` maps every resource to the cost of its genotype in `cheapest`. Both are empty if no
    upper bound is the cause.
    """

    def __init__(self, sentence: str, floors: dict[str, float], cheapest: dict[str, Genotype]) -> None:
        super().__init__(sentence)
        self.floors = floors
        self.cheapest = cheapest


def discretize_exactly(
    space: SearchSpace,
    weights: np.ndarray,
    budgets: Budgets | None = None,
    max_skips: int | None = None,
    count: int = 1,
) -> list[Candidate]:
    """Return the `count` best genotypes within the budgets, best first, or fewer if fewer exist.

    A genotype is allowed if it meets every budget, has at most `max_skips` skips in the normal cell, connects every output
    to an input, and meets the space's condition on skip-only paths. The best genotype has the highest sum of log `weights`
    (kinds, edges, primitives) over its choices. A choice with weight 0 is worse than all other choices together, but is
    made if nothing else is allowed. Scores are tied if they differ by at most 1e-10 of the largest difference between two
    log weights; ties go to the lowest edges, then to the lowest primitives.

    Raises DivergedError if a weight is not finite, InputError if a node has too few edges with a primitive to derive,
    and Infeasible if no genotype is within the budgets.
    """
    plain = one_hot(space, discretize(space, weights)) > 0
    program = Program(space, budgets, max_skips)
    weights = weights.astype(np.float64)
    has_weight = (weights > 0) & program.open
    logs = np.log(weights, out=np.zeros(weights.shape), where=has_weight)
    losses = np.where(has_weight, logs.max(initial=-np.inf, where=has_weight) - logs, 0.0)
    objectives = [losses, _ranks(space)]
    if (program.open & ~has_weight).any():
        objectives.insert(0, ~has_weight)

    # The genotype of the plain rule, which compares weights exactly, is the best if it is allowed.
    chosen = plain if program.allows(plain) else program.best(objectives)
    found: list[Candidate] = []
    while chosen is not None:
        genotype = discretize(space, chosen)
        found.append(Candidate(genotype, max_skips, score(space, weights, genotype)))
        if len(found) == count:
            break
        program.forbid(chosen)
        chosen = program.best(objectives)
    if not found:
        raise no_genotype(space, budgets, max_skips)
    return found


def cheapest(
    space: SearchSpace, budgets: Budgets, name: str, max_skips: int | None = None, under: Budgets | None = None
) -> Genotype:
    """Return the genotype with the lowest cost in the resource `name` among those that meet the cap on skips and the budgets `under`.

    `budgets` gives the prices; its bounds are ignored. Ties go to the lowest edges, then to the lowest primitives. Raises
    Infeasible if no genotype meets `under` and the cap.
    """
    prices = budgets.prices[budgets.names.index(name)]
    chosen = Program(space, under, max_skips).best([prices, _ranks(space)])
    if chosen is None:
        raise no_genotype(space, under, max_skips)
    return discretize(space, chosen)


NODES = 1000
"""Number of branch-and-bound nodes after which `exists` gives up, about half a second of work."""


def exists(space: SearchSpace, budgets: Budgets | None = None, max_skips: int | None = None) -> bool | None:
    """Return the result of `feasible`, or None if it is still unknown after `NODES` nodes.

    With lower and upper bounds on two resources, proving that no genotype exists may take minutes.
    """
    try:
        return Program(space, budgets, max_skips).best([np.zeros(space.mask.shape)], NODES) is not None
    except _Undecided:
        return None


class _Undecided(Exception):
    """Error for a program that is not solved within the limit on nodes."""


def feasible(space: SearchSpace, budgets: Budgets | None = None, max_skips: int | None = None) -> bool:
    """Return whether any genotype of the open candidates meets every budget and the cap on skips."""
    return Program(space, budgets, max_skips).best([np.zeros(space.mask.shape)]) is not None


def no_genotype(space: SearchSpace, budgets: Budgets | None, max_skips: int | None) -> Infeasible:
    """Return the error for budgets that no genotype meets, with the lowest cost in each resource and a genotype with this cost."""
    capped = conditions_in_words(space, max_skips)
    if budgets is None or not feasible(space, None, max_skips):
        remedy = "keep more candidates" if max_skips is None else "raise search.max_skips"
        if space.skip_paths == "one" and feasible(replace(space, skip_paths="any"), None, max_skips):
            remedy = "set skip_paths=any"
        return Infeasible(f"no genotype{capped} is left in the space {space.name}; {remedy}.", {}, {})
    if (budgets.floors > -np.inf).any():
        upper = budgets.without_floors()
        if not feasible(space, upper, max_skips):
            return no_genotype(space, upper, max_skips)
        return Infeasible(
            f"no genotype of the space {space.name}{capped} has {_band_in_words(budgets)}; lower search.spend, or change the budget.",
            {},
            {},
        )

    def floors(cheapest: dict[str, Genotype]) -> dict[str, float]:
        return {name: budgets.costs(one_hot(space, genotype))[name] for name, genotype in cheapest.items()}

    bounds = dict(zip(budgets.names, budgets.bounds, strict=True))
    least = {name: cheapest(space, budgets, name, max_skips) for name in bounds}
    among = dict.fromkeys(bounds, "")
    if all(floor <= bounds[name] for name, floor in floors(least).items()):
        for name in bounds:
            others = budgets.without(name)
            if feasible(space, others, max_skips):
                least[name] = cheapest(space, budgets, name, max_skips, others)
                among[name] = " within the other budgets"

    asked = " and ".join(f"{name} <= {show(bound, name)}" for name, bound in bounds.items())
    there = ", ".join(
        f"the cheapest{'' if len(bounds) == 1 else f' in {name}'}{among[name]} has {show(floor, name)}"
        for name, floor in floors(least).items()
    )
    sentence = f"no genotype of the space {space.name}{capped} meets {asked}: {there}."
    return Infeasible(sentence, floors(least), least)


def conditions_in_words(space: SearchSpace, max_skips: int | None) -> str:
    """Return all conditions on a genotype except budgets, as text to follow a noun, or "" if there are none."""
    skips = [] if max_skips is None else [f"at most {plural(max_skips, 'skip')} in its normal cell"]
    paths = [ONE_SKIP_PATH] if space.skip_paths == "one" else []
    return f" with {' and '.join(skips + paths)}" if skips or paths else ""


def _band_in_words(budgets: Budgets) -> str:
    bands = [
        f"{f'at least {show(low, name)} and ' if low > -np.inf else ''}at most {show(high, name)} {name}"
        for name, low, high in zip(budgets.names, budgets.floors, budgets.bounds, strict=True)
    ]
    return " and ".join(bands)


def _ranks(space: SearchSpace) -> np.ndarray:
    """Return ranks (kinds, edges, primitives) that break ties: ordered by edge, then by primitive."""
    return np.broadcast_to(np.arange(space.mask[0].size).reshape(space.mask[0].shape), space.mask.shape)


# --- the program -------------------------------------------------------------------------------------------------

PEAK, TIE, LEEWAY = 1e5, 1e-5, 1e-3
"""Scale and tolerances. HiGHS meets constraints and proves optimality to an absolute accuracy of 1e-6. Every objective and row
is therefore scaled to a largest coefficient of PEAK, and objectives that differ by at most TIE are tied. This scale distinguishes
integer prices up to 1e9. The bounds are loosened by LEEWAY, because rounding in HiGHS can lose a choice that is exactly on a
bound; `met_by` then rejects any choice that exceeds a bound."""


Row = tuple[np.ndarray, Any, Any]
"""A matrix (rows, variables) or a single row (variables,), with lower and upper bounds on its product with the choice."""


class Program:
    """A 0-1 program for the genotypes of a space within budgets, with a variable for every open candidate that may be derived.

    `limits` holds the budgets and, as another budget, the cap on skips.
    """

    def __init__(self, space: SearchSpace, budgets: Budgets | None, max_skips: int | None) -> None:
        self.space, self.open = space, space.mask & space.choosable
        self.limits = _limits(space, budgets, max_skips)
        kinds, edges, _ = np.nonzero(self.open)
        nodes = np.array([node for node, _ in space.edges])
        of_edge = np.equal.outer(np.arange(len(space.kinds) * len(nodes)), kinds * len(nodes) + edges)
        of_node = np.equal.outer(np.arange(len(space.kinds) * space.nodes), kinds * space.nodes + nodes[edges])
        kept = [space.edges_kept(node) for node in range(space.nodes)] * len(space.kinds)
        prices, scales = _scaled(self.limits.prices[:, self.open])
        self.rows: list[Row] = [
            (of_edge, -np.inf, 1),
            (of_node, kept, kept),
            (
                prices,
                (self.limits.floors - self.limits.fixed) / scales - LEEWAY,
                (self.limits.bounds - self.limits.fixed) / scales + LEEWAY,
            ),
        ]

    def allows(self, chosen: np.ndarray) -> bool:
        """Return whether a choice (kinds, edges, primitives) meets the limits, connects all outputs, and has only allowed paths."""
        return self.limits.met_by(chosen) and self._broken(chosen) is None

    def best(self, objectives: Sequence[np.ndarray], nodes: int | None = None) -> np.ndarray | None:
        """Return the choice with the lowest first objective; the next objectives break ties. Returns None if no choice is allowed.

        The objectives and the choice (bool) are (kinds, edges, primitives). Raises _Undecided after `nodes` nodes.
        """
        rows, best = [*self.rows], None
        for objective in objectives:
            costs, _ = _scaled(objective[self.open].astype(np.float64))
            chosen = self._least(costs, rows, nodes)
            if chosen is None:
                break
            best = chosen
            rows.append((costs, -np.inf, costs[chosen[self.open]].sum() + TIE))
        return best

    def forbid(self, chosen: np.ndarray) -> None:
        """Exclude one choice. All choices have the same number of pairs, so every other choice lacks a pair of this one."""
        self.rows.append(self._other_than(chosen))

    def _other_than(self, chosen: np.ndarray) -> Row:
        return chosen[self.open], -np.inf, chosen.sum() - 1

    def _least(self, costs: np.ndarray, rows: list[Row], nodes: int | None) -> np.ndarray | None:
        # Imported here because most commands never solve a program, and SciPy takes half a second to load.
        from scipy.optimize import Bounds, milp

        options, whole = {"mip_rel_gap": 0} | ({"node_limit": nodes} if nodes else {}), np.ones(len(costs))
        while True:
            result = milp(costs, integrality=whole, bounds=Bounds(0, 1), constraints=rows, options=options)
            if result.status == 2:
                return None
            if nodes and "limit reached" in result.message:  # SciPy has no status for this
                raise _Undecided
            if result.status != 0:
                raise RuntimeError(f"HiGHS could not solve the exact discretisation: {result.message}")
            chosen = np.zeros(self.open.shape, dtype=bool)
            chosen[self.open] = result.x > 0.5
            broken = self._broken(chosen)
            if broken is None and self.limits.met_by(chosen):
                return chosen
            # A choice that violates no row may still exceed a bound by less than LEEWAY.
            row = broken or self._other_than(chosen)
            rows = [*rows, row]

    def _broken(self, chosen: np.ndarray) -> Row | None:
        """Return a row that excludes a choice with a missing path or a second skip-only path; None if its paths are allowed."""
        crossing = unbridged(self.space, chosen)
        if crossing is None and self.space.skip_paths == "one":
            paths = skip_paths(self.space, chosen)
            if len(paths) > 1:
                both = paths[0] | paths[1]
                return both[self.open], -np.inf, both.sum() - 1
            crossing = None if paths else not_crossed(self.space, chosen, [SKIP])
        return None if crossing is None else (crossing[self.open], 1, np.inf)


def _limits(space: SearchSpace, budgets: Budgets | None, max_skips: int | None) -> Budgets:
    if budgets is None:
        budgets = Budgets((), np.zeros(0), np.zeros((0, *space.mask.shape)), np.zeros(0))
    if max_skips is None or SKIP not in space.columns:
        return budgets
    skips = np.zeros((1, *space.mask.shape))
    skips[0, space.kinds.index("normal"), :, space.columns[SKIP]] = 1
    return Budgets(
        (*budgets.names, SKIP),
        np.append(budgets.fixed, 0),
        np.concatenate([budgets.prices, skips]),
        np.append(budgets.bounds, max_skips),
        np.append(budgets.floors, -np.inf),
    )


def _scaled(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (..., n) scaled to a largest magnitude of PEAK, and the divisor of each row, (...)."""
    largest = np.abs(rows).max(-1, initial=0)
    scales = np.where(largest > 0, largest, 1) / PEAK
    return rows / scales[..., None], scales
