"""The step of `rapdarts find` that measures latency, and chooses the width of the network if it is not set."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment, SearchConfig, budget_limits
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.latency import LatencyTable, parse
from rapdarts.cost.prices import prices
from rapdarts.data.dataset import DataSet
from rapdarts.deploy import skeletons
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.find import Agenda
from rapdarts.loops.latency_first import WHERE, expected_time, measured_table
from rapdarts.loops.search import priced
from rapdarts.strategy.budgets import average_costs, fits_on_average
from rapdarts.strategy.measured_width import first_width, widest_measured
from rapdarts.strategy.rule import rule_of
from rapdarts.training.run import Run

STEP = "latency"
"""Name of the step."""
FEW, MORE = 3, 5
"""Expected number of widths to measure if latency decides on the width: if other budgets bound it tightly, and otherwise."""


@dataclass(frozen=True)
class MeasuredLatency:
    """A latency table measured in a run, and the widths in channels at which tables were measured, in order.

    `planned` is the expected time of the step, and `seconds` the time that it took in all sessions, both in seconds.
    """

    table: LatencyTable
    widths: tuple[int, ...]
    planned: float
    seconds: float

    @property
    def facts(self) -> dict[str, Any]:
        """The result of the step, as plain values."""
        facts = {"device": self.table.device, "channels": [*self.widths]}
        return {**facts, "step_seconds": round(self.seconds, 1)}


def width_without_latency(config: Experiment, space: SearchSpace, data: DataSet) -> int | None:
    """Return the width of an experiment, or the largest that its budgets other than latency allow; None if they do not bound it.

    Raises InputError if no genotype meets these budgets.
    """
    counted = without_latency(config.search)
    if not (config.skeleton.channels or budget_limits(counted.budget)):
        return None
    return priced(replace(config, search=counted), space, data).skeleton.channels


def without_latency(settings: SearchConfig) -> SearchConfig:
    """Return the settings of a search without its price and its budget on latency."""
    cost, budget = replace(settings.cost, latency=0.0), replace(settings.budget, latency=None)
    return replace(settings, cost=cost, budget=budget)


def measured_prices(
    config: Experiment, space: SearchSpace, data: DataSet, top: int | None, run: Run, agenda: Agenda
) -> tuple[MeasuredLatency, PriceTable]:
    """Measure latency, and return it with the prices at the width that was measured; the arguments are those of `measure_latency`.

    Raises InputError if no genotype meets the budgets; the message says how to use the table again.
    """
    measured = measure_latency(config, space, data, top, run, agenda)
    sized = replace(config, skeleton=replace(config.skeleton, channels=measured.table.skeleton.channels))
    with reusable(measured, run):
        return measured, priced(sized, space, data, measured.table)


@contextmanager
def reusable(measured: MeasuredLatency | None, run: Run) -> Iterator[None]:
    """Say how another run can use the latency table, if one was measured and the `with` block raises InputError."""
    try:
        yield
    except InputError as error:
        if measured is None:
            raise
        again = f"search.latency={run.folder / RunFile.LATENCY} skeleton.channels={measured.table.skeleton.channels}"
        raise InputError(
            f"{str(error).rstrip('.')}. To change the settings without measuring latency again, start a new run with {again}."
        ) from None


def measure_latency(
    config: Experiment, space: SearchSpace, data: DataSet, top: int | None, run: Run, agenda: Agenda
) -> MeasuredLatency:
    """Measure the latency table of a run; with a budget on latency and `skeleton.channels=auto`, measure several widths.

    `top` is the width from `width_without_latency`. Each table is kept in the checkpoint of the run, so that a resumed run
    does not measure it again. Writes the table of the width that is chosen into the run folder. Raises Preempted if a signal stops
    the run.
    """
    settings, rule, tables = config.search, rule_of(config.search, space), dict[int, LatencyTable]()
    limit = settings.budget.latency
    chooses = config.skeleton.channels == 0 and limit is not None
    first, seconds = first_width(top), 0.0

    def skeleton(width: int) -> Skeleton:
        return skeletons.of_experiment(replace(config.skeleton, channels=width), data.image, data.classes)

    def kept(what: str, work: Any) -> dict[str, Any]:
        """Return the result of `work`, and add its time to the time of the step."""
        nonlocal seconds

        def timed() -> dict[str, Any]:
            began = time.monotonic()
            return {**work(), "seconds": time.monotonic() - began}

        facts = run.keep(what, timed)
        seconds += facts["seconds"]
        return facts

    def table_at(width: int) -> LatencyTable:
        if width not in tables:

            def measured() -> dict[str, Any]:
                if not agenda.now:
                    agenda.begin(STEP, seconds)
                return {"table": measured_table(space, skeleton(width), config.device, run.screen, run.pause).to_json()}

            text = kept(f"the measurement of latency at {width} channels", measured)["table"]
            tables[width] = replace(parse(text, WHERE), where=WHERE)
        return tables[width]

    def used(width: int) -> float:
        table = prices(settings, space, skeleton(width), measured=table_at(width))
        share = average_costs(table)["latency"] / (limit or math.inf)
        return share if share > 1 or fits_on_average(table, rule) else math.inf

    expected = kept(
        "the expected time of step 1", lambda: {"whole": expected_time(space, skeleton(first), config.device)}
    )
    planned = expected["whole"] * (1 if not chooses else FEW if first == top else MORE)
    agenda.planned, agenda.complete = {STEP: planned}, False
    table = table_at(widest_measured(used, top) if chooses else first)
    run.write(RunFile.LATENCY, table.to_json())
    if agenda.now and not chooses:  # how many widths are measured is not planned
        agenda.end()
    return MeasuredLatency(table, tuple(tables), planned, seconds)
