"""The rule of a derivation: its name, cap on skips, shares of budgets to use, and description."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rapdarts.architecture.space import Skeleton
from rapdarts.config.experiment import BudgetConfig, CostCoefficients, Experiment, SearchConfig
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.expected import price_table
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from rapdarts.strategy.budgets import budgets_on
from rapdarts.strategy.rule import SPEND, Rule, check_skip_paths, derivable, rule_of, spending, words_of
from tests.spaces import NAMES

DARTS, BENCH = named_space("darts"), named_space("nasbench201")


def asked(**settings: Any) -> SearchConfig:
    """Return the settings of a search; `params`, `macs` and `latency` are budgets."""
    limits = {name: settings.pop(name) for name in ("params", "macs", "latency") if name in settings}
    return replace(SearchConfig(), budget=BudgetConfig(**limits), **settings)


@pytest.mark.parametrize(
    ("settings", "name", "cap"),
    [
        ({}, "pdarts", 2),
        ({"strategy": "darts"}, "darts", None),
        ({"params": 3e6}, "exact", 2),
        ({"strategy": "darts", "params": 3e6}, "exact", 2),  # only an explicit rule=darts removes the cap
        ({"strategy": "darts", "params": 3e6, "rule": "darts"}, "darts", None),
        ({"rule": "darts"}, "darts", None),
        ({"rule": "darts", "max_skips": 1}, "darts", None),
        ({"strategy": "darts", "rule": "pdarts", "max_skips": 1}, "pdarts", 1),
        ({"rule": "exact"}, "exact", 2),
        ({"rule": "pdarts", "params": 3e6, "max_skips": 0}, "pdarts", 0),
    ],
)
def test_settings_decide_the_rule_and_its_cap(settings: dict[str, Any], name: str, cap: int | None) -> None:
    rule = rule_of(asked(**settings), DARTS)
    assert (rule.name, rule.max_skips) == (name, cap)
    assert rule.limits == ({"params": 3e6} if "params" in settings else {})
    assert rule.exact == (name == "exact" or "params" in settings)


@pytest.mark.parametrize("strategy", ["pdarts", "darts"])
def test_a_strategy_uses_the_rule_of_its_authors(strategy: str) -> None:
    config = resolve_experiment("", [("search.strategy", strategy)], "search")
    assert rule_of(config.search, DARTS) == Rule(strategy, 2 if strategy == "pdarts" else None)
    assert rule_of(Experiment().search, DARTS) == Rule("pdarts", 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_cap_comes_from_the_space(name: str) -> None:
    space = named_space(name)
    assert rule_of(SearchConfig(), space).max_skips == space.max_skips == (3 if name == "nasbench201" else 2)
    assert rule_of(asked(max_skips=0), space).max_skips == 0
    assert rule_of(asked(max_skips=7), space).max_skips == 7


def test_budgets_that_must_be_used_by_default() -> None:
    """A share of every budget must be used, except for latency, which is measured with an error, and resources with a coefficient."""
    assert spending(SearchConfig(), {}) == {}
    limits = {"params": 3e6, "macs": 4e8, "latency": 1e-3}
    assert spending(SearchConfig(), limits) == {"params": SPEND, "macs": SPEND}
    assert spending(SearchConfig(), {"latency": 1e-3}) == {}
    priced = asked(cost=CostCoefficients(macs=0.2, latency=1))
    assert spending(priced, limits) == {"params": SPEND}
    assert spending(asked(cost=CostCoefficients(bytes=0.2)), limits) == {"params": SPEND, "macs": SPEND}
    assert rule_of(asked(params=3e6, latency=1e-3), DARTS).spend == {"params": 0.9}


@pytest.mark.parametrize(("spend", "found"), [(0.0, {}), (0.5, {"params": 0.5, "latency": 0.5}), (1.0, {})])
def test_an_explicit_share_applies_to_every_budget(spend: float, found: dict[str, float]) -> None:
    priced = asked(spend=spend, cost=CostCoefficients(params=0.2))
    limits = {"params": 3e6, "latency": 1e-3}
    assert spending(priced, limits) == (found or ({name: 1.0 for name in limits} if spend else {}))


def test_rules_in_words() -> None:
    budgets = budgets_on(
        price_table(DARTS, Skeleton(3, 4, (1, 8, 8), 10)), {"params": 3000, "macs": 1e6}, floors={"params": 2700}
    )
    exact = Rule("exact", 2, {"params": 3000, "macs": 1e6}, {"params": 0.9})
    best = "the cells with the largest product of mixing weights"
    assert words_of(exact, DARTS, budgets) == (
        f"{best}, params at least 2,700 and at most 3,000, macs at most 1,000,000, at most 2 skips in the normal cell"
    )
    assert words_of(exact, DARTS, None).startswith(f"{best}, params at most 3,000, macs at most 1,000,000, at most 2 ")
    assert words_of(Rule("exact"), DARTS, None) == best
    strongest = "the strongest primitive"
    assert words_of(Rule("pdarts", 1), DARTS, None) == (
        f"{strongest} except none on each edge, the strongest edges of each node, at most 1 skip in the normal cell"
    )
    assert words_of(Rule("darts"), BENCH, None) == (
        f"{strongest} on each edge, the strongest edges of each node, no cap on skips"
    )
    assert "except none" in words_of(Rule("darts"), BENCH.deriving_none(False), None)


def test_none_is_derived_only_if_both_the_space_and_the_user_allow_it() -> None:
    assert BENCH.derive_none and BENCH.deriving_none(True) == BENCH
    without = BENCH.deriving_none(False)
    assert not without.derive_none and without.mask.all()  # the supernet keeps it as a candidate
    assert np.flatnonzero(without.choosable).tolist() == [1, 2, 3, 4]
    assert not DARTS.deriving_none(True).derive_none
    assert SearchConfig().derive_none is False


def test_a_condition_on_skip_only_paths_applies_only_to_rules_that_can_enforce_it() -> None:
    assert (BENCH.skip_paths, DARTS.skip_paths) == ("one", "any")
    within = {"params": 1e6}
    for settings, kept in (
        (asked(), "any"),  # pdarts
        (asked(rule="exact"), "one"),
        (asked(strategy="darts", **within), "one"),
        (asked(strategy="darts", rule="darts", **within), "any"),
        (asked(rule="pdarts", **within), "one"),
        (asked(skip_paths="any", **within), "any"),
        (asked(skip_paths="one", **within), "one"),
    ):
        assert derivable(settings, BENCH).skip_paths == kept
    assert derivable(asked(**within), DARTS) == DARTS
    for rule in ("pdarts", "darts"):
        with pytest.raises(InputError, match=r"skip_paths=one needs rule=exact; add rule=exact"):
            check_skip_paths(asked(rule=rule, skip_paths="one"), BENCH)
        assert derivable(asked(rule=rule, skip_paths="one"), BENCH).skip_paths == "any"
    check_skip_paths(asked(skip_paths="one", **within), BENCH)
    with pytest.raises(
        InputError, match=r"search\.skip_paths=one needs cells with one input, which the space darts does not have"
    ):
        derivable(asked(skip_paths="one", **within), DARTS)
    without = BENCH.only([name for name in BENCH.primitives if name != "skip_connect"])
    assert without.skip_paths == "any"  # without skips there are no skip-only paths
    with pytest.raises(
        InputError, match=r"search\.skip_paths=one needs the primitive skip_connect, which the space \w+ does not have"
    ):
        derivable(asked(skip_paths="one", **within), without)
    with pytest.raises(InputError, match="has skip_paths='two'; it must be any or one"):
        BENCH.with_skip_paths("two")
    assert "one skip-only path from input to output" in words_of(Rule("exact"), BENCH, None)
    assert "path" not in words_of(Rule("pdarts"), BENCH, None)
