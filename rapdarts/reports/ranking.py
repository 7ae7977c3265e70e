"""The table of a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rapdarts.config.resources import show
from rapdarts.reports.text_table import aligned


def describe_ranking(result: Mapping[str, Any], resources: Sequence[str], sure: float) -> str:
    """Format a ranking: the accuracy of each network, its difference from the first, and its costs in `resources`.

    `sure` is the number of standard errors up to which a difference was counted as within the error.
    """
    networks = result["networks"]
    unequal = ["balanced accuracy"] if "balanced_accuracy" in networks[0] else []
    rows = [["", "validation accuracy", *unequal, "behind the first", "", *resources, "score", "from"]]
    for found in networks:
        reached, behind = "diverged", ""
        if not found["diverged"]:
            reached = f"{100 * found['validation_accuracy']:.2f} % +- {100 * found['standard_error']:.2f} %"
            behind = f"{100 * found['difference']:.2f} % +- {100 * found['difference_error']:.2f} %"
        rows.append(
            [
                f"{found['rank']}.",
                reached,
                *(balanced_of(found) for _ in unequal),
                behind if found["rank"] > 1 else "",
                "~" if found["within_error"] else "",
                *(show(found["costs"][name], name) for name in resources),
                "-" if found["score"] is None else f"{found['score']:.2f}",
                ", ".join(found["sources"]),
            ]
        )
    seeds, within = result["seeds"], sum(found["within_error"] for found in networks)
    images = f"{result['validation_images']:,} images"
    alone = f"over {images}; variation between trainings is not included (seeds=3 measures it)"
    over = f"over {images} and {seeds} seeds" if seeds > 1 else alone
    many = f"{len(networks)} network{'s' if len(networks) > 1 else ''}"
    near = f"within the error, at most {sure:g} standard errors behind the first on the same images"
    trained = f"{result['epochs']} epoch{'s' if result['epochs'] > 1 else ''} on {result['train_images']:,} images"
    return "\n".join(
        [
            f"{many} trained for {trained}, compared on {images} held out from the training set",
            *aligned(rows, left=(len(rows[0]) - 1,)),
            f"+-: standard error {over}",
            *([f"~: {near}: {within} of {len(networks) - 1}"] if len(networks) > 1 else []),
        ]
    )


def balanced_of(network: Mapping[str, Any]) -> str:
    """Return the balanced accuracy of a network as text; empty if its training diverged."""
    return "" if network["balanced_accuracy"] is None else f"{100 * network['balanced_accuracy']:.2f} %"
