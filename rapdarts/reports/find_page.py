"""The result of `rapdarts find`, as text and as a page in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rapdarts.config.resources import costs_line, duration, show, used_line
from rapdarts.errors import plural, printable
from rapdarts.files.run_files import RunFile
from rapdarts.reports.confusion import confusion_table
from rapdarts.reports.evaluation import MOST_ROWS, accuracy_of
from rapdarts.reports.text_table import markdown
from rapdarts.reports.warnings import warnings_of

ONE_PAIR = (
    "A single comparison says nothing about searches in general; docs/evidence.md compares many searches with chance."
)


def describe_found(report: Mapping[str, Any]) -> str:
    """Format the result: the genotype, its costs, the used share of each budget, its test accuracy, and the proof."""
    lines = [report["genotype"], costs_line(report["costs"])]
    lines += [used_line(name, share, report["budgets"][name]) for name, share in report["used"].items()]
    if measured := report["latency"]:
        widths = ", ".join(map(str, measured["channels"]))
        lines.append(f"latency was measured on {measured['device']} (widths: {widths} channels)")
    lines += [f"test accuracy {accuracy_of(report)}", *report["notes"], *report["remarks"], *warnings_of(report)]
    return "\n".join([*lines, *proof_lines(report)])


def proof_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the comparisons with random cells and with the reference network as text; empty if there is no proof."""
    proof = report["proof"]
    if proof is None:
        return []
    seconds = proof["choosing_seconds"]
    random = (
        f"best of {proof['cells']} random cells of the same cost, chosen in {duration(seconds['random'])} (the search and its ranking took"
        f" {duration(seconds['found'])})"
    )
    reference = f"reference network {proof['reference_network']}"
    if "costs" in proof["reference"]:
        reference += f", {costs_line(proof['reference']['costs'])}"
    return [f"{random}: {outcome(proof['random'])}", f"{reference}: {outcome(proof['reference'])}", ONE_PAIR]


def outcome(other: Mapping[str, Any]) -> str:
    """Return another network's test accuracy and its comparison, on the same images, with the final network, as text."""
    if "compared" not in other:
        return f"its training diverged ({other['diverged']})"
    found = other["compared"]
    low, high = (100 * limit for limit in found["interval"])
    points = 100 * found["difference"]
    better = f"{abs(points):.2f} points {'better' if points > 0 else 'worse'}" if points else "equally accurate"
    return (
        f"test accuracy {accuracy_of(other)}; the network found is {better} on the same {found['n']:,} images (95 % interval of the"
        f" difference {low:+.2f} to {high:+.2f}, McNemar p = {found['p']:.2g})"
    )


def page(report: Mapping[str, Any]) -> str:
    """Return the report of a run as a page in Markdown, which embeds cell.svg from the same folder."""
    onnx = f"the same network for ONNX Runtime ({report['export']['bytes']:,} bytes), with a model card next to it"
    files = [
        ("network/network.safetensors", "the trained network, for `rapdarts.load`, `evaluate` and `export`"),
        ("network/network.onnx", onnx),
        (RunFile.PLAN, "the plan of the work; pass it as `plan=` to repeat the same work"),
    ]
    steps = [
        (one["name"], duration(one["planned_seconds"]), "-" if one["seconds"] is None else duration(one["seconds"]))
        for one in report["steps"]
    ]
    parts = [
        f"# A network for {report['data']}\n",
        bullets(describe_found(report).splitlines()[1:]),
        "## Data\n",
        bullets(report["about_data"]),
        *confusion(report["quality"]),
        f"## Cell\n\n![the cell](cell.svg)\n\n```text\n{report['genotype']}\n```\n",
        "## Files\n",
        markdown(("file", "content"), files),
        "## What was done\n",
        markdown(("step", "planned", "took"), steps),
        *(round_table(number, one) for number, one in enumerate(report["rounds"], 1)),
    ]
    return printable("\n".join(parts), lines=True)


def bullets(lines: Sequence[str]) -> str:
    """Return lines as a list in Markdown."""
    return "".join(f"- {printable(line)}\n" for line in lines)


def confusion(quality: Mapping[str, Any]) -> list[str]:
    """Return the confusion matrix of the test images with a heading, or an empty list if it is too large for a table."""
    if len(quality["classes"]) > MOST_ROWS:
        return []
    return [f"## Test images\n\n```text\n{confusion_table(quality['confusion'], quality['classes'])}\n```\n"]


def round_table(number: int, ranking: Mapping[str, Any]) -> str:
    """Return the ranking of a round of halving, in Markdown."""
    networks = ranking["networks"]
    head = (
        f"Round {number}: {plural(len(networks), 'cell')}, {plural(ranking['epochs'], 'epoch')} on"
        f" {ranking['train_images']:,} training images, compared on the other {ranking['validation_images']:,}."
    )
    rows = [
        (
            str(one["rank"]),
            "diverged" if one["diverged"] else f"{100 * one['validation_accuracy']:.2f} %",
            *(show(one["costs"][name], name) for name in ("macs", "params")),
            f"`{one['genotype']}`",
        )
        for one in networks
    ]
    return f"{head}\n\n{markdown(('place', 'accuracy', 'MACs', 'params', 'cell'), rows)}"
