"""Renderer of docs/evidence.md and its figure, from the raw results only."""

from __future__ import annotations

from tests.evidence import (  # fmt: skip
    agreement,
    attempts,
    bank_tables,
    derivations,
    figure,
    finding_tables,
    found,
    multiplier,
    nasbench,
    relaxations,
    satisficing_figure,
    satisficing_tables,
    scorings,
    searches,
    variants,
)
from tests.evidence.banks import genotype_of
from tests.evidence.plan import ATTEMPTS
from tests.evidence.store import ROOT, Rows, load
from tests.evidence.tables import NOT_RUN, listed, paragraph, sources, table

PAGE = ROOT / "docs" / "evidence.md"


def write() -> None:
    """Write the page and its figures."""
    PAGE.write_text(render(), encoding="utf-8")
    rows = load("nasbench201")
    PAGE.with_suffix(".svg").write_bytes(figure.as_svg(figure.picture(rows)))
    for name, lines in satisficing_tables.figures(rows).items():
        PAGE.with_name(name).write_bytes(figure.as_svg(satisficing_figure.picture(lines)))


def render() -> str:
    """Return the page as text."""
    rows = load("nasbench201")
    lines = [
        *protocol(),
        "## Attempts on test seeds",
        "",
        *paragraph(
            """Scores are means over searches, groups of searches, or draws, ± half the width of the 95 % interval (Student's t, which
            for two groups is 12.7 standard errors and for four is 3.2), on this whole page. *Outside the band* and *unreachable
            node* count derived cells at all eight budgets: cells that use more than the budget or less than 0.9 of it, and cells with a
            node that no path from the input reaches. CPU seconds are the total of all searches in a group, or of a draw at all budgets.
            A rule whose mean is computed exactly, by enumeration, has no interval. NASWOT ranks cells by their untrained networks
            (Mellor et al. 2021)."""
        ),
        *(line for number, attempt in enumerate(ATTEMPTS, 1) for line in attempts.section(rows, attempt, number)),
        *budgeted(rows),
        *figure_lines(rows),
        *finding_tables.section(rows),
        *found.section(),
        *satisficing_tables.section(rows),
        *derivations.section(rows),
        *scorings.section(rows),
        *variants.section(rows),
        *relaxations.section(),
        *agreement.section(rows),
        *bank_tables.section(),
        *multiplier.section(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def protocol() -> list[str]:
    """Return the title, and a summary of the protocol, as lines."""
    budgets, others = (listed([str(one) for one in budgets]) for budgets in (nasbench.BUDGETS, nasbench.OTHER_BUDGETS))
    return [
        "# Evidence: does a search beat chance at equal cost?",
        "",
        *paragraph(
            """`make evidence` runs those parts of the current attempt, and those searches for the banks of trained cells, that have no
            results yet. Then it writes this page from the raw results in [experiments/evidence](../experiments/evidence).
            `python -m tests.evidence --again` repeats these searches. The other rows come from the commands listed below their tables."""
        ),
        *paragraph(
            f"""The [protocol](../experiments/evidence/PROTOCOL.md) was written before the first run. In short: a search runs on CIFAR-10 at
            16 x 16 pixels, on one CPU thread, in the space of NAS-Bench-201, where the test accuracy of all 15,625 cells is known (Dong and
            Yang 2020). For each of four budgets, {budgets} units (9 for a nor_conv_3x3, 1 for a nor_conv_1x1), a cell is derived from the
            *band* of the budget: all cells that use 0.9 to 1 of it. The *score* is the percentage of the cells in the band that are less
            accurate on CIFAR-10 than the derived cell, averaged over the budgets; chance is 50. Settings are chosen on the tuning seeds 0
            to 99. The test seeds are run once, and their results are reported whatever the outcome. The condition on skip-only paths in the
            later attempts was found by inspecting the cells that tuning searches had derived, together with their true accuracies.
            CIFAR-100, ImageNet16-120 and the other four budgets, {others} units, were not used to choose anything."""
        ),
    ]


def budgeted(rows: Rows) -> list[str]:
    """Return the section of the searches with a budget from the start as lines."""
    lines = ["### Searches with a budget from the start", ""]
    known = rows.get("budgeted", {"budgets": {}})
    if not known["budgets"]:
        return [*lines, NOT_RUN, ""]
    found = []
    for budget in nasbench.BUDGETS:
        if str(budget) in known["budgets"]:
            one = known["budgets"][str(budget)]
            limit = nasbench.FIXED + nasbench.UNIT * budget
            score = nasbench.score([nasbench.number(genotype_of(one["cell"]))], [budget])
            used = f"{one['macs'] / limit:.1%}"
            found.append(
                [
                    f"{budget} units",
                    1,
                    f"{limit:,}",
                    f"{one['macs']:,}",
                    used,
                    f"{score:.1f}",
                    f"{one['cpu_seconds']:.0f}",
                ]
            )
    return [
        *lines,
        *paragraph(
            f"""The searches above run without a budget, and the cells for all budgets are derived from the same mixing weights. Here the
            search itself is given `budget.macs` (`{searches.variant_name(known["keys"])}`, seed {known["seed"]}). There is one search for
            each budget, so the intervals of the scores are unknown."""
        ),
        *table(["budget", "n", "MACs allowed", "MACs used", "share used", "CIFAR-10 score", "CPU s"], found),
        *sources([known]),
    ]


def figure_lines(rows: Rows) -> list[str]:
    """Return the figure with its caption as lines; empty if there is nothing to draw."""
    chosen = figure.chosen(rows)
    if chosen is None:
        return []
    return [
        "### Accuracy against MACs",
        "",
        "![Test accuracy on CIFAR-10 against MACs: averaged searches, random cells of the same cost, reference cells](evidence.svg)",
        "",
        *paragraph(figure.caption(chosen)),
    ]
