"""The table of a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rapdarts.config.resources import show
from rapdarts.errors import plural
from rapdarts.reports.text_table import aligned
from rapdarts.reports.warnings import warnings_of
from rapdarts.training.intervals import limits


def describe_ranking(result: Mapping[str, Any], resources: Sequence[str]) -> str:
    """Format a ranking: accuracies, differences from the first network, their intervals, and costs in `resources`."""
    networks = result["networks"]
    unequal = ["balanced accuracy"] if "balanced_accuracy" in networks[0] else []
    rows = [["", *ACCURACY, *unequal, *BEHIND, "", *resources, "score", "from"]]
    for found in networks:
        reached, behind = ["diverged", ""], ["", ""]
        if not found["diverged"]:
            reached = [f"{100 * found['validation_accuracy']:.2f} %", limits(found["interval"])]
            behind = [f"{100 * found['difference']:.2f} %", limits(found["difference_interval"])]
        rows.append(
            [
                f"{found['rank']}.",
                *reached,
                *(balanced_of(found) for _ in unequal),
                *(behind if found["rank"] > 1 else ["", ""]),
                "~" if found["within_error"] else "",
                *(show(found["costs"][name], name) for name in resources),
                "-" if found["score"] is None else f"{found['score']:.2f}",
                ", ".join(found["sources"]),
            ]
        )
    many = plural(len(networks), "network")
    images = f"{result['validation_images']:,} images"
    trained = f"{plural(result['epochs'], 'epoch')} on {result['train_images']:,} images"
    return "\n".join(
        [
            f"{many} trained for {trained}, compared on {images} held out from the training set",
            *aligned(rows, left=(len(rows[0]) - 1,)),
            *remarks(result),
            *warnings_of(result),
        ]
    )


ACCURACY, BEHIND = ("validation accuracy", "95 % interval"), ("behind the first", "95 % interval")
"""Column headings: an accuracy and its interval, and a difference and its interval."""


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Return remarks on the intervals, on the networks within the error, and on the accuracy of the first network."""
    seeds, others = result["seeds"], len(result["networks"]) - 1
    over = f"{result['validation_images']:,} images" + (f" and {seeds} seeds" if seeds > 1 else "")
    alone = "" if seeds > 1 else "; variation between trainings is not included (seeds=3 measures it)"
    found = [f"95 % intervals over {over}{alone}"]
    if others:
        within = sum(network["within_error"] for network in result["networks"])
        found += [
            f"~ marks networks ({within} of {others}) that may be as good as the first: the interval of the difference includes 0",
            f"the first is the best of {others + 1} on these images, so its accuracy on them is probably too high",
        ]
    return found


def balanced_of(network: Mapping[str, Any]) -> str:
    """Return the balanced accuracy of a network as text; empty if its training diverged."""
    return "" if network["balanced_accuracy"] is None else f"{100 * network['balanced_accuracy']:.2f} %"
